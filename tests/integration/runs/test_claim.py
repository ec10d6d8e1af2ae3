"""Claims: one worker at a time has the right to execute a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agno_workers.core.messages import Usage, user
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import StepMessage
from agno_workers.core.tool import Effect
from tests.database import FEW, RunDatabase, asking, claimed, said, tool_steps, unknown_id

Ready = tuple[Callable[[str], object], str, str]
"""A claim by a worker, with its step and its run."""


@pytest.fixture(params=["turn", "tool"])
def ready(request: pytest.FixtureRequest, db: RunDatabase) -> Ready:
    """Return a step of either kind that is not claimed."""
    if request.param == "turn":
        submitted = db.submit()
        assert submitted.send is not None
        send = submitted.send
        return lambda w: db.journal_of(w).claim_turn(send.run_id, send.step_id, 0), send.step_id, send.run_id  # fmt: skip
    send = db.fan_out("add").sends[0]
    return lambda w: db.journal_of(w).claim_tool(send.run_id, send.step_id, 0), send.step_id, send.run_id  # fmt: skip


def test_claim_sets_worker_lease_and_attempt(db: RunDatabase, ready: Ready) -> None:
    claim, step_id, _ = ready
    assert claim("w1")
    step = db.step(step_id)
    assert (step["status"], step["worker"], step["attempt"]) == ("running", "w1", 1)
    assert db.value("SELECT lease_until > clock_timestamp() FROM agno.step WHERE id = %(id)s", id=step_id)


def test_second_claim_of_a_step_gets_no_row(db: RunDatabase, ready: Ready) -> None:
    claim, _, _ = ready
    assert claim("w1")
    with db.unchanged():
        assert claim("w1") is None
        assert claim("w2") is None


def test_step_with_an_expired_lease_can_be_claimed(db: RunDatabase, ready: Ready) -> None:
    claim, step_id, _ = ready
    claim("w1")
    db.expire(step_id)
    assert claim("w2")
    assert (db.step(step_id)["worker"], db.step(step_id)["attempt"]) == ("w2", 2)
    assert claim("w1") is None


def test_exhausted_step_cannot_be_claimed(db: RunDatabase, ready: Ready) -> None:
    claim, step_id, _ = ready
    for _ in range(3):
        assert claim("w1")
        db.expire(step_id)
    with db.unchanged():
        assert claim("w1") is None
    assert [hopeless.step_id for hopeless in db.journal.exhausted(10)] == [step_id]


def test_step_with_a_timer_can_be_claimed_when_it_is_due(db: RunDatabase, ready: Ready) -> None:
    claim, step_id, _ = ready
    db.sql(
        "UPDATE agno.step SET not_before = clock_timestamp() + interval '1 hour' WHERE id = %(id)s",
        id=step_id,
    )
    with db.unchanged():
        assert claim("w1") is None
    db.sql("UPDATE agno.step SET not_before = clock_timestamp() WHERE id = %(id)s", id=step_id)
    assert claim("w1")


def test_step_of_a_cancelled_run_cannot_be_claimed(db: RunDatabase, ready: Ready) -> None:
    claim, _, run_id = ready
    db.journal.cancel(run_id)
    with db.unchanged():
        assert claim("w1") is None


@pytest.mark.parametrize("kind", ["turn", "tool"])
@pytest.mark.parametrize("generation", [-1, 1, 7])
def test_message_of_another_generation_claims_nothing(db: RunDatabase, kind: str, generation: int) -> None:
    turn, tool = db.submit().send, db.fan_out("add").sends[0]
    assert turn is not None
    with db.unchanged():
        if kind == "turn":
            assert db.journal.claim_turn(turn.run_id, turn.step_id, generation) is None
        else:
            assert db.journal.claim_tool(tool.run_id, tool.step_id, generation) is None


def test_message_with_unknown_or_mixed_ids_claims_nothing(
    db: RunDatabase,
) -> None:
    one, other = db.submit().send, db.submit().send
    assert one is not None
    assert other is not None
    with db.unchanged():
        assert db.journal.claim_turn(unknown_id(), unknown_id(), 0) is None
        assert db.journal.claim_turn(one.run_id, unknown_id(), 0) is None
        assert db.journal.claim_turn(one.run_id, other.step_id, 0) is None
        assert db.journal.claim_tool(unknown_id(), unknown_id(), 0) is None


def test_ended_step_cannot_be_claimed(db: RunDatabase) -> None:
    (tool, other) = db.tools("add", "add")
    db.journal.finish_tool(tool, asking())
    with db.unchanged():
        db.expire(tool.step_id)
        assert db.journal.claim_tool(tool.run_id, tool.step_id, 0) is None
    assert db.step(other.step_id)["status"] == "running"


def test_turn_of_an_ended_run_cannot_be_claimed(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.end(turn, said("ok"), FEW, "ok", "end")
    with db.unchanged():
        assert db.journal.claim_turn(turn.run_id, turn.step_id, 0) is None


@pytest.mark.parametrize(
    ("effect", "again"), [(effect, effect is not Effect.ONCE) for effect in Effect], ids=str
)
def test_tool_can_be_claimed_again_after_a_crash_unless_it_is_once(
    db: RunDatabase, effect: Effect, again: bool
) -> None:
    (tool,) = db.tools("pay", effect=effect)
    db.expire(tool.step_id)
    claim = db.journal_of("w2").claim_tool(tool.run_id, tool.step_id, 0)
    assert (claim is not None) is again
    assert claim is None or (claim.attempt, claim.effect) == (2, effect)


def test_only_the_claim_of_a_once_tool_waits_for_the_disk(
    db: RunDatabase,
) -> None:
    modes = {}
    for effect in (Effect.ONCE, Effect.PURE):
        send = db.fan_out("pay", effect=effect).sends[0]
        with db.transaction() as transaction:
            claimed(db.journal_of("w1", transaction).claim_tool(send.run_id, send.step_id, 0))
            (row,) = transaction.run("SHOW synchronous_commit")
            modes[effect] = row["synchronous_commit"]
    assert modes == {Effect.ONCE: db.value("SHOW synchronous_commit"), Effect.PURE: "off"}
    assert modes[Effect.ONCE] != "off"


def test_claim_of_a_turn_has_the_data_of_its_run(db: RunDatabase) -> None:
    canvas = {"link": [], "root_id": "r"}
    submitted = db.submit("hi", session_id="s", user_id="u", metadata={"a": 1}, priority=3, canvas=canvas)
    assert submitted.send is not None
    turn = claimed(db.journal.claim_turn(submitted.run_id, submitted.send.step_id, 0))
    assert (turn.run_id, turn.step_id, turn.key, turn.seq, turn.attempt, turn.tries) == (
        submitted.run_id, submitted.send.step_id, "turn:1", 1, 1, 0,
    )  # fmt: skip
    assert (turn.agent, turn.session_id, turn.user_id, turn.metadata, turn.priority, turn.canvas) == (
        "echo", "s", "u", {"a": 1}, 3, canvas,
    )  # fmt: skip
    assert (turn.transcript, turn.turns, turn.tool_calls, turn.usage) == ((user("hi"),), 0, 0, Usage())


def test_claim_of_a_later_turn_has_the_transcript_and_the_sums(db: RunDatabase) -> None:
    turn = db.turn()
    note = user("again")
    (send,) = db.journal.next_turn(turn, [*said("one"), note], FEW, "slow").sends
    assert (send.queue, send.generation) == ("slow", 0)
    second = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    assert second.transcript == (user("hi"), *said("one"), note)
    assert (second.seq, second.turns, second.usage) == (3, 1, FEW)


def test_claim_of_a_tool_has_its_call_and_its_context(db: RunDatabase) -> None:
    (tool,) = db.tools("add", session_id="s", user_id="u", metadata={"a": 1})
    assert tool.tool_call == asking("add").tool_calls[0]
    assert (tool.name, tool.seq, tool.agent, tool.session_id, tool.user_id, tool.metadata) == (
        "add", 2, "echo", "s", "u", {"a": 1},
    )  # fmt: skip


def test_run_is_running_during_turns_and_waiting_during_tools(db: RunDatabase) -> None:
    submitted = db.submit()
    assert db.queries.run(submitted.run_id).status is RunStatus.QUEUED
    assert isinstance(submitted.send, StepMessage)
    turn = claimed(db.journal.claim_turn(submitted.run_id, submitted.send.step_id, 0))
    assert db.queries.run(turn.run_id).status is RunStatus.RUNNING
    (send,) = db.journal.fan_out(turn, asking("add"), FEW, tool_steps("add"), "agents").sends
    db.journal.claim_tool(send.run_id, send.step_id, 0)
    assert db.queries.run(turn.run_id).status is RunStatus.WAITING
    assert [step.status for step in db.queries.steps(turn.run_id)] == [StepStatus.DONE, StepStatus.RUNNING]
