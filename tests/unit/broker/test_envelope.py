"""A list element and a body are read as kombu reads them, whichever decoder does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kombu.serialization import loads as loads_body
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from agno_workers.broker.envelope import Message, _read

TEXTS = [
    b'{"a": [1, -2.5, "x", null, true]}',
    b'{"at": {"__type__": "datetime", "__value__": "2026-11-30T10:00:00+00:00"}}',
    b'{"x": {"__type__": "zzz", "__value__": 1}}',
    b'{"__type__": "datetime"}',
    b"[NaN, Infinity, 1e999]",
    b'"\\ud800"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b"123456789012345678901234567890",
    b"9" * 5000,
    b'{"a": 1, "a": 2}',
    b'"a\x01b"',
    b"[" * 200_000,
    b"[1,]",
    b"",
]


def outcome(read: Callable[[], Any]) -> str:
    try:
        return repr(read())
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:30]))
def test_list_element_is_read_as_kombu_reads_it(text: bytes) -> None:
    expected = outcome(lambda: loads(bytes_to_str(text)))
    found = _read(text, "agents")
    if isinstance(found, dict) and (marked := found.get("agno_unreadable")):
        assert f"can read: {expected}: " in marked["why"]
    else:
        assert repr(found) == expected


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-python-serialize", "text/plain", None]
)
@pytest.mark.parametrize("accept", [None, {"application/json"}, {"text/plain"}], ids=str)
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:30]))
def test_body_is_read_as_kombu_reads_it(
    text: bytes, accept: set[str] | None, content_type: str | None
) -> None:
    payload = {"properties": {"delivery_tag": "1"}, "content-type": content_type, "content-encoding": "utf-8"}
    message = Message(payload)
    message.body, message.accept = text, accept
    assert outcome(message.decode) == outcome(lambda: loads_body(text, content_type, "utf-8", accept=accept))
