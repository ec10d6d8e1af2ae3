"""The keeper's repairs, also by two keepers at once."""

from __future__ import annotations

import pytest

from agno_workers.core.messages import user
from agno_workers.core.run import StepKind
from agno_workers.core.step import CanvasContinuation, StepMessage
from agno_workers.core.tool import Effect
from agno_workers.runs.results import Results
from tests.database import FEW, RunDatabase, claimed, result, said

ERROR = {"type": "ModelUnavailable", "message": "busy", "ids": {}}


def steps(pending: list[StepMessage] | list[StepMessage | CanvasContinuation]) -> list[str]:
    return [send.step_id for send in pending if isinstance(send, StepMessage)]


# The outbox.


def test_due_messages_are_taken_once_and_again_later(db: RunDatabase) -> None:
    sends = [db.submit().send for _ in range(3)]
    taken = db.journal.take(10, 60)
    assert sorted(taken, key=lambda pending: pending.outbox_id or 0) == sends
    assert db.journal.take(10, 60) == []
    db.sql("UPDATE agno.outbox SET due_at = clock_timestamp()")
    assert len(db.journal.take(10, 60)) == 3


def test_keeper_leaves_messages_that_are_not_due(db: RunDatabase) -> None:
    later = db.journal_of("w1", publish_after_s=60.0)
    later.submit(user("hi"), agent="echo", queue="agents")
    assert db.journal.take(10, 60) == []


def test_published_messages_are_deleted(db: RunDatabase) -> None:
    sends = [db.submit().send for _ in range(3)]
    db.journal.published([send.outbox_id for send in sends[:2] if send and send.outbox_id is not None])
    db.journal.published([])
    assert db.journal.take(10, 60) == sends[2:]


def test_message_is_taken_by_one_keeper(db: RunDatabase) -> None:
    sends = {send.step_id for send in (db.submit().send for _ in range(10)) if send}
    with db.transaction() as one, db.transaction() as two:
        first = steps(db.journal_of("", one).take(6, 60))
        taking = two.begin(lambda: db.journal_of("", two).take(10, 60))
        assert not db.waits(taking, two)
        second = steps(taking.result())
        one.commit()
        two.commit()
    assert (len(first), len(second)) == (6, 4)
    assert {*first, *second} == sends


def test_messages_of_a_dead_keeper_are_taken_by_the_next(db: RunDatabase) -> None:
    db.submit()
    with db.transaction() as dying:
        assert len(db.journal_of("", dying).take(10, 60)) == 1
        dying.rollback()
    assert len(db.journal.take(10, 60)) == 1


@pytest.mark.parametrize("status", ["running", "done", "cancelled", "no such step"])
def test_messages_of_steps_that_are_not_ready_are_deleted(db: RunDatabase, status: str) -> None:
    send = claimed(db.submit().send)
    turn = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    match status:
        case "done":
            db.journal.end(turn, said("ok"), FEW, "ok", "end")
        case "cancelled":
            db.sql("UPDATE agno.step SET status = 'cancelled', lease_until = NULL")
        case "no such step":
            db.sql("DELETE FROM agno.run")
        case _:
            pass
    assert db.count("outbox") == 1
    wanted = db.submit().send
    assert db.journal.take(10, 60) == [wanted]
    assert db.count("outbox") == 1


def test_continuation_is_taken_by_its_worker_or_by_the_keeper(db: RunDatabase) -> None:
    ended = db.turn(canvas={"link": [{"task": "t"}]})
    recorded = db.journal.end(ended, said("ok"), FEW, "ok", "end")
    assert recorded.continues == (ended.run_id, None)
    (pending,) = Results(db.pool).pending_continuations(ended.run_id, None)
    assert pending == CanvasContinuation(pending.outbox_id, ended.run_id)
    db.sql("UPDATE agno.outbox SET due_at = clock_timestamp() WHERE ended_run_id IS NOT NULL")
    assert pending in db.journal.take(10, 60)


# Timers.


def test_step_is_taken_once_when_its_timer_is_due(db: RunDatabase) -> None:
    due, later = db.turn(), db.turn()
    db.journal.retry(due.step_id, due.attempt, 0, ERROR)
    db.journal.retry(later.step_id, later.attempt, 3600, ERROR)
    assert steps(db.journal.take_due(10)) == [due.step_id]
    assert db.journal.take_due(10) == []
    assert claimed(db.journal.claim_turn(due.run_id, due.step_id, 0)).tries == 1


def test_run_with_a_timer_is_sent_when_it_is_due(db: RunDatabase) -> None:
    submitted = db.submit(not_before="2000-01-01T00:00:00Z")
    (send,) = db.journal.take_due(10)
    assert (send.run_id, send.kind, send.queue) == (submitted.run_id, StepKind.TURN, "agents")
    assert db.journal.claim_turn(send.run_id, send.step_id, 0)


# Leases.


def test_expired_lease_makes_its_step_ready_with_an_error(db: RunDatabase) -> None:
    turn, other = db.turn(), db.turn()
    db.expire(turn.step_id)
    (send,) = db.journal.release_expired(10)
    assert (send.run_id, send.step_id, send.kind, send.queue) == (turn.run_id, turn.step_id, StepKind.TURN, "agents")  # fmt: skip
    step = db.step(turn.step_id)
    assert (step["status"], step["error"]["type"]) == ("ready", "LeaseExpired")
    assert "attempt 1 on w1" in step["error"]["message"]
    assert db.step(other.step_id)["status"] == "running"
    assert db.journal.release_expired(10) == []


def test_step_without_attempts_is_exhausted(db: RunDatabase) -> None:
    turn = db.turn()
    for _ in range(2):
        db.expire(turn.step_id)
        assert db.journal.release_expired(10)
        assert db.journal.claim_turn(turn.run_id, turn.step_id, 0)
    assert db.journal.exhausted(10) == []
    db.expire(turn.step_id)
    assert db.journal.release_expired(10) == []
    (hopeless,) = db.journal.exhausted(10)
    assert (hopeless.step_id, hopeless.attempt, hopeless.worker, hopeless.seq) == (turn.step_id, 3, "w1", 1)


def test_errors_of_a_provider_do_not_count_as_crashes(db: RunDatabase) -> None:
    """Errors of a turn are limited by its agent's Retry, and crashes by `turn_attempts` (here 3)."""
    turn = db.turn()
    for _ in range(6):
        db.journal.retry(turn.step_id, turn.attempt, 0, ERROR)
        turn = claimed(db.journal.claim_turn(turn.run_id, turn.step_id, 0))
    assert (turn.attempt, turn.tries) == (7, 6)
    for _ in range(2):
        db.expire(turn.step_id)
        assert db.journal.exhausted(10) == []
        assert steps(db.journal.release_expired(10)) == [turn.step_id]
        assert db.journal.claim_turn(turn.run_id, turn.step_id, 0)
    db.expire(turn.step_id)
    assert db.journal.release_expired(10) == []
    assert len(db.journal.exhausted(10)) == 1


@pytest.mark.parametrize("effect", list(Effect), ids=str)
def test_once_tool_is_exhausted_after_its_first_crash(db: RunDatabase, effect: Effect) -> None:
    (tool,) = db.tools("pay", effect=effect)
    db.expire(tool.step_id)
    hopeless, released = db.journal.exhausted(10), db.journal.release_expired(10)
    if effect is Effect.ONCE:
        assert released == []
        assert [(step.name, step.call_id, step.effect) for step in hopeless] == [("pay", "call_0", effect)]
    else:
        assert steps(released) == [tool.step_id]
        assert hopeless == []


def test_exhausted_step_ends_and_its_run_continues(db: RunDatabase) -> None:
    (tool,) = db.tools("pay", effect=Effect.ONCE)
    db.expire(tool.step_id)
    (step,) = db.journal.exhausted(10)
    recorded = db.journal.finish_tool(step, result(tool, "?"), ERROR, step_status="unknown")
    assert len(recorded.sends) == 1
    assert db.journal.exhausted(10) == []
    assert db.step(tool.step_id)["status"] == "unknown"


def test_step_is_released_by_one_keeper(db: RunDatabase) -> None:
    turns = [db.turn() for _ in range(10)]
    for turn in turns:
        db.expire(turn.step_id)
    with db.transaction() as one, db.transaction() as two:
        first = steps(db.journal_of("", one).release_expired(6))
        releasing = two.begin(lambda: db.journal_of("", two).release_expired(10))
        assert not db.waits(releasing, two)
        second = steps(releasing.result())
        one.commit()
        two.commit()
    assert sorted([*first, *second]) == sorted(turn.step_id for turn in turns)


# Lost messages.


@pytest.mark.parametrize(
    ("queues", "after_s", "found"),
    [(["tools", "agents"], 0.0, True), (["tools"], 0.0, False), ([], 0.0, False), (["agents"], 60.0, False)],
)  # fmt: skip
def test_sent_step_is_lost_after_a_time_in_an_empty_queue(
    db: RunDatabase, queues: list[str], after_s: float, found: bool
) -> None:
    submitted = db.submit()
    assert submitted.send is not None
    assert steps(db.journal.take_lost(queues, after_s, 10)) == ([submitted.send.step_id] if found else [])


def test_step_that_was_sent_again_is_lost_only_after_another_wait(db: RunDatabase) -> None:
    db.submit()
    db.sql("UPDATE agno.step SET sent_at = sent_at - interval '1 minute'")
    assert len(db.journal.take_lost(["agents"], 30, 10)) == 1
    assert db.journal.take_lost(["agents"], 30, 10) == []


def test_running_step_or_step_with_a_timer_is_not_lost(db: RunDatabase) -> None:
    turn = db.turn()
    db.submit(not_before="2100-01-01T00:00:00Z")
    assert db.journal.sent_queues() == []
    assert db.journal.take_lost(["agents"], 0.0, 10) == []
    db.journal.retry(turn.step_id, turn.attempt, 3600, ERROR)
    assert db.journal.take_lost(["agents"], 0.0, 10) == []


def test_every_queue_with_sent_steps_is_found(db: RunDatabase) -> None:
    for queue in ("slow", "agents", "gpu", "agents"):
        db.journal.submit(user("hi"), agent="echo", queue=queue)
    assert db.journal.sent_queues() == ["agents", "gpu", "slow"]


def test_steps_of_a_full_queue_do_not_hide_a_lost_one_of_an_empty_queue(db: RunDatabase) -> None:
    for _ in range(3):
        db.submit()
    lost = claimed(db.journal.submit(user("hi"), agent="echo", queue="gpu").send)
    assert steps(db.journal.take_lost(["gpu"], 0.0, 1)) == [lost.step_id]


def test_overdue_step_of_a_paused_run_is_put_off_and_not_sent(db: RunDatabase) -> None:
    submitted = db.submit()
    db.journal.pause(submitted.run_id)
    db.sql("UPDATE agno.step SET resend_at = clock_timestamp()")
    sent_at = db.value("SELECT sent_at FROM agno.step")
    assert db.journal.take_overdue(["agents"], 10) == []
    assert db.value(
        "SELECT resend_at > clock_timestamp() AND sent_at = %(sent_at)s FROM agno.step", sent_at=sent_at
    )


def test_all_sent_steps_are_forgotten_once_in_pages(db: RunDatabase) -> None:
    sent = {claimed(db.submit().send).step_id for _ in range(5)}
    sent.add(claimed(db.journal.submit(user("hi"), agent="echo", queue="gpu").send).step_id)
    db.sql(
        "UPDATE agno.step SET resend_at = clock_timestamp() + interval '1 hour' WHERE id = %(id)s",
        id=min(sent),
    )
    pages = [steps(page) for page in db.journal.forgotten(db.journal.now(), 2)]
    assert [len(page) for page in pages] == [2, 2, 2]
    assert {step for page in pages for step in page} == sent


# Who is keeper, and what Redis must remember.


def test_one_keeper_leads_until_its_lease_expires(db: RunDatabase) -> None:
    one, two = db.journal_of("w1"), db.journal_of("w2")
    assert one.lead(60)
    assert one.lead(60)
    assert not two.lead(60)
    db.sql("UPDATE agno.meta SET until = clock_timestamp() WHERE key = 'keeper'")
    assert two.lead(60)
    assert not one.lead(60)


def test_keeper_takes_the_lead_from_one_of_older_code(db: RunDatabase) -> None:
    one, two = db.journal_of("w1"), db.journal_of("w2")
    assert one.lead(60)
    db.sql("UPDATE agno.meta SET value = 'older' WHERE key = 'keeper'")  # as code before 0006 writes it
    assert two.lead(60)
    assert not one.lead(60)
    db.sql("UPDATE agno.meta SET value = 'newer 9999' WHERE key = 'keeper'")
    assert not one.lead(60)
    two.abdicate()
    assert not one.lead(60)


def test_epoch_is_made_once(db: RunDatabase) -> None:
    epoch = db.journal.epoch()
    with db.unchanged():
        assert db.journal_of("w2").epoch() == epoch
