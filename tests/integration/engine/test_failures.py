"""Failed turns: they are retried, then the run fails with the error."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pydantic
import pytest

from agno_workers.core.agent import Agent, History, Limits
from agno_workers.core.messages import Emit, Message, ModelRequest, Reply, Text, ToolCall, ToolResult, Usage
from agno_workers.core.policy import Retry
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import CommitResult, StepMessage
from agno_workers.core.tool import Effect, ToolContext
from agno_workers.engine.active_steps import ActiveSteps, Stopped
from agno_workers.engine.run_turn import run_turn
from agno_workers.engine.tool import DEPLOY, fail_exhausted, run_tool
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, ModelRejected, ModelUnavailable, Unavailable
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from tests.database import result
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step

NOT_RECORDED = CommitResult(False)
AT_ONCE = Retry(attempts=3, first_delay_s=0)


def busy(retry_after_s: float | None = None) -> Turn:
    return Turn(error=ModelUnavailable("too many requests", provider="p", retry_after_s=retry_after_s))


def wait_s(scenario: Scenario, step: StepMessage) -> float:
    sql = "SELECT extract(epoch FROM not_before - clock_timestamp())::float8 FROM agno.step WHERE id = %(id)s"
    return float(scenario.db.value(sql, id=step.step_id))


@tool(effect=Effect.ONCE)
def pay() -> str:
    """Pay."""
    return "paid"


# The provider.


@pytest.mark.parametrize(
    ("retry_after_s", "least"), [(None, 6), (0.0, 6), (30.0, 29), (1e15, 3590), (float("inf"), 3590)]
)
def test_unavailable_model_is_retried_after_retry_after(
    scenario: Scenario, retry_after_s: float | None, least: float
) -> None:
    replies = ScriptedReplies(busy(retry_after_s), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, retry=Retry(attempts=2, first_delay_s=8, jitter=0))
    step = scenario.submit("a")
    assert not execute_step(scenario.engine(agent), step).recorded
    (row,) = scenario.queries.steps(step.run_id)
    assert (row.status, row.attempt) == (StepStatus.READY, 1)
    assert row.error is not None
    assert (row.error["type"], row.error["message"]) == ("ModelUnavailable", "too many requests")
    assert least < wait_s(scenario, step) <= min(3600, max(8, retry_after_s or 0))
    assert scenario.queries.run(step.run_id).status is RunStatus.RUNNING
    scenario.let_time_pass()
    assert [send.step_id for send in scenario.db.journal.take_due(10)] == [step.step_id]
    assert execute_step(scenario.engine(agent), step).recorded
    assert scenario.queries.run(step.run_id).content == "ok"


def test_retry_waits_at_most_until_the_deadline(scenario: Scenario) -> None:
    agent = Agent(name="a", model=ScriptedReplies(busy(3000)).model, limits=Limits(deadline_s=60))
    step = scenario.submit("a")
    assert not execute_step(scenario.engine(agent), step).recorded
    assert 0 < wait_s(scenario, step) <= 60


def test_model_that_stays_unavailable_fails_the_run(scenario: Scenario) -> None:
    replies = ScriptedReplies(busy())
    engine = scenario.engine(Agent(name="a", model=replies.model, retry=AT_ONCE))
    step = scenario.submit("a")
    assert [execute_step(engine, step).recorded for _ in range(4)] == [False, False, True, False]
    assert len(replies.asked) == 3
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason, run.turns) == (RunStatus.FAILED, "retries", 0)
    assert run.error == {"type": "ModelUnavailable", "message": "too many requests", "ids": {"provider": "p", "retry_after_s": None}}  # fmt: skip
    assert [row.status for row in scenario.queries.steps(run.id)] == [StepStatus.DEAD]


def test_each_turn_has_its_own_attempts(scenario: Scenario) -> None:
    again = Turn(text="hm", stop=None, calls=(("pay", {}),))
    replies = ScriptedReplies(busy(), busy(), again, busy(), busy(), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, retry=AT_ONCE, tools=[pay]))
    step = scenario.submit("a")
    assert [execute_step(engine, step).recorded for _ in range(2)] == [False, False]
    (paying,) = execute_step(engine, step).sends
    (second,) = execute_step(engine, paying).sends
    assert [execute_step(engine, second).recorded for _ in range(3)] == [False, False, True]
    assert scenario.queries.run(step.run_id).content == "ok"


def test_rejected_request_fails_the_run_at_once(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(error=ModelRejected("the key is wrong", provider="p", status=401)))
    run = scenario.run(Agent(name="a", model=replies.model))
    assert len(replies.asked) == 1
    assert (run.status, run.reason) == (RunStatus.FAILED, "model_rejected")
    assert run.error == {"type": "ModelRejected", "message": "the key is wrong", "ids": {"provider": "p", "status": 401}}  # fmt: skip


# The agent's code.


def carried_until_it_failed(
    scenario: Scenario, engine: Engine, step: StepMessage, tries: int
) -> dict[str, Any]:
    """Return the error of a run that fails after exactly so many attempts."""
    for _ in range(tries):
        assert not scenario.queries.run(step.run_id).status.is_terminal
        execute_step(engine, step)
        scenario.let_time_pass()
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason) == (RunStatus.FAILED, "retries")
    assert run.error is not None
    return run.error


def test_unknown_agent_costs_no_attempt(scenario: Scenario) -> None:
    """A worker that does not know the agent returns the step as often as it gets it; one that knows it executes it."""
    replies = ScriptedReplies(Turn(calls=(("pay", {}),)), Turn(text="paid"))
    able = scenario.engine(Agent(name="researcher", model=replies.model, tools=[pay]))
    unable = scenario.engine(Agent(name="writer", model=replies.model))
    (step,) = sends = [scenario.submit("researcher")]
    while sends:
        for times in range(1, 11):
            assert not execute_step(unable, sends[0]).recorded
            (row,) = [row for row in scenario.queries.steps(step.run_id) if row.status.is_open]
            assert (row.status, row.attempt, row.started_at) == (StepStatus.READY, 0, None)
            assert row.error is not None
            assert (row.error["type"], row.error["ids"]["returns"]) == ("UnknownAgent", times)
            assert wait_s(scenario, sends[0]) < min(60, 0.25 * 2 ** (times - 1)) * 1.25
            assert not execute_step(unable, sends[0]).recorded  # a copy of the message: it is not due
            scenario.let_time_pass()
        sends = list(execute_step(able, sends[0]).sends)
    run = scenario.queries.run(step.run_id)
    assert (run.content, [row.attempt for row in scenario.queries.steps(run.id)]) == ("paid", [1, 1, 1])


def test_agent_that_is_deployed_in_time_is_executed(scenario: Scenario) -> None:
    step = scenario.submit("a")
    execute_step(scenario.engine(), step)
    scenario.let_time_pass()
    execute_run(scenario.engine(Agent(name="a", model=ScriptedReplies(Turn(text="ok")).model)), step)
    assert scenario.queries.run(step.run_id).content == "ok"


class Unreadable(pydantic.BaseModel):
    age: int

    @pydantic.field_validator("age")
    @classmethod
    def _check(cls, _age: int) -> int:
        raise RuntimeError("a bug in a validator")


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even I fail")


class Speechless(pydantic.BaseModel):
    age: int

    @pydantic.field_validator("age")
    @classmethod
    def _check(cls, _age: int) -> int:
        raise SpeechlessError


@pytest.mark.parametrize(
    ("broken", "type_", "message"),
    [
        ({"output_schema": Unreadable}, "RuntimeError", "a bug in a validator"),
        ({"output_schema": Speechless}, "SpeechlessError", ""),
    ],
    ids=["output schema", "no message"],
)
def test_bug_in_an_agent_is_logged_and_fails_the_run_after_some_attempts(
    scenario: Scenario, caplog: pytest.LogCaptureFixture, broken: dict[str, Any], type_: str, message: str
) -> None:
    replies = ScriptedReplies(Turn(text='{"age": 1}'))
    engine = scenario.engine(Agent(name="a", model=replies.model, retry=AT_ONCE, **broken))
    step = scenario.submit("a")
    with caplog.at_level(logging.ERROR, "agno_workers.engine"):
        error = carried_until_it_failed(scenario, engine, step, 3)
    assert error["type"] == type_
    assert message in error["message"]
    logged = [record for record in caplog.records if record.message == "turn raised"]
    assert len(logged) == 3
    assert logged[0].exc_info is not None
    assert {(record.__dict__["run_id"], record.__dict__["agent"]) for record in logged} == {(step.run_id, "a")}  # fmt: skip


def test_invalid_tool_fails_the_run_after_some_attempts(scenario: Scenario) -> None:
    engine = scenario.engine(Agent(name="a", model=ScriptedReplies(Turn()).model, tools=[42]))
    error = carried_until_it_failed(scenario, engine, scenario.submit("a"), Retry().attempts)
    assert error["type"] == "InvalidTool"
    assert "42" in error["message"]


def test_other_exception_of_a_model_is_a_bug(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(error=KeyError("choices")))
    engine = scenario.engine(Agent(name="a", model=replies.model, retry=AT_ONCE))
    assert carried_until_it_failed(scenario, engine, scenario.submit("a"), 3)["type"] == "KeyError"


@pytest.mark.parametrize("part", [ToolCall(7, "add"), Text(None), {"type": "text"}, Message("user", ())])  # type: ignore[arg-type]  # wrong types are the point
def test_reply_that_cannot_be_stored_fails_the_run_at_once(scenario: Scenario, part: Any) -> None:
    class Odd:
        name = "own:odd"

        def ask(self, _request: ModelRequest, _emit: Emit) -> Reply:
            return Reply(Message("assistant", (part,)))

    run = scenario.run(Agent(name="a", model=Odd()))
    assert (run.status, run.reason) == (RunStatus.FAILED, "model_rejected")
    assert run.error is not None
    assert run.error["message"].startswith("own:odd returned a reply that can't be stored (")


# What is stored.

CALLED = {"type": "tool_call", "id": 7, "name": "add", "arguments": {"a": 1}}
RESULT = {"type": "tool_result", "call_id": 7, "name": "add", "content": {"sum": 3}}


def store(scenario: Scenario, run_id: str, *contents: Any) -> None:
    """Write these messages to a run, in the place of its own."""
    scenario.db.sql("DELETE FROM agno.message WHERE run_id = %(id)s", id=run_id)
    for seq, content in enumerate(contents):
        text = msgspec.json.encode(content).decode()
        scenario.db.sql(
            "INSERT INTO agno.message VALUES (%(id)s, %(seq)s, %(text)s)", id=run_id, seq=seq, text=text
        )
    scenario.db.sql("UPDATE agno.step SET seq = %(seq)s WHERE run_id = %(id)s", id=run_id, seq=len(contents))


def test_stored_value_of_another_type_is_read_as_text(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    step = scenario.submit("a")
    store(
        scenario,
        step.run_id,
        {"role": "user", "parts": [{"type": "text", "text": 5}]},
        {"role": "assistant", "parts": [CALLED]},
        {"role": "tool", "parts": [RESULT]},
    )
    execute_run(scenario.engine(Agent(name="a", model=replies.model)), step)
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.content) == (RunStatus.DONE, "ok")
    asked, called, result = replies.asked[0].messages
    assert asked.text == "5"
    assert called.parts == (ToolCall("7", "add", '{"a":1}'),)
    assert result.parts == (ToolResult("7", "add", '{"sum":3}'),)
    assert scenario.transcript(run)[:3] == [asked, called, result]


@pytest.mark.parametrize(
    "content",
    [
        7,
        {"role": "user"},
        {"role": "user", "parts": {"text": "hi", "type": "text"}},
        {"role": "nobody", "parts": []},
        {"role": "user", "parts": ["hi"]},
        {"role": "user", "parts": [{"type": "hologram"}]},
        {"role": "user", "parts": [{"type": "tool_result", "call_id": "x"}]},
    ],
)
def test_run_that_cannot_be_read_fails_at_once_and_is_shown(scenario: Scenario, content: Any) -> None:
    step = scenario.submit("a", session_id="s")
    store(scenario, step.run_id, content)
    replies = ScriptedReplies(Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, history=History(runs=5)))
    execute_run(engine, step)
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason, replies.asked) == (RunStatus.FAILED, "unreadable", [])
    assert run.error is not None
    assert run.error["message"].startswith(f"what is stored of run {run.id} can't be read (")
    (shown,) = scenario.transcript(run)
    assert msgspec.json.encode(content).decode() in shown.text

    # An earlier run of its session.
    scenario.db.sql("UPDATE agno.run SET status = 'done' WHERE id = %(id)s", id=run.id)
    later = scenario.submit("a", session_id="s")
    execute_run(engine, later)
    run = scenario.queries.run(later.run_id)
    assert (run.status, run.reason) == (RunStatus.FAILED, "unreadable")
    assert run.error is not None
    assert run.error["message"].startswith(
        f"run {step.run_id} of this session, which the history needs, can't be read ("
    )


@pytest.mark.parametrize("call", [7, [], {"id": "x"}, {"id": None, "name": "add", "arguments": []}])
def test_call_that_cannot_be_read_is_not_made(scenario: Scenario, call: Any) -> None:
    made: list[int] = []

    @tool
    def add(a: int = 1) -> str:
        """Add."""
        made.append(a)
        return "added"

    replies = ScriptedReplies(Turn(calls=(("add", {"a": 1}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a")
    assert execute_step(engine, step).recorded
    text = msgspec.json.encode(call).decode()
    scenario.db.sql("UPDATE agno.step SET call = %(text)s::jsonb WHERE kind = 'tool'", text=text)
    run = scenario.execute_pending(engine, step.run_id)
    assert (run.status, run.content, made) == (RunStatus.DONE, "ok", [])
    assert len(scenario.queries.steps(run.id)) == 3
    assert replies.asked[1].messages[-1].role == "tool"


def test_turn_is_executed_again_after_an_outage_of_postgres(scenario: Scenario) -> None:
    """Unavailable is raised: it is not a failure of the turn and uses no attempt."""
    replies = ScriptedReplies(Turn(error=Unavailable("Postgres did not answer")), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, retry=Retry(attempts=1)))
    step = scenario.submit("a")
    with pytest.raises(Unavailable):
        execute_step(engine, step)
    assert [row.status for row in scenario.queries.steps(step.run_id)] == [StepStatus.RUNNING]
    scenario.db.expire(step.step_id)
    execute_run(engine, step)
    assert scenario.queries.run(step.run_id).content == "ok"


def test_two_agents_with_one_name_are_refused(scenario: Scenario) -> None:
    with pytest.raises(InvalidInput, match="rename one"):
        scenario.engine(
            Agent(name="a", model=ScriptedReplies().model), Agent(name="a", model=ScriptedReplies().model)
        )


# Lost while it is carried.


def test_lost_turn_stops_its_model_call(scenario: Scenario) -> None:
    def lost() -> Turn:
        scenario.db.journal.cancel(step.run_id)
        engine.active.lose(scenario.db.journal.renew([step.step_id]))
        seen.append(scenario.db.everything())
        return Turn(text="too late for this")

    seen: list[Any] = []
    replies = ScriptedReplies(lost)
    engine = scenario.engine(Agent(name="a", model=replies.model))
    step = scenario.submit("a")
    assert not execute_step(engine, step).recorded
    assert [scenario.db.everything()] == seen
    assert scenario.queries.run(step.run_id).status is RunStatus.CANCELLED


def test_turn_that_another_worker_took_over_stops(scenario: Scenario) -> None:
    def lost() -> Turn:
        scenario.db.expire(step.step_id)
        assert scenario.db.journal_of("w2").claim_turn(step.run_id, step.step_id, 0)
        engine.active.lose(scenario.db.journal.renew([step.step_id]))
        return Turn(text="too late for this")

    engine = scenario.engine(Agent(name="a", model=ScriptedReplies(lost).model))
    step = scenario.submit("a")
    assert not execute_step(engine, step).recorded
    (row,) = scenario.queries.steps(step.run_id)
    assert (row.status, row.worker, row.error) == (StepStatus.RUNNING, "w2", None)


def test_late_reply_changes_nothing(scenario: Scenario) -> None:
    def cancelled() -> Turn:
        scenario.db.journal.cancel(step.run_id)
        return Turn(calls=(("pay", {}),))

    engine = scenario.engine(Agent(name="a", model=ScriptedReplies(cancelled).model, tools=[pay]))
    step = scenario.submit("a")
    assert not execute_step(engine, step).recorded
    assert len(scenario.queries.steps(step.run_id)) == 1


def test_only_an_active_step_can_be_lost() -> None:
    held = ActiveSteps(lambda _: True)
    held.lose(["a"])
    with held.step("a") as is_lost, held.step("b") as is_other_lost:
        assert not is_lost()
        held.lose(["a", "c"])
        assert is_lost()
        assert not is_other_lost()
    with held.step("a") as is_lost_again:
        assert not is_lost_again()


def test_step_that_is_executed_twice_here_is_lost_to_both() -> None:
    held = ActiveSteps(lambda _: True)
    with held.step("a") as first:
        with held.step("a") as second:
            pass
        with held.step("a") as second:
            held.lose(["a"])
            assert first()
            assert second()


def test_worker_holds_a_step_from_its_claim_to_its_end(
    scenario: Scenario,
) -> None:
    journal, other = scenario.db.journal, scenario.db.journal_of("w2")
    steps = [scenario.submit("a") for _ in range(3)]
    assert not journal.is_held(steps[0].step_id)
    claims = [journal.claim_turn(step.run_id, step.step_id, 0) for step in steps]
    assert all(journal.is_held(step.step_id) for step in steps)
    assert not other.is_held(steps[0].step_id)
    assert claims[0] is not None
    journal.end(claims[0], [], Usage(), "ok", "end")
    journal.cancel(steps[1].run_id)
    journal.end_lease(steps[2].step_id)
    assert other.claim_turn(steps[2].run_id, steps[2].step_id, 0)
    assert not any(journal.is_held(step.step_id) for step in steps)


def test_result_of_a_cancelled_tool_is_discarded(scenario: Scenario) -> None:
    @tool
    def watch(ctx: ToolContext) -> str:
        """Watch."""
        scenario.db.sql("UPDATE agno.step SET worker = 'other' WHERE name = 'watch'")
        now.append(2.0)
        return "half" if ctx.cancelled() else "whole"

    now = [0.0]
    engine = scenario.engine(
        Agent(name="a", model=ScriptedReplies(Turn(calls=(("watch", {}),))).model, tools=[watch])
    )
    (send,) = execute_step(engine, scenario.submit("a")).sends
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agno_workers.engine.active_steps.time.monotonic", lambda: now[-1])
        assert not execute_step(engine, send).recorded
    assert scenario.queries.steps(send.run_id)[1].status is StepStatus.RUNNING


def test_process_without_a_lease_renewer_asks_the_database(
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


def test_stopped_is_not_an_agno_error() -> None:
    assert not isinstance(Stopped(), (Unavailable, ModelRejected))


# What the keeper ends.


def test_exhausted_turn_fails_its_run(scenario: Scenario) -> None:
    engine = scenario.engine(Agent(name="a", model=ScriptedReplies(Turn(text="late")).model))
    step = scenario.submit("a")
    for _ in range(3):
        assert scenario.db.journal.claim_turn(step.run_id, step.step_id, 0)
        scenario.db.expire(step.step_id)
    (hopeless,) = scenario.db.journal.exhausted(10)
    assert fail_exhausted(engine, hopeless).recorded
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason) == (RunStatus.FAILED, "worker_lost")
    assert run.error is not None
    assert run.error["message"].startswith("attempt 3 on w1 ended without a result")
    assert not run_turn(engine, step.run_id, step.step_id, 0).recorded


def test_exhausted_tool_returns_an_error_to_the_model(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(calls=(("pay", {}),)), Turn(text="I could not pay."))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[pay]))
    (paying,) = execute_step(engine, scenario.submit("a")).sends
    claim = scenario.db.journal.claim_tool(paying.run_id, paying.step_id, 0)
    assert claim is not None
    scenario.db.expire(paying.step_id)
    (hopeless,) = scenario.db.journal.exhausted(10)
    (last,) = fail_exhausted(engine, hopeless).sends
    with scenario.db.unchanged():
        assert not scenario.db.journal.finish_tool(claim, result(claim, "paid")).recorded
    execute_run(engine, last)
    told = replies.asked[-1].messages[-1]
    assert "not known whether pay took effect" in str(told.parts)
    assert scenario.queries.run(paying.run_id).content == "I could not pay."
    assert [row.status for row in scenario.queries.steps(paying.run_id)] == [StepStatus.DONE, StepStatus.UNKNOWN, StepStatus.DONE]  # fmt: skip


def test_worker_without_the_tool_of_a_call_releases_it(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(calls=(("pay", {}),)), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[pay])
    older = scenario.engine(Agent(name="a", model="scripted:echo"))
    (paying,) = execute_step(scenario.engine(agent), scenario.submit("a")).sends
    for _ in range(DEPLOY.attempts - 1):
        assert not run_tool(older, paying.run_id, paying.step_id, 0).recorded
        scenario.let_time_pass()
    (last,) = run_tool(older, paying.run_id, paying.step_id, 0).sends
    execute_run(scenario.engine(agent), last)
    assert "no worker here has the tool pay" in str(replies.asked[-1].messages[-1].parts)


def test_worker_with_the_code_makes_a_released_call(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(calls=(("pay", {}),)), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[pay])
    (paying,) = execute_step(scenario.engine(agent), scenario.submit("a")).sends
    assert not run_tool(scenario.engine(), paying.run_id, paying.step_id, 0).recorded
    scenario.let_time_pass()
    assert run_tool(scenario.engine(agent), paying.run_id, paying.step_id, 0).recorded
