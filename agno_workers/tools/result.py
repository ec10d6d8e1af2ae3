"""What a tool returned, as text that a model can read and Postgres can store."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

_ESCAPE = re.compile(r"\\(\\|u0000)")
"""In JSON text: an escaped backslash (stepped over), or an escaped NUL."""


class Unserialisable(TypeError):
    """A tool's result can't be turned into text. The message is for the model."""


def to_text(value: object) -> str:
    """A result as text.

    * A string as it is, bytes as UTF-8, None as nothing.
    * Numbers, lists, tuples, sets, dicts, dates, Decimal, UUID, Path, enums, dataclasses, pydantic models
      and msgspec structs as compact JSON; where that would be a single JSON string (a date), without quotes.
    * NaN and infinities as JSON strings. NUL and lone surrogates in strings as U+FFFD.

    Raises Unserialisable for anything else, iterators included: they may never end.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return _decoded(bytes(value))
    if isinstance(value, Iterator | AsyncIterator) or inspect.isawaitable(value):
        raise _unserialisable(value, "it would have to be run to the end; return a list instead")
    text = _ESCAPE.sub(_without_nul, _to_json(value))
    return str(msgspec.json.decode(text)) if text.startswith('"') else text


def safe_text(text: str) -> str:
    """The same text, storable as Postgres text and jsonb: NUL and lone surrogates become U+FFFD."""
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def bounded(text: str, max_bytes: int) -> str:
    """At most `max_bytes` of UTF-8 (but at least the marker), cut between characters, with a marker that says so."""
    if len(text) <= max_bytes and len(text.encode()) <= max_bytes:
        return text
    marker = f"\n[truncated: this is the beginning of a text of {len(text)} characters; ask for less]"
    room = max(0, max_bytes - len(marker.encode()))
    return text[:room].encode()[:room].decode(errors="ignore") + marker


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        reason = f"the bytes are not UTF-8 text ({error.reason} at {error.start})"
        raise _unserialisable(value, reason) from None


def _to_json(value: object) -> str:
    """Compact JSON. The slow way only where pydantic's quick one stumbles, as it does over lone surrogates."""
    try:
        try:
            return to_json(value, inf_nan_mode="strings", fallback=_builtins).decode()
        except PydanticSerializationError:
            return to_json(_scrubbed(_jsonable(value)), inf_nan_mode="strings").decode()
    except Exception as error:  # a serializer of the tool's author may raise anything
        raise _unserialisable(value, str(error).partition("\n")[0]) from error


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(value, fallback=_builtins)


def _builtins(value: Any) -> Any:
    """What pydantic does not know: msgspec structs, which may hold pydantic models in turn."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, enc_hook=_jsonable)
    raise TypeError(f"JSON has no form for {type(value).__qualname__}")


def _scrubbed(value: Any) -> Any:
    match value:
        case str():
            return safe_text(value)
        case list():
            return [_scrubbed(item) for item in value]
        case dict():
            return {key: _scrubbed(item) for key, item in value.items()}
        case _:
            return value


def _without_nul(escape: re.Match[str]) -> str:
    return "\ufffd" if escape[1] == "u0000" else escape[0]


def _unserialisable(value: object, reason: str) -> Unserialisable:
    return Unserialisable(
        f"The tool ran, but its result of type {type(value).__qualname__} can't be turned into text: {reason}."
        " Calling it again will not help; its author should return text or what JSON can carry."
    )
