"""Claims and results of several threads in one call to Postgres."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from agno_workers.core.messages import user
from agno_workers.core.run import StepKind
from agno_workers.core.step import ChildRun, ClaimedStep, CommitResult, StepMessage, ToolStep
from agno_workers.core.tool import Effect
from agno_workers.database.pool import Pool, Row
from agno_workers.runs.combined import Combined
from tests import invariants
from tests.database import (
    FEW,
    AllRepositories,
    RunDatabase,
    asking,
    claimed,
    result,
    said,
    tool_steps,
)

WAIT_S = 30
NAMES = "abcdefgh"


class OnePool(Pool):
    """Counts calls and keeps their errors; calls wait while it is held."""

    def __init__(self, pool: Pool) -> None:
        self._to = pool
        self.calls, self.errors = 0, list[Exception]()
        self.has_called, self._open = threading.Event(), threading.Event()
        self._open.set()

    def run(self, statement: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        self.calls += 1
        self.has_called.set()
        assert self._open.wait(WAIT_S)
        try:
            return self._to.run(statement, params)
        except Exception as error:
            self.errors.append(error)
            raise

    def connection(self) -> Any:
        return self._to.connection()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.has_called.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


class Worker:
    """A worker process: a journal, whose calls are combined, and threads."""

    def __init__(self, db: RunDatabase, name: str = "w1") -> None:
        self._own = Pool(db.pool.url, size=6, timeout_s=10, statement_timeout_s=30)
        self.pool = OnePool(self._own)
        self.journal = db.journal_of(name, self.pool)
        self.threads = ThreadPoolExecutor(16)

    def close(self) -> None:
        self.threads.shutdown()
        self._own.close()

    def claim(self, send: StepMessage) -> ClaimedStep | None:
        claim: ClaimedStep | None = self.journal.claim(send.kind, send.run_id, send.step_id, send.generation)
        return claim

    def claims(self, first: StepMessage, *sends: StepMessage) -> list[Future[ClaimedStep | None]]:
        return self._together(
            self.journal._claims, *(lambda send=send: self.claim(send) for send in (first, *sends))
        )

    def finishes(self, *finishes: Callable[[], CommitResult]) -> list[Future[CommitResult]]:
        return self._together(self.journal._finishes, *finishes)

    def _together(
        self, combined: Combined[Any, Any], first: Callable[[], Any], *others: Callable[[], Any]
    ) -> list[Future[Any]]:
        """Make the first call in a thread, and the others, which go together, when it has reached Postgres."""
        with self.pool.held():
            made = [self.threads.submit(first)]
            assert self.pool.has_called.wait(WAIT_S)
            for place, call in enumerate(others, start=1):
                made.append(self.threads.submit(call))
                invariants.until(lambda place=place: len(combined._waiting) == place)  # type: ignore[misc]
        return made


@pytest.fixture
def worker(db: RunDatabase) -> Iterator[Worker]:
    worker = Worker(db)
    yield worker
    worker.close()


def got(made: Sequence[Future[Any]]) -> list[Any]:
    return [each.result(WAIT_S) for each in made]


def sends(db: RunDatabase, runs: int, *names: str) -> list[StepMessage]:
    return [send for _ in range(runs) for send in db.fan_out(*names).sends]


def finishing(worker: Worker, claim: ClaimedStep) -> Callable[[], CommitResult]:
    return lambda: worker.journal.finish_tool(claim, result(claim))


def test_claims_of_all_kinds_share_a_call(db: RunDatabase, worker: Worker) -> None:
    first, tool, other = sends(db, 3, "a")
    turn = claimed(db.submit().send)
    claims = got(worker.claims(first, tool, turn, turn, other))
    assert [claim and claim.step_id for claim in claims] == [
        first.step_id, tool.step_id, turn.step_id, None, other.step_id,
    ] or [claim and claim.step_id for claim in claims] == [
        first.step_id, tool.step_id, None, turn.step_id, other.step_id,
    ]  # fmt: skip
    assert worker.pool.calls == 3  # the first one, the others, and the second message of the turn by itself
    assert db.run(turn.run_id)["status"] == "running"
    assert {db.step(send.step_id)["attempt"] for send in (first, tool, turn, other)} == {1}
    (claim,) = (claim for claim in claims if claim and claim.kind is StepKind.TURN)
    assert claim.messages == (user("hi"),)


def test_claims_with_a_once_tool_wait_for_the_disk(db: RunDatabase) -> None:
    asked = [
        {"run_id": send.run_id, "step_id": send.step_id, "generation": 0, "kind": "tool"}
        for effect in (Effect.ONCE, Effect.PURE)
        for send in db.fan_out("pay", effect=effect).sends
    ]
    with db.transaction() as transaction:
        assert all(db.journal_of("w1", transaction)._claim(asked))
        assert transaction.run("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]


def test_results_of_tools_and_turns_share_a_call(db: RunDatabase, worker: Worker) -> None:
    """A barrier counts all parts of a call, and the turn that it starts is published once."""
    one, two, three = db.tools("a", "b", "c")
    other, _ = db.tools("a", "b")
    db.journal.end(db.turn(), said("ok"), FEW, "ok", "end")
    ending, fanning = db.turn(), db.turn()
    made = worker.finishes(
        finishing(worker, one),
        finishing(worker, two),
        finishing(worker, other),
        finishing(worker, three),
        lambda: worker.journal.end(ending, said("ok"), FEW, "ok", "end"),
        lambda: worker.journal.fan_out(fanning, asking("a", "b"), FEW, tool_steps("a", "b"), "agents"),
    )
    results = got(made)
    assert all(each.recorded for each in results)
    assert worker.pool.calls == 2
    (turn,) = (send for each in results[:4] for send in each.sends)
    assert (turn.run_id, turn.kind) == (one.run_id, StepKind.TURN)
    assert [send.run_id for send in results[5].sends] == [fanning.run_id] * 2
    assert db.run(ending.run_id)["status"] == "done"
    assert db.value("SELECT arrived FROM agno.barrier WHERE run_id = %(id)s", id=other.run_id) == 1
    assert claimed(worker.claim(turn)).messages[2:] == (result(one), result(two), result(three))


def test_one_of_two_results_of_a_step_is_recorded(db: RunDatabase, worker: Worker) -> None:
    """A worker that was paused may execute a step twice at once."""
    first, turn = db.tools("a")[0], db.turn()
    error = {"type": "E", "message": "m", "ids": {}}
    made = worker.finishes(
        finishing(worker, first),
        lambda: worker.journal.fail(turn, error, "error"),
        lambda: worker.journal.fan_out(turn, asking("a"), FEW, tool_steps("a"), "agents"),
    )
    assert [each.recorded for each in got(made)] == [True, True, False]
    assert db.run(turn.run_id)["status"] == "failed"
    assert not db.sql("SELECT FROM agno.step WHERE run_id = %(id)s AND ended_at IS NULL", id=turn.run_id)


def test_result_that_postgres_refuses_fails_by_itself(db: RunDatabase, worker: Worker) -> None:
    first, good, bad = (db.tools("a")[0] for _ in range(3))
    made = worker.finishes(
        finishing(worker, first), finishing(worker, good), finishing(worker, replace(bad, seq=0))
    )
    assert [each.recorded for each in got(made[:2])] == [True, True]
    with pytest.raises(psycopg.errors.UniqueViolation):
        made[2].result(WAIT_S)
    assert db.step(bad.step_id)["status"] == "running"


def test_locked_run_delays_no_result_of_another_run(db: RunDatabase, worker: Worker) -> None:
    first, free, locked = (db.tools("a")[0] for _ in range(3))
    with db.transaction() as gate:
        gate.run("SELECT FROM agno.run WHERE id = %(id)s FOR UPDATE", {"id": locked.run_id})
        *done, late = worker.finishes(*(finishing(worker, tool) for tool in (first, free, locked)))
        assert all(each.recorded for each in got(done))
        more = db.tools("a")[0]
        assert finishing(worker, more)().recorded
        assert not late.done()
    assert late.result(WAIT_S).recorded


def test_claim_of_a_locked_step_delays_no_other(db: RunDatabase, worker: Worker) -> None:
    first, free, locked = sends(db, 3, "a")
    with db.transaction() as gate:
        gate.run("SELECT FROM agno.step WHERE id = %(id)s FOR UPDATE", {"id": locked.step_id})
        *claims, late = worker.claims(first, free, locked)
        assert all(got(claims))
        assert not late.done()
    assert late.result(WAIT_S)


def test_two_workers_with_delegations_do_not_deadlock(db: RunDatabase) -> None:
    """Each worker's threads execute runs with tools and delegations, while a keeper and a person act on the same runs."""
    workers = [Worker(db, name) for name in ("w1", "w2")]
    keeper, person = Worker(db, "keeper"), Worker(db, "")
    runs = [claimed(db.submit().send) for _ in range(4)]
    todo, over = list(runs), threading.Event()
    lock = threading.Lock()

    def work(worker: Worker, seed: int) -> None:
        pick = random.Random(seed)
        while not over.is_set():
            with lock:
                send = todo.pop(pick.randrange(len(todo))) if todo else None
            if send is None:
                over.wait(0.001)
            elif claim := worker.claim(send):
                committed = execute(worker.journal, claim, pick)
                with lock:
                    todo.extend([*committed.sends, *committed.children])

    def interfere(seed: int) -> None:
        pick = random.Random(seed)
        while not over.is_set():
            run_id = pick.choice(runs).run_id
            with lock:
                todo.extend(keeper.journal.take_lost(["agents", "tools"], 0.0, 20))
            keeper.journal.release_expired(10)
            person.journal.pause(run_id)
            person.journal.resume(run_id)
            if pick.random() < 0.1:
                person.journal.cancel(run_id)

    made = [worker.threads.submit(work, worker, seed) for worker in workers for seed in range(6)]
    made.append(person.threads.submit(interfere, 0))
    try:
        invariants.until(lambda: db.value("SELECT count(*) FROM agno.run WHERE ended_at IS NULL") == 0)
    finally:
        over.set()
        for each in made:
            each.result(WAIT_S)
        for worker in (*workers, keeper, person):
            worker.close()
    assert [error for worker in (*workers, keeper, person) for error in worker.pool.errors] == []


def execute(journal: AllRepositories, claim: ClaimedStep, pick: random.Random) -> CommitResult:
    """Record a tool's result, or a turn that calls tools and delegates, three turns long and three runs deep."""
    if claim.kind is StepKind.TOOL:
        done: CommitResult = journal.finish_tool(claim, result(claim))
        return done
    if claim.turns == 2:
        return journal.end(claim, said("ok"), FEW, "ok", "end")
    calls = tool_steps(*NAMES)
    if claim.depth < 2 and pick.random() < 0.5:
        calls[0] = ToolStep(
            calls[0].call, "agents", Effect.PURE, 1, child=ChildRun("echo", "agents", user("do"))
        )
    return journal.fan_out(claim, asking(*NAMES), FEW, calls, "agents")
