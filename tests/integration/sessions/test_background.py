"""Background work on a real database: what ends of runs ask for is done once, in order, by one run at a time for each owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Usage
from agno_workers.core.policy import Retry
from agno_workers.core.run import RunKind, RunStatus, StepKind
from agno_workers.core.step import CommitResult, FollowUp, StepMessage, TurnRecord
from agno_workers.database.pool import Connection
from agno_workers.engine.tool import fail_exhausted
from agno_workers.engine.turn import Engine
from agno_workers.errors import ModelRejected, ModelUnavailable
from agno_workers.models.scripted import Turn
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.sessions.background import MOST_AT_ONCE, Background, Done, Work
from tests import invariants
from tests.database import RunDatabase, said
from tests.integration.engine.conftest import (
    Scenario,
    ScriptedReplies,
    counted_pool,
    live_streams,
    scenario,
)

__all__ = ["counted_pool", "live_streams", "scenario"]
SUMMARY = FollowUp("summary", "s1")


@dataclass
class Notes:
    """A kind of background work that notes in a table which runs it has seen."""

    work: list[Work] = field(default_factory=list)
    fails_with: list[Exception] = field(default_factory=list)
    before_return: Callable[[], object] = lambda: None

    def __call__(self, work: Work) -> Done:
        self.work.append(work)
        if self.fails_with:
            raise self.fails_with.pop(0)
        self.before_return()

        def write(connection: Connection) -> None:
            for run_id in work.run_ids:
                connection.execute("INSERT INTO noted (owner, run_id) VALUES (%s, %s)", (work.owner, run_id))

        return Done({"noted": len(work.run_ids)}, Usage(input_tokens=3, output_tokens=2), 0.5, write)


@pytest.fixture
def notes(db: RunDatabase) -> Iterator[Notes]:
    db.sql("CREATE TABLE noted (place int GENERATED ALWAYS AS IDENTITY, owner text, run_id text)")
    yield Notes()
    db.sql("DROP TABLE noted")


@dataclass
class Place:
    """A database, and workers that do its background work."""

    db: RunDatabase
    engine: Engine
    background: Background

    def end(self, *follow_ups: FollowUp, agent: str = "a", **options: Any) -> str:
        """Submit a run and end it, with these requests of background work."""
        claim = self.db.turn(agent=agent, **options)
        record = TurnRecord(tuple(said("hello")), Usage(1, 1), follow_ups=follow_ups or (SUMMARY,))
        assert self.db.journal.store.end(claim, record, "hello", "end").recorded
        return claim.run_id

    def pending(self) -> list[StepMessage]:
        rows = self.db.sql("""
            SELECT NULL AS outbox_id, s.run_id::text, s.id::text AS step_id, s.generation, s.kind, s.queue, s.priority FROM agno.step s
            WHERE s.kind = 'background' AND (s.status = 'ready' AND coalesce(s.not_before <= clock_timestamp(), true) OR s.status = 'running' AND s.lease_until < now())
            ORDER BY s.created_at""")
        return [StepMessage(**(row | {"kind": StepKind(row["kind"])})) for row in rows]

    def execute(self, step: StepMessage) -> CommitResult:
        return self.background.run(step.run_id, step.step_id, step.generation)

    def work(self) -> int:
        """Do all background work, also that which follows; return the number of runs."""
        runs = 0
        while steps := self.pending():
            for step in steps:
                self.execute(step)
                runs += 1
        return runs

    def let_time_pass(self) -> None:
        self.db.sql("UPDATE agno.step SET not_before = clock_timestamp() WHERE not_before IS NOT NULL")

    def noted(self, owner: str = "s1") -> list[str]:
        return [
            row["run_id"]
            for row in self.db.sql("SELECT run_id FROM noted WHERE owner = %(o)s ORDER BY place", o=owner)
        ]

    def runs(self) -> list[Any]:
        return self.db.sql("SELECT * FROM agno.run WHERE kind = 'background' ORDER BY created_at, id")


@pytest.fixture
def place(scenario: Scenario, notes: Notes) -> Iterator[Place]:
    replies = ScriptedReplies(Turn(text="hello"))
    retry = Retry(attempts=2, first_delay_s=0.0)
    engine = scenario.engine(*(Agent(name=name, model=replies.model, retry=retry) for name in ("a", "b")))
    yield Place(scenario.db, engine, Background(engine, scenario.pool, {"summary": notes, "learn": notes}))
    wrong = {
        name: rows for name, statement in invariants.ALWAYS.items() if (rows := scenario.db.sql(statement))
    }
    assert not wrong


def test_the_end_of_a_run_begins_its_background_work(place: Place, notes: Notes) -> None:
    place.db.database.agents.register([RegisteredAgent("a", "agents", "later")])
    run_id = place.end(FollowUp("summary", "s1"), user_id="mia", session_id="s1")
    (run,) = place.runs()
    assert (run["agent"], run["user_id"], run["queue"], run["session_id"]) == ("a", "mia", "later", None)
    assert run["metadata"] == {"kind": "summary", "owner": "s1"}
    assert place.work() == 1
    ended = place.db.queries.run(run["id"])
    assert (ended.kind, ended.status, ended.content) == (RunKind.BACKGROUND, RunStatus.DONE, {"noted": 1})
    assert (ended.usage, ended.cost_usd, ended.turns) == (Usage(3, 2), 0.5, 0)
    assert place.noted() == [run_id]
    assert [(work.kind, work.owner, work.agent.name, work.run_ids) for work in notes.work] == [
        ("summary", "s1", "a", (run_id,))
    ]
    assert (place.db.count("background"), place.db.count("background_item")) == (0, 0)


def test_a_run_that_is_not_recorded_asks_for_nothing(place: Place) -> None:
    claim = place.db.turn(agent="a")
    record = TurnRecord(tuple(said("hello")), Usage(1, 1), follow_ups=(SUMMARY,))
    assert place.db.journal.store.end(claim, record, "hello", "end").recorded
    assert not place.db.journal.store.end(claim, record, "hello", "end").recorded
    assert place.db.count("background_item") == 1


def test_requests_while_a_run_is_open_are_done_by_the_next_one(place: Place, notes: Notes) -> None:
    first = place.end()
    later: list[str] = []

    def ask() -> None:
        if not later:
            later.extend(place.end() for _ in range(3))

    notes.before_return = ask
    assert place.work() == 2
    assert [list(work.run_ids) for work in notes.work] == [[first], later]
    assert place.noted() == [first, *later]


def test_owners_and_kinds_do_not_wait_for_each_other(place: Place) -> None:
    place.end(FollowUp("learn", "user:mia"), FollowUp("summary", "s1"), FollowUp("summary", "s2"))
    assert len(place.pending()) == 3


def test_a_run_works_for_one_agent_and_keeps_the_order(place: Place, notes: Notes) -> None:
    runs = [place.end(agent=name) for name in "aabba"]
    assert place.work() == 3
    assert [work.agent.name for work in notes.work] == ["a", "b", "a"]
    assert place.noted() == runs


def test_many_requests_are_done_in_portions(place: Place, notes: Notes) -> None:
    run_id = place.end()
    asked = 'SELECT agno.request_background(%(run)s, \'[{"kind": "summary", "owner": "s1"}]\')'
    place.db.sql(f"{asked} FROM generate_series(1, {MOST_AT_ONCE})", run=run_id)
    assert place.work() == 2
    assert place.noted() == [run_id, run_id]


def test_requests_of_many_threads_are_each_done_once_and_in_order(place: Place) -> None:
    claims = [place.db.turn(agent="a") for _ in range(60)]
    record = TurnRecord(
        tuple(said("hello")), Usage(1, 1), follow_ups=(SUMMARY, FollowUp("learn", "user:mia"))
    )
    with ThreadPoolExecutor(12) as threads:
        ends = [threads.submit(place.db.journal.store.end, claim, record, "hello", "end") for claim in claims]
        while not all(end.done() for end in ends):
            place.work()
    place.work()
    assert sorted(place.noted()) == sorted(claim.run_id for claim in claims)
    # Each end holds the locks of both owners until it commits, so both have the order of the commits.
    assert place.noted() == place.noted("user:mia")
    assert len(place.runs()) < len(claims)


# What goes wrong.


def test_a_provider_that_is_away_is_asked_again_and_then_fails_the_run(place: Place, notes: Notes) -> None:
    run_id = place.end()
    notes.fails_with = [ModelUnavailable("away"), ModelUnavailable("away")]
    (step,) = place.pending()
    place.execute(step)
    assert place.db.step(step.step_id)["status"] == "ready"
    place.let_time_pass()
    ended = place.execute(step).ended
    assert ended is not None
    assert (ended.status, ended.reason) == (RunStatus.FAILED, "retries")
    assert not place.pending()
    later = place.end()
    assert place.work() == 1
    assert place.noted() == [run_id, later]


def test_a_failed_run_leaves_its_work_to_its_retry(place: Place, notes: Notes) -> None:
    run_id = place.end()
    notes.fails_with = [ModelRejected("no")]
    assert place.work() == 1
    (run,) = place.runs()
    assert place.db.queries.run(run["id"]).reason == "model_rejected"
    assert place.db.journal.retry_run(run["id"])
    assert not place.db.journal.retry_run(run["id"])
    assert place.work() == 1
    assert place.noted() == [run_id]
    assert place.db.queries.run(run["id"]).status is RunStatus.DONE


def test_a_failed_run_is_not_retried_beside_a_later_one(place: Place, notes: Notes) -> None:
    place.end()
    notes.fails_with = [ModelRejected("no")]
    place.work()
    place.end()
    failed, later = place.runs()
    assert not place.db.journal.retry_run(failed["id"])
    place.work()
    assert len(place.noted()) == 2
    assert place.db.queries.run(later["id"]).status is RunStatus.DONE


def test_work_that_fails_does_not_hold_up_that_of_another_agent(place: Place, notes: Notes) -> None:
    broken = place.end()
    notes.fails_with = [ModelRejected("no")]
    place.work()
    fine = place.end(agent="b")
    (step,) = place.pending()
    notes.fails_with = []
    assert place.execute(step).recorded
    assert place.noted() == [fine]
    assert place.work() == 1
    assert place.noted() == [fine, broken]


def test_a_cancelled_run_gives_up_the_work_of_its_agent(place: Place) -> None:
    place.end()
    (step,) = place.pending()
    place.end()
    other = place.end(agent="b")
    assert place.db.journal.cancel(step.run_id)
    assert place.work() == 1
    assert place.noted() == [other]


def test_a_worker_without_that_kind_of_work_returns_the_step(place: Place, notes: Notes) -> None:
    run_id = place.end(FollowUp("index", "s1"))
    (step,) = place.pending()
    place.execute(step)
    row = place.db.step(step.step_id)
    assert (row["status"], row["error"]["type"]) == ("ready", "UnknownWork")
    assert "no background work of kind 'index' (it has learn, summary)" in row["error"]["message"]
    place.let_time_pass()
    newer = Background(place.engine, place.background.pool, {"index": notes})
    assert newer.run(step.run_id, step.step_id, 0).ended
    assert place.noted() == [run_id]


def test_a_worker_without_the_agent_returns_the_step(place: Place, scenario: Scenario, notes: Notes) -> None:
    run_id = place.end()
    (step,) = place.pending()
    other = Background(scenario.engine(), place.background.pool, {"summary": notes})
    assert not other.run(step.run_id, step.step_id, 0).recorded
    assert place.db.step(step.step_id)["error"]["type"] == "UnknownAgent"
    place.let_time_pass()
    place.execute(step)
    assert place.noted() == [run_id]


def test_a_worker_that_has_lost_its_lease_writes_nothing(place: Place, notes: Notes) -> None:
    """The second worker ends the run while the first one is in the middle; the late writes are rolled back."""
    run_id = place.end()
    (step,) = place.pending()

    def overtake() -> None:
        notes.before_return = lambda: None
        place.db.expire(step.step_id)
        assert place.execute(step).recorded

    notes.before_return = overtake
    assert not place.execute(step).recorded
    assert len(notes.work) == 2
    assert place.noted() == [run_id]


def test_writes_that_fail_leave_nothing_behind(place: Place, notes: Notes) -> None:
    place.end()
    notes.before_return = lambda: place.db.sql("ALTER TABLE noted ADD CONSTRAINT no_room CHECK (false)")
    (step,) = place.pending()
    assert not place.execute(step).recorded
    place.db.sql("ALTER TABLE noted DROP CONSTRAINT no_room")
    notes.before_return = lambda: None
    assert (place.db.count("background"), place.db.count("background_item")) == (1, 1)
    place.let_time_pass()
    assert place.work() == 1
    assert len(place.noted()) == 1


def test_a_step_whose_workers_died_fails_its_run(place: Place) -> None:
    run_id = place.end()
    (step,) = place.pending()
    for _ in range(5):
        assert place.db.journal.claim(StepKind.BACKGROUND, step.run_id, step.step_id, 0)
        place.db.expire(step.step_id)
    (exhausted,) = place.db.journal.exhausted(10)
    assert fail_exhausted(place.engine, exhausted).recorded
    assert place.db.queries.run(step.run_id).reason == "worker_lost"
    assert place.db.journal.retry_run(step.run_id)
    assert place.work() == 1
    assert place.noted() == [run_id]


def test_deleted_runs_take_their_requests_along(place: Place, notes: Notes) -> None:
    run_id = place.end()
    place.db.sql("DELETE FROM agno.run WHERE id = %(id)s", id=run_id)
    assert place.work() == 1
    assert notes.work[0].run_ids == ()
    place.end()
    place.db.sql("DELETE FROM agno.run")
    assert (place.db.count("background"), place.db.count("background_item")) == (0, 0)
