"""Turns: the requests to the model, and the moves after its replies."""

from __future__ import annotations

from typing import Any

import msgspec
import pydantic
import pytest

from agno_workers.core.agent import NO_HISTORY, Agent, History, Limits
from agno_workers.core.context import Context
from agno_workers.core.messages import (
    File,
    Image,
    Message,
    ModelSettings,
    Reasoning,
    StopReason,
    ToolCall,
    ToolResult,
    Usage,
    user,
)
from agno_workers.core.policy import Retry
from agno_workers.core.run import Run, RunStatus
from agno_workers.core.tool import Effect
from agno_workers.errors import LimitReached
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step


@tool(effect=Effect.PURE, queue="slow", max_attempts=7)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Person(pydantic.BaseModel):
    name: str
    age: int


def adding(*numbers: int, text: str = "", stop: StopReason | None = None) -> Turn:
    return Turn(text=text, calls=tuple(("add", {"a": number, "b": 1}) for number in numbers), stop=stop)


def said(run: Run) -> Any:
    return run.status, run.content, run.reason


# What the model is asked.


def test_model_request_has_instructions_tools_and_settings(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    settings = ModelSettings(temperature=0.1)
    agent = Agent(
        name="a", model=replies.model, description="You add.", instructions=["Be quick.", "Be right."], tools=[add], settings=settings,
    )  # fmt: skip
    scenario.run(agent, "What is 1 + 1?")
    (request,) = replies.asked
    assert request.system == "You add.\n\n- Be quick.\n- Be right."
    assert request.messages == (user("What is 1 + 1?"),)
    assert [spec.name for spec in request.tools] == ["add"]
    assert (request.settings, request.output) == (settings, None)


def test_system_text_has_facts_and_the_time_of_the_submit(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    facts = {"plan": "frei", "name": "Zoë"}
    run = scenario.run(Agent(name="a", model=replies.model, context=Context(facts=facts, datetime=True)))
    assert run.created_at is not None
    assert f"The time is {run.created_at:%Y-%m-%d %H:%M} UTC." in replies.asked[0].system
    assert '"plan":"frei","name":"Zoë"' in replies.asked[0].system


def test_repeated_turn_sends_the_same_request(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, context=Context(datetime=True), history=History(runs=1))
    scenario.run(agent, session_id="s")
    step = scenario.submit("a", "again", session_id="s")
    assert scenario.db.journal_of("dead").claim_turn(step.run_id, step.step_id, 0)
    scenario.db.expire(step.step_id)
    execute_run(scenario.engine(agent), step)
    once = replies.asked[-1]
    step = scenario.submit("a", "again", session_id="t")
    execute_run(scenario.engine(agent), step)
    assert once.messages[2:] == replies.asked[-1].messages
    assert once.system == replies.asked[-1].system


def test_images_and_files_of_the_input_reach_the_model(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="a cat"))
    image, file = Image(data="aGk=", media_type="image/png"), File(data="x" * 200_000, name="paper.pdf")
    scenario.run(Agent(name="a", model=replies.model), "What is it?", image, file)
    assert replies.asked[0].messages == (user("What is it?", image, file),)


def test_history_comes_before_the_input_oldest_first(scenario: Scenario) -> None:
    replies = ScriptedReplies(*(Turn(text=f"answer {place}") for place in range(4)))
    agent = Agent(name="a", model=replies.model, history=History(runs=2, older=False))
    for place in range(4):
        scenario.run(agent, f"question {place}", session_id="s")
    assert [message.text for message in replies.asked[-1].messages] == [
        "question 1", "answer 1", "question 2", "answer 2", "question 3",
    ]  # fmt: skip


@pytest.mark.parametrize(("history", "session"), [(NO_HISTORY, "s"), (History(), None)])
def test_no_history_without_a_session_or_a_history(
    scenario: Scenario, history: History, session: str | None
) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, history=history)
    for _ in range(2):
        scenario.run(agent, session_id=session)
    assert [len(request.messages) for request in replies.asked] == [1, 1]
    assert "history" not in scenario.pool.ran


def test_turn_gets_the_whole_transcript_in_order(scenario: Scenario) -> None:
    replies = ScriptedReplies(adding(1, 2, text="Let me see."), adding(3), Turn(text="2, 3 and 4"))
    run = scenario.run(Agent(name="a", model=replies.model, tools=[add]))
    assert said(run) == (RunStatus.DONE, "2, 3 and 4", "end")
    transcript = scenario.transcript(run)
    assert [message.role for message in transcript] == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]  # fmt: skip
    assert replies.asked[-1].messages == tuple(transcript[:-1])
    results = [part.content for message in transcript for part in message.parts if isinstance(part, ToolResult)]  # fmt: skip
    assert results == ["2", "3", "4"]
    assert (run.turns, run.tool_calls) == (3, 3)


def test_reasoning_is_sent_back_unchanged(scenario: Scenario) -> None:
    turn = Turn(reasoning="hm", calls=(("add", {"a": 1, "b": 1}),))
    replies = ScriptedReplies(turn, Turn(text="2"))
    scenario.run(Agent(name="a", model=replies.model, tools=[add]))
    assert replies.asked[1].messages[1].parts[0] == Reasoning("hm", "scripted")


# What follows from what it says.


def test_answer_ends_the_run(scenario: Scenario) -> None:
    run = scenario.run(Agent(name="a", model=ScriptedReplies(Turn(text="ok")).model))
    assert said(run) == (RunStatus.DONE, "ok", "end")
    assert run.usage == Usage(input_tokens=1, output_tokens=1)


def test_empty_answer_ends_the_run(scenario: Scenario) -> None:
    run = scenario.run(Agent(name="a", model=ScriptedReplies(Turn(text="")).model))
    assert said(run) == (RunStatus.DONE, "", "end")
    assert scenario.transcript(run)[-1] == Message("assistant", ())


@pytest.mark.parametrize(("stop", "reason"), [(StopReason.REFUSAL, "refusal"), (StopReason.LENGTH, "length")])
def test_refused_or_truncated_answer_ends_the_run(scenario: Scenario, stop: StopReason, reason: str) -> None:
    run = scenario.run(Agent(name="a", model=ScriptedReplies(Turn(text="I", stop=stop)).model))
    assert said(run) == (RunStatus.DONE, "I", reason)


def test_paused_model_is_asked_to_continue(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="one", stop=StopReason.PAUSED), Turn(text="two"))
    run = scenario.run(Agent(name="a", model=replies.model))
    assert said(run) == (RunStatus.DONE, "two", "end")
    assert [message.text for message in replies.asked[1].messages] == ["hi", "one"]
    assert run.turns == 2


def test_full_context_window_fails_the_run(scenario: Scenario) -> None:
    run = scenario.run(Agent(name="a", model=ScriptedReplies(Turn(stop=StopReason.CONTEXT_WINDOW)).model))
    assert (run.status, run.reason) == (RunStatus.FAILED, "context_window")
    assert run.error is not None
    assert run.error["ids"] == {"run_id": run.id, "reason": "context_window"}
    assert run.turns == 1


@pytest.mark.parametrize("stop", [StopReason.END, StopReason.PAUSED])
def test_calls_are_made_despite_the_stop_reason_end(scenario: Scenario, stop: StopReason) -> None:
    replies = ScriptedReplies(adding(1, stop=stop), Turn(text="2"))
    assert said(scenario.run(Agent(name="a", model=replies.model, tools=[add]))) == (
        RunStatus.DONE,
        "2",
        "end",
    )


def test_call_uses_its_tools_queue_and_the_next_turn_its_agents(scenario: Scenario) -> None:
    agent = Agent(
        name="a", model=ScriptedReplies(adding(1), Turn(text="2")).model, tools=[add], queue="agents-2"
    )
    step = scenario.submit("a", priority=3)
    recorded = execute_step(scenario.engine(agent), step)
    (send,) = recorded.sends
    assert (send.queue, send.priority) == ("slow", 3)
    assert recorded.body is not None
    assert recorded.body.queue == "agents-2"
    row = scenario.db.step(send.step_id)
    assert (row["effect"], row["max_attempts"], row["queue"], row["name"]) == ("pure", 7, "slow", "add")


def test_turn_that_is_delivered_twice_is_executed_once(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model))
    step = scenario.submit("a")
    execute_run(engine, step)
    with scenario.db.unchanged():
        execute_run(engine, step)
    assert len(replies.asked) == 1


# Limits.


@pytest.mark.parametrize(
    ("limits", "reason", "turns"),
    [
        (Limits(turns=2), "limit:turns", 2),
        (Limits(tool_calls=3), "limit:tool_calls", 2),
        (Limits(tokens=1), "limit:tokens", 1),
    ],
)
@pytest.mark.parametrize(("on_limit", "status"), [("fail", RunStatus.FAILED), ("return", RunStatus.DONE)])
def test_limit_fails_the_run_or_returns_its_last_text(
    scenario: Scenario, limits: Limits, reason: str, turns: int, on_limit: Any, status: RunStatus
) -> None:
    replies = ScriptedReplies(adding(1, 2, text="so far"))
    limits = msgspec.structs.replace(limits, on_limit=on_limit)
    run = scenario.run(Agent(name="a", model=replies.model, tools=[add], limits=limits))
    assert said(run) == (status, "so far", reason)
    if on_limit == "fail":
        with pytest.raises(LimitReached, match=reason.partition(":")[2]) as caught:
            scenario.handle(run.id).wait(timeout=1)
        assert (caught.value.ids["reason"], caught.value.ids["content"]) == (reason, "so far")
    assert (run.turns, len(replies.asked), run.tool_calls) == (turns, turns, 2 * (turns - 1))


@pytest.mark.parametrize(
    ("turn", "limits", "reason"),
    [
        (adding(1, 2, text="hm"), Limits(turns=1), "limit:turns"),
        (adding(1, 2, text="hm", stop=StopReason.LENGTH), Limits(), "length"),
        (adding(1, 2, text="hm", stop=StopReason.REFUSAL), Limits(), "refusal"),
        (adding(1, 2, text="hm", stop=StopReason.CONTEXT_WINDOW), Limits(), "context_window"),
    ],
    ids=["limit", "length", "refusal", "context window"],
)
def test_calls_that_are_not_made_have_error_results(
    scenario: Scenario, turn: Turn, limits: Limits, reason: str
) -> None:
    run = scenario.run(Agent(name="a", model=ScriptedReplies(turn).model, tools=[add], limits=limits))
    assert (run.reason, run.tool_calls) == (reason, 0)
    _, asked, *told = scenario.transcript(run)
    calls = [part for part in asked.parts if isinstance(part, ToolCall)]
    text = f"add was not called: the run ended ({reason})."
    assert told == [Message("tool", (ToolResult(call.id, "add", text, True),)) for call in calls]
    assert len(told) == 2


def test_history_has_no_call_without_a_result(scenario: Scenario) -> None:
    replies = ScriptedReplies(adding(1, text="hm"), Turn(text="ok"))
    agent = Agent(
        name="a",
        model=replies.model,
        tools=[add],
        limits=Limits(turns=1, on_limit="return"),
        history=History(runs=5),
    )
    for _ in range(2):
        scenario.run(agent, session_id="s")
    parts = [part for message in replies.asked[-1].messages for part in message.parts]
    called = [part.id for part in parts if isinstance(part, ToolCall)]
    assert called
    assert called == [part.call_id for part in parts if isinstance(part, ToolResult)]


# Structured output.


ADA = '{"name": "Ada", "age": 36}'


@pytest.mark.parametrize(
    "text",
    [
        ADA,
        ' {"name": "Ada", "age": "36"}\n',
        f"```json\n{ADA}\n```",
        f"```JSON\n{ADA}\n```",
        f"```\n{ADA}```",
        f"~~~ json5\r\n{ADA}\r\n~~~",
        f"```json {ADA} ```",
        f"Here it is:\n\n```Json\n{ADA}\n```\nAnything else?",
        f"1. Look:\n   ```json\n   {ADA}\n   ```",
        f"For example\n```json\n{{}}\n```\nand finally\n```json\n{ADA}\n```",
        f"Here it is: {ADA}",
        f"As [1] says, {{x}} is [2]: {ADA} (`{ADA}`)",
        f"Here: ```{ADA}```",
        f"Here it is.\n{ADA}\n",
        f"{ADA}\n\nAnything else?",
        f"<|channel|>final<|message|>{ADA}",
        f"\ufeff{ADA}",
        f"<think>{{not JSON}} or ```json\n{{}}\n```</think>\n\n{ADA}",
        f"<think>so</think>```json\n{ADA}\n```",
        f"so I am done thinking</think>\n{ADA}",
        f"<THINKING>so</THINKING> {ADA}",
    ],
)
def test_valid_answer_is_parsed_by_output_schema(scenario: Scenario, text: str) -> None:
    replies = ScriptedReplies(Turn(text=text))
    run = scenario.run(Agent(name="a", model=replies.model, output_schema=Person))
    assert said(run) == (RunStatus.DONE, {"name": "Ada", "age": 36}, "end")
    (request,) = replies.asked
    assert request.output is not None
    assert (request.output.name, set(request.output.schema["properties"])) == ("Person", {"name", "age"})


@pytest.mark.parametrize(
    ("text", "told"), [('{"name": "Ada", "age": "old"}', "age: "), ("Ada, 36", "JSON"), ("", "JSON"), (f'{{"people": [{ADA}, {{"name":', "JSON")]
)  # fmt: skip
def test_invalid_answer_is_requested_again(scenario: Scenario, text: str, told: str) -> None:
    replies = ScriptedReplies(Turn(text=text), Turn(text='{"name": "Ada", "age": 36}'))
    run = scenario.run(Agent(name="a", model=replies.model, output_schema=Person))
    assert said(run) == (RunStatus.DONE, {"name": "Ada", "age": 36}, "end")
    note = replies.asked[1].messages[-1]
    assert note.role == "user"
    assert told in note.text
    assert scenario.transcript(run)[2] == note


@pytest.mark.parametrize("attempts", [1, 3])
def test_answer_that_never_fits_fails_the_run(scenario: Scenario, attempts: int) -> None:
    replies = ScriptedReplies(Turn(text="no JSON"))
    run = scenario.run(Agent(name="a", model=replies.model, output_schema=Person, retry=Retry(output_attempts=attempts)))  # fmt: skip
    assert (run.status, run.reason, len(replies.asked)) == (RunStatus.FAILED, "output_schema", attempts)
    assert run.error is not None
    assert "does not fit output_schema" in run.error["message"]
    assert scenario.transcript(run)[-1].text == "no JSON"


def test_text_between_calls_need_not_fit_the_schema(scenario: Scenario) -> None:
    replies = ScriptedReplies(adding(1, text="Let me see."), Turn(text='{"name": "Ada", "age": 2}'))
    run = scenario.run(Agent(name="a", model=replies.model, output_schema=Person, tools=[add]))
    assert (run.content, len(replies.asked)) == ({"name": "Ada", "age": 2}, 2)


# What it costs.


def test_turn_takes_two_statements_and_one_for_the_history(scenario: Scenario) -> None:
    agent = Agent(name="a", model=ScriptedReplies(Turn(text="ok")).model)
    execute_run(scenario.engine(agent), scenario.submit("a", session_id="s"))
    assert scenario.pool.ran == ["claim", "finish"]
    scenario.pool.ran = []
    agent = Agent(name="a", model=ScriptedReplies(Turn(text="ok")).model, history=History(runs=3))
    execute_run(scenario.engine(agent), scenario.submit("a", session_id="s"))
    assert scenario.pool.ran == ["claim", "history", "finish"]


def test_tool_takes_two_statements(scenario: Scenario) -> None:
    agent = Agent(name="a", model=ScriptedReplies(adding(1, 2), Turn(text="ok")).model, tools=[add])
    execute_run(scenario.engine(agent), scenario.submit("a"))
    assert scenario.pool.ran == ["claim", "finish"] * 4


def test_duplicate_takes_two_statements(scenario: Scenario) -> None:
    engine = scenario.engine(Agent(name="a", model=ScriptedReplies(Turn(text="ok")).model))
    step = scenario.submit("a")
    execute_run(engine, step)
    scenario.pool.ran = []
    execute_run(engine, step)
    assert scenario.pool.ran == ["claim", "claim"]  # the second one waits for a step that is locked
