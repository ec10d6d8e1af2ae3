"""Small helpers for errors, texts and fields."""

from __future__ import annotations

import difflib
import re
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


BREAKS = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))
"""For `str.translate`: what ends a line becomes a blank."""
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1: ESC begins what a terminal executes, CR overwrites a line
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # order, or nothing to see
    r"\ud800-\udfff]"  # half a character, as in a file name that is not UTF-8
    # A joiner belongs to the spelling of scripts from Arabic to Burmese, and to emoji; elsewhere it hides.
    r"|(?<![\u0600-\u109f])\u200c|\u200c(?![\u0600-\u109f])"
    r"|(?<![\u0600-\u109f\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d"
    r"|\u200d(?![\u0600-\u109f\u2190-\u2bff\U0001f000-\U0001faff])"
)


def printable(text: str, *, one_line: bool = False) -> str:
    """Return foreign text as a terminal or a log may show it: what controls a terminal, reorders letters or can't be seen becomes
    its JSON escape, as `\\u001b`. So JSON stays the same JSON. Line breaks and tabs are kept, unless it must be `one_line`.
    """
    text = text.translate(BREAKS) if one_line else text.replace("\r\n", "\n")
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub(_escape, text)


def _escape(unseen: re.Match[str]) -> str:
    units = unseen[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))


def shortened(text: str, most: int) -> str:
    """Return the text, or its first `most` characters and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is None, for a receiver that reads a missing field as its default."""
    return {name: value for name, value in fields.items() if value is not None}
