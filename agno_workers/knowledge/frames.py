"""Messages between a worker and its reader process: msgpack after four bytes of length, over pipes."""

from __future__ import annotations

from typing import Any

import msgspec

from agno_workers.knowledge.types import Chunking, Parsed, Prepared, Refusal, Source

LENGTH_BYTES = 4


class Order(msgspec.Struct, frozen=True, array_like=True):
    """The first frame: the limits of the child."""

    parent: int
    time_limit_s: float
    memory_limit_bytes: int
    prepare: str
    """`module:function`, see knowledge/prepare.py."""


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One document to read."""

    content: bytes
    media_type: str | None
    """From the source or its server."""
    name: str
    """A file name or a URL; empty if the text was passed in."""
    source: Source
    """Without its text, which is the content."""
    chunking: Chunking
    seen: Parsed | None = None
    """The description by a vision model."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The reply to a task, with one of the four set; empty in reply to the order."""

    prepared: Prepared | None = None
    refusal: Refusal | None = None
    fault: dict[str, Any] | None = None
    """An AgnoError as JSON. It is not the document's fault, so the whole batch fails."""
    leaves: bool = False
    """The child exits after this answer: it reached its document or memory limit."""
    rows: tuple[Source, ...] | None = None
    """The rows of a file, each a source."""


def frame(value: Order | Task | Answer) -> bytes:
    """Raises ValueError for more than 4 GiB."""
    buffer = bytearray(LENGTH_BYTES)
    msgspec.msgpack.Encoder().encode_into(value, buffer, LENGTH_BYTES)
    if len(buffer) - LENGTH_BYTES >= 1 << 32:
        raise ValueError(f"A frame of {len(buffer):,} bytes is too long.")
    buffer[:LENGTH_BYTES] = (len(buffer) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "little")
    return bytes(buffer)
