"""Readers of what providers send: JSON of the right and the wrong types becomes a reply that can be stored, or one of our errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agno_workers.core.messages import Message, ModelRequest, Reply, ToolCall, ToolResult, read_message, user
from agno_workers.core.words import safe_text
from agno_workers.database.pool import to_json
from agno_workers.errors import ModelError
from agno_workers.models.anthropic import _Fold
from agno_workers.models.openai import _ChatFold, _ResponsesFold
from agno_workers.models.transport import Fold, ProviderTransport
from agno_workers.net.pool import Answer, PooledClient, Request
from agno_workers.net.sse import events
from tests.fakes.provider import WIRE

FOLDS: dict[str, Callable[[ModelRequest], Fold]] = {
    "chat": lambda request: _ChatFold("local", request),
    "responses": _ResponsesFold,
    "anthropic": _Fold,
}
TRANSCRIPTS = (
    (user("x"),),
    (
        user("x"),
        Message("assistant", (ToolCall("call_1", "f", "{}"),)),
        Message("tool", (ToolResult("call_1", "f", "1"),)),
    ),
)
WORDS = (
    "type",
    "id",
    "index",
    "name",
    "arguments",
    "content",
    "text",
    "delta",
    "usage",
    "error",
    "item",
    "input",
    "role",
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 10**30, -(10**400), "\ud83d", "a\0b", "\ude00", "{}", '{"a": 1}', "null"]),
    st.floats(),
    st.text(max_size=5),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def decoded(file: str) -> list[Any]:
    """Return the events in a file of the corpus that are JSON."""
    found = []
    for data in events([(WIRE / file).read_bytes()]):
        try:
            found.append(json.loads(data))
        except (ValueError, RecursionError):
            continue
    return found


REQUEST = Request(method="POST", url="http://p", headers=[], content=b"", proxy=None)


class Canned(PooledClient):
    """A client that has this answer to every request."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def send(self, request: Request, timeout_s: float) -> Answer:
        answer = Answer(request.url, timeout_s)
        answer.status = 200
        for chunk in (self._body, b""):
            answer.arrived.put(chunk)
        return answer


CORPUS = {
    dialect: [seed for path in sorted(WIRE.glob(f"{dialect}-*")) if (seed := decoded(path.name))]
    for dialect in FOLDS
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@st.composite
def streams(draw: st.DrawFn, dialect: str) -> bytes:
    """Draw an answer of the corpus with some values replaced."""
    stream = draw(st.sampled_from(CORPUS[dialect]))
    for _ in range(draw(st.integers(1, 3))):
        stream = replaced(stream, draw(st.sampled_from(places(stream)[1:])), draw(values))
    if draw(st.booleans()):
        return json.dumps(stream[0]).encode()
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in stream)


@pytest.mark.parametrize("dialect", FOLDS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_answer_of_any_types_is_a_reply_that_can_be_stored_or_an_error_of_ours(
    dialect: str, data: st.DataObject
) -> None:
    body = data.draw(streams(dialect))
    request = ModelRequest(data.draw(st.sampled_from(TRANSCRIPTS)))
    transport = ProviderTransport("p:m", "a-secret-key", lambda *_: REQUEST, Canned(body))
    try:
        reply = transport.ask("/", {}, FOLDS[dialect](request), 5.0, lambda _: None)
    except ModelError as error:
        msgspec.json.encode(error.to_json())
        return
    stored = to_json(reply)
    assert msgspec.json.decode(stored, type=Reply).message.tool_calls == reply.message.tool_calls
    assert (
        read_message(json.loads(to_json(reply.message))).text
        == reply.message.text
        == safe_text(reply.message.text)
    )
    assert all(call.id and call.name for call in reply.message.tool_calls)
    assert max(msgspec.structs.astuple(reply.usage)) < 2**40
