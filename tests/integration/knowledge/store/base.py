"""A knowledge base as an ingestion leaves it, without one: rows, written by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from agno_workers.database.pool import Pool, jsonb
from agno_workers.knowledge.store.search import Search


class Base:
    """One knowledge base with vectors of `dimensions`, and what tests do to it."""

    def __init__(self, pool: Pool, name: str = "docs", dimensions: int = 3) -> None:
        self.pool = pool
        self.search = Search(pool)
        self.id = self._one("INSERT INTO agno.knowledge (name) VALUES (%s) RETURNING id", name)
        self.space = self._one(
            "INSERT INTO agno.embedding_space (knowledge_id, model, dimensions, status) VALUES (%s, 'test', %s, 'current') RETURNING id",
            self.id,
            dimensions,
        )
        self.sql("UPDATE agno.knowledge SET embedding_space_id = %s WHERE id = %s", self.space, self.id)

    def add(
        self,
        *chunks: str | tuple[str, Sequence[float]],
        uri: str | None = None,
        language: str = "english",
        live: bool = True,
        **metadata: Any,
    ) -> list[int]:
        """A document of these chunks, those with a vector (text, vector); gives the ids of the chunks."""
        document = self._one(
            "INSERT INTO agno.document (knowledge_id, uri, title, language, metadata, version, chunks) "
            "VALUES (%s, coalesce(%s, 'made:' || gen_random_uuid()), 'A title', 'en', %s, 1, %s) RETURNING id",
            self.id, uri, jsonb(metadata), len(chunks),
        )  # fmt: skip
        ids = []
        for position, chunk in enumerate(chunks):
            text, vector = chunk if isinstance(chunk, tuple) else (chunk, None)
            ids.append(
                self._one(
                    "INSERT INTO agno.chunk (knowledge_id, document_id, version, position, live, hash, content, start_at, end_at, tokens, language) "
                    "VALUES (%s, %s, 1, %s, %s, %s, %s, 0, 1, 1, %s::regconfig) RETURNING id",
                    self.id, document, position, live, hashlib.sha256(text.encode()).digest(), text, language,
                )
            )  # fmt: skip
            if vector is not None:
                self.embed(ids[-1], vector)
        self.sql(
            "UPDATE agno.knowledge SET chunk_count = chunk_count + %s, version = version + 1 WHERE id = %s",
            len(chunks),
            self.id,
        )
        return ids

    def embed(self, chunk: int, vector: Sequence[float]) -> None:
        """As embedding does it: the chunk is locked first."""
        with self.pool.connection() as connection, connection.transaction():
            connection.execute("SELECT FROM agno.chunk WHERE id = %s FOR KEY SHARE", [chunk])
            connection.execute(
                "INSERT INTO agno.chunk_embedding (embedding_space_id, chunk_id, embedding) VALUES (%s, %s, %s::text::halfvec)",
                [self.space, chunk, str(list(vector))],
            )

    def found(self, text: str, vector: Sequence[float] | None = None, **asked: Any) -> list[int]:
        """The ids of the chunks, the best first."""
        return [hit.chunk_id for hit in self.search.search(self.id, text, vector, **asked)]

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with self.pool.connection() as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def _one(self, statement: str, *values: Any) -> Any:
        ((value,),) = (row.values() for row in self.sql(statement, *values))
        return value
