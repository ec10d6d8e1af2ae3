"""Every pair of transactions on the same run, on two connections, the second begun before the first has committed.

No pair deadlocks, and the rows are those of one of the two serial orders; or of the first transaction alone, since the keeper and
the lease renewal skip locked rows.

The order of locks is run, step, barrier (tables/runs.py). Their holders:

    submit (known key)      run
    claim_turn              run, step
    finish_turn             run, step              then inserts
    finish_tool             run, step, barrier
    the end of a child      run, step; then run (shared), step, barrier of the parent
    stop (cancel, deadline) run, steps, outbox rows that are not locked
    answer                  run (shared), step
    ask_person              step
    pause                   run
    resume                  run, steps
    retry_run               run, step
    signal                  run, step, barrier
    approval, expired wait  run (shared), step, barrier
    program's turn          run, step, cancelled steps, barrier; then inserts
    end_due_timers          runs (shared), steps and barriers that are not locked
    fork                    run (shared)
    claim_tool, retry, end_lease   step            reads the run; the step's status tells of a cancel
    renew, release_expired, take_due, take_lost    steps that are not locked
    take_outbox             outbox rows that are not locked
    published               outbox rows, in the order of their ids
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from agno_workers.core.messages import Message, ToolResult, user
from agno_workers.core.run import StepKind, WaitsFor
from agno_workers.core.step import (
    CallStep,
    ChildRun,
    ClaimedStep,
    CommitResult,
    ExhaustedStep,
    ExpiredWait,
    StepMessage,
    ToolStep,
    TurnRecord,
)
from agno_workers.core.tool import Effect, Policy
from agno_workers.database.pool import Pool
from agno_workers.errors import NotWaiting
from tests.database import (
    FEW,
    AllRepositories,
    RunDatabase,
    Transaction,
    claimed,
    result,
    said,
    tool_steps,
)
from tests.database import asking as asking_for

ERROR = {"type": "ModelUnavailable", "message": "busy", "ids": {}}


@dataclass(frozen=True)
class Stage:
    """A run in some state, with the ids for transactions."""

    run_id: str
    step: ClaimedStep | StepMessage | ExpiredWait
    other: ClaimedStep | None = None
    """The other one of two tools."""
    waiting: ExpiredWait | None = None
    """The step again, when a person was asked about it."""


@dataclass(frozen=True)
class Place:
    """The journal of a worker on one of the two connections."""

    db: RunDatabase
    pool: Pool | None
    stage: Stage

    def by(self, worker: str) -> AllRepositories:
        return self.db.journal_of(worker, self.pool)


Act = Callable[[Place], Any]


def ready(db: RunDatabase) -> Stage:
    """A turn that was sent a minute ago and never claimed; its message is pending."""
    send = claimed(db.submit(idempotency_key="k").send)
    db.sql("UPDATE agno.step SET sent_at = sent_at - interval '1 minute'")
    return Stage(send.run_id, send)


def waiting(db: RunDatabase) -> Stage:
    """A released turn whose timer is due."""
    turn = db.turn(idempotency_key="k")
    db.journal.retry(turn.step_id, turn.attempt, 0, ERROR)
    return Stage(turn.run_id, turn)


def late_turn(db: RunDatabase) -> Stage:
    """A running turn with an expired lease and a pending message."""
    send = claimed(db.submit(idempotency_key="k").send)
    turn = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    db.expire(turn.step_id)
    return Stage(turn.run_id, turn)


def late_tool(db: RunDatabase) -> Stage:
    """The last two tools of a fan-out, one with an expired lease."""
    tool, other = (
        claimed(db.journal.claim_tool(send.run_id, send.step_id, 0))
        for send in db.fan_out("a", "b", idempotency_key="k").sends
    )
    db.expire(tool.step_id)
    return Stage(tool.run_id, tool, other)


def paused(db: RunDatabase) -> Stage:
    """A ready turn of a paused run."""
    stage = ready(db)
    db.journal.pause(stage.run_id)
    return stage


def failed(db: RunDatabase) -> Stage:
    """A run whose first turn failed."""
    turn = db.turn(idempotency_key="k")
    db.journal.fail(turn, ERROR, "refusal", said("no"), FEW)
    return Stage(turn.run_id, turn)


def asking(db: RunDatabase) -> Stage:
    """A call with an expired confirmation, beside a running one."""
    policy = Policy(needs=WaitsFor.CONFIRMATION, within_s=60, on_timeout="fail")
    turn, waits, other = two_calls(db, lambda step: ToolStep(step.call, "tools", step.effect, 3, policy))
    db.sql("UPDATE agno.step SET expires_at = clock_timestamp() WHERE id = %(id)s", id=waits)
    (expired,) = db.journal.expired_waits(10)
    return Stage(turn.run_id, expired, other, expired)


def cut_short(db: RunDatabase) -> Stage:
    """A `once` tool whose worker died, and that waits for a resolution."""
    turn, paying, other = two_calls(
        db,
        lambda step: ToolStep(step.call, "tools", Effect.ONCE, 3, Policy(on_unknown="ask", within_s=60)),
    )
    claim = claimed(db.journal.claim_tool(turn.run_id, paying, 0))
    db.expire(claim.step_id)
    return Stage(turn.run_id, claim, other)


def unresolved(db: RunDatabase) -> Stage:
    """A resolution that was not answered in time."""
    stage = cut_short(db)
    assert isinstance(stage.step, ClaimedStep)
    db.journal.ask_person(stage.step, ERROR)
    db.sql("UPDATE agno.step SET expires_at = clock_timestamp() WHERE status = 'waiting'")
    (expired,) = db.journal.expired_waits(10)
    return Stage(stage.run_id, stage.step, stage.other, expired)


def delegating(db: RunDatabase) -> Stage:
    """A run past its deadline that waits for a running child run and a running tool."""
    turn, _, other = two_calls(
        db,
        lambda step: ToolStep(
            step.call, "agents", Effect.PURE, 1, child=ChildRun("member", "agents", user("do"))
        ),
    )
    db.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE id = %(id)s", id=turn.run_id)
    (child,) = db.sql("""
        SELECT step.run_id, step.id FROM agno.step JOIN agno.run ON run.id = step.run_id WHERE run.agent = 'member'""")
    return Stage(turn.run_id, claimed(db.journal.claim_turn(child["run_id"], child["id"], 0)), other)


def programmed(db: RunDatabase) -> Stage:
    """A running turn of a program, one of whose calls has ended; a child run works, and a signal, an approval and a due timer are waited for."""
    turn = db.turn(agent="program", idempotency_key="k")
    calls = [
        _call("first", StepKind.TOOL),
        _call("member", StepKind.DELEGATE, WaitsFor.RUN, child=ChildRun("member", "agents", user("do"))),
        _call("paid", StepKind.WAIT, WaitsFor.SIGNAL, within_s=60),
        _call("check", StepKind.WAIT, WaitsFor.CONFIRMATION),
        _call("sleep", StepKind.WAIT, WaitsFor.TIMER, expires_at=db.journal.now()),
    ]
    made = db.journal.make_calls(
        turn, TurnRecord(is_program=True), calls, "agents", barrier_id=None, wake_at=1
    )
    ids = {step.key: step.id for step in db.queries.steps(turn.run_id)}
    (next_turn,) = db.journal.finish_tool(
        claimed(db.journal.claim_tool(turn.run_id, ids["first"], 0)), _json("1")
    ).sends
    (child,) = made.children
    db.sql("UPDATE agno.step SET expires_at = clock_timestamp() WHERE key = 'paid'")
    (expired,) = db.journal.expired_waits(10)
    return Stage(
        turn.run_id, claimed(db.journal.claim_turn(turn.run_id, next_turn.step_id, 0)),
        claimed(db.journal.claim_turn(child.run_id, child.step_id, 0)), expired,
    )  # fmt: skip


def _call(key: str, kind: StepKind, waits_for: WaitsFor | None = None, *, within_s: float | None = None, **given: Any) -> CallStep:  # fmt: skip
    kinds = {WaitsFor.RUN: "run", WaitsFor.CONFIRMATION: "approval", None: "function"}
    told = {"id": key, "name": key, "kind": kinds.get(waits_for, waits_for)}
    return CallStep(
        key, kind, "agents", key, told, policy=Policy(within_s=within_s), waits_for=waits_for, **given
    )


def _json(text: str) -> Message:
    return Message("tool", (ToolResult("", "first", text),))


def two_calls(db: RunDatabase, made: Callable[[ToolStep], ToolStep]) -> tuple[ClaimedStep, str, ClaimedStep]:
    """Return the id of the first of two calls of a run, prepared by `made`, and the second one, which is running."""
    turn = db.turn(idempotency_key="k")
    one, two = tool_steps("a", "b")
    db.journal.fan_out(turn, asking_for("a", "b"), FEW, [made(one), two], "agents")
    ids = {row["key"]: row["id"] for row in db.sql("SELECT id, key FROM agno.step WHERE kind <> 'turn'")}
    return turn, ids["tool:1:0"], claimed(db.journal.claim_tool(turn.run_id, ids["tool:1:1"], 0))


def submit(at: Place) -> Any:
    return at.by("").submit(user("hi"), agent="echo", queue="agents", idempotency_key="k")


def claim_turn(at: Place) -> Any:
    return at.by("w2").claim_turn(at.stage.run_id, at.stage.step.step_id, 0)


def claim_tool(at: Place) -> Any:
    return at.by("w2").claim_tool(at.stage.run_id, at.stage.step.step_id, 0)


def end(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("w1").end(at.stage.step, said("ok"), FEW, "ok", "end")


def fan_out(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("w1").fan_out(at.stage.step, asking_for("a", "b"), FEW, tool_steps("a", "b"), "agents")


def ask_again(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("w1").next_turn(at.stage.step, said("hm"), FEW, "agents")


def finish_tool(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("w1").finish_tool(at.stage.step, result(at.stage.step))


def finish_other(at: Place) -> Any:
    assert at.stage.other is not None
    return at.by("w1").finish_tool(at.stage.other, result(at.stage.other))


def retry(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    at.by("w1").retry_later(at.stage.step, 0, ERROR)


def end_lease(at: Place) -> Any:
    at.by("w1").end_lease(at.stage.step.step_id)


def renew(at: Place) -> Any:
    at.by("w1").renew([step.step_id for step in (at.stage.step, at.stage.other) if step])


def cancel(at: Place) -> Any:
    return at.by("").cancel(at.stage.run_id)


def pause(at: Place) -> Any:
    return at.by("").pause(at.stage.run_id)


def resume(at: Place) -> Any:
    return at.by("").resume(at.stage.run_id)


def retry_run(at: Place) -> Any:
    return at.by("").retry_run(at.stage.run_id)


def fork(at: Place) -> Any:
    return at.by("").fork(at.stage.step.step_id)[1]


def delegate(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    (step,) = tool_steps("a")
    calls = [ToolStep(step.call, "agents", Effect.PURE, 1, child=ChildRun("member", "agents", user("do")))]
    return at.by("w1").fan_out(at.stage.step, asking_for("a"), FEW, calls, "agents")


def fail_exhausted(at: Place) -> Any:
    """The keeper ends a step with an expired lease, from a list that may be stale."""
    lost = _hopeless(at.stage.step)
    if lost.kind is StepKind.TURN:
        return at.by("").fail(lost, ERROR, "worker_lost", step_status="dead")
    return at.by("").finish_tool(lost, _told("died"), ERROR, "dead")


def ask_person(at: Place) -> Any:
    return at.by("").ask_person(_hopeless(at.stage.step), ERROR)


def approve(at: Place) -> Any:
    return at.by("").answer(at.stage.step.step_id, [WaitsFor.CONFIRMATION], {"verdict": "approved"})


def again(at: Place) -> Any:
    return at.by("").answer(at.stage.step.step_id, [WaitsFor.RESOLUTION], {"verdict": "again"})


def settle(at: Place) -> Any:
    """The answers to a waiting call, and its expiry."""
    assert at.stage.waiting is not None
    return at.by("").finish_tool(at.stage.waiting, _told("no"), ERROR, answer={"verdict": "rejected"})


def fail_unanswered(at: Place) -> Any:
    assert at.stage.waiting is not None
    return at.by("").fail_unanswered(at.stage.waiting, ERROR)


def end_overdue(at: Place) -> Any:
    return at.by("").end_overdue(at.stage.run_id)


def fail_child(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("w1").fail(at.stage.step, ERROR, "refusal")


def cancel_child(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("").cancel(at.stage.step.run_id)


def go_on(at: Place) -> Any:
    """A program makes another call, and cancels two."""
    assert isinstance(at.stage.step, ClaimedStep)
    barrier = at.db.value("SELECT id FROM agno.barrier WHERE run_id = %(id)s", id=at.stage.run_id)
    return at.by("w1").make_calls(
        at.stage.step, TurnRecord(is_program=True), [_call("more", StepKind.TOOL)], "agents", barrier_id=barrier, wake_at=4,
        cancel=["member", "paid"],
    )  # fmt: skip


def end_program(at: Place) -> Any:
    assert isinstance(at.stage.step, ClaimedStep)
    return at.by("w1").store.end(at.stage.step, TurnRecord(tuple(said("ok")), is_program=True), "ok", "end")


def end_child(at: Place) -> Any:
    assert at.stage.other is not None
    return at.by("w1").end(at.stage.other, said("ok"), FEW, "ok", "end")


def cancel_abandoned(at: Place) -> Any:
    at.by("").cancel_abandoned(at.stage.run_id)


def send_signal(at: Place) -> Any:
    try:
        return at.by("").signal(at.stage.run_id, "paid", 1, "k")
    except NotWaiting:
        return "it has ended"


def answer_approval(at: Place) -> Any:
    check = "SELECT id FROM agno.step WHERE key = 'check'"
    return at.by("").answer_approval(str(at.db.value(check)), "approved", "ann", None)


def expire_signal(at: Place) -> Any:
    assert at.stage.waiting is not None
    return at.by("").end_wait(at.stage.waiting)


def end_due_timers(at: Place) -> Any:
    return [None] * at.by("").end_due_timers(10)


def _hopeless(step: Any) -> ExhaustedStep:
    assert isinstance(step, ClaimedStep)
    return ExhaustedStep(step.step_id, step.run_id, 0, step.kind, "a", step.attempt, "w1", step.seq)


def _told(text: str) -> Message:
    return Message("tool", (ToolResult("call_0", "a", text, True),))


def release_expired(at: Place) -> Any:
    return at.by("").release_expired(10)


def take_due(at: Place) -> Any:
    return at.by("").take_due(10)


def take_lost(at: Place) -> Any:
    return at.by("").take_lost(["agents", "tools"], 30.0, 10)


def take_outbox(at: Place) -> Any:
    return at.by("").take(10, 60)


def published(at: Place) -> Any:
    at.by("").published([row["id"] for row in (at.pool or at.db.pool).run("SELECT id FROM agno.outbox")])


ACTS: dict[Callable[[RunDatabase], Stage], list[Act]] = {
    ready: [submit, claim_turn, take_lost, cancel, take_outbox, published, pause, fork],
    paused: [resume, pause, claim_turn, take_lost, take_outbox, cancel],
    waiting: [claim_turn, end, take_due, cancel],
    late_turn: [
        submit, claim_turn, end, fan_out, delegate, retry, end_lease, renew, cancel, release_expired, take_outbox, fail_exhausted, pause, fork,
    ],
    late_tool: [
        claim_tool, finish_tool, finish_other, retry, renew, cancel, release_expired, take_outbox, published, fail_exhausted, pause,
    ],
    failed: [retry_run, fork, submit, end, cancel],
    asking: [approve, settle, fail_unanswered, finish_other, cancel, pause],
    cut_short: [ask_person, finish_tool, finish_other, fail_exhausted, renew, cancel],
    unresolved: [settle, again, finish_tool, finish_other, cancel],
    delegating: [end, fail_child, cancel_child, end_overdue, finish_other, delegate],
    programmed: [go_on, end_program, end_child, cancel_abandoned, send_signal, answer_approval, expire_signal, end_due_timers, cancel, pause],
}  # fmt: skip
NEVER_WAIT: list[Act] = [renew, release_expired, take_due, take_lost, take_outbox, end_due_timers]
PAIRS = [
    pytest.param(stage, one, two, id=f"{stage.__name__}-{one.__name__}-{two.__name__}")
    for stage, acts in ACTS.items()
    for one in acts
    for two in acts
]
Ending = tuple[dict[str, Any], Any, Any]
"""The rows, and the results of the two transactions."""


@pytest.fixture(scope="module")
def connections(db_pool: Pool) -> Iterator[tuple[Transaction, Transaction]]:
    """Two connections with a transaction each."""
    one, two = Transaction(db_pool), Transaction(db_pool)
    yield one, two
    one.close()
    two.close()


@pytest.fixture(scope="module")
def in_a_row() -> dict[Any, Ending]:
    """The outcomes of both serial orders, computed once."""
    return {}


@pytest.mark.parametrize(("stage", "one", "two"), PAIRS)
def test_concurrent_transactions_are_serializable(
    db: RunDatabase, connections: tuple[Transaction, Transaction], in_a_row: dict[Any, Ending],
    stage: Callable[[RunDatabase], Stage], one: Act, two: Act,
) -> None:  # fmt: skip
    rows, gave_one, gave_two = together(db, connections, stage, one, two)
    for acts in ((one, two), (two, one), (one,)):
        if (stage, acts) not in in_a_row:
            in_a_row[stage, acts] = one_by_one(db, stage, acts)
    possible = [in_a_row[stage, (one, two)], _swapped(*in_a_row[stage, (two, one)])]
    if two in NEVER_WAIT:
        alone, gave, _ = in_a_row[stage, (one,)]
        possible.append((alone, gave, gave_two if not gave_two else "nothing"))
    assert (rows, gave_one, gave_two) in possible


def together(
    db: RunDatabase, connections: tuple[Transaction, Transaction], stage: Callable[[RunDatabase], Stage], one: Act, two: Act
) -> Ending:  # fmt: skip
    """Begin `two` when `one` has its locks."""
    db.empty()
    staged = stage(db)
    first, second = connections
    try:
        gave_one = one(Place(db, first, staged))
        later = second.begin(lambda: two(Place(db, second, staged)))
        waited = db.waits(later, second)
        assert not (waited and two in NEVER_WAIT), f"{two.__name__} waits for {one.__name__}"
        first.commit()
        gave_two = later.result()
        second.commit()
    finally:
        first.rollback()
        second.begin(second.rollback).result()
    return portrait(db), short(gave_one), short(gave_two)


def one_by_one(db: RunDatabase, stage: Callable[[RunDatabase], Stage], acts: tuple[Act, ...]) -> Ending:
    db.empty()
    place = Place(db, None, stage(db))
    gave_one, gave_two, *_ = [*(short(act(place)) for act in acts), None]
    return portrait(db), gave_one, gave_two


def _swapped(rows: dict[str, Any], gave_two: Any, gave_one: Any) -> Ending:
    return rows, gave_one, gave_two


def short(given: Any) -> Any:
    """Return the result of a transaction without ids."""
    match given:
        case CommitResult():
            return given.recorded, [send.kind for send in given.sends]
        case ClaimedStep() | ClaimedStep():
            return "claimed", given.attempt
        case list():
            return len(given)
        case bool() | str() | None:
            return given
        case _:
            return given.created


def portrait(db: RunDatabase) -> dict[str, Any]:
    """Return all rows without ids and times. A pending message of a step that is not ready counts as deleted."""
    of_runs = "JOIN agno.run ON run.id = run_id ORDER BY depth, forked_from IS NOT NULL"
    return {
        "runs": db.sql("""
            SELECT agent, status, generation, turns, tool_calls, input_tokens, content, reason, ended_at IS NULL AS open,
                   paused_at IS NULL AS goes, forked_from IS NOT NULL AS forked
            FROM agno.run ORDER BY depth, forked_from IS NOT NULL"""),
        "steps": db.sql(f"""
            SELECT key, step.status, step.generation, step.kind, attempt, tries, worker, step.error->>'type' AS error, waits_for, answer->>'verdict' AS said, reconciling, arrival, result::text AS result,
                   not_before IS NULL AS now, sent_at IS NULL AS unsent, lease_until > clock_timestamp() AS held,
                   step.ended_at IS NULL AS open
            FROM agno.step {of_runs}, key, step.generation"""),
        "messages": db.sql(f"""
            SELECT agent, seq, regexp_replace(message.content::text, '[0-9a-f-]{{36}}', 'id', 'g') AS content
            FROM agno.message {of_runs}, seq"""),
        "signals": db.sql("SELECT name, step_id IS NULL AS kept FROM agno.signal"),
        "barriers": db.sql(f"SELECT size, arrived, fired_at IS NOT NULL AS fired FROM agno.barrier {of_runs}"),
        "pending": db.sql("""
            SELECT agent, key, outbox.due_at > clock_timestamp() AS later FROM agno.outbox JOIN agno.step ON step.id = step_id
            JOIN agno.run ON run.id = run_id WHERE step.status = 'ready' ORDER BY depth, forked_from IS NOT NULL, key, outbox.id"""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "act"),
    [pytest.param(stage, act, id=f"{stage.__name__}-{act.__name__}") for stage, acts in ACTS.items() for act in acts],
)  # fmt: skip
@pytest.mark.parametrize(("held", "later"), [("run", ["step", "barrier", "outbox"]), ("step", ["barrier", "outbox"])])  # fmt: skip
def test_locks_are_taken_in_order(
    db: RunDatabase, connections: tuple[Transaction, Transaction],
    stage: Callable[[RunDatabase], Stage], act: Act, held: str, later: list[str],
) -> None:  # fmt: skip
    staged = stage(db)
    gate, second = connections
    try:
        gate.run(f"SELECT FROM agno.{held} FOR UPDATE")
        acting = second.begin(lambda: act(Place(db, second, staged)))
        if db.waits(acting, second):
            for table in later:
                free = db.sql(f"SELECT id FROM agno.{table} FOR UPDATE SKIP LOCKED")
                assert len(free) == db.count(table), (
                    f"{act.__name__} waits for a {held} with a {table} in hand"
                )
        gate.commit()
        acting.result()
    finally:
        gate.rollback()
        second.begin(second.rollback).result()
