"""What a worker and its reading child say to each other: msgpack behind four bytes of length, over pipes."""

from __future__ import annotations

from typing import Any

import msgspec

from agno_workers.knowledge.types import Chunking, Parsed, Prepared, Refusal, Source

LENGTH_BYTES = 4


class Order(msgspec.Struct, frozen=True, array_like=True):
    """The first frame: how the child is to live."""

    parent: int
    time_limit_s: float
    memory_limit_bytes: int
    prepare: str
    """`module:function`, see knowledge/prepare.py."""


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One document to read."""

    content: bytes
    media_type: str | None
    """As its user or its server said."""
    name: str
    """A file's name or a URL; empty where it was handed in as text, which it is then, whatever it is called."""
    source: Source
    """Without its text, which is the content."""
    chunking: Chunking
    seen: Parsed | None = None
    """What a vision model saw in it."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """To the order, empty; to a task, one of the three."""

    prepared: Prepared | None = None
    refusal: Refusal | None = None
    fault: dict[str, Any] | None = None
    """An AgnoError as JSON: not the document's fault, so the batch fails and none of its documents is judged."""
    leaves: bool = False
    """The child ends after this answer: it has read enough, or its memory is full."""


def frame(value: Order | Task | Answer) -> bytes:
    """Raises ValueError for more than 4 GiB."""
    buffer = bytearray(LENGTH_BYTES)
    msgspec.msgpack.Encoder().encode_into(value, buffer, LENGTH_BYTES)
    if len(buffer) - LENGTH_BYTES >= 1 << 32:
        raise ValueError(f"A frame of {len(buffer):,} bytes is too long.")
    buffer[:LENGTH_BYTES] = (len(buffer) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "little")
    return bytes(buffer)
