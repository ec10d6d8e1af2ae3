"""The scripted model: the same transcript, the same answer."""

from __future__ import annotations

import pytest

from agno_workers.core.messages import (
    Delta,
    Message,
    ModelRequest,
    ModelSettings,
    Reply,
    StopReason,
    Text,
    ToolCall,
    Usage,
    user,
)
from agno_workers.errors import ModelRejected, ModelUnavailable
from agno_workers.models import Scripted, Turn, resolve

STORY = Scripted("story", (Turn(calls=(("add", {"a": 1}), ("add", {"a": 2}))), Turn(text="It is three.")))
START = (user("one plus two"),)


def asked(model: Scripted, *messages: Message, timeout_s: float = 5) -> Reply:
    settings = ModelSettings(timeout_s=timeout_s)
    return model.ask(ModelRequest(messages, settings=settings), lambda _: None)


def test_number_of_assistant_messages_selects_the_turn() -> None:
    first = asked(STORY, *START)
    assert first == asked(STORY, *START)
    assert first.stop is StopReason.TOOL_CALLS
    assert first.message.tool_calls == (
        ToolCall("call_scripted_0_1", "add", '{"a": 1}'),
        ToolCall("call_scripted_0_2", "add", '{"a": 2}'),
    )
    last = asked(STORY, *START, first.message)
    assert last == Reply(
        Message("assistant", (Text("It is three."),)),
        StopReason.END,
        Usage(input_tokens=3, output_tokens=3),
        "scripted:story",
        "scripted_1",
    )


def test_history_does_not_count() -> None:
    before = Message("assistant", (Text("Hello."),), from_history=True)
    assert asked(STORY, before, *START).stop is StopReason.TOOL_CALLS


def test_script_without_turns_left_is_rejected() -> None:
    said = Message("assistant", (Text("x"),))
    with pytest.raises(ModelRejected, match="has 2 turns, not 3"):
        asked(STORY, *START, said, said)


def test_text_is_emitted_word_by_word_after_the_reasoning() -> None:
    seen: list[Delta] = []
    model = Scripted("wordy", (Turn(reasoning="let me", text="one  two"),))
    model.ask(ModelRequest(START), seen.append)
    assert seen == [Delta(reasoning="let "), Delta(reasoning="me"), Delta(text="one  "), Delta(text="two")]


def test_a_turn_may_be_an_error() -> None:
    busy = Scripted("busy", (Turn(error=ModelUnavailable("Busy.", retry_after_s=3.0)),))
    with pytest.raises(ModelUnavailable, match="Busy"):
        asked(busy, *START)


def test_turn_longer_than_its_timeout_is_unavailable() -> None:
    with pytest.raises(ModelUnavailable, match="did not finish"):
        asked(Scripted("slow", (Turn(text="x", delay_s=60),)), *START, timeout_s=0.01)


def test_a_function_may_write_the_script() -> None:
    model = Scripted("shout", lambda request: Turn(text=request.messages[-1].text.upper()))
    assert asked(model, user("hello")).message.text == "HELLO"


def test_echo_always_exists() -> None:
    model = resolve("scripted:echo")
    assert model.ask(ModelRequest((user("hello"),)), lambda _: None).message.text == "hello"
