"""The last steps of every reply."""

from __future__ import annotations

import pytest

from agno_workers.core.messages import (
    AnyPart,
    Message,
    ModelRequest,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    user,
)
from agno_workers.models.reply import arguments, distinct, finished, plain_id

CALL = ToolCall("a", "f")


def ids(*given: str, before: tuple[str, ...] = ()) -> list[str]:
    messages = (Message("assistant", tuple(ToolCall(i, "f") for i in before)),)
    parts = distinct(tuple(ToolCall(i, "f") for i in given), messages, "r")
    return [part.id for part in parts if isinstance(part, ToolCall)]


def test_ids_become_unique() -> None:
    assert ids("a", "b") == ["a", "b"]
    assert ids("a", "a", "a") == ["a", "a_2", "a_3"]
    assert ids("a", "a_2", "a") == ["a", "a_2", "a_3"]
    assert ids("", "") == ["call_r", "call_r_2"]


def test_ids_do_not_repeat_those_of_the_transcript() -> None:
    assert ids("call_0", "call_1", before=("call_0", "call_0_2")) == ["call_0_3", "call_1"]


def done(*parts: AnyPart, stop: StopReason = StopReason.END) -> Reply:
    request = ModelRequest((user("x"),))
    return finished(parts, stop=stop, usage=Usage(), model="m", response_id="r", request=request)


@pytest.mark.parametrize(
    ("parts", "said", "stop"),
    [
        ((Text("x"),), StopReason.END, StopReason.END),
        ((CALL,), StopReason.END, StopReason.TOOL_CALLS),
        ((Text("x"),), StopReason.TOOL_CALLS, StopReason.END),
        ((CALL,), StopReason.LENGTH, StopReason.LENGTH),
        ((), StopReason.LENGTH, StopReason.LENGTH),
        ((), StopReason.REFUSAL, StopReason.REFUSAL),
    ],
)
def test_the_stop_reason_agrees_with_the_parts(
    parts: tuple[AnyPart, ...], said: StopReason, stop: StopReason
) -> None:
    assert done(*parts, stop=said).stop is stop


@pytest.mark.parametrize("parts", [(), (Text(""),), (Reasoning("hm"),)])
def test_empty_answer_is_an_error(parts: tuple[AnyPart, ...]) -> None:
    with pytest.raises(ValueError, match="empty"):
        done(*parts)


AFTER_TOOLS = (user("x"), Message("assistant", (CALL,)), Message("tool", (ToolResult("a", "f", "1"),)))
AFTER_PAUSE = (user("x"), Message("assistant", (Text("Searching."),)))


@pytest.mark.parametrize("messages", [AFTER_TOOLS, AFTER_PAUSE])
@pytest.mark.parametrize("parts", [(), (Text(""),), (Reasoning("hm"),)])
def test_answer_after_tools_or_a_pause_may_be_empty(
    messages: tuple[Message, ...], parts: tuple[AnyPart, ...]
) -> None:
    request = ModelRequest(messages)
    reply = finished(parts, stop=StopReason.END, usage=Usage(), model="m", response_id="r", request=request)
    assert (reply.message.text, reply.stop) == ("", StopReason.END)


@pytest.mark.parametrize(("levels", "fits"), [(100, True), (102, False)])
def test_block_of_too_many_levels_is_not_kept(levels: int, fits: bool) -> None:
    block: dict[str, object] = {}
    for _ in range(levels):
        block = {"a": block}
    thought = Reasoning("", "anthropic", block)
    if fits:
        assert done(thought, Text("x")).message.parts == (thought, Text("x"))
    else:
        with pytest.raises(ValueError, match="levels"):
            done(thought, Text("x"))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {"invalid_arguments": ""}),
        ('{"a', {"invalid_arguments": '{"a'}),
        ("[1]", {"invalid_arguments": "[1]"}),
    ],
)
def test_arguments_are_always_an_object(written: str, value: dict[str, object]) -> None:
    assert arguments(ToolCall("a", "f", written)) == value


def test_ids_have_only_characters_that_every_provider_accepts() -> None:
    assert (plain_id("call_1-a"), plain_id("f:1/ü"), plain_id("")) == ("call_1-a", "f_1__", "call")
