"""Results as text."""

from __future__ import annotations

import enum
import json
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agno_workers.core.words import safe_text
from agno_workers.tools.result import Unserialisable, bounded, to_text

any_text = st.text(alphabet=st.characters(exclude_categories=[]))


class Colour(enum.Enum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042 - people write it
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Place:
    lat: float
    name: str


class Guest(BaseModel):
    name: str
    born: date


class Anything(BaseModel):
    it: Any


class Row(msgspec.Struct, tag=True):
    id: int
    guest: Any


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is\n", "as it is\n"),
        ("", ""),
        (None, ""),
        (b"bytes \xc3\xbc", "bytes ü"),
        (bytearray(b"x"), "x"),
        (5, "5"),
        (10**30, str(10**30)),
        (1.5, "1.5"),
        (True, "true"),
        (float("nan"), "NaN"),
        ([float("inf")], '["Infinity"]'),
        ([], "[]"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        ((1, 2), "[1,2]"),
        ({3}, "[3]"),
        ({1: "a"}, '{"1":"a"}'),
        (OrderedDict(a=1), '{"a":1}'),
        (Counter("aa"), '{"a":2}'),
        (Pair(1, 2), "[1,2]"),
        (date(2026, 11, 22), "2026-11-22"),
        (datetime(2026, 11, 22, 16, tzinfo=UTC), "2026-11-22T16:00:00Z"),
        (timedelta(hours=1), "PT1H"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        (OldColour.RED, "red"),
        (Level.HIGH, "3"),
        ([Path("a"), Decimal("1.10"), b"x", Colour.RED], '["a","1.10","x","red"]'),
        (Place(1, "x"), '{"lat":1,"name":"x"}'),
        (Guest(name="Ann", born=date(1990, 1, 2)), '{"name":"Ann","born":"1990-01-02"}'),
        ([Guest(name="Ann", born=date(1990, 1, 2))], '[{"name":"Ann","born":"1990-01-02"}]'),
        (
            Row(1, Guest(name="Ann", born=date(1990, 1, 2))),
            '{"type":"Row","id":1,"guest":{"name":"Ann","born":"1990-01-02"}}',
        ),
        ({"rows": [Row(1, Place(1, "x"))]}, '{"rows":[{"type":"Row","id":1,"guest":{"lat":1,"name":"x"}}]}'),
        (["nul \0 here"], '["nul \ufffd here"]'),
        (["backslash \\u0000 in a text"], '["backslash \\\\u0000 in a text"]'),
        (["half \ud800 pair", {"k": "\udc00"}], '["half \ufffd pair",{"k":"\ufffd"}]'),
    ],
)
def test_a_result_becomes_text(value: Any, text: str) -> None:
    assert to_text(value) == text


def endless() -> Any:
    while True:
        yield 1


@pytest.mark.parametrize(
    "value",
    [
        {"a\ud800": "\udfff"},
        Place(1.0, "\ud800"),
        Row(1, {"\ud800": 1}),
        [{"deep": ({"\ud800": Colour.RED},)}],
        Anything(it={"\ud800": {1}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_lone_surrogates_are_replaced_in_keys_and_values(value: Any) -> None:
    text = to_text(value)
    assert "\ufffd" in text
    assert text == safe_text(text)
    json.loads(text)


async def never_awaited() -> None: ...


itself: list[Any] = []
itself.append(itself)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        [object()],
        {"deep": {"er": len}},
        Row(1, object()),
        b"\xff",
        [b"\xff"],
        itself,
        endless(),
        iter([1]),
        map(str, [1]),
        ValueError("returned, not raised"),
        Guest,
    ],
    ids=lambda value: type(value).__name__,
)
def test_unserialisable_result_has_a_message_for_the_model(value: Any) -> None:
    with pytest.raises(Unserialisable) as refused:
        to_text(value)

    assert "The tool ran" in str(refused.value)
    assert type(value).__qualname__ in str(refused.value)


def test_coroutine_is_not_a_result() -> None:
    coroutine = never_awaited()
    with pytest.raises(Unserialisable):
        to_text(coroutine)
    coroutine.close()


@settings(deadline=None)  # a busy machine is not a failure
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | any_text,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_results_become_json_that_postgres_can_store(value: Any) -> None:
    text = safe_text(to_text([value]))

    assert "\0" not in text
    assert json.loads(text)[0] == _safe(value)
    assert "\0" not in json.dumps(json.loads(text)).encode().decode("unicode_escape")


@settings(deadline=None)  # a busy machine is not a failure
@given(any_text)
def test_safe_text_can_be_stored_and_changes_nothing_else(text: str) -> None:
    safe = safe_text(text)

    safe.encode()
    assert "\0" not in safe
    assert safe_text(safe) == safe
    if "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text):
        assert safe == text


def test_a_cut_never_halves_a_character() -> None:
    whole = "ü" * 1000
    for max_bytes in (200, 201):
        body, _, marker = bounded(whole, max_bytes).partition("\n[truncated")
        assert marker
        assert set(body) == {"ü"}


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text(), st.integers(min_value=0, max_value=300))
def test_bounded_text_stays_within_its_bytes(text: str, max_bytes: int) -> None:
    cut = bounded(text, max_bytes)

    assert cut == text or text.startswith(cut[: cut.rindex("\n[truncated")])
    assert len(cut.encode()) <= max(max_bytes, 100)


def _safe(value: Any) -> Any:
    match value:
        case str():
            return safe_text(value)
        case list():
            return [_safe(item) for item in value]
        case dict():
            return {safe_text(key): _safe(item) for key, item in value.items()}
        case _:
            return value
