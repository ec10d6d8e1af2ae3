"""A turn that fails: tried again as often as it may be, then the run fails and says why."""

from __future__ import annotations

import logging
from typing import Any

import pydantic
import pytest

from agno_workers.core.agent import Agent, Context
from agno_workers.core.messages import Usage
from agno_workers.core.policy import Retry
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import CommitResult, StepMessage
from agno_workers.core.tool import Effect, ToolContext
from agno_workers.engine.active_steps import ActiveSteps, Stopped
from agno_workers.engine.tool import DEPLOY, fail_exhausted, run_tool
from agno_workers.engine.turn import Engine, run_turn
from agno_workers.errors import InvalidInput, ModelRejected, ModelUnavailable, Unavailable
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from tests.integration.engine.conftest import Cue, Play
from tests.integration.storage.world import result
from tests.steps import carry, take

NOT_RECORDED = CommitResult(False)
AT_ONCE = Retry(attempts=3, first_delay_s=0)


def busy(retry_after_s: float | None = None) -> Turn:
    return Turn(error=ModelUnavailable("too many requests", provider="p", retry_after_s=retry_after_s))


def wait_s(play: Play, step: StepMessage) -> float:
    sql = "SELECT extract(epoch FROM not_before - clock_timestamp())::float8 FROM agno.step WHERE id = %(id)s"
    return float(play.world.value(sql, id=step.step_id))


@tool(effect=Effect.ONCE)
def pay() -> str:
    """Pay."""
    return "paid"


# The provider.


@pytest.mark.parametrize(("retry_after_s", "least"), [(None, 6), (0.0, 6), (30.0, 29)])
def test_an_unavailable_model_is_asked_again_later_and_not_before_its_provider_wishes(
    play: Play, retry_after_s: float | None, least: float
) -> None:
    cue = Cue(busy(retry_after_s), Turn(text="ok"))
    agent = Agent(name="a", model=cue.model, retry=Retry(attempts=2, first_delay_s=8, jitter=0))
    step = play.submit("a")
    assert take(play.engine(agent), step) == NOT_RECORDED
    (row,) = play.look.steps(step.run_id)
    assert (row.status, row.attempt) == (StepStatus.READY, 1)
    assert row.error is not None
    assert (row.error["type"], row.error["message"]) == ("ModelUnavailable", "too many requests")
    assert least < wait_s(play, step) <= max(8, retry_after_s or 0)
    assert play.look.run(step.run_id).status is RunStatus.RUNNING
    play.let_time_pass()
    assert [send.step_id for send in play.world.journal.take_due(10)] == [step.step_id]
    assert take(play.engine(agent), step).recorded
    assert play.look.run(step.run_id).content == "ok"


def test_a_model_that_stays_unavailable_fails_the_run_with_what_its_provider_said(play: Play) -> None:
    cue = Cue(busy())
    engine = play.engine(Agent(name="a", model=cue.model, retry=AT_ONCE))
    step = play.submit("a")
    assert [take(engine, step).recorded for _ in range(4)] == [False, False, True, False]
    assert len(cue.asked) == 3
    run = play.look.run(step.run_id)
    assert (run.status, run.reason, run.turns) == (RunStatus.FAILED, "retries", 0)
    assert run.error == {"type": "ModelUnavailable", "message": "too many requests", "ids": {"provider": "p", "retry_after_s": None}}  # fmt: skip
    assert [row.status for row in play.look.steps(run.id)] == [StepStatus.DEAD]


def test_each_turn_has_tries_of_its_own(play: Play) -> None:
    again = Turn(text="hm", stop=None, calls=(("pay", {}),))
    cue = Cue(busy(), busy(), again, busy(), busy(), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, retry=AT_ONCE, tools=[pay]))
    step = play.submit("a")
    assert [take(engine, step).recorded for _ in range(2)] == [False, False]
    (paying,) = take(engine, step).sends
    (second,) = take(engine, paying).sends
    assert [take(engine, second).recorded for _ in range(3)] == [False, False, True]
    assert play.look.run(step.run_id).content == "ok"


def test_a_rejected_request_fails_the_run_at_once(play: Play) -> None:
    cue = Cue(Turn(error=ModelRejected("the key is wrong", provider="p", status=401)))
    run = play.run(Agent(name="a", model=cue.model))
    assert len(cue.asked) == 1
    assert (run.status, run.reason) == (RunStatus.FAILED, "model_rejected")
    assert run.error == {"type": "ModelRejected", "message": "the key is wrong", "ids": {"provider": "p", "status": 401}}  # fmt: skip


# The agent's code.


def carried_until_it_failed(play: Play, engine: Engine, step: StepMessage, tries: int) -> dict[str, Any]:
    """The error of a run that fails after just so many tries."""
    for _ in range(tries):
        assert not play.look.run(step.run_id).status.is_terminal
        take(engine, step)
        play.let_time_pass()
    run = play.look.run(step.run_id)
    assert (run.status, run.reason) == (RunStatus.FAILED, "retries")
    assert run.error is not None
    return run.error


def test_an_agent_that_nobody_has_deployed_fails_after_some_tries_and_names_those_there_are(
    play: Play,
) -> None:
    engine = play.engine(Agent(name="researcher", model=Cue().model), Agent(name="writer", model=Cue().model))
    step = play.submit("reseacher")
    error = carried_until_it_failed(play, engine, step, Retry().attempts)
    assert error["type"] == "UnknownAgent"
    assert "known: researcher, writer" in error["message"]
    assert "Did you mean 'researcher'?" in error["message"]


def test_an_agent_that_is_deployed_in_time_is_carried(play: Play) -> None:
    step = play.submit("a")
    take(play.engine(), step)
    play.let_time_pass()
    carry(play.engine(Agent(name="a", model=Cue(Turn(text="ok")).model)), step)
    assert play.look.run(step.run_id).content == "ok"


class Unreadable(pydantic.BaseModel):
    age: int

    @pydantic.field_validator("age")
    @classmethod
    def _check(cls, _age: int) -> int:
        raise RuntimeError("a bug in a validator")


def _circular() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    facts["self"] = facts
    return facts


@pytest.mark.parametrize(
    ("broken", "type_", "message"),
    [
        ({"instructions": None}, "TypeError", "NoneType"),
        ({"output_schema": Unreadable}, "RuntimeError", "a bug in a validator"),
    ],
    ids=["instructions", "output schema"],
)
def test_a_bug_in_an_agent_is_logged_and_fails_the_run_after_some_tries(
    play: Play, caplog: pytest.LogCaptureFixture, broken: dict[str, Any], type_: str, message: str
) -> None:
    cue = Cue(Turn(text='{"age": 1}'))
    engine = play.engine(Agent(name="a", model=cue.model, retry=AT_ONCE, **broken))
    step = play.submit("a")
    with caplog.at_level(logging.ERROR, "agno_workers.engine"):
        error = carried_until_it_failed(play, engine, step, 3)
    assert error["type"] == type_
    assert message in error["message"]
    logged = [record for record in caplog.records if record.message == "turn raised"]
    assert len(logged) == 3
    assert logged[0].exc_info is not None
    assert {(record.__dict__["run_id"], record.__dict__["agent"]) for record in logged} == {(step.run_id, "a")}  # fmt: skip


def test_a_tool_that_can_not_be_offered_fails_the_run_after_some_tries(play: Play) -> None:
    engine = play.engine(Agent(name="a", model=Cue(Turn()).model, tools=[42]))
    error = carried_until_it_failed(play, engine, play.submit("a"), Retry().attempts)
    assert error["type"] == "InvalidTool"
    assert "42" in error["message"]


def test_facts_that_have_no_end_fail_the_run_after_some_tries(play: Play) -> None:
    engine = play.engine(
        Agent(name="a", model=Cue(Turn()).model, context=Context(facts=_circular()), retry=AT_ONCE)
    )
    error = carried_until_it_failed(play, engine, play.submit("a"), Retry().attempts)
    assert error["type"] == "RecursionError"


def test_a_model_that_raises_anything_else_is_a_bug_like_any_other(play: Play) -> None:
    cue = Cue(Turn(error=KeyError("choices")))
    engine = play.engine(Agent(name="a", model=cue.model, retry=AT_ONCE))
    assert carried_until_it_failed(play, engine, play.submit("a"), 3)["type"] == "KeyError"


def test_while_postgres_is_away_nothing_is_recorded_and_the_turn_is_carried_again(play: Play) -> None:
    """Unavailable goes up: it is no failure of the turn, and no try is used."""
    cue = Cue(Turn(error=Unavailable("Postgres did not answer")), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, retry=Retry(attempts=1)))
    step = play.submit("a")
    with pytest.raises(Unavailable):
        take(engine, step)
    assert [row.status for row in play.look.steps(step.run_id)] == [StepStatus.RUNNING]
    play.world.expire(step.step_id)
    carry(engine, step)
    assert play.look.run(step.run_id).content == "ok"


def test_no_agent_takes_another_ones_name(play: Play) -> None:
    with pytest.raises(InvalidInput, match="Rename one"):
        play.engine(Agent(name="a", model=Cue().model), Agent(name="a", model=Cue().model))


# Lost while it is carried.


def test_a_turn_that_is_lost_while_the_model_speaks_stops_and_records_nothing(play: Play) -> None:
    def lost() -> Turn:
        play.world.journal.cancel(step.run_id)
        engine.active.lose(play.world.journal.renew([step.step_id]))
        seen.append(play.world.everything())
        return Turn(text="too late for this")

    seen: list[Any] = []
    cue = Cue(lost)
    engine = play.engine(Agent(name="a", model=cue.model))
    step = play.submit("a")
    assert take(engine, step) == NOT_RECORDED
    assert [play.world.everything()] == seen
    assert play.look.run(step.run_id).status is RunStatus.CANCELLED


def test_a_turn_that_another_worker_took_over_stops_and_leaves_it_to_them(play: Play) -> None:
    def lost() -> Turn:
        play.world.expire(step.step_id)
        assert play.world.journal_of("w2").claim_turn(step.run_id, step.step_id, 0)
        engine.active.lose(play.world.journal.renew([step.step_id]))
        return Turn(text="too late for this")

    engine = play.engine(Agent(name="a", model=Cue(lost).model))
    step = play.submit("a")
    assert take(engine, step) == NOT_RECORDED
    (row,) = play.look.steps(step.run_id)
    assert (row.status, row.worker, row.error) == (StepStatus.RUNNING, "w2", None)


def test_a_reply_that_comes_too_late_to_be_recorded_changes_nothing(play: Play) -> None:
    def cancelled() -> Turn:
        play.world.journal.cancel(step.run_id)
        return Turn(calls=(("pay", {}),))

    engine = play.engine(Agent(name="a", model=Cue(cancelled).model, tools=[pay]))
    step = play.submit("a")
    assert take(engine, step) == NOT_RECORDED
    assert len(play.look.steps(step.run_id)) == 1


def test_only_a_step_that_is_carried_can_be_lost() -> None:
    held = ActiveSteps(lambda _: True)
    held.lose(["a"])
    with held.step("a") as is_lost, held.step("b") as is_other_lost:
        assert not is_lost()
        held.lose(["a", "c"])
        assert is_lost()
        assert not is_other_lost()
    with held.step("a") as is_lost_again:
        assert not is_lost_again()


def test_a_step_that_is_carried_twice_here_is_lost_to_both() -> None:
    held = ActiveSteps(lambda _: True)
    with held.step("a") as first:
        with held.step("a") as second:
            pass
        with held.step("a") as second:
            held.lose(["a"])
            assert first()
            assert second()


def test_a_worker_holds_a_step_from_its_claim_to_its_end_or_until_another_takes_it(play: Play) -> None:
    journal, other = play.world.journal, play.world.journal_of("w2")
    steps = [play.submit("a") for _ in range(3)]
    assert not journal.is_held(steps[0].step_id)
    claims = [journal.claim_turn(step.run_id, step.step_id, 0) for step in steps]
    assert all(journal.is_held(step.step_id) for step in steps)
    assert not other.is_held(steps[0].step_id)
    assert claims[0] is not None
    journal.end(claims[0], [], Usage(), "ok", "end")
    journal.cancel(steps[1].run_id)
    journal.give_up(steps[2].step_id)
    assert other.claim_turn(steps[2].run_id, steps[2].step_id, 0)
    assert not any(journal.is_held(step.step_id) for step in steps)


def test_a_tool_that_returned_because_it_was_told_so_has_no_result(play: Play) -> None:
    @tool
    def watch(ctx: ToolContext) -> str:
        """Watch."""
        play.world.sql("UPDATE agno.step SET worker = 'other' WHERE name = 'watch'")
        now.append(2.0)
        return "half" if ctx.cancelled() else "whole"

    now = [0.0]
    engine = play.engine(Agent(name="a", model=Cue(Turn(calls=(("watch", {}),))).model, tools=[watch]))
    (send,) = take(engine, play.submit("a")).sends
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agno_workers.engine.active_steps.time.monotonic", lambda: now[-1])
        assert take(engine, send) == NOT_RECORDED
    assert play.look.steps(send.run_id)[1].status is StepStatus.RUNNING


def test_where_no_renewal_runs_the_database_is_asked_whether_a_step_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    asked: list[str] = []

    def is_held(step_id: str) -> bool:
        asked.append(step_id)
        return len(asked) < 2

    with ActiveSteps(is_held).step("a") as is_lost:
        assert [is_lost(), is_lost()] == [False, False]
        now += 1
        assert [is_lost(), is_lost()] == [False, False]
        now += 1
        assert [is_lost(), is_lost()] == [True, True]
    assert asked == ["a", "a"]


def test_stopping_is_no_error_of_ours() -> None:
    assert not isinstance(Stopped(), (Unavailable, ModelRejected))


# What the keeper ends.


def test_a_turn_that_no_attempt_ended_fails_its_run(play: Play) -> None:
    engine = play.engine(Agent(name="a", model=Cue(Turn(text="late")).model))
    step = play.submit("a")
    for _ in range(3):
        assert play.world.journal.claim_turn(step.run_id, step.step_id, 0)
        play.world.expire(step.step_id)
    (hopeless,) = play.world.journal.exhausted(10)
    assert fail_exhausted(engine, hopeless).recorded
    run = play.look.run(step.run_id)
    assert (run.status, run.reason) == (RunStatus.FAILED, "worker_lost")
    assert run.error is not None
    assert run.error["message"].startswith("attempt 3 on w1 ended without a result")
    assert run_turn(engine, step.run_id, step.step_id, 0) == NOT_RECORDED


def test_a_tool_that_no_attempt_ended_tells_the_model_and_the_run_goes_on(play: Play) -> None:
    cue = Cue(Turn(calls=(("pay", {}),)), Turn(text="I could not pay."))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[pay]))
    (paying,) = take(engine, play.submit("a")).sends
    claim = play.world.journal.claim_tool(paying.run_id, paying.step_id, 0)
    assert claim is not None
    play.world.expire(paying.step_id)
    (hopeless,) = play.world.journal.exhausted(10)
    (last,) = fail_exhausted(engine, hopeless).sends
    with play.world.unchanged():
        assert not play.world.journal.finish_tool(claim, result(claim, "paid")).recorded
    carry(engine, last)
    told = cue.asked[-1].messages[-1]
    assert "not known whether pay took effect" in str(told.parts)
    assert play.look.run(paying.run_id).content == "I could not pay."
    assert [row.status for row in play.look.steps(paying.run_id)] == [StepStatus.DONE, StepStatus.UNKNOWN, StepStatus.DONE]  # fmt: skip


@pytest.mark.parametrize(
    ("here", "said"),
    [([], "no agent 'a' is imported here"), ([Agent(name="a", model="scripted:echo")], "no worker here has the tool pay")],
    ids=["agent", "tool"],
)  # fmt: skip
def test_a_worker_without_the_code_gives_a_call_back_and_after_some_tries_the_model_is_told(
    play: Play, here: list[Agent], said: str
) -> None:
    cue = Cue(Turn(calls=(("pay", {}),)), Turn(text="ok"))
    agent = Agent(name="a", model=cue.model, tools=[pay])
    (paying,) = take(play.engine(agent), play.submit("a")).sends
    for _ in range(DEPLOY.attempts - 1):
        assert run_tool(play.engine(*here), paying.run_id, paying.step_id, 0) == NOT_RECORDED
        play.let_time_pass()
    (last,) = run_tool(play.engine(*here), paying.run_id, paying.step_id, 0).sends
    carry(play.engine(agent), last)
    assert said in str(cue.asked[-1].messages[-1].parts)


def test_a_worker_with_the_code_makes_the_call_that_another_gave_back(play: Play) -> None:
    cue = Cue(Turn(calls=(("pay", {}),)), Turn(text="ok"))
    agent = Agent(name="a", model=cue.model, tools=[pay])
    (paying,) = take(play.engine(agent), play.submit("a")).sends
    assert run_tool(play.engine(), paying.run_id, paying.step_id, 0) == NOT_RECORDED
    play.let_time_pass()
    assert run_tool(play.engine(agent), paying.run_id, paying.step_id, 0).recorded
