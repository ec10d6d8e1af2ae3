"""The exception of readers. It becomes a Refusal and is final for these bytes."""

from __future__ import annotations

MAX_CHARS = 20_000_000
"""Maximum text of a document, about 40,000 chunks; more would fill the worker's memory."""


class Unreadable(Exception):
    """`type` is that of a Refusal; the message states the problem and, if there is one, the next move."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def too_long(chars: int) -> Unreadable:
    """Return the error for a text that is too long."""
    return Unreadable(
        "too_large",
        f"It contains more than {MAX_CHARS:,} characters of text (at least {chars:,}): split it, and ingest the parts.",
    )
