"""What an ingestion finds out about a source, and what of a document's next version is new. Decisions only, no IO."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from agno_workers.knowledge.types import Chunk, Chunking, Prepared, Source

_READING = 1
"""Raised when the same bytes would give other chunks: all documents are read again then."""


class SourceItem(msgspec.Struct, frozen=True):
    """A source in the hands of a step, and what is known of its document."""

    position: int
    source: Source
    processing_hash: bytes
    attempts: int = 0
    alone: bool = False
    fingerprint: str | None = None
    """Of the document, as the rest: when it was read last."""
    sha256: bytes | None = None
    origin: str | None = None
    known_at: datetime | None = None
    """When the document was written last; None: there is none. Somebody else may write it meanwhile."""
    same_processing: bool = False
    """It was read as it would be read now, and does not wait for anything."""


class Unchanged(msgspec.Struct, frozen=True):
    """The document is what it was."""

    fingerprint: str | None


class Read(msgspec.Struct, frozen=True):
    """The document was read."""

    prepared: Prepared
    fingerprint: str | None
    tokens: int = 0
    """That a model took to see it."""


class Failed(msgspec.Struct, frozen=True):
    """It can't be had, or not be read: final for now."""

    error: dict[str, Any]


class RetryLater(msgspec.Struct, frozen=True):
    """It may be had later."""

    error: dict[str, Any]
    after_s: float


Outcome = Unchanged | Read | Failed | RetryLater


class MissingVector(NamedTuple):
    """A chunk that needs a vector."""

    embedding_space_id: int
    chunk_id: int
    tokens: int


def processing_hash(source: Source, chunking: Chunking, vision: str | None = None) -> bytes:
    """What decides, beside the bytes, what becomes of a source: another one, and it is read again. That of a text has the vision
    model in it, too: what is an image shows only when it is read.
    """
    said: tuple[Any, ...] = (_READING, chunking, source.media_type, source.title, source.metadata)
    if vision:
        said += (vision,)
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()


def match_chunks(
    chunks: Sequence[Chunk], live: Iterable[tuple[int, bytes]]
) -> tuple[list[tuple[int, Chunk]], list[Chunk]]:
    """The chunks that stay, with their new places, and the chunks that are new. `live`: (id, hash) in the order of the text.

    Of equal chunks, the first one stays for the first chunk.
    """
    known: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for chunk_id, digest in live:
        known[digest].append(chunk_id)
    kept, fresh = [], []
    for chunk in chunks:
        if known[chunk.hash]:
            kept.append((known[chunk.hash].popleft(), chunk))
        else:
            fresh.append(chunk)
    return kept, fresh


def batch_missing(
    missing: Iterable[MissingVector], *, max_tokens: int, max_texts: int
) -> Iterator[list[MissingVector]]:
    """Batches for embed steps: of one space each, and within both bounds but for a single text that is too long."""
    batch: list[MissingVector] = []
    tokens = 0
    for each in missing:
        is_full = len(batch) >= max_texts or tokens + each.tokens > max_tokens
        if batch and (is_full or each.embedding_space_id != batch[0].embedding_space_id):
            yield batch
            batch, tokens = [], 0
        batch.append(each)
        tokens += each.tokens
    if batch:
        yield batch
