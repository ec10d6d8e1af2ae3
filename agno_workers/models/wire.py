"""Read what providers send, whatever its types: a number in the place of a text is that text, what can't be read counts as
missing. So no value of a provider raises a raw error, or is stored in a type that can't be read again.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

MAX_TOKENS = 10**9
"""A count above this is not the number of one answer's tokens, and may not fit the database's sums."""
MAX_LEVELS = 100
"""Deeper values are not kept."""

_WORDS = ("text", "content", "thinking", "refusal", "summary", "reasoning")
_NO_ID = ("null", "None", "undefined")


def decode(data: bytes) -> Any:
    """Decode JSON, also with lone surrogates, invalid UTF-8 or NaN, which msgspec refuses. Raises ValueError or RecursionError."""
    try:
        return msgspec.json.decode(data)
    except ValueError:
        return json.loads(data.decode("utf-8", "replace"), strict=False)


def fields(value: object) -> dict[str, Any]:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list; a single object counts as a list of one."""
    if isinstance(value, list):
        return [item for item in value if isinstance(item, dict)]
    return [value] if isinstance(value, dict) else []


def text(value: object) -> str:
    """Return a text: a string, a number, the words of a content part, or of a list of those."""
    match value:
        case str():
            return value
        case None | bool():
            return ""
        case int() | float():
            return str(value)
        case list():
            return "".join(text(item) for item in value)
        case dict():
            return next((words for name in _WORDS if (words := text(value.get(name)))), "")
        case _:
            return ""


def identifier(value: object) -> str:
    """Return an id or a name: a string or a number; empty for anything else, and for the word null."""
    return "" if isinstance(value, dict | list) or value in _NO_ID else text(value)


def json_text(value: object) -> str:
    """Return a tool call's arguments, or a piece of them, as JSON text. Some servers send the object itself."""
    match value:
        case str():
            return value
        case None:
            return ""
        case _:
            return json.dumps(value)


def tokens(value: object) -> int:
    """Return a number of tokens; 0 for what is not one."""
    try:
        number = int(float(value)) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return 0
    return number if 0 <= number <= MAX_TOKENS else 0


def is_nested(value: object, levels: int = MAX_LEVELS) -> bool:
    """Return True for a value of more than so many levels: what decodes it later may have less room on its stack."""
    nested = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return levels < 0 or any(is_nested(item, levels - 1) for item in nested if isinstance(item, dict | list))
