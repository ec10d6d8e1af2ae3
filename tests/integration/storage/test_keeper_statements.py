"""What the keeper puts right, and that two keepers at once put it right once."""

from __future__ import annotations

import pytest

from agno_workers.core.messages import user
from agno_workers.core.run import StepKind
from agno_workers.core.step import CanvasContinuation, StepMessage
from agno_workers.core.tool import Effect
from agno_workers.runs.results import Results
from tests.integration.storage.world import FEW, World, claimed, result, said

ERROR = {"type": "ModelUnavailable", "message": "busy", "ids": {}}


def steps(owed: list[StepMessage] | list[StepMessage | CanvasContinuation]) -> list[str]:
    return [send.step_id for send in owed if isinstance(send, StepMessage)]


# The outbox.


def test_what_is_due_in_the_outbox_is_taken_once_and_again_later(world: World) -> None:
    sends = [world.submit().send for _ in range(3)]
    taken = world.journal.take(10, 60)
    assert sorted(taken, key=lambda owed: owed.outbox_id or 0) == sends
    assert world.journal.take(10, 60) == []
    world.sql("UPDATE agno.outbox SET due_at = clock_timestamp()")
    assert len(world.journal.take(10, 60)) == 3


def test_what_is_not_due_yet_stays_with_the_one_who_owes_it(world: World) -> None:
    later = world.journal_of("w1", publish_after_s=60.0)
    later.submit(user("hi"), agent="echo", queue="agents")
    assert world.journal.take(10, 60) == []


def test_what_was_published_is_struck_out(world: World) -> None:
    sends = [world.submit().send for _ in range(3)]
    world.journal.published([send.outbox_id for send in sends[:2] if send and send.outbox_id is not None])
    world.journal.published([])
    assert world.journal.take(10, 60) == sends[2:]


def test_no_message_is_taken_by_two_keepers(world: World) -> None:
    sends = {send.step_id for send in (world.submit().send for _ in range(10)) if send}
    with world.transaction() as one, world.transaction() as two:
        first = steps(world.journal_of("", one).take(6, 60))
        taking = two.begin(lambda: world.journal_of("", two).take(10, 60))
        assert not world.waits(taking, two)
        second = steps(taking.result())
        one.commit()
        two.commit()
    assert (len(first), len(second)) == (6, 4)
    assert {*first, *second} == sends


def test_what_a_keeper_that_died_had_taken_is_there_for_the_next(world: World) -> None:
    world.submit()
    with world.transaction() as dying:
        assert len(world.journal_of("", dying).take(10, 60)) == 1
        dying.rollback()
    assert len(world.journal.take(10, 60)) == 1


@pytest.mark.parametrize("status", ["running", "done", "cancelled", "no such step"])
def test_messages_of_steps_that_are_not_ready_are_struck_out_and_not_sent(world: World, status: str) -> None:
    send = claimed(world.submit().send)
    turn = claimed(world.journal.claim_turn(send.run_id, send.step_id, 0))
    match status:
        case "done":
            world.journal.end(turn, said("ok"), FEW, "ok", "end")
        case "cancelled":
            world.sql("UPDATE agno.step SET status = 'cancelled', lease_until = NULL")
        case "no such step":
            world.sql("DELETE FROM agno.run")
        case _:
            pass
    assert world.count("outbox") == 1
    wanted = world.submit().send
    assert world.journal.take(10, 60) == [wanted]
    assert world.count("outbox") == 1


def test_what_a_run_owes_to_its_canvas_is_taken_by_its_run_or_by_the_keeper(world: World) -> None:
    ended = world.turn(canvas={"link": [{"task": "t"}]})
    recorded = world.journal.end(ended, said("ok"), FEW, "ok", "end")
    assert recorded.continues == (ended.run_id, None)
    (owed,) = Results(world.pool).owed(ended.run_id, None)
    assert owed == CanvasContinuation(owed.outbox_id, ended.run_id)
    world.sql("UPDATE agno.outbox SET due_at = clock_timestamp() WHERE ended_run_id IS NOT NULL")
    assert owed in world.journal.take(10, 60)


# Timers.


def test_a_step_is_taken_when_its_time_has_come_and_only_once(world: World) -> None:
    due, later = world.turn(), world.turn()
    world.journal.retry(due.step_id, due.attempt, 0, ERROR)
    world.journal.retry(later.step_id, later.attempt, 3600, ERROR)
    assert steps(world.journal.take_due(10)) == [due.step_id]
    assert world.journal.take_due(10) == []
    assert claimed(world.journal.claim_turn(due.run_id, due.step_id, 0)).tries == 1


def test_a_run_for_later_is_sent_when_its_time_has_come(world: World) -> None:
    submitted = world.submit(not_before="2000-01-01T00:00:00Z")
    (send,) = world.journal.take_due(10)
    assert (send.run_id, send.kind, send.queue) == (submitted.run_id, StepKind.TURN, "agents")
    assert world.journal.claim_turn(send.run_id, send.step_id, 0)


# Leases.


def test_a_lease_that_ran_out_makes_its_step_ready_again_and_says_what_happened(world: World) -> None:
    turn, other = world.turn(), world.turn()
    world.expire(turn.step_id)
    (send,) = world.journal.release_expired(10)
    assert (send.run_id, send.step_id, send.kind, send.queue) == (turn.run_id, turn.step_id, StepKind.TURN, "agents")  # fmt: skip
    step = world.step(turn.step_id)
    assert (step["status"], step["error"]["type"]) == ("ready", "LeaseExpired")
    assert "attempt 1 on w1" in step["error"]["message"]
    assert world.step(other.step_id)["status"] == "running"
    assert world.journal.release_expired(10) == []


def test_a_step_without_further_attempts_is_hopeless_and_not_released(world: World) -> None:
    turn = world.turn()
    for _ in range(2):
        world.expire(turn.step_id)
        assert world.journal.release_expired(10)
        assert world.journal.claim_turn(turn.run_id, turn.step_id, 0)
    assert world.journal.exhausted(10) == []
    world.expire(turn.step_id)
    assert world.journal.release_expired(10) == []
    (hopeless,) = world.journal.exhausted(10)
    assert (hopeless.step_id, hopeless.attempt, hopeless.worker, hopeless.seq) == (turn.step_id, 3, "w1", 1)


def test_refusals_of_a_provider_do_not_use_up_the_attempts_that_a_worker_may_die_in(world: World) -> None:
    """A turn may be refused as often as its agent's Retry allows, and die `turn_attempts` (here 3) times beside that."""
    turn = world.turn()
    for _ in range(6):
        world.journal.retry(turn.step_id, turn.attempt, 0, ERROR)
        turn = claimed(world.journal.claim_turn(turn.run_id, turn.step_id, 0))
    assert (turn.attempt, turn.tries) == (7, 6)
    for _ in range(2):
        world.expire(turn.step_id)
        assert world.journal.exhausted(10) == []
        assert steps(world.journal.release_expired(10)) == [turn.step_id]
        assert world.journal.claim_turn(turn.run_id, turn.step_id, 0)
    world.expire(turn.step_id)
    assert world.journal.release_expired(10) == []
    assert len(world.journal.exhausted(10)) == 1


@pytest.mark.parametrize("effect", list(Effect), ids=str)
def test_after_its_first_crash_only_a_once_tool_is_hopeless(world: World, effect: Effect) -> None:
    (tool,) = world.tools("pay", effect=effect)
    world.expire(tool.step_id)
    hopeless, released = world.journal.exhausted(10), world.journal.release_expired(10)
    if effect is Effect.ONCE:
        assert released == []
        assert [(step.name, step.call_id, step.effect) for step in hopeless] == [("pay", "call_0", effect)]
    else:
        assert steps(released) == [tool.step_id]
        assert hopeless == []


def test_a_hopeless_step_ends_with_what_is_recorded_for_it_and_its_run_goes_on(world: World) -> None:
    (tool,) = world.tools("pay", effect=Effect.ONCE)
    world.expire(tool.step_id)
    (step,) = world.journal.exhausted(10)
    recorded = world.journal.finish_tool(step, result(tool, "?"), ERROR, step_status="unknown")
    assert len(recorded.sends) == 1
    assert world.journal.exhausted(10) == []
    assert world.step(tool.step_id)["status"] == "unknown"


def test_no_step_is_released_by_two_keepers(world: World) -> None:
    turns = [world.turn() for _ in range(10)]
    for turn in turns:
        world.expire(turn.step_id)
    with world.transaction() as one, world.transaction() as two:
        first = steps(world.journal_of("", one).release_expired(6))
        releasing = two.begin(lambda: world.journal_of("", two).release_expired(10))
        assert not world.waits(releasing, two)
        second = steps(releasing.result())
        one.commit()
        two.commit()
    assert sorted([*first, *second]) == sorted(turn.step_id for turn in turns)


# Lost messages.


@pytest.mark.parametrize(
    ("queues", "after_s", "found"),
    [(None, 0.0, True), (["agents"], 0.0, True), (["tools"], 0.0, False), ([], 0.0, False), (None, 60.0, False)],
)  # fmt: skip
def test_a_sent_step_is_lost_by_its_queue_and_by_the_time_nobody_claimed_it(
    world: World, queues: list[str] | None, after_s: float, found: bool
) -> None:
    submitted = world.submit()
    assert submitted.send is not None
    assert steps(world.journal.take_lost(queues, after_s, 10)) == ([submitted.send.step_id] if found else [])


def test_a_lost_step_that_was_sent_again_is_not_lost_until_it_is_silent_again(world: World) -> None:
    world.submit()
    world.sql("UPDATE agno.step SET sent_at = sent_at - interval '1 minute'")
    assert world.journal.silent_queues(30) == ["agents"]
    assert len(world.journal.take_lost(None, 30, 10)) == 1
    assert world.journal.silent_queues(30) == []
    assert world.journal.take_lost(None, 30, 10) == []


def test_a_step_that_is_carried_or_waits_for_its_time_is_not_lost(world: World) -> None:
    turn = world.turn()
    world.submit(not_before="2100-01-01T00:00:00Z")
    assert world.journal.silent_queues(0) == []
    assert world.journal.take_lost(None, 0.0, 10) == []
    world.journal.retry(turn.step_id, turn.attempt, 3600, ERROR)
    assert world.journal.take_lost(None, 0.0, 10) == []


# Who is keeper, and what Redis must remember.


def test_one_keeper_leads_until_it_has_been_silent_for_its_lease(world: World) -> None:
    one, two = world.journal_of("w1"), world.journal_of("w2")
    assert one.lead(60)
    assert one.lead(60)
    assert not two.lead(60)
    world.sql("UPDATE agno.meta SET until = clock_timestamp() WHERE key = 'keeper'")
    assert two.lead(60)
    assert not one.lead(60)


def test_the_epoch_is_made_once(world: World) -> None:
    epoch = world.journal.epoch()
    with world.unchanged():
        assert world.journal_of("w2").epoch() == epoch
