"""Every two transactions on the same run, on two connections, one begun before the other has committed.

Whatever meets whatever: nobody deadlocks, and the rows are those of the one after the other, in one order or the other.
Or of the first alone: what the keeper and the renewal find locked, they leave for their next round.

The order of locks is run, step, barrier (schema.py). Who takes them:

    submit (known key)      run
    claim_turn              run, step
    finish_turn             run, step              then inserts
    finish_tool             run (shared), step, barrier
    cancel                  run, steps, outbox rows that are not locked
    claim_tool, retry, give_up     step            reads the run; the step's status tells of a cancel
    renew, release_expired, take_due, take_lost    steps that are not locked
    take_outbox             outbox rows that are not locked
    published               outbox rows, in the order of their ids
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from agno_workers.core.messages import user
from agno_workers.storage.journal import Journal, Recorded, Send, ToolClaim, TurnClaim
from agno_workers.storage.pool import Pool
from tests.integration.storage.world import FEW, Transaction, World, asking, claimed, result, said, tool_steps

ERROR = {"type": "ModelUnavailable", "message": "busy", "ids": {}}


@dataclass(frozen=True)
class Stage:
    """A run in the middle of its life, with all that transactions could be about."""

    run_id: str
    step: TurnClaim | ToolClaim | Send
    other: ToolClaim | None = None
    """The other tool of two."""


@dataclass(frozen=True)
class Place:
    """Who does it, and where: a journal of a worker on one of the two connections."""

    world: World
    pool: Pool | None
    stage: Stage

    def by(self, worker: str) -> Journal:
        return self.world.journal_of(worker, self.pool)


Act = Callable[[Place], Any]


def ready(world: World) -> Stage:
    """A turn that was sent a minute ago and never claimed; its message is owed."""
    send = claimed(world.submit(idempotency_key="k").send)
    world.sql("UPDATE agno.step SET sent_at = sent_at - interval '1 minute'")
    return Stage(send.run_id, send)


def waiting(world: World) -> Stage:
    """A turn that was given back, and whose time has come."""
    turn = world.turn(idempotency_key="k")
    world.journal.retry(turn, 0, ERROR)
    return Stage(turn.run_id, turn)


def late_turn(world: World) -> Stage:
    """A turn under way whose lease ran out; its message was never struck out."""
    send = claimed(world.submit(idempotency_key="k").send)
    turn = claimed(world.journal.claim_turn(send.run_id, send.step_id, 0))
    world.expire(turn.step_id)
    return Stage(turn.run_id, turn)


def late_tool(world: World) -> Stage:
    """The last two tools of a fan-out: one whose lease ran out, and one in good order."""
    tool, other = (
        claimed(world.journal.claim_tool(send.run_id, send.step_id, 0))
        for send in world.fan_out("a", "b", idempotency_key="k").sends
    )
    world.expire(tool.step_id)
    return Stage(tool.run_id, tool, other)


def submit(at: Place) -> Any:
    return at.by("").submit(user("hi"), agent="echo", queue="agents", idempotency_key="k")


def claim_turn(at: Place) -> Any:
    return at.by("w2").claim_turn(at.stage.run_id, at.stage.step.step_id, 0)


def claim_tool(at: Place) -> Any:
    return at.by("w2").claim_tool(at.stage.run_id, at.stage.step.step_id, 0)


def end(at: Place) -> Any:
    assert isinstance(at.stage.step, TurnClaim)
    return at.by("w1").end(at.stage.step, said("ok"), FEW, "ok", "end")


def fan_out(at: Place) -> Any:
    assert isinstance(at.stage.step, TurnClaim)
    return at.by("w1").fan_out(at.stage.step, asking("a", "b"), FEW, tool_steps("a", "b"), "agents")


def ask_again(at: Place) -> Any:
    assert isinstance(at.stage.step, TurnClaim)
    return at.by("w1").ask_again(at.stage.step, said("hm"), FEW, "agents")


def finish_tool(at: Place) -> Any:
    assert isinstance(at.stage.step, ToolClaim)
    return at.by("w1").finish_tool(at.stage.step, result(at.stage.step))


def finish_other(at: Place) -> Any:
    assert at.stage.other is not None
    return at.by("w1").finish_tool(at.stage.other, result(at.stage.other))


def retry(at: Place) -> Any:
    assert isinstance(at.stage.step, TurnClaim | ToolClaim)
    at.by("w1").retry(at.stage.step, 0, ERROR)


def give_up(at: Place) -> Any:
    at.by("w1").give_up(at.stage.step.step_id)


def renew(at: Place) -> Any:
    at.by("w1").renew([step.step_id for step in (at.stage.step, at.stage.other) if step])


def cancel(at: Place) -> Any:
    return at.by("").cancel(at.stage.run_id)


def release_expired(at: Place) -> Any:
    return at.by("").release_expired(10)


def take_due(at: Place) -> Any:
    return at.by("").take_due(10)


def take_lost(at: Place) -> Any:
    return at.by("").take_lost(None, 30.0, 10)


def take_outbox(at: Place) -> Any:
    return at.by("").take_outbox(10, 60)


def published(at: Place) -> Any:
    at.by("").published([row["id"] for row in (at.pool or at.world.pool).run("SELECT id FROM agno.outbox")])


ACTS: dict[Callable[[World], Stage], list[Act]] = {
    ready: [submit, claim_turn, take_lost, cancel, take_outbox, published],
    waiting: [claim_turn, end, take_due, cancel],
    late_turn: [submit, claim_turn, end, fan_out, retry, give_up, renew, cancel, release_expired, take_outbox],
    late_tool: [claim_tool, finish_tool, finish_other, retry, renew, cancel, release_expired, take_outbox, published],
}  # fmt: skip
NEVER_WAIT: list[Act] = [renew, release_expired, take_due, take_lost, take_outbox]
PAIRS = [
    pytest.param(stage, one, two, id=f"{stage.__name__}-{one.__name__}-{two.__name__}")
    for stage, acts in ACTS.items()
    for one in acts
    for two in acts
]
Ending = tuple[dict[str, Any], Any, Any]
"""The rows, and what the two acts gave."""


@pytest.fixture(scope="module")
def connections(world_pool: Pool) -> Iterator[tuple[Transaction, Transaction]]:
    """Two connections, a transaction in each."""
    one, two = Transaction(world_pool), Transaction(world_pool)
    yield one, two
    one.close()
    two.close()


@pytest.fixture(scope="module")
def in_a_row() -> dict[Any, Ending]:
    """How the one after the other ends, found out once."""
    return {}


@pytest.mark.parametrize(("stage", "one", "two"), PAIRS)
def test_two_transactions_at_once_end_as_if_one_came_after_the_other(
    world: World, connections: tuple[Transaction, Transaction], in_a_row: dict[Any, Ending],
    stage: Callable[[World], Stage], one: Act, two: Act,
) -> None:  # fmt: skip
    rows, gave_one, gave_two = together(world, connections, stage, one, two)
    for acts in ((one, two), (two, one), (one,)):
        if (stage, acts) not in in_a_row:
            in_a_row[stage, acts] = one_by_one(world, stage, acts)
    possible = [in_a_row[stage, (one, two)], _swapped(*in_a_row[stage, (two, one)])]
    if two in NEVER_WAIT:
        alone, gave, _ = in_a_row[stage, (one,)]
        possible.append((alone, gave, gave_two if not gave_two else "nothing"))
    assert (rows, gave_one, gave_two) in possible


def together(
    world: World, connections: tuple[Transaction, Transaction], stage: Callable[[World], Stage], one: Act, two: Act
) -> Ending:  # fmt: skip
    """`two` begins when `one` has its locks, and waits for them or does not."""
    world.empty()
    staged = stage(world)
    first, second = connections
    try:
        gave_one = one(Place(world, first, staged))
        later = second.begin(lambda: two(Place(world, second, staged)))
        waited = world.waits(later, second)
        assert not (waited and two in NEVER_WAIT), f"{two.__name__} waits for {one.__name__}"
        first.commit()
        gave_two = later.result()
        second.commit()
    finally:
        first.rollback()
        second.begin(second.rollback).result()
    return portrait(world), short(gave_one), short(gave_two)


def one_by_one(world: World, stage: Callable[[World], Stage], acts: tuple[Act, ...]) -> Ending:
    world.empty()
    place = Place(world, None, stage(world))
    gave_one, gave_two, *_ = [*(short(act(place)) for act in acts), None]
    return portrait(world), gave_one, gave_two


def _swapped(rows: dict[str, Any], gave_two: Any, gave_one: Any) -> Ending:
    return rows, gave_one, gave_two


def short(given: Any) -> Any:
    """What an act gave, without ids."""
    match given:
        case Recorded():
            return given.recorded, [send.kind for send in given.sends]
        case TurnClaim() | ToolClaim():
            return "claimed", given.attempt
        case list():
            return len(given)
        case bool() | None:
            return given
        case _:
            return given.created


def portrait(world: World) -> dict[str, Any]:
    """All rows without ids and times. A message owed for a step that is not ready is as good as struck out."""
    return {
        "runs": world.sql("SELECT status, generation, turns, tool_calls, input_tokens, content, reason, ended_at IS NULL AS open FROM agno.run"),
        "steps": world.sql("""
            SELECT key, status, attempt, tries, worker, error->>'type' AS error, not_before IS NULL AS now, sent_at IS NULL AS unsent,
                   lease_until > clock_timestamp() AS held, ended_at IS NULL AS open FROM agno.step ORDER BY key"""),
        "messages": world.sql("SELECT seq, content FROM agno.message ORDER BY seq"),
        "barriers": world.sql("SELECT size, arrived, fired_at IS NOT NULL AS fired FROM agno.barrier"),
        "owed": world.sql("""
            SELECT step.key, outbox.due_at > clock_timestamp() AS later FROM agno.outbox JOIN agno.step ON step.id = outbox.step_id
            WHERE step.status = 'ready' ORDER BY step.key"""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "act"),
    [pytest.param(stage, act, id=f"{stage.__name__}-{act.__name__}") for stage, acts in ACTS.items() for act in acts],
)  # fmt: skip
@pytest.mark.parametrize(("held", "later"), [("run", ["step", "barrier", "outbox"]), ("step", ["barrier", "outbox"])])  # fmt: skip
def test_who_waits_for_a_lock_has_none_of_those_that_come_after_it(
    world: World, connections: tuple[Transaction, Transaction],
    stage: Callable[[World], Stage], act: Act, held: str, later: list[str],
) -> None:  # fmt: skip
    staged = stage(world)
    gate, second = connections
    try:
        gate.run(f"SELECT FROM agno.{held} FOR UPDATE")
        acting = second.begin(lambda: act(Place(world, second, staged)))
        if world.waits(acting, second):
            for table in later:
                free = world.sql(f"SELECT id FROM agno.{table} FOR UPDATE SKIP LOCKED")
                assert len(free) == world.count(table), (
                    f"{act.__name__} waits for a {held} with a {table} in hand"
                )
        gate.commit()
        acting.result()
    finally:
        gate.rollback()
        second.begin(second.rollback).result()
