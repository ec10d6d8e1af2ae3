"""State under real workers: 50 runs of one session at once, while workers die before and after a commit."""

from __future__ import annotations

from typing import Any

from agno_workers import Client
from tests import invariants
from tests.agents import tallying
from tests.conftest import StartWorker
from tests.integration.engine.test_state import PARALLEL

RUNS = 50
DYING = {"AGNO_RUNS__LEASE_S": "1.5", "AGNO_RUNS__RENEW_EVERY_S": "0.5"}


def test_parallel_runs_of_a_session_count_once_each_though_workers_die(
    client: Client, database_url: str, app: Any, start_worker: StartWorker
) -> None:
    dying = [
        start_worker(AGNO_CRASH_AT=f"{place}:12", **DYING) for place in ("tool.executed", "tool.recorded")
    ]
    runs = [tallying.delay("tally", session_id="s", **PARALLEL) for _ in range(RUNS)]
    for worker in dying:
        worker.process.wait(timeout=60)
    start_worker(**DYING)
    assert [run.get(timeout=60) for run in runs] == ["counted"] * RUNS
    found, ids = client.state("session", "s").all(), [run.id for run in runs]
    assert (found["count"], found["swapped"], sorted(found["items"])) == (RUNS, RUNS, sorted(ids))
    assert found.keys() == {"count", "swapped", "items", *(f"run {each}" for each in ids)}
    changes = client.state("session", "s").history("swapped", limit=RUNS)
    assert [change.value for change in changes] == list(range(RUNS, 0, -1))
    invariants.hold(database_url)
