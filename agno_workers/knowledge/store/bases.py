"""Knowledge bases and their ingestions for callers: submit, progress, failures, retry. For the steps see ingest.py."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import psycopg
from uuid6 import uuid7

from agno_workers.core.messages import Message, user
from agno_workers.core.request import RunRequest, run_request
from agno_workers.core.run import Canvas, RunKind
from agno_workers.core.step import Submitted
from agno_workers.core.words import safe_text
from agno_workers.database.pool import (
    Connection,
    Pool,
    Row,
    execute,
    jsonb,
    retry_while_unavailable,
    statements,
)
from agno_workers.errors import InvalidInput, RunNotFound, Unavailable, UnknownKnowledge
from agno_workers.knowledge import words
from agno_workers.knowledge.embedders.resolve import whole
from agno_workers.knowledge.filters import compile_filter, unmatched
from agno_workers.knowledge.store.documents import removal
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.store.stats import KnowledgeStats
from agno_workers.knowledge.types import EmbeddingSpaceStatus, Filter, Progress, Source
from agno_workers.knowledge.versions import batched
from agno_workers.runs.control import Control
from agno_workers.runs.queries import known_id
from agno_workers.runs.submit import Submissions

_SQL = {
    **statements("knowledge/store/bases"),
    "named_documents": statements("knowledge/store/ingest")["named_documents"],
}
T = TypeVar("T")
_SHOWN = 5
_PORTION = 500
"""Documents to remove in one transaction."""
_PAGE = 10_000
MODEL_OPTIONS = ("embedder", "vision")
"""The models of a knowledge base. An ingestion asks for a new one, and its scan stores it when it works."""
AGENT = "knowledge:"
"""Prefix of an ingestion's agent; the name of the knowledge base follows."""

SourceInput = str | dict[str, Any] | Source
"""A path or address, the description of a source (see sources/resolve.py), or one document."""


class KnowledgeRow(msgspec.Struct, frozen=True):
    """The row of a knowledge base."""

    id: int
    name: str
    options: dict[str, Any]
    """The fields of Knowledge, without the name."""
    embedding_space_id: int | None
    """The embedding space that is searched. None: there are no vectors yet."""
    version: int


class EmbeddingSpace(msgspec.Struct, frozen=True):
    """The vectors of one embedding model in one knowledge base."""

    id: int
    knowledge_id: int
    model: str
    dimensions: int
    status: EmbeddingSpaceStatus
    has_partition: bool
    is_indexed: bool
    error: dict[str, Any] | None = None
    """Why the model makes no vectors at all."""


class Failure(msgspec.Struct, frozen=True):
    """A source that could not be ingested, or a chunk without a vector."""

    uri: str
    attempts: int
    type: str
    """The type of a Refusal or the name of an error; `no_vector`: the document is stored, one chunk has no vector."""
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
    """The id in Postgres."""
    uri: str
    """The document's key."""
    origin: str
    """The folder, sitemap or query that lists it; empty without one."""
    bytes: int
    """The size of the source."""
    version: int
    """The number of its current version, from 1."""
    chunks: int
    """The number of its chunks."""
    metadata: dict[str, Any]
    """JSON that search filters can use."""
    updated_at: datetime
    """The time of its current version, in UTC."""
    title: str | None = None
    """Its title, if it has one."""
    media_type: str | None = None
    """The type that it was read as."""
    language: str | None = None
    """ISO 639-1, if it is clear."""
    duplicate_of: int | None = None
    """The id of another document with the same text."""


class ChunkRow(msgspec.Struct, frozen=True):
    """A chunk of a document in a list."""

    id: int
    """The id in Postgres."""
    position: int
    """The chunk's number in its document, from 0."""
    heading: tuple[str, ...]
    """The headings above it, the highest first."""
    content: str
    """Its text."""
    start: int
    """The first character in the document's text."""
    end: int
    """The character after the last one."""
    tokens: int
    """Counted by the tokenizer of the chunking."""
    has_vector: bool
    """True if there is one of the model that is searched. Without one, only keyword search finds the chunk."""
    refused: str | None = None
    """The reason of the model for not making a vector."""


class KnowledgeBases:
    """Raises Unavailable if Postgres can't be reached."""

    def __init__(
        self, pool: Pool, submissions: Submissions, control: Control, *, queue: str = "knowledge"
    ) -> None:
        self._pool = pool
        self._submissions = submissions
        self._control = control
        self._queue = queue

    def ensure(self, name: str, options: dict[str, Any] | None = None) -> KnowledgeRow:
        """Return the knowledge base, and create it if it does not exist. `options` override stored ones."""
        asked = {"name": name, "options": jsonb(options), "words_version": words.VERSION}
        (row,) = self._pool.run(_SQL["ensure"], asked)
        return _as(KnowledgeRow, row)

    def get(self, name: str) -> KnowledgeRow:
        """Raises UnknownKnowledge, which suggests similar names."""
        if not (rows := self._pool.run(_SQL["get"], {"name": name})):
            raise self._unknown(name)
        return _as(KnowledgeRow, rows[0])

    def all(self) -> list[KnowledgeRow]:
        return [_as(KnowledgeRow, row) for row in self._pool.run(_SQL["all"])]

    def remove(self, name: str) -> None:
        """Cancel its ingestions and delete it. Raises UnknownKnowledge."""
        knowledge = self.get(name)
        own = {"knowledge_id": knowledge.id}
        while True:
            for row in self._pool.run(_SQL["open_ingestions"], own):
                self._control.cancel(row["id"])
            SearchIndex(self._pool).drop(knowledge.id)
            with self._pool.connection() as connection, connection.transaction():
                execute(connection, "SET LOCAL statement_timeout = '10min'")
                execute(connection, _SQL["lock_knowledge"], own)
                if not execute(connection, _SQL["open_ingestions"], own):
                    execute(connection, _SQL["remove"], own)
                    return

    def remove_documents(
        self, name: str, documents: Sequence[str | int] = (), filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
    ) -> list[str]:  # fmt: skip
        """Remove documents by their uris or ids, or those that match a filter, and return their uris; `dry_run` removes nothing.

        Raises UnknownKnowledge; InvalidInput if nothing is named, and for a filter with a field that no document has; Unavailable while
        duplicates are written: what is removed by then stays removed.
        """
        base = self.get(name)
        if not documents and not filters:
            raise InvalidInput("no document is named: pass uris, ids or a filter.")
        compile_filter(filters)  # raises for an invalid one
        if wrong := self.filter_warnings(name, filters or {}):
            raise InvalidInput(f"{wrong[0]} Nothing was removed.")
        named = [row for each in documents if (row := self._document(base.id, each)) is not None]
        matching = self._all_documents(base.id, filters) if filters else []
        uris = list(dict.fromkeys(row.uri for row in [*named, *matching]))
        for few in batched(uris, _PORTION) if not dry_run else ():
            retry_while_unavailable(self._remove_documents, {"knowledge_id": base.id, "uris": few})
        return uris

    def filter_warnings(self, name: str, filters: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each field of a filter that no document has, or whose values have other types. Raises UnknownKnowledge."""
        return (
            unmatched(name, filters, KnowledgeStats(self._pool).fields(self.get(name).id)) if filters else []
        )

    def _remove_documents(self, own: dict[str, Any]) -> None:
        with self._pool.connection() as connection, connection.transaction():
            held = execute(connection, _SQL["named_documents"], own)
            removed = removal(connection, held)
            if removed.documents < len(held):
                raise Unavailable(f"duplicates of {own['uris'][0]!r} are being written: try again.")
            if held:
                execute(connection, _SQL["raise_version"], own | {"more": -removed.chunks})

    def embedding_spaces(self, knowledge_id: int) -> list[EmbeddingSpace]:
        return [
            _as(EmbeddingSpace, row)
            for row in self._pool.run(_SQL["embedding_spaces"], {"knowledge_id": knowledge_id})
        ]

    def prepare(self, name: str, options: Mapping[str, Any], *, moves: bool = False) -> dict[str, Any]:
        """Create the knowledge base if necessary, store its options, and return the models among them that are new, as options of an
        ingestion: its scan checks them where the workers are before it stores them. `moves`: to another embedder, by a reindexing.

        Raises InvalidInput for another embedder than that of the vectors.
        """
        models = {
            option: options[option] for option in MODEL_OPTIONS if (options.get(option) or "none") != "none"
        }
        row = self.ensure(name, {option: value for option, value in options.items() if option not in models})
        if embedder := models.get("embedder"):
            space = next(
                (each for each in self.embedding_spaces(row.id) if each.id == row.embedding_space_id), None
            )
            stored = row.options.get("embedder") or (space.model if space else None)
            if stored and whole(embedder) == whole(stored):
                del models["embedder"]
            elif space is not None and not moves:
                raise _other_embedder(name, space.model, stored or space.model, embedder)
        return {option: value for option, value in models.items() if value != row.options.get(option)}

    def stop_reindex(self, name: str) -> str | None:
        """End the model that the knowledge base is moving to, and return it; None if there is none. Searches never used it.

        Its ingestions are cancelled. Raises UnknownKnowledge.
        """
        own = {"knowledge_id": self.get(name).id}
        for row in self._pool.run(_SQL["open_reindexings"], own):
            self._control.cancel(row["id"])
        rows = self._pool.run(_SQL["stop_reindex"], own)
        return rows[0]["model"] if rows else None

    def retry_models(self, knowledge_id: int, *, building: bool) -> None:
        """Forget why the searched model made no vectors; `building`: the new one, too."""
        self._pool.run(_SQL["retry_models"], {"knowledge_id": knowledge_id, "building": building})

    def ensure_embedding_space(
        self, knowledge_id: int, model: str, dimensions: int, options: Mapping[str, Any] | None = None
    ) -> EmbeddingSpace:
        """Return the embedding space of the model. The first one is searched at once; a later one is `building` until it is complete.

        `options` are stored with the knowledge base at the same time.
        """
        asked = {
            "knowledge_id": knowledge_id,
            "model": model,
            "dimensions": dimensions,
            "options": jsonb(dict(options or {})),
        }
        (row,) = self._pool.run(_SQL["ensure_embedding_space"], asked)
        return _as(EmbeddingSpace, row)

    def submit(self, name: str, sources: Sequence[SourceInput], *, connection: Connection | None = None, **asked: Any) -> Submitted:  # fmt: skip
        """Submit an ingestion, for `Dispatch.send`. `asked` are SubmitOptions, `options` for `ingest_request`, and `canvas`.

        `connection` is the caller's open transaction. Raises UnknownKnowledge; then nothing is stored.
        """
        asked["queue"] = asked.get("queue") or self._queue
        own, canvas = asked.pop("options", None), asked.pop("canvas", None)
        request = _request(name, sources, own, asked, canvas)
        try:
            return self._submissions.submit(request, connection)
        except InvalidInput as error:
            if isinstance(error.__cause__, psycopg.errors.NoDataFound):
                raise self._unknown(name) from error
            raise

    def reindex(self, name: str, models: Mapping[str, Any] | None = None, **asked: Any) -> Submitted:
        """Submit an ingestion without sources that makes all missing vectors for the embedder, or for that of `models` (see
        `prepare`). Once they are complete, searches use that embedding space.
        """
        return self.submit(name, [], options={"all_vectors": True, **(models or {})}, **asked)

    def rerun(self, run_id: str, **asked: Any) -> Submitted:
        """Submit an ingestion of the failed and unfinished sources of another one. Raises RunNotFound."""
        rows = self._pool.run(_SQL["ingestion"], {"run_id": known_id(run_id)})
        if not rows:
            raise _no_ingestion(run_id)
        options = {"retry_of": known_id(run_id), "all_vectors": True}
        return self.submit(rows[0]["knowledge"], [], options=options, queue=rows[0]["queue"], **asked)

    def progress(self, run_id: str) -> Progress:
        """Raises RunNotFound."""
        if not (rows := self._pool.run(_SQL["progress"], {"run_id": known_id(run_id)})):
            raise _no_ingestion(run_id)
        return _as(Progress, rows[0])

    def complete(self, run_id: str) -> int:
        """Count the documents that an ingestion listed and that are searched with all their vectors."""
        count: int = self._pool.run(_SQL["complete"], {"run_id": known_id(run_id)})[0]["complete"]
        return count

    def failures(self, run_id: str, limit: int = 100) -> list[Failure]:
        rows = self._pool.run(_SQL["failures"], {"run_id": known_id(run_id), "limit": limit})
        return [_as(Failure, row) for row in rows]

    def ingestions(self, knowledge_id: int, limit: int = 20) -> list[Ingested]:
        """The newest first."""
        rows = self._pool.run(_SQL["ingestions"], {"knowledge_id": knowledge_id, "limit": limit})
        return [_as(Ingested, row) for row in rows]

    def documents(
        self,
        knowledge_id: int,
        *,
        filters: Mapping[str, Any] | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[DocumentRow]:
        """Return a page of documents in the order of their uris, after `after`. Raises InvalidInput for an invalid filter."""
        compiled = compile_filter(filters)
        known = None if compiled == Filter() else jsonb(msgspec.structs.asdict(compiled))
        asked = {"knowledge_id": knowledge_id, "filter": known, "after": safe_text(after), "limit": limit}
        return [_as(DocumentRow, row) for row in self._pool.run(_SQL["documents"], asked)]

    def _all_documents(self, knowledge_id: int, filters: Mapping[str, Any]) -> list[DocumentRow]:
        found: list[DocumentRow] = []
        while few := self.documents(
            knowledge_id, filters=filters, after=found[-1].uri if found else "", limit=_PAGE
        ):
            found += few
        return found

    def _document(self, knowledge_id: int, document: str | int) -> DocumentRow | None:
        is_id = isinstance(document, int)
        asked = {
            "knowledge_id": knowledge_id,
            "uri": None if is_id else safe_text(str(document)),
            "id": document if is_id else None,
        }
        rows = self._pool.run(_SQL["document"], asked)
        return _as(DocumentRow, rows[0]) if rows else None

    def document(self, name: str, document: str | int) -> DocumentRow:
        """Return a document by its uri or id. Raises UnknownKnowledge, and InvalidInput, which names uris that end like it, or are rows of it."""
        base = self.get(name)
        if (found := self._document(base.id, document)) is not None:
            return found
        end = str(document).rstrip("/").rpartition("/")[2].replace("%", r"\%").replace("_", r"\_")
        rows = self._pool.run(_SQL["similar_uris"], {"knowledge_id": base.id, "end": safe_text(end)})
        hint = (
            f"Did you mean {', '.join(repr(row['uri']) for row in rows)}?"
            if rows
            else f"`agno-workers knowledge documents {name}` lists them."
        )
        raise InvalidInput(f"{name!r} has no document {document!r}. {hint}", knowledge=name)

    def chunks(self, name: str, document: str | int) -> list[ChunkRow]:
        """Return the chunks of a document in their order; those of its original if it is a duplicate. Raises as `document` does."""
        row = self.document(name, document)
        asked = {"document_id": row.duplicate_of or row.id}
        return [_as(ChunkRow, each) for each in self._pool.run(_SQL["chunks"], asked)]

    def _unknown(self, name: str) -> UnknownKnowledge:
        known = [knowledge.name for knowledge in self.all() if not knowledge.name.startswith("agno:")]
        hint = "There are none yet."
        if near := difflib.get_close_matches(name, known, n=3):
            hint = f"Did you mean {', '.join(map(repr, near))}?"
        elif known:
            more = f" and {len(known) - _SHOWN:,} more" if len(known) > _SHOWN else ""
            hint = f"Known: {', '.join(known[:_SHOWN])}{more}."
        return UnknownKnowledge(f"there is no knowledge base {name!r}. {hint}", knowledge=name)


def ingest_request(
    name: str, sources: Sequence[SourceInput], options: dict[str, Any] | None = None
) -> tuple[Message, dict[str, Any]]:
    """Return the first message of an ingestion's run, for display, and its options: `sources`, and optionally

    * `metadata` for each document, `glob`, and other options of sources (see sources/resolve.py)
    * `batch`: use the provider's batch API for vectors, if it has one: half the price, within a day
    """
    sent = [msgspec.to_builtins(given) for given in sources]
    names = [given if isinstance(given, str) else str(given.get("uri", given)) for given in sent]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = f"{', '.join(names[:_SHOWN])}{more}" if names else "missing vectors"
    return user(f"Ingest into {name}: {what}"), {"sources": sent, **(options or {})}


def ingestion_request(
    name: str, inputs: Sequence[Any], options: Mapping[str, Any], *, canvas: Canvas | None = None
) -> RunRequest:
    """Return the request of an ingestion into the knowledge base `name`. `inputs` are sources; a list of sources, as an earlier
    task of a canvas returns it, is flattened. `options` are SubmitOptions, and `options` for `ingest_request`.

    Raises InvalidInput, which names the source or the option.
    """
    given = dict(options)
    own = given.pop("options", None)
    if own is not None and not isinstance(own, dict):
        raise InvalidInput(f"options must be a JSON object, got {own!r}.")
    sources: list[Any] = []
    for each in inputs:
        sources += each if isinstance(each, list | tuple) else [each]
    wrong = [each for each in sources if not isinstance(each, str | dict | Source) or not each]
    if wrong or not (sources or own):
        got = repr(wrong[0]) if wrong else "nothing"
        raise InvalidInput(
            f"{AGENT}{name} takes paths, addresses and descriptions of sources, got {got}.",
            agent=f"{AGENT}{name}",
        )
    return _request(name, sources, own, given, canvas)


def _request(
    name: str, sources: Sequence[SourceInput], own: dict[str, Any] | None, options: Mapping[str, Any], canvas: Canvas | None
) -> RunRequest:  # fmt: skip
    message, asked = ingest_request(name, sources, own)
    return run_request(
        f"{AGENT}{name}",
        message,
        options,
        canvas=canvas,
        kind=RunKind.INGESTION,
        kind_options={**asked, "knowledge": name},
    )


def _other_embedder(name: str, model: str, stored: str, asked: str) -> InvalidInput:
    way = (
        ""
        if whole(stored) == whole(model)
        else f", and is moving to {stored} (`agno-workers knowledge reindex {name} --stop` gives that up)"
    )
    return InvalidInput(
        f"{name!r} has vectors of {model}{way}: an ingestion does not change the model to {asked}. "
        f"`agno-workers knowledge reindex {name} --embedder {asked}` makes all vectors again, and searches use the old ones until then.",
        knowledge=name,
    )


def new_id() -> str:
    """Return an id for a document without a uri."""
    return str(uuid7())


def _no_ingestion(run_id: str) -> RunNotFound:
    return RunNotFound(
        f"there is no ingestion {run_id}: `agno-workers knowledge show NAME` lists ingestions.", run_id=run_id
    )


def _as(kind: type[T], row: Row) -> T:
    return msgspec.convert(row, kind)
