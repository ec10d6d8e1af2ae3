"""The Knowledge that users build: a value with methods. It holds no connection and is safe to share.

docs = Knowledge("docs")
docs.ingest(["docs/", "https://example.org/sitemap.xml"]).wait(timeout=600)
hits = docs.search("what does the keeper do?")
agent = Agent(name="helper", model="openai:...", knowledge=docs)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import msgspec
from celery.canvas import Signature

from agno_workers import wiring
from agno_workers.core.step import Submitted
from agno_workers.errors import InvalidInput
from agno_workers.knowledge import types as core
from agno_workers.knowledge.chunking import check
from agno_workers.knowledge.embedders.resolve import parsed
from agno_workers.knowledge.store.bases import AGENT, ChunkRow, DocumentRow, SourceInput
from agno_workers.knowledge.store.feedback import Count, Verdict
from agno_workers.knowledge.store.stats import Duplicate
from agno_workers.knowledge.types import Rerank, Rows, SearchResult, SearchType
from agno_workers.sdk.ingestion import (
    Ingestion,
    IngestOptions,
    SignatureOptions,
    Sources,
    document,
    given,
    named,
    options,
)
from agno_workers.sdk.verbs import run_signature


class Knowledge(core.Knowledge, frozen=True, kw_only=True):
    """A knowledge base: a value with the verbs that fill and search it. Options that are left out keep their stored values."""

    def __post_init__(self) -> None:
        named(self.name)
        if self.embedder is not None:
            parsed(self.embedder)

    def ingest(
        self, sources: Sources, *, metadata: dict[str, Any] | None = None, glob: str | Sequence[str] | None = None,
        rows: Rows | None = None, batch: bool = False, **run_options: Unpack[IngestOptions],
    ) -> Ingestion:  # fmt: skip
        """Ingest files, folders (`glob` selects their files), URLs, sitemaps, `s3://...`. The ingestion is durable when this returns;
        unchanged documents are not read again.

        `metadata` is added to each document; without any, documents keep those that they were given before, and `{}` removes these. With
        `rows`, each row of a CSV, TSV or JSON file or of a workbook is a document. `batch` uses the provider's batch API for vectors, if it has one.

        A new embedder or vision model is checked by a worker before it is stored; if it does not work, the ingestion fails. Once there are
        vectors, another embedder needs `reindex`.

        Raises InvalidInput (nothing was stored) or Unavailable (safe to repeat).
        """
        return self._submit(given(sources), options(metadata, glob, batch=batch, rows=rows), **run_options)

    def add(
        self, text: str, *, uri: str | None = None, title: str | None = None, media_type: str = "text/plain",
        metadata: dict[str, Any] | None = None, idempotency_key: str | None = None,
    ) -> Ingestion:  # fmt: skip
        """Ingest a text as one document. A document with the same `uri` is replaced, and keeps its `metadata` if none are given; without
        a `uri` it gets a new one.

        Raises InvalidInput for an empty text, or Unavailable (safe to repeat with a `uri` or a key).
        """
        source = document(text, uri=uri, title=title, media_type=media_type)
        return self._submit([source], options(metadata), idempotency_key=idempotency_key)

    def s(
        self, sources: Sources = (), *, metadata: dict[str, Any] | None = None, glob: str | Sequence[str] | None = None,
        rows: Rows | None = None, batch: bool = False, **run_options: Unpack[SignatureOptions],
    ) -> Signature:  # fmt: skip
        """Return a signature for `group`, `chain` and `chord`. The result of an earlier task (a path, or a list of paths) is ingested
        as well; its own result is the summary of the ingestion.
        """
        kept, services = self._options, wiring.services()
        models = services.database.knowledge.prepare(self.name, kept)
        kwargs = {**run_options, "options": options(metadata, glob, batch=batch, rows=rows) | models}
        args = [msgspec.to_builtins(source) for source in given(sources)]
        return run_signature(f"{AGENT}{self.name}", args, kwargs, services.settings.queues.knowledge)

    def si(
        self, sources: Sources, *, metadata: dict[str, Any] | None = None, glob: str | Sequence[str] | None = None,
        rows: Rows | None = None, batch: bool = False, **run_options: Unpack[SignatureOptions],
    ) -> Signature:  # fmt: skip
        """Return an immutable signature, which ignores the result of an earlier task."""
        return self.s(sources, metadata=metadata, glob=glob, rows=rows, batch=batch, **run_options).set(
            immutable=True
        )

    def remove(
        self, *documents: str | int, filters: dict[str, Any] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Remove documents by their uris or ids, or those that match a filter, and return the uris of those that there were. `dry_run`
        removes nothing. Raises UnknownKnowledge, and InvalidInput for a filter on a field that no document has.

        A document from a folder returns with the next ingestion of that folder.
        """
        return wiring.services().database.knowledge.remove_documents(
            self.name, documents, filters, dry_run=dry_run
        )

    def documents(
        self, *, filters: dict[str, Any] | None = None, after: str = "", limit: int = 100
    ) -> list[DocumentRow]:
        """Return a page of documents, in the order of their uris, after `after`. `filters` as for `search`. Raises UnknownKnowledge."""
        knowledges = wiring.services().database.knowledge
        return knowledges.documents(knowledges.get(self.name).id, filters=filters, after=after, limit=limit)

    def chunks(self, document: str | int) -> list[ChunkRow]:
        """Return the chunks of a document, named by its uri or id. Raises UnknownKnowledge, and InvalidInput for an unknown document."""
        return wiring.services().database.knowledge.chunks(self.name, document)

    def duplicates(self, *, limit: int = 100) -> list[Duplicate]:
        """List documents whose text equals that of another one, or nearly. Raises UnknownKnowledge."""
        database = wiring.services().database
        return database.knowledge_stats.duplicates(database.knowledge.get(self.name).id, limit)

    def search(
        self, query: str, *, max_results: int | None = None, filters: dict[str, Any] | None = None,
        search_type: SearchType | None = None,
        rerank: Rerank | None = None, near_duplicates: bool | None = None, min_score: float | None = None,
    ) -> list[SearchResult]:  # fmt: skip
        """Return the best chunks, best first.

        `search_type` is `hybrid` (by vectors and keywords), `vector` or `keyword`. `filters` are conditions on metadata:
        `{"lang": "en", "year": {"gte": 2024}}`. `rerank` takes the query and four times as many results and returns their scores,
        such as a cross-encoder. `min_score` is the lowest cosine (`closeness`) of a result. `near_duplicates=False` keeps only the best of documents that nearly equal each other.

        Raises UnknownKnowledge, InvalidInput for an invalid filter, Unavailable and ModelUnavailable.
        """
        return wiring.services().knowledge.search(
            self,
            query,
            max_results=max_results,
            search_type=search_type,
            filters=filters,
            rerank=rerank,
            near_duplicates=near_duplicates,
            min_score=min_score,
        )

    def similar(
        self, uri: str, *, max_results: int | None = None, filters: dict[str, Any] | None = None
    ) -> list[SearchResult]:
        """Return the chunks of other documents that are most similar to this document, best first.

        Raises UnknownKnowledge, InvalidInput for a `uri` that it does not have or an invalid filter, and Unavailable.
        """
        return wiring.services().knowledge.similar(self, uri, max_results=max_results, filters=filters)

    def feedback(self, hit: SearchResult | int, verdict: Verdict) -> bool:
        """Vote a result (or a chunk id) `up` or `down`, which moves its rank within bounds. Returns False if the chunk is gone."""
        if verdict not in ("up", "down"):
            raise InvalidInput(f"verdict is {verdict!r}: expected 'up' or 'down'.")
        chunk = hit if isinstance(hit, int) else hit.chunk_id
        return wiring.services().knowledge.feedback.count([Count(chunk, **{verdict: 1})]) == 1

    def reindex(self) -> Ingestion:
        """Make missing vectors, or all vectors with another `embedder` than that of the stored ones. Searches use the old ones until
        all new ones are there. A worker first checks that the model works; otherwise the ingestion fails and nothing changes.
        """
        knowledges = wiring.services().database.knowledge
        return self._sent(
            knowledges.reindex(self.name, knowledges.prepare(self.name, self._options, moves=True))
        )

    def stop_reindex(self) -> str | None:
        """End the move to another embedder, and return the model that was given up; None if there is none. Raises UnknownKnowledge."""
        return wiring.services().database.knowledge.stop_reindex(self.name)

    def ingestion(self, run_id: str) -> Ingestion:
        """Return a handle for an ingestion that was submitted before, or elsewhere. Raises RunNotFound for text that is not an id."""
        here = wiring.services()
        return Ingestion(run_id, here.database)

    def _submit(
        self, sources: list[SourceInput], own: dict[str, Any], **run_options: Unpack[IngestOptions]
    ) -> Ingestion:
        kept = self._options
        here = wiring.services()
        models = here.database.knowledge.prepare(self.name, kept)
        return self._sent(
            here.database.knowledge.submit(self.name, sources, options=own | models, **run_options)
        )

    def _sent(self, submitted: Submitted) -> Ingestion:
        if submitted.send is not None:
            wiring.services().dispatch.send([submitted.send])
        return self.ingestion(submitted.run_id)

    @property
    def _options(self) -> dict[str, Any]:
        named(self.name)
        check(self.chunking)
        return core.as_options(self)
