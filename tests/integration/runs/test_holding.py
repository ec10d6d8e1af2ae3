"""Running steps: renewal, release, end of the lease, and cancel."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import CommitResult
from agno_workers.core.tool import Effect
from tests.database import FEW, RunDatabase, asking, claimed, result, said, tool_steps, unknown_id

ERROR = {"type": "ModelUnavailable", "message": "busy", "ids": {}}


def left_s(db: RunDatabase, step_id: str) -> float:
    """Return the seconds until the lease expires."""
    sql = (
        "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM agno.step WHERE id = %(id)s"
    )
    return float(db.value(sql, id=step_id))


# Renew.


def test_renewal_extends_the_leases_of_its_worker_only(db: RunDatabase) -> None:
    mine, others = db.turn(), db.turn()
    db.sql("UPDATE agno.step SET worker = 'w2' WHERE id = %(id)s", id=others.step_id)
    longer = db.journal_of("w1", lease_s=1000.0)
    assert longer.renew([mine.step_id, others.step_id]) == {others.step_id}
    assert left_s(db, mine.step_id) > 900
    assert left_s(db, others.step_id) < 100


def test_renewal_returns_the_lost_steps(db: RunDatabase) -> None:
    kept, cancelled, done, taken, released, given_back = (db.turn() for _ in range(6))
    db.journal.cancel(cancelled.run_id)
    db.journal.end(done, said("ok"), FEW, "ok", "end")
    for turn in (taken, released):
        db.expire(turn.step_id)
    db.journal_of("w2").claim_turn(taken.run_id, taken.step_id, 0)
    db.journal.release_expired(10)
    db.journal.retry(given_back.step_id, given_back.attempt, 3600, ERROR)
    all_of_them = [turn.step_id for turn in (kept, cancelled, done, taken, released, given_back)]
    assert db.journal.renew([*all_of_them, unknown_id()]) == {
        cancelled.step_id, done.step_id, taken.step_id,
    }  # fmt: skip


def test_renewal_extends_an_expired_lease_that_nobody_took(db: RunDatabase) -> None:
    turn = db.turn()
    db.expire(turn.step_id)
    assert db.journal.renew([turn.step_id]) == set()
    assert left_s(db, turn.step_id) > 10
    assert db.journal.release_expired(10) == []


def test_renewal_of_no_steps_returns_nothing(db: RunDatabase) -> None:
    db.turn()
    with db.unchanged():
        assert db.journal.renew([]) == set()


# Retry.


def test_released_step_has_a_timer_and_the_error(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.retry(turn.step_id, turn.attempt, 3600, ERROR)
    step = db.step(turn.step_id)
    assert (step["status"], step["tries"], step["attempt"], step["error"], step["sent_at"]) == ("ready", 1, 1, ERROR, None)  # fmt: skip
    assert db.journal.claim_turn(turn.run_id, turn.step_id, 0) is None
    db.sql("UPDATE agno.step SET not_before = clock_timestamp()")
    second = claimed(db.journal.claim_turn(turn.run_id, turn.step_id, 0))
    assert (second.attempt, second.tries) == (2, 1)


@pytest.mark.parametrize("meanwhile", ["claimed by another", "released", "done", "cancelled", "given back"])
def test_only_the_attempt_that_holds_a_step_may_release_it(db: RunDatabase, meanwhile: str) -> None:
    turn = db.turn()
    match meanwhile:
        case "claimed by another":
            db.expire(turn.step_id)
            assert db.journal_of("w2").claim_turn(turn.run_id, turn.step_id, 0)
        case "released":
            db.expire(turn.step_id)
            assert db.journal.release_expired(10)
        case "done":
            db.journal.end(turn, said("ok"), FEW, "ok", "end")
        case "cancelled":
            db.journal.cancel(turn.run_id)
        case _:
            db.journal.retry(turn.step_id, turn.attempt, 3600, ERROR)
    with db.unchanged():
        db.journal.retry(turn.step_id, turn.attempt, 0, {"type": "Late", "message": "", "ids": {}})


def test_attempt_may_release_a_step_after_its_lease_if_nobody_took_it(
    db: RunDatabase,
) -> None:
    turn = db.turn()
    db.expire(turn.step_id)
    db.journal.retry(turn.step_id, turn.attempt, 0, ERROR)
    assert db.step(turn.step_id)["status"] == "ready"


# Give up.


@pytest.mark.parametrize("status", ["ready", "done"])
def test_ending_the_lease_of_an_idle_step_changes_nothing(db: RunDatabase, status: str) -> None:
    turn = db.turn()
    if status == "ready":
        db.journal.retry(turn.step_id, turn.attempt, 0, ERROR)
    else:
        db.journal.end(turn, said("ok"), FEW, "ok", "end")
    with db.unchanged():
        db.journal.end_lease(turn.step_id)
        db.journal.end_lease(unknown_id())


def test_step_with_an_ended_lease_is_released_at_once(db: RunDatabase) -> None:
    turn = db.turn()
    assert db.journal.release_expired(10) == []
    db.journal.end_lease(turn.step_id)
    db.journal.renew([turn.step_id])  # it listed its steps before the process died
    assert [send.step_id for send in db.journal.release_expired(10)] == [turn.step_id]


def test_step_names_the_worker_whose_process_died(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.end_lease(turn.step_id)
    assert db.step(turn.step_id)["worker"] == "w1 (its process died)"
    db.journal.release_expired(10)
    assert db.step(turn.step_id)["error"]["message"].startswith("attempt 1 on w1 (its process died) ended ")


# Cancel.


def test_cancelled_run_has_no_open_step_and_no_pending_message(db: RunDatabase) -> None:
    recorded = db.fan_out("a", "b", "c")
    first = recorded.sends[0]
    tool = claimed(db.journal.claim_tool(first.run_id, first.step_id, 0))
    other = db.submit()
    assert db.journal.cancel(tool.run_id)
    run = db.queries.run(tool.run_id)
    assert (run.status, run.reason, run.generation) == (RunStatus.CANCELLED, "cancelled", 1)
    assert run.error is not None
    assert (run.error["type"], run.error["ids"]) == ("RunCancelled", {"run_id": run.id})
    assert [step.status for step in db.queries.steps(run.id)] == [StepStatus.DONE, *[StepStatus.CANCELLED] * 3]  # fmt: skip
    assert other.send is not None
    assert [row["step_id"] for row in db.sql("SELECT step_id FROM agno.outbox")] == [other.send.step_id]
    assert db.journal.renew([tool.step_id]) == {tool.step_id}


def test_run_is_cancelled_once(db: RunDatabase) -> None:
    turn = db.turn()
    assert db.journal.cancel(turn.run_id)
    with db.unchanged():
        assert not db.journal.cancel(turn.run_id)
        assert not db.journal.cancel(unknown_id())


def test_ended_run_cannot_be_cancelled(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.end(turn, said("ok"), FEW, "ok", "end")
    with db.unchanged():
        assert not db.journal.cancel(turn.run_id)


def test_run_with_a_timer_can_be_cancelled(db: RunDatabase) -> None:
    submitted = db.submit(not_before="2100-01-01T00:00:00Z")
    assert db.journal.cancel(submitted.run_id)
    assert db.journal.take_due(10) == []


@pytest.mark.parametrize("ahead", ["fan_out", "ask_again", "last tool"])
def test_cancel_ends_the_steps_of_a_concurrent_commit(db: RunDatabase, ahead: str) -> None:
    """The steps of the concurrent commit were not visible when the statement of the cancel began."""
    (tool,) = db.tools("a")
    turn = db.turn()
    run_id = tool.run_id if ahead == "last tool" else turn.run_id

    def record(transaction: Any) -> CommitResult:
        journal = db.journal_of("w1", transaction)
        match ahead:
            case "fan_out":
                return journal.fan_out(turn, asking("a", "b"), FEW, tool_steps("a", "b"), "agents")
            case "ask_again":
                return journal.next_turn(turn, said("hm"), FEW, "agents")
            case _:
                done: CommitResult = journal.finish_tool(tool, result(tool))
                return done

    with db.transaction() as first, db.transaction() as second:
        recorded = record(first)
        cancelled = second.begin(lambda: db.journal_of("", second).cancel(run_id))
        assert db.waits(cancelled, second)
        first.commit()
        assert cancelled.result()
        second.commit()
    assert {db.step(send.step_id)["status"] for send in recorded.sends} == {"cancelled"}
    assert db.sql("SELECT 1 FROM agno.outbox JOIN agno.step ON step.id = outbox.step_id WHERE run_id = %(id)s", id=run_id) == []  # fmt: skip


def test_resume_sends_the_steps_of_a_concurrent_commit(db: RunDatabase) -> None:
    """A message that was sent while the run was still paused claims nothing."""
    turn = db.turn()
    db.journal.pause(turn.run_id)
    with db.transaction() as recording, db.transaction() as resuming:
        journal = db.journal_of("w1", recording)
        sends = journal.fan_out(turn, asking("a", "b"), FEW, tool_steps("a", "b"), "agents").sends
        resumed = resuming.begin_and_commit(lambda: db.journal_of("", resuming).resume(turn.run_id))
        assert db.waits(resumed, resuming)
        recording.commit()
        assert resumed.result()
    db.journal.published([send.outbox_id for send in sends if send.outbox_id is not None])
    pending = db.journal.pending(turn.run_id)
    assert {send.step_id for send in pending} == {send.step_id for send in sends}


@pytest.mark.parametrize("effect", list(Effect), ids=str)
def test_cancelled_tool_is_never_executed_again(db: RunDatabase, effect: Effect) -> None:
    (tool,) = db.tools("a", effect=effect)
    db.journal.cancel(tool.run_id)
    with db.unchanged():
        db.expire(tool.step_id)
        assert db.journal.release_expired(10) == []
        assert db.journal.exhausted(10) == []
        assert db.journal.take_lost(db.journal.sent_queues(), 0.0, 10) == []
        assert db.journal.claim_tool(tool.run_id, tool.step_id, 0) is None


def test_only_the_own_worker_may_end_a_lease(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal_of("another").end_lease(turn.step_id)
    assert db.journal.release_expired(10) == []
    db.journal.end_lease(turn.step_id)
    assert [send.step_id for send in db.journal.release_expired(10)] == [turn.step_id]
