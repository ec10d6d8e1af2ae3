"""Convert a tool's result to text that a model can read and Postgres can store."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from pydantic import PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from agno_workers.core.words import safe_text
from agno_workers.errors import message_of

_ESCAPE = re.compile(r"\\(\\|u0000)")
"""An escaped backslash (skipped) or an escaped NUL in JSON text."""


class Unserialisable(TypeError):
    """A tool's result cannot be converted to text. The message is for the model."""

    reason = ""


def to_text(value: object) -> str:
    """Return a result as text.

    * A string stays the same, bytes are decoded as UTF-8, None is the empty string.
    * Numbers, lists, tuples, sets, dicts, dates, Decimal, UUID, Path, enums, dataclasses, pydantic models and msgspec structs
      become compact JSON; a single JSON string, such as a date, without its quotes.
    * NaN and infinities become JSON strings, NUL and lone surrogates U+FFFD.

    Raises Unserialisable for anything else, also for iterators, which may never end.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return _decoded(bytes(value))
    if isinstance(value, Iterator | AsyncIterator) or inspect.isawaitable(value):
        raise _unserialisable(value, "it is lazy; return a list instead")
    text = _ESCAPE.sub(_without_nul, _to_json(value))
    return str(msgspec.json.decode(text)) if text.startswith('"') else text


def to_json_text(value: object) -> str:
    """Return a value as compact JSON, as `to_text` converts it; a string keeps its quotes, and None is null. Raises Unserialisable."""
    if isinstance(value, bytes | bytearray):
        value = _decoded(bytes(value))
    if isinstance(value, Iterator | AsyncIterator) or inspect.isawaitable(value):
        raise _unserialisable(value, "it is lazy; return a list instead")
    return _ESCAPE.sub(_without_nul, _to_json(value))


def bounded(text: str, max_bytes: int) -> str:
    """Cut text to at most `max_bytes` of UTF-8 between characters, with a marker at its end (which always fits)."""
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
    """Return compact JSON. The slow way is for values with lone surrogates, which pydantic refuses."""
    try:
        try:
            return to_json(value, inf_nan_mode="strings", fallback=_builtins).decode()
        except PydanticSerializationError:
            escaped = json.dumps(value, default=_outermost)
            return to_json(_scrubbed(json.loads(escaped)), inf_nan_mode="strings").decode()
    except Exception as error:  # a serializer of the tool's author may raise anything
        raise _unserialisable(value, message_of(error).partition("\n")[0]) from error


def _jsonable(value: Any) -> Any:
    return to_jsonable_python(value, fallback=_builtins)


def _builtins(value: Any) -> Any:
    """Convert msgspec structs, which pydantic does not know and which may hold pydantic models."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, enc_hook=_jsonable)
    raise TypeError(f"{type(value).__qualname__} cannot be converted to JSON")


def _outermost(value: Any) -> Any:
    """Convert an object, and not what is in it, to a value that `json` knows or can ask for again."""
    try:
        plain = TypeAdapter(type(value)).dump_python(value)
    except PydanticUserError:
        return _builtins(value)
    return _jsonable(value) if plain is value or isinstance(value, set | frozenset) else plain


def _scrubbed(value: Any) -> Any:
    match value:
        case str():
            return safe_text(value)
        case list():
            return [_scrubbed(item) for item in value]
        case dict():
            return {safe_text(key): _scrubbed(item) for key, item in value.items()}
        case _:
            return value


def _without_nul(escape: re.Match[str]) -> str:
    return "\ufffd" if escape[1] == "u0000" else escape[0]


def _unserialisable(value: object, reason: str) -> Unserialisable:
    error = Unserialisable(
        f"The tool ran, but its result of type {type(value).__qualname__} cannot be converted to text: {reason}."
        " Calling it again will not help; its author should return text or JSON values."
    )
    error.reason = reason
    return error
