"""Small helpers for errors, texts and fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the nearest known name, or an empty string when none is near."""
    near = difflib.get_close_matches(name, [*map(str, known)], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def as_uuid(text: object) -> str | None:
    """Return a UUID in the form that Postgres prints, or None for any other text."""
    try:
        return str(UUID(str(text)))
    except ValueError:
        return None


def safe_text(text: str) -> str:
    """Return text that Postgres can store: NUL and lone surrogates become U+FFFD. Safe text is returned as the same object."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is None, for a receiver that reads a missing field as its default."""
    return {name: value for name, value in fields.items() if value is not None}
