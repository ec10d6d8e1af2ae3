"""Nothing accepted is lost: real workers, real servers, real SIGKILL. The cells are those of the crash matrix in docs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import redis

from agno_workers import Client
from agno_workers.agent import RunResult
from agno_workers.broker.app import AgnoCelery
from agno_workers.broker.keeper import EPOCH_KEY
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.embedded import EmbeddedServers
from agno_workers.storage.journal import Submitted
from agno_workers.wiring import Services
from tests import invariants
from tests.agents import caller, echo
from tests.conftest import StartWorker, Worker

WAIT_S = 30


@pytest.fixture(autouse=True)
def _nothing_is_left_over(database_url: str, start_worker: StartWorker) -> Iterator[None]:
    """After every crash the invariants hold, while the test's workers still live."""
    yield
    invariants.hold(database_url)


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file that keeps the tool `hold` at work as long as it exists."""
    path = tmp_path / "held"
    path.touch()
    return path


def holding(path: Path) -> str:
    return f'hold {{"path": "{path}"}}'


def running(path: Path) -> Callable[[], bool]:
    return lambda: Path(f"{path}.running").exists()


def test_c8_a_step_of_a_killed_worker_is_carried_by_another(
    start_worker: StartWorker, app: AgnoCelery, held: Path
) -> None:
    doomed = start_worker()
    run = caller.delay(f'{holding(held)}\nadd {{"a": 1, "b": 2}}')
    invariants.until(running(held))
    other = start_worker()
    doomed.kill()
    held.unlink()
    assert run.get(timeout=WAIT_S) == "released | 3"
    assert [step.attempt for step in run.handle.steps if step.name == "hold"] == [2]
    assert other.process.poll() is None


def test_c9_a_repeated_tool_gets_the_same_idempotency_key(
    start_worker: StartWorker, app: AgnoCelery, tmp_path: Path
) -> None:
    ledger, lives = tmp_path / "ledger", tmp_path / "lives"
    lives.write_text("1")
    start_worker(pool="prefork", concurrency=2)
    run = caller.delay(f'log_line {{"path": "{ledger}", "text": "x"}}\nkill_worker {{"path": "{lives}"}}')
    assert run.get(timeout=WAIT_S) == "x | survived"
    keys = {line.split()[1] for line in ledger.read_text().splitlines()}
    assert len(keys) == 1


def test_a_once_tool_is_never_run_again_and_the_model_is_told(
    start_worker: StartWorker, app: AgnoCelery, tmp_path: Path
) -> None:
    ledger, hold = tmp_path / "ledger", tmp_path / "ledger.hold"
    hold.touch()
    doomed = start_worker()
    run = caller.delay(f'pay {{"path": "{ledger}"}}')
    invariants.until(ledger.exists)
    doomed.kill()
    start_worker()
    assert "not known whether pay took effect" in run.get(timeout=WAIT_S)
    assert len(ledger.read_text().splitlines()) == 1
    assert [step.status for step in run.handle.steps if step.name == "pay"] == [StepStatus.UNKNOWN]


def test_c20_a_tool_that_kills_its_worker_each_time_ends_dead_and_the_run_goes_on(
    start_worker: StartWorker, app: AgnoCelery, tmp_path: Path
) -> None:
    lives = tmp_path / "lives"
    lives.write_text("100")
    start_worker(pool="prefork", concurrency=1)
    run = caller.delay(f'kill_worker {{"path": "{lives}"}}')
    assert "died in each of 3 attempts" in run.get(timeout=WAIT_S)
    assert lives.read_text() == "97"
    assert [step.status for step in run.handle.steps if step.name] == [StepStatus.DEAD]


def test_c3_what_was_committed_but_never_published_is_published_by_the_keeper(
    services: Services, worker: Worker
) -> None:
    submitted = _submit_unpublished(services, "hi")
    assert RunResult(submitted.run_id, app=services.dispatch._app).get(timeout=WAIT_S) == "<hi>"


def test_c5_after_redis_lost_its_memory_everything_ready_is_sent_again(
    services: Services, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    runs = [echo.delay(str(number)) for number in range(50)]
    assert redis_client.llen("agents") == 50
    redis_client.flushall()
    start_worker()
    assert [run.get(timeout=WAIT_S) for run in runs] == [f"<{number}>" for number in range(50)]
    assert redis_client.get(EPOCH_KEY) == services.journal.epoch().encode()


def test_c6_a_message_that_a_dying_worker_took_along_is_sent_again(
    services: Services, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    redis_client.set(EPOCH_KEY, services.journal.epoch())
    run = echo.delay("hi")
    assert redis_client.rpop("agents") is not None
    start_worker()
    assert run.get(timeout=WAIT_S) == "<hi>"


def test_c4_a_message_that_is_sent_twice_is_carried_once(
    services: Services, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    run = echo.delay("hi")
    message = redis_client.lindex("agents", 0)
    assert isinstance(message, bytes)
    redis_client.lpush("agents", message, message)
    worker = start_worker()
    assert run.get(timeout=WAIT_S) == "<hi>"
    for _ in range(3):
        worker.wait_for("Task agno.turn[")
    assert [step.attempt for step in run.handle.steps] == [1]


def test_c15_of_two_workers_with_the_same_step_the_first_commit_wins(
    start_worker: StartWorker, app: AgnoCelery, held: Path, tmp_path: Path
) -> None:
    paused = start_worker()
    run = caller.delay(holding(held))
    invariants.until(running(held))
    Path(f"{held}.running").unlink()
    paused.kill(signal.SIGSTOP)
    start_worker()
    invariants.until(running(held))  # the lease ran out, and the other carries the step, too
    held.unlink()
    assert run.get(timeout=WAIT_S) == "released"
    paused.kill(signal.SIGCONT)
    paused.wait_for("Task agno.tool[")
    assert [(step.key, step.status) for step in run.handle.steps] == [
        ("turn:1", StepStatus.DONE), ("tool:1:0", StepStatus.DONE), ("turn:2", StepStatus.DONE),
    ]  # fmt: skip


def test_c16_a_cancelled_run_refuses_late_results(worker: Worker, app: AgnoCelery, held: Path) -> None:
    run = caller.delay(holding(held))
    invariants.until(running(held))
    assert run.cancel()
    assert not run.cancel()
    held.unlink()
    worker.wait_for("Task agno.tool[")
    assert run.status is RunStatus.CANCELLED
    assert [step.status for step in run.handle.steps] == [StepStatus.DONE, StepStatus.CANCELLED]


def test_c17_while_redis_is_down_runs_are_accepted_and_done_when_it_is_back(
    servers: EmbeddedServers, worker: Worker, app: AgnoCelery
) -> None:
    servers.valkey.kill()
    try:
        run = echo.delay("hi")
        assert run.status is RunStatus.QUEUED
    finally:
        servers.valkey.start()
    assert run.get(timeout=WAIT_S) == "<hi>"


def test_c18_a_result_that_is_ready_while_postgres_restarts_is_recorded_when_it_is_back(
    servers: EmbeddedServers, worker: Worker, app: AgnoCelery, held: Path
) -> None:
    run = caller.delay(holding(held))
    invariants.until(running(held))
    servers.postgres.kill()
    try:
        held.unlink()
    finally:
        servers.postgres.start()
    assert run.get(timeout=WAIT_S) == "released"


def test_c21_a_worker_that_is_asked_to_end_finishes_what_it_carries(
    start_worker: StartWorker, app: AgnoCelery, held: Path
) -> None:
    worker = start_worker()
    run = caller.delay(holding(held))
    invariants.until(running(held))
    worker.kill(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    held.unlink()
    assert worker.process.wait(timeout=WAIT_S) == 0
    start_worker()
    assert run.get(timeout=WAIT_S) == "released"
    assert [step.attempt for step in run.handle.steps] == [1, 1, 1]


def test_c21_a_step_keeps_its_lease_until_a_worker_that_was_asked_to_end_is_done(
    start_worker: StartWorker, services: Services, tmp_path: Path
) -> None:
    ledger, hold = tmp_path / "ledger", tmp_path / "ledger.hold"
    hold.touch()
    ending = start_worker()
    run = caller.delay(f'pay {{"path": "{ledger}"}}')
    invariants.until(ledger.exists)
    ending.kill(signal.SIGTERM)
    ending.wait_for("Warm shutdown")
    start_worker()
    leases: set[datetime] = set()

    def renewed_three_times() -> bool:  # well past the lease that it had when the worker was asked to end
        leases.update(
            row["lease_until"]
            for row in services.pool.run("SELECT lease_until FROM agno.step WHERE effect = 'once'")
        )
        return len(leases) == 4

    invariants.until(renewed_three_times)
    hold.unlink()
    assert run.get(timeout=WAIT_S) == "paid"


def test_a_run_submitted_in_sql_lives_and_dies_with_the_callers_transaction(
    database_url: str, client: Client, worker: Worker
) -> None:
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT agno.submit('echo', 'kept')").fetchone()
        connection.commit()
        dropped = connection.execute("SELECT agno.submit('echo', 'dropped')").fetchone()
        connection.rollback()
    assert kept is not None
    assert dropped is not None
    assert client.handle(str(kept[0])).get(timeout=WAIT_S) == "<kept>"
    with pytest.raises(Exception, match="no run"):
        client.handle(str(dropped[0])).get(timeout=1)


def _submit_unpublished(services: Services, text: str) -> Submitted:
    """A client that dies between its commit and its publish."""
    from agno_workers.broker.submit import submit

    return submit(services.journal, [text], {"agent": "echo"}, queue="agents")
