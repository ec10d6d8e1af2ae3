"""Messages cross processes as JSON and come back as they were."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.core.messages import (
    AnyPart,
    Audio,
    File,
    Image,
    Message,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    user,
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)  # fmt: skip
parts: st.SearchStrategy[AnyPart] = st.one_of(
    st.builds(Text, texts),
    st.builds(Image, data=texts, url=texts, media_type=texts),
    st.builds(Audio, data=texts, url=texts, media_type=texts),
    st.builds(File, data=texts, url=texts, name=texts, media_type=texts),
    st.builds(Reasoning, texts, texts, st.none() | json_objects),
    st.builds(ToolCall, texts, texts, texts),
    st.builds(ToolResult, texts, texts, texts, st.booleans()),
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(parts, max_size=5).map(tuple),
)
tokens = st.integers(0, 10**12)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens)


@settings(deadline=None)
@given(messages)
def test_a_message_of_any_parts_comes_back_from_json_as_it_was(message: Message) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message


@settings(deadline=None)
@given(messages)
def test_a_message_comes_back_from_the_dicts_that_a_driver_hands_out(message: Message) -> None:
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(message)), Message) == message


@settings(deadline=None)
@given(st.builds(Reply, messages, st.sampled_from(list(StopReason)), usages, texts, texts))
def test_a_reply_comes_back_from_json_as_it_was(reply: Reply) -> None:
    assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply


def test_what_has_its_default_takes_no_room() -> None:
    assert msgspec.json.encode(user("hi")) == b'{"role":"user","parts":[{"type":"text","text":"hi"}]}'
    call = Message("assistant", (ToolCall("1", "f"),))
    assert (
        msgspec.json.encode(call)
        == b'{"role":"assistant","parts":[{"type":"tool_call","id":"1","name":"f"}]}'
    )


@pytest.mark.parametrize(
    "stored",
    [
        '{"role": "robot", "parts": []}',
        '{"role": "user", "parts": [{"type": "hologram"}]}',
        '{"role": "user", "parts": [{"text": "no type"}]}',
        '{"role": "user", "parts": [{"type": "text", "text": 1}]}',
    ],
)
def test_what_is_no_message_is_refused(stored: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(stored, type=Message)


def test_the_text_of_a_message_is_its_text_parts_joined_and_nothing_else() -> None:
    message = Message("assistant", (Reasoning("hm"), Text("a"), ToolCall("1", "f"), Text(" b")))
    assert message.text == "a b"
    assert message.tool_calls == (ToolCall("1", "f"),)
    assert Message("assistant", ()).text == ""


def test_a_users_message_takes_strings_and_parts_in_order() -> None:
    image = Image(url="https://example.com/x.png")
    assert user("look", image, "there") == Message("user", (Text("look"), image, Text("there")))


def test_messages_are_frozen() -> None:
    with pytest.raises(AttributeError):
        user("hi").role = "system"  # type: ignore[misc]


@settings(deadline=None)
@given(usages, usages, usages)
def test_usage_adds_up_field_by_field_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a
    for field in Usage.__struct_fields__:
        assert getattr(a + b, field) == getattr(a, field) + getattr(b, field)
