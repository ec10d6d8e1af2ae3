"""The state machine of runs, with runs in sessions: all that may happen to runs happens to those that wait, replace or join each other.

After each transaction `invariants.ALWAYS` must hold. At the end each message that was accepted is in one run, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from uuid6 import uuid7

from agno_workers.core.messages import user
from agno_workers.core.run import StepKind
from agno_workers.database.pool import Row
from agno_workers.errors import SessionBusy, SessionEnded
from agno_workers.local import LocalServers
from agno_workers.runs.batch import Common, Item
from agno_workers.streams import Streams
from tests.database import FEW, CountingPool, RunDatabase, said
from tests.integration.runs.test_state_machine import (
    ERROR,
    EXAMPLES,
    MAX_RUNS,
    InOrder,
    RunMachine,
    fates,
    if_any,
    picks,
)

POLICIES = ("queue", "queue", "steer", "steer", "interrupt", "rollback", "parallel", "reject")
ALL_SEEN = {"live", "waiting", "scheduled", "parallel", "replaced", "pending", "committed", "returned", "paused", "timed_out", "busy"}  # fmt: skip
seen: set[str] = set()
"""What the histories so far had in them."""


class SessionMachine(RunMachine):
    """The rules of the state machine, in two sessions."""

    def __init__(self, pool: CountingPool, streams: Streams) -> None:
        super().__init__(pool, streams)
        self.said: list[str] = []
        """Texts that were accepted."""

    @initialize()
    def submit(self) -> None:
        self._say_it("s", "queue", None, "sent")

    @precondition(lambda self: len(self.runs) < MAX_RUNS)
    @rule(
        session=st.sampled_from(["s", "s", "s", "t"]),
        if_busy=st.sampled_from(POLICIES),
        how=st.sampled_from(["plain", "plain", "timer", "deadline", "canvas"]),
        is_repeated=st.booleans(),
        fate=fates,
    )
    def submit_with(self, session: str, if_busy: str, how: str, is_repeated: bool, fate: str) -> None:
        ways: dict[str, dict[str, Any]] = {
            "plain": {},
            "timer": {"not_before": "2999-01-01"} if if_busy in ("queue", "parallel") else {},
            "canvas": {"id": str(uuid7()), "canvas": {"link": [{"task": "t"}]}},
            "deadline": {"deadline_s": 60},
        }
        key = f"k{len(self.said)}" if is_repeated else None
        self._say_it(session, if_busy, key, fate, **ways[how])

    def _say_it(self, session: str, if_busy: str, key: str | None, fate: str, **options: Any) -> None:
        text = f"m{len(self.said)}"
        asked: dict[str, Any] = {
            "agent": "a",
            "queue": "agents",
            "session_id": session,
            "if_busy": if_busy,
            "idempotency_key": key,
        }
        (before,) = self.db.sql("""
            SELECT (agno.live_run('default', %(s)s)).id AS live, (SELECT status FROM agno.session WHERE id = %(s)s) AS status""", s=session)  # fmt: skip
        try:
            submitted = self.journal.submit(user(text), **asked, **options)
        except SessionEnded:
            assert before["status"] in ("ended", "timed_out")
            return
        except SessionBusy:
            assert if_busy == "reject"
            assert before["live"] or before["status"] == "paused"
            seen.add("busy")
            return
        assert not (if_busy == "reject" and before["live"])
        self.said.append(text)
        self._submitted(submitted, fate)
        if submitted.steer_id is not None:
            assert if_busy == "steer"
            seen.add("pending")
        if key is not None:
            with self.db.unchanged():
                again = self.journal.submit(user(text), **asked)
            assert again.created is False
            assert again.steer_id == submitted.steer_id

    @precondition(lambda self: len(self.runs) < MAX_RUNS)
    @rule(session=st.sampled_from(["s", "t", None]), if_busy=st.sampled_from(["queue", "queue", "parallel"]))
    def submit_many(self, session: str | None, if_busy: str) -> None:
        batch, first = str(uuid7()), len(self.said)
        texts = [f"m{first}", f"m{first + 1}"]
        items = [Item(user(text)) for text in texts]
        try:
            self.bulk.submit(
                batch, items, Common("a", "agents", allow_unknown=True, session_id=session, if_busy=if_busy)
            )
        except SessionEnded:
            return
        self.said += texts
        self.batches.append(batch)
        for run in self.bulk.runs(batch):
            self._accept(run.id)

    @rule(session=st.sampled_from(["s", "t"]))
    def pause_session(self, session: str) -> None:
        self.db.sql(
            "SELECT agno.pause_session(tenant, id, NULL) FROM agno.session WHERE id = %(s)s", s=session
        )
        seen.add("paused")

    @rule(session=st.sampled_from(["s", "t"]))
    def resume_session(self, session: str) -> None:
        self.db.sql(
            "SELECT agno.resume_session(tenant, id, NULL) FROM agno.session WHERE id = %(s)s", s=session
        )

    @rule(session=st.sampled_from(["s", "t"]))
    def time_out_sessions(self, session: str) -> None:
        self.db.sql("UPDATE agno.session SET expires_at = '2000-01-01', idle_timeout_s = 60 WHERE id = %(s)s AND ended_at IS NULL", s=session)  # fmt: skip
        self.journal.time_out_sessions(10)
        assert not self.db.sql("""
            SELECT s.id FROM agno.session s JOIN agno.run r ON r.session_id = s.id WHERE s.status = 'timed_out' AND r.ended_at IS NULL
              AND r.session_status IS DISTINCT FROM 'parallel' AND r.generation = 0 AND r.created_at < s.ended_at""")

    @if_any("asking")
    @rule(pick=picks)
    def wait_runs_out(self, pick: int) -> None:
        super().wait_runs_out(pick)

    @rule()
    def timers_come(self) -> None:
        super().timers_come()
        self.db.sql(
            "UPDATE agno.step SET not_before = '2000-01-01' WHERE waits_for = 'session' AND not_before IS NOT NULL"
        )

    @rule(fate=fates)
    def send_due(self, fate: str) -> None:
        super().send_due(fate)
        for run_id in self.journal.maintenance.due_in_session(100):
            self.journal.take_place(run_id)

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks)
    def fail_and_retry(self, pick: int) -> None:
        """A run fails with the messages that joined it, and is retried while others wait."""
        turn = self._turn(pick, is_doubled=False)
        recorded = self._turn_ends(turn, self.journal.fail, "sent", ERROR, "refusal", said("no"), FEW)
        if recorded.recorded and turn.parent_run_id is None:
            assert self.journal.retry_run(turn.run_id)

    @invariant()
    def nothing_is_broken(self) -> None:
        super().nothing_is_broken()
        rows = self.db.sql(
            "SELECT session_status AS word FROM agno.run UNION SELECT status FROM agno.steer UNION SELECT status FROM agno.session"
        )
        seen.update(row["word"] for row in rows if row["word"])

    def calm(self) -> None:
        for session in ("s", "t"):
            self.resume_session(session)
        super().calm()
        found = self.db.sql("""
            SELECT m.content->'parts'->0->>'text' AS text, count(*) AS times FROM agno.message m JOIN agno.run r ON r.id = m.run_id
            WHERE r.forked_from IS NULL AND r.parent_run_id IS NULL AND m.content->>'role' = 'user' AND (r.canvas IS NULL OR r.session_status IS NOT NULL)
            GROUP BY 1""")
        times = {row["text"]: row["times"] for row in found}
        assert {text: times.get(text, 0) for text in self.said} == dict.fromkeys(self.said, 1)

    # Runs that the database makes of messages which did not join.

    def _know(self) -> None:
        for row in self.db.sql("SELECT id FROM agno.run ORDER BY created_at"):
            self._accept(row["id"])

    def _rows(self, where: str = "true") -> list[Row]:
        self._know()
        return super()._rows(where)

    def _steps(self, where: str) -> list[Row]:
        self._know()
        return super()._steps(where)

    def _in_order(self, items: Sequence[InOrder]) -> list[InOrder]:
        self._know()
        return super()._in_order(items)


@pytest.fixture(scope="module")
def counting_pool(db_url: str) -> Iterator[CountingPool]:
    pool = CountingPool(db_url)
    yield pool
    pool.close()


@pytest.mark.slow
@pytest.mark.timeout(3600 if EXAMPLES else 300)
def test_sessions_keep_order_and_lose_no_message(counting_pool: CountingPool, servers: LocalServers) -> None:
    """Further seeds follow until all was seen."""
    streams = Streams(redis.Redis.from_url(servers.redis_url), max_events=10, ttl_s=60)
    how = settings(
        max_examples=EXAMPLES or 12, stateful_step_count=50, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,), report_multiple_bugs=False,
    )  # fmt: skip

    class ThisMachine(SessionMachine):
        def __init__(self) -> None:
            super().__init__(counting_pool, streams)

    for number in range(1 if EXAMPLES else 6):
        if number == 0 or not seen >= ALL_SEEN:
            run_state_machine_as_test(ThisMachine if EXAMPLES else seed(number)(ThisMachine), settings=how)
    assert seen >= ALL_SEEN
    RunDatabase(counting_pool).empty()
