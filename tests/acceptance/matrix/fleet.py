"""Workers that tests kill at failpoints and that are replaced in the background, so that a test does not wait for their start."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import redis
from psycopg.rows import dict_row

from agno_workers import Client
from agno_workers.broker.app import create
from agno_workers.broker.names import TASK_OF
from agno_workers.core.run import StepKind
from agno_workers.signals import SIGNALS
from tests import invariants
from tests.conftest import ROOT, Worker
from tests.forking import inherited

LEASE_S, PUBLISH_AFTER_S, RESEND_AFTER_S, KEEPER_EVERY_S, KEEPER_LEASE_S = 3.0, 0.3, 0.5, 0.25, 1.0


class Execution(NamedTuple):
    """A step of a run or of its child runs, with the number of its attempts."""

    id: str
    run_id: str
    kind: str
    agent: str
    key: str
    name: str
    status: str
    attempt: int


class Fleet:
    """`size` workers of one kind on a database and a Redis of their own. Dead ones are replaced in the background."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, *, pool: str, size: int, lease_s: float = LEASE_S,
        queues: str = "agents,tools,background", redis_url: str = "",
    ) -> None:  # fmt: skip
        self.places = folder / "places"
        self.places.mkdir()
        self.database_url = environment["AGNO_DATABASE_URL"]
        self.client = Client(self.database_url)
        self._environment = {
            **environment,
            "AGNO_CRASH_AT": f"@{self.places}",
            "AGNO_RUNS__LEASE_S": str(lease_s),
            "AGNO_RUNS__RENEW_EVERY_S": "0.5",
            "AGNO_RUNS__PUBLISH_AFTER_S": str(PUBLISH_AFTER_S),
            "AGNO_KEEPER__RESEND_AFTER_S": str(RESEND_AFTER_S),
            "AGNO_KEEPER__EVERY_S": str(KEEPER_EVERY_S),
            "AGNO_KEEPER__LEASE_S": str(KEEPER_LEASE_S),
        }
        self._redis_url = redis_url
        self._pool = pool
        self._queues = queues
        self._size = size
        self._starting: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.workers: list[Worker] = []
        self.sql("CREATE TABLE IF NOT EXISTS public.booking (key text)")
        self.fill()
        self.await_all()

    def fill(self) -> None:
        """Start replacements of dead workers, without waiting for them."""
        with self._lock:
            self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        self._starting = [thread for thread in self._starting if thread.is_alive()]
        for _ in range(self._size - len(self.workers) - len(self._starting)):
            thread = threading.Thread(target=self._start, daemon=True)
            thread.start()
            self._starting.append(thread)

    def await_all(self) -> None:
        for thread in self._starting:
            thread.join(timeout=60)
        self.fill()
        assert len(self.workers) == self._size, "a worker of the fleet did not start"

    def await_end(self) -> None:
        """Wait until a worker that was asked to end has ended, so that `fill` replaces it."""
        invariants.until(lambda: any(worker.process.poll() is not None for worker in self.workers))

    def arm(self, place: str, *, passes: int = 0, how: str = "") -> None:
        """Kill the next process at this failpoint, after `passes` others, with SIGKILL or the signal `how`."""
        assert place in SIGNALS
        for number in range(passes):
            (self.places / f"{place}.{number}").touch()
        (self.places / place).write_text(how)

    def is_armed(self, place: str) -> bool:
        return (self.places / place).exists()

    def disarm(self) -> None:
        for token in self.places.iterdir():
            token.unlink(missing_ok=True)

    def beat(self) -> int:
        """Return the number of the keepers' rounds."""
        (row,) = self.sql("SELECT coalesce(max(beat), 0) AS beat FROM agno.meta WHERE key = 'keeper'")
        return int(row["beat"])

    def leader(self) -> Worker:
        """Return the worker of the leading keeper."""
        (row,) = self.sql("SELECT value FROM agno.meta WHERE key = 'keeper'")
        return self._of_pid(int(re.findall(r"#(\d+)-", row["value"])[0]))

    def stopped(self) -> Worker:
        """Return the worker that a SIGSTOP has stopped."""
        caught: list[Worker] = []

        def is_caught() -> bool:
            caught[:] = [worker for worker in self.workers if _state(worker.process.pid) == "T"]
            return bool(caught)

        invariants.until(is_caught)
        return caught[0]

    def person(self, *order: str) -> subprocess.CompletedProcess[str]:
        """Run a client process (see person.py), which may die at an armed failpoint."""
        return subprocess.run(
            [sys.executable, "-m", "tests.acceptance.matrix.person", *order],
            cwd=ROOT, env=inherited() | self._environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def wait_for(self, text: str) -> None:
        """Wait until a worker logs this text."""
        invariants.until(lambda: self._logged(text))

    def redeliver(self, step: Execution) -> None:
        """Send the message of a step again, and wait until a worker has handled it."""
        seen = self._logged(f"{step.id}] succeeded")
        ids = {"run_id": step.run_id, "step_id": step.id, "generation": 0}
        queue = "tools" if step.kind == "tool" else "agents"
        with create(
            self._environment["AGNO_BROKER_URL"],
            queues={
                "agents": "agents",
                "tools": "tools",
                "knowledge": "knowledge",
                "background": "background",
            },
            broker_timeout_s=5.0,
        ) as app:
            app.send_task(
                TASK_OF[StepKind(step.kind)], kwargs=ids, task_id=step.id, queue=queue, ignore_result=True
            )
        invariants.until(lambda: self._logged(f"{step.id}] succeeded") > seen)

    def executions(self, run_id: str) -> list[Execution]:
        rows = self.sql(
            """WITH RECURSIVE family AS (
                   SELECT id, agent FROM agno.run WHERE id = %(run_id)s
                   UNION ALL SELECT run.id, run.agent FROM agno.run JOIN family ON run.parent_run_id = family.id)
               SELECT step.id::text, run_id::text, kind, agent, key, name, status, attempt FROM agno.step JOIN family ON step.run_id = family.id
               ORDER BY family.id, generation, seq""",
            run_id=run_id,
        )
        return [Execution(**row) for row in rows]

    def wipe_redis(self) -> None:
        """Delete all that is in the Redis of this fleet."""
        with redis.Redis.from_url(self._redis_url) as client:
            client.flushdb()

    def sql(self, statement: str, **params: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, params)
            return cursor.fetchall() if cursor.description is not None else []

    def settle(self) -> None:
        """Continue stopped workers, replace dead ones, and check the invariants."""
        self.disarm()
        for worker in self.workers:
            worker.kill(signal.SIGCONT)
        self.fill()
        invariants.hold(self.database_url)
        invariants.usage_adds_up(self.database_url)

    def abandon(self) -> None:
        """Clean up after a failure, for the next test."""
        self.disarm()
        for worker in self.workers:
            worker.kill(signal.SIGCONT)
        self.fill()
        for row in self.sql("SELECT id::text FROM agno.run WHERE ended_at IS NULL"):
            self.client.runs.get(row["id"]).cancel()

    def close(self) -> None:
        for thread in self._starting:
            thread.join(timeout=60)
        for worker in self.workers:
            worker.kill(signal.SIGCONT)
            worker.kill()
        self.client.close()

    def _logged(self, text: str) -> int:
        return sum(text in line for worker in self.workers for line in list(worker.lines))

    def _start(self) -> None:
        try:
            worker = Worker(self._environment, self._queues, self._pool, 4)
        except (
            pytest.fail.Exception
        ):  # the keeper that a failpoint kills may be this one's, before the worker is ready
            worker = Worker(self._environment, self._queues, self._pool, 4)
        with self._lock:
            self.workers.append(worker)

    def _of_pid(self, pid: int) -> Worker:
        (found,) = [worker for worker in self.workers if worker.process.pid == pid]
        return found


def repeats(steps: list[Execution]) -> int:
    """Return the number of executions beyond one per step, and a second one of each turn that waited for a compaction."""
    return sum(max(0, step.attempt - 1) - (step.kind == "compact") for step in steps)


def lines(ledger: Path) -> list[str]:
    """Return the keys in the ledger, one for each execution."""
    return ledger.read_text().splitlines() if ledger.exists() else []


def _state(pid: int) -> str:
    """Return the state of a process from /proc; `T` is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
