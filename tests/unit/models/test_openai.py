"""Chat completions as other servers write them."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.messages import (
    Message,
    ModelRequest,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    user,
)
from agno_workers.models.openai import _ChatFold, _ResponsesFold

REQUEST = ModelRequest((user("x"),))


def folded(*deltas: dict[str, Any], reason: str = "stop") -> Reply:
    fold = _ChatFold("local", REQUEST)
    for delta in deltas:
        fold.add({"choices": [{"delta": delta, "finish_reason": None}]})
    fold.add({"id": "r1", "model": "m", "choices": [{"delta": {}, "finish_reason": reason}]})
    return fold.reply()


def call(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    piece: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        piece["index"] = index
    if call_id is not None:
        piece["id"] = call_id
    return {"tool_calls": [piece]}


@pytest.mark.parametrize(
    "deltas",
    [
        (
            call(0, "a", "f", "{"),
            call(0, None, None, "}"),
            call(1, "b", "g", None),
            call(1, None, None, "{}"),
        ),
        (call(0, "a", "f", "{"), call(0, "a", None, "}"), call(1, "b", "g", "{}")),
        (call(0, "a", "f", "{}"), call(0, "b", "g", "{}")),
        (call(None, "a", "f", "{}"), call(None, "b", "g", "{}")),
        (call(None, "a", "f", "{"), call(None, None, None, "}"), call(None, "b", "g", "{}")),
        (call(0, "a", "f", "{"), call(1, "b", "g", "{"), call(0, None, None, "}"), call(1, None, None, "}")),
        ({"tool_calls": call(0, "a", "f", "{}")["tool_calls"] + call(1, "b", "g", "{}")["tool_calls"]},),
    ],
)
def test_calls_are_assembled_with_or_without_indexes(deltas: tuple[dict[str, Any], ...]) -> None:
    reply = folded(*deltas)
    assert reply.message.tool_calls == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
    assert reply.stop is StopReason.TOOL_CALLS


@pytest.mark.parametrize("word", ["reasoning_content", "reasoning"])
def test_reasoning_is_found_under_either_name(word: str) -> None:
    reply = folded({word: "hm, "}, {word: "so", "content": ""}, {"content": "Hello."})
    assert reply.message == Message("assistant", (Reasoning("hm, so", "local"), Text("Hello.")))


def test_a_call_without_arguments_is_left_as_written() -> None:
    assert folded(call(0, "a", "f", None)).message.tool_calls == (ToolCall("a", "f", ""),)


def test_answer_without_a_stop_reason_is_truncated() -> None:
    fold = _ChatFold("local", REQUEST)
    fold.add({"choices": [{"delta": {"content": "Hel"}}]})
    with pytest.raises(ValueError, match="without the final event"):
        fold.reply()


def test_responses_whose_items_were_not_streamed_are_taken_from_the_last_event() -> None:
    fold = _ResponsesFold(REQUEST)
    item = {"type": "message", "content": [{"type": "output_text", "text": "Hello."}]}
    fold.add({"type": "response.completed", "response": {"id": "r", "model": "m", "output": [item]}})
    assert fold.reply() == Reply(Message("assistant", (Text("Hello."),)), model="m", response_id="r")


def test_unknown_events_are_ignored() -> None:
    fold = _ResponsesFold(REQUEST)
    assert fold.add({"type": "response.something.new", "delta": "x"}) is None
