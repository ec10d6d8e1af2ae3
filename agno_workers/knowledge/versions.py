"""Outcomes of a source, and the difference between two versions of a document. Decisions only, no IO."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from agno_workers.knowledge.types import Chunk, Chunking, Prepared, Source

T = TypeVar("T")
_READING = 3
"""Increment this when readers or chunking change: the next ingestion then reads all documents again."""


class SourceItem(msgspec.Struct, frozen=True):
    """A source that a step has claimed, with the stored state of its document."""

    position: int
    source: Source
    processing_hash: bytes
    attempts: int = 0
    fingerprint: str | None = None
    """From the last reading of the document, as are the fields below."""
    sha256: bytes | None = None
    origin: str | None = None
    known_at: datetime | None = None
    """When the document was last written. None: there is no document. Another step may write it meanwhile."""
    same_processing: bool = False
    """The processing hash is the same and no version is pending."""


class Unchanged(msgspec.Struct, frozen=True):
    """The document did not change."""

    fingerprint: str | None


class Read(msgspec.Struct, frozen=True):
    """The document was read."""

    prepared: Prepared
    fingerprint: str | None
    tokens: int = 0
    """Tokens of the vision model."""


class Failed(msgspec.Struct, frozen=True):
    """The source can't be fetched or read; it is not retried within this ingestion."""

    error: dict[str, Any]


class RetryLater(msgspec.Struct, frozen=True):
    """The source may become available later."""

    error: dict[str, Any]
    after_s: float


Outcome = Unchanged | Read | Failed | RetryLater


class MissingVector(NamedTuple):
    """A chunk that needs a vector."""

    embedding_space_id: int
    chunk_id: int
    tokens: int


def processing_hash(source: Source, chunking: Chunking, vision: str | None = None) -> bytes:
    """Hash everything except the bytes that determines a document's chunks. If it changes, the source is read again.

    It includes the vision model for all sources, because a source turns out to be an image only when it is read.
    """
    said: tuple[Any, ...] = (_READING, chunking, source.media_type, source.title, source.metadata)
    if vision:
        said += (vision,)
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()


def match_chunks(
    chunks: Sequence[Chunk], live: Iterable[tuple[int, bytes]]
) -> tuple[list[tuple[int, Chunk]], list[Chunk]]:
    """Split chunks into those that are stored already, with their ids, and new ones. `live` holds (id, hash) in text order.

    Equal chunks are matched in text order.
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
    """Batch chunks for embed steps: one embedding space each, within both limits unless a single text exceeds them."""
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


def batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while few := list(islice(rest, size)):
        yield few
