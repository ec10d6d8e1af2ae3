"""What people see of knowledge bases: counts, models, origins. Reading only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from agno_workers.database.pool import Pool, statements
from agno_workers.knowledge.types import NEAR_BANDS, EmbeddingSpaceStatus

_SQL = statements("knowledge/store/stats")


class Base(msgspec.Struct, frozen=True):
    """A knowledge base in a list."""

    name: str
    documents: int
    chunks: int
    vectors: int
    """Of the model that is searched."""
    open: int
    """Ingestions that have not ended."""
    notes: int
    """What agents learned and nobody has looked at."""
    gaps: int
    version: int
    created_at: datetime
    options: dict[str, Any] = {}
    model: str | None = None
    """That is searched; None: by words only, so far."""
    dimensions: int = 0
    updated_at: datetime | None = None


class Model(msgspec.Struct, frozen=True):
    """One embedding model's vectors of one knowledge base."""

    model: str
    dimensions: int
    status: EmbeddingSpaceStatus
    has_partition: bool
    is_indexed: bool
    vectors: int


class Origin(msgspec.Struct, frozen=True):
    """Where documents are from."""

    origin: str
    documents: int
    updated_at: datetime


class Duplicate(msgspec.Struct, frozen=True):
    """A document that says the same as another one, or nearly."""

    uri: str
    of: str
    """The uri of the other document."""
    similarity: float
    """1.0: the same text, stored once. Below: the estimated share of equal phrases."""


class Unfinished(msgspec.Struct, frozen=True):
    """A model whose vectors nobody is making any more, with some still missing or not taken into use."""

    knowledge: str
    model: str
    vectors: int
    chunks: int


class Searched(msgspec.Struct, frozen=True):
    """What a search needs to know of a knowledge base."""

    id: int
    embedding_space_id: int | None = None
    model: str | None = None
    """None: it has no vectors yet."""


class KnowledgeStats:
    """See the module. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def bases(self, name: str | None = None) -> list[Base]:
        """All of them, or the one of that name."""
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
        """None: there is no knowledge base of that name."""
        rows = self._pool.run(_SQL["searched"], {"name": name})
        return msgspec.convert(rows[0], Searched) if rows else None

    def document(self, knowledge_id: int, uri: str) -> int | None:
        """The id of the document of that uri, or of the one whose text it repeats."""
        rows = self._pool.run(_SQL["document"], {"knowledge_id": knowledge_id, "uri": uri})
        return rows[0]["duplicate_of"] or rows[0]["id"] if rows else None

    def unfinished(self) -> list[Unfinished]:
        return [msgspec.convert(row, Unfinished) for row in self._pool.run(_SQL["unfinished"])]
