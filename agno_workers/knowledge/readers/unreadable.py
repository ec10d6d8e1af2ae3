"""Why a reader gives up on a document. It becomes `core.knowledge.Refusal` and is final for these bytes."""

from __future__ import annotations

MAX_CHARS = 20_000_000
"""Text of one document: 40,000 chunks. More is no document, and its chunks would fill the worker's memory."""


class Unreadable(Exception):
    """`type` is one of Refusal's; the message says what was found and, where there is one, the next move."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type


def too_long(chars: int) -> Unreadable:
    """More text than we keep of one document."""
    return Unreadable(
        "too_large",
        f"It holds more than {MAX_CHARS:,} characters of text (at least {chars:,}): split it, and ingest the parts.",
    )
