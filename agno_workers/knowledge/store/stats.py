"""Read-only statistics of knowledge bases: counts, models, origins, duplicates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from agno_workers.database.pool import Pool, statements
from agno_workers.knowledge.types import NEAR_BANDS, EmbeddingSpaceStatus
from agno_workers.knowledge.words import VERSION

_SQL = statements("knowledge/store/stats")


class Base(msgspec.Struct, frozen=True):
    """A knowledge base in a list."""

    name: str
    documents: int
    chunks: int
    vectors: int
    """Vectors of the current model."""
    open: int
    """Ingestions that have not ended."""
    notes: int
    """Notes that wait for a review."""
    gaps: int
    version: int
    words_version: int
    """The version that wrote the words for keyword search; see knowledge/words.py."""
    created_at: datetime
    options: dict[str, Any] = {}
    model: str | None = None
    """The model that is searched. None: keyword search only."""
    dimensions: int = 0
    updated_at: datetime | None = None
    refused: str | None = None
    """The reason of the model for a chunk without a vector."""

    @property
    def problems(self) -> list[str]:
        """Return what searches lack while no ingestion is open, a sentence each, with the next move."""
        if self.open:
            return []
        again = f"`agno-workers knowledge reindex {self.name}`"
        found = []
        if self.model and (missing := self.chunks - self.vectors) > 0:
            why = f" ({self.refused})" if self.refused else ""
            found.append(
                f"{missing:,} of {self.chunks:,} chunks have no vector of {self.model}{why}, so only keyword search finds them: {again} tries again."
            )
        if self.chunks and self.words_version < VERSION:
            found.append(f"An earlier version wrote the words for keyword search: {again} writes them again.")
        return found


class Model(msgspec.Struct, frozen=True):
    """The vectors of one embedding model in one knowledge base."""

    model: str
    dimensions: int
    status: EmbeddingSpaceStatus
    has_partition: bool
    is_indexed: bool
    vectors: int
    why: str | None = None
    """Why the model makes no vectors at all."""


class Origin(msgspec.Struct, frozen=True):
    """An origin, such as a folder, with the number of its documents."""

    origin: str
    documents: int
    updated_at: datetime


class Duplicate(msgspec.Struct, frozen=True):
    """A document whose text equals that of another one, or nearly."""

    uri: str
    of: str
    """The uri of the other document."""
    similarity: float
    """1.0: the same text, stored once. Below: the estimated share of equal phrases."""


class Unfinished(msgspec.Struct, frozen=True):
    """An embedding space that is still building although no ingestion is open."""

    knowledge: str
    model: str
    vectors: int
    chunks: int


class Sizes(msgspec.Struct, frozen=True):
    """Sizes in bytes."""

    searched: int
    """The chunks and vectors of all knowledge bases, with their indexes: searches read these."""
    shared_buffers: int
    """The memory of Postgres for pages of all tables."""


class Searched(msgspec.Struct, frozen=True):
    """The parts of a knowledge base that a search needs."""

    id: int
    embedding_space_id: int | None = None
    model: str | None = None
    """None: there are no vectors yet."""


class KnowledgeStats:
    """Raises Unavailable if Postgres can't be reached."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def bases(self, name: str | None = None) -> list[Base]:
        """Return all knowledge bases, or the one of that name."""
        return [msgspec.convert(row, Base) for row in self._pool.run(_SQL["bases"], {"name": name})]

    def models(self, name: str) -> list[Model]:
        return [msgspec.convert(row, Model) for row in self._pool.run(_SQL["models"], {"name": name})]

    def origins(self, name: str, limit: int = 20) -> list[Origin]:
        rows = self._pool.run(_SQL["origins"], {"name": name, "limit": limit})
        return [msgspec.convert(row, Origin) for row in rows]

    def duplicates(self, knowledge_id: int, limit: int = 100) -> list[Duplicate]:
        asked = {"knowledge_id": knowledge_id, "near_bands": NEAR_BANDS, "limit": limit}
        return [msgspec.convert(row, Duplicate) for row in self._pool.run(_SQL["duplicates"], asked)]

    def searched(self, name: str) -> Searched | None:
        """Return None if there is no knowledge base of that name."""
        rows = self._pool.run(_SQL["searched"], {"name": name})
        return msgspec.convert(rows[0], Searched) if rows else None

    def document(self, knowledge_id: int, uri: str) -> int | None:
        """Return the id of the document with that uri, or of its original if it is a duplicate."""
        rows = self._pool.run(_SQL["document"], {"knowledge_id": knowledge_id, "uri": uri})
        return rows[0]["duplicate_of"] or rows[0]["id"] if rows else None

    def fields(self, knowledge_id: int) -> dict[str, set[str]]:
        """Return the fields of the metadata of its documents, with their types in JSON."""
        rows = self._pool.run(_SQL["fields"], {"knowledge_id": knowledge_id})
        return {row["field"]: set(row["types"]) for row in rows}

    def sizes(self) -> Sizes:
        (row,) = self._pool.run(_SQL["sizes"])
        return msgspec.convert(row, Sizes)

    def unfinished(self) -> list[Unfinished]:
        return [msgspec.convert(row, Unfinished) for row in self._pool.run(_SQL["unfinished"])]
