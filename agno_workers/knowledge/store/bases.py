"""Knowledge bases, and their ingestions as seen from outside: submit, progress, failures, again. What moves one is in ingest.py."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import psycopg
from uuid6 import uuid7

from agno_workers.core.messages import Message, user
from agno_workers.database.pool import (
    Connection,
    Pool,
    Row,
    execute,
    jsonb,
    retry_while_unavailable,
    statements,
)
from agno_workers.errors import RunNotFound, Unavailable, UnknownKnowledge
from agno_workers.knowledge.store.documents import removal
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.types import EmbeddingSpaceStatus, Progress, Source
from agno_workers.runs.journal import Journal, Submitted
from agno_workers.runs.queries import known_id

_SQL = {
    **statements("knowledge/store/bases"),
    "named_documents": statements("knowledge/store/ingest")["named_documents"],
}
T = TypeVar("T")
_SHOWN = 5
AGENT = "knowledge:"
"""The agent of an ingestion's run is this and the knowledge base's name."""

SourceInput = str | dict[str, Any] | Source
"""What to ingest: a path or address, the description of a source (see sources/resolve.py), or one document as it is."""


class KnowledgeRow(msgspec.Struct, frozen=True):
    """A knowledge base, as its row stands."""

    id: int
    name: str
    options: dict[str, Any]
    """As core/knowledge.py, Knowledge, without the name."""
    embedding_space_id: int | None
    """The space that is searched; None: no vector has been made yet."""
    version: int
    chunk_count: int
    avg_length: float
    stats_chunks: int
    created_at: datetime


class EmbeddingSpace(msgspec.Struct, frozen=True):
    """One model's vectors of one knowledge base."""

    id: int
    knowledge_id: int
    model: str
    dimensions: int
    status: EmbeddingSpaceStatus
    has_partition: bool
    is_indexed: bool


class Failure(msgspec.Struct, frozen=True):
    """What could not be brought in, and why."""

    uri: str
    attempts: int
    type: str
    """Of a Refusal, or the name of an error; `no_vector`: the text is in, one chunk has no vector."""
    message: str


class Ingested(msgspec.Struct, frozen=True):
    """An ingestion in a list."""

    run_id: str
    status: str
    created_at: datetime
    total: int
    ended_at: datetime | None = None


class DocumentRow(msgspec.Struct, frozen=True):
    """A document in a list."""

    id: int
    uri: str
    origin: str
    bytes: int
    version: int
    chunks: int
    metadata: dict[str, Any]
    updated_at: datetime
    title: str | None = None
    media_type: str | None = None
    language: str | None = None
    duplicate_of: int | None = None


class KnowledgeBases:
    """See the module. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool, journal: Journal, *, queue: str) -> None:
        self._pool = pool
        self._journal = journal
        self._queue = queue

    def ensure(self, name: str, options: dict[str, Any] | None = None) -> KnowledgeRow:
        """The knowledge base of that name, made where there is none. `options` take the place of those it has."""
        (row,) = self._pool.run(_SQL["ensure"], {"name": name, "options": jsonb(options)})
        return _as(KnowledgeRow, row)

    def get(self, name: str) -> KnowledgeRow:
        """Raises UnknownKnowledge, which names the nearest ones."""
        if not (rows := self._pool.run(_SQL["get"], {"name": name})):
            raise self._unknown(name)
        return _as(KnowledgeRow, rows[0])

    def all(self) -> list[KnowledgeRow]:
        return [_as(KnowledgeRow, row) for row in self._pool.run(_SQL["all"])]

    def remove(self, name: str) -> None:
        """End its ingestions, and forget all that is in it. Raises UnknownKnowledge."""
        knowledge = self.get(name)
        own = {"knowledge_id": knowledge.id}
        while True:
            for row in self._pool.run(_SQL["open_ingestions"], own):
                self._journal.cancel(row["id"])
            SearchIndex(self._pool).drop(knowledge.id)
            with self._pool.connection() as connection, connection.transaction():
                execute(connection, "SET LOCAL statement_timeout = '10min'")
                execute(connection, _SQL["lock_knowledge"], own)
                if not execute(connection, _SQL["open_ingestions"], own):
                    execute(connection, _SQL["remove"], own)
                    return

    def remove_document(self, name: str, uri: str) -> bool:
        """Take a document out of a knowledge base; False: it has none of that uri. Raises UnknownKnowledge, and Unavailable while
        others are at work on its duplicates.
        """
        own = {"knowledge_id": self.get(name).id, "uris": [uri]}
        return retry_while_unavailable(self._remove_document, own)

    def _remove_document(self, own: dict[str, Any]) -> bool:
        with self._pool.connection() as connection, connection.transaction():
            held = execute(connection, _SQL["named_documents"], own)
            removed = removal(connection, held)
            if removed.documents < len(held):
                raise Unavailable(f"duplicates of {own['uris'][0]!r} are being written: try again.")
            if held:
                execute(connection, _SQL["raise_version"], own | {"more": -removed.chunks})
        return bool(held)

    def embedding_spaces(self, knowledge_id: int) -> list[EmbeddingSpace]:
        return [
            _as(EmbeddingSpace, row)
            for row in self._pool.run(_SQL["embedding_spaces"], {"knowledge_id": knowledge_id})
        ]

    def ensure_embedding_space(self, knowledge_id: int, model: str, dimensions: int) -> EmbeddingSpace:
        """The vectors of that model; the first ones of a knowledge base are searched, later ones are `building` until all are there."""
        asked = {"knowledge_id": knowledge_id, "model": model, "dimensions": dimensions}
        (row,) = self._pool.run(_SQL["ensure_embedding_space"], asked)
        return _as(EmbeddingSpace, row)

    def submit(self, name: str, sources: Sequence[SourceInput], *, connection: Connection | None = None, **asked: Any) -> Submitted:  # fmt: skip
        """An ingestion, for `Dispatch.send`. See `ingest_request` for the options of it; the others are those of `Journal.submit`:
        idempotency_key, id, metadata, priority, not_before, deadline_s, canvas, session_id, user_id.

        `connection`: the caller's open transaction. Raises UnknownKnowledge; then nothing was stored.
        """
        message, options = ingest_request(name, sources, asked.pop("options", None))
        queue = asked.pop("queue", None) or self._queue
        try:
            return self._journal.submit(
                message,
                agent=f"{AGENT}{name}",
                queue=queue,
                ingestion=options,
                connection=connection,
                **asked,
            )
        except psycopg.errors.NoDataFound as error:
            raise self._unknown(name) from error

    def reindex(self, name: str, **asked: Any) -> Submitted:
        """An ingestion that brings nothing in, and makes all vectors that are missing in the space of the embedder that the
        options name. Once they are all there, that space is the one that is searched.
        """
        return self.submit(name, [], options={"all_vectors": True}, **asked)

    def rerun(self, run_id: str, **asked: Any) -> Submitted:
        """A new ingestion of what failed in another one, and of what that one left undone. Raises RunNotFound."""
        before = self._ingestion(run_id)
        options = {"again": known_id(run_id), "all_vectors": True}
        return self.submit(before["knowledge"], [], options=options, queue=before["queue"], **asked)

    def progress(self, run_id: str) -> Progress:
        """How far an ingestion is. Raises RunNotFound where there is none of that id."""
        if not (rows := self._pool.run(_SQL["progress"], {"run_id": known_id(run_id)})):
            raise _no_ingestion(run_id)
        return _as(Progress, rows[0])

    def failures(self, run_id: str, limit: int = 100) -> list[Failure]:
        rows = self._pool.run(_SQL["failures"], {"run_id": known_id(run_id), "limit": limit})
        return [_as(Failure, row) for row in rows]

    def ingestions(self, knowledge_id: int, limit: int = 20) -> list[Ingested]:
        """The newest first."""
        rows = self._pool.run(_SQL["ingestions"], {"knowledge_id": knowledge_id, "limit": limit})
        return [_as(Ingested, row) for row in rows]

    def documents(self, knowledge_id: int, *, after: str = "", limit: int = 100) -> list[DocumentRow]:
        """A page of them in the order of their uris, behind `after`."""
        asked = {"knowledge_id": knowledge_id, "after": after, "limit": limit}
        return [_as(DocumentRow, row) for row in self._pool.run(_SQL["documents"], asked)]

    def _ingestion(self, run_id: str) -> Row:
        if not (rows := self._pool.run(_SQL["ingestion"], {"run_id": known_id(run_id)})):
            raise _no_ingestion(run_id)
        return rows[0]

    def _unknown(self, name: str) -> UnknownKnowledge:
        known = [knowledge.name for knowledge in self.all()]
        near = difflib.get_close_matches(name, known, n=3) or known[:_SHOWN]
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else "There is none yet."
        return UnknownKnowledge(f"there is no knowledge base {name!r}. {hint}", knowledge=name)


def ingest_request(
    name: str, sources: Sequence[SourceInput], options: dict[str, Any] | None = None
) -> tuple[Message, dict[str, Any]]:
    """The first message of an ingestion's run, for people, and its options: `sources`, and of those that are given

    * `metadata`: for each of its documents, `glob`, and whatever else finding them takes (see sources/resolve.py)
    * `batch`: make the vectors by the provider's batch API, for half the price and within a day, where it has one
    """
    sent = [msgspec.to_builtins(given) for given in sources]
    names = [given if isinstance(given, str) else str(given.get("uri", given)) for given in sent]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = f"{', '.join(names[:_SHOWN])}{more}" if names else "what is missing"
    return user(f"Bring into {name}: {what}"), {"sources": sent, **(options or {})}


def new_id() -> str:
    """For a document that has no name of its own."""
    return str(uuid7())


def _no_ingestion(run_id: str) -> RunNotFound:
    return RunNotFound(
        f"there is no ingestion {run_id}: `agno-workers knowledge ls` shows what there is.", run_id=run_id
    )


def _as(kind: type[T], row: Row) -> T:
    return msgspec.convert(row, kind)
