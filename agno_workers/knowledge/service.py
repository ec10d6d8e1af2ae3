"""Knowledge bases as runs use them: search tools, context for questions, notes, and counts of used results."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Message
from agno_workers.core.ports import Embedder
from agno_workers.core.tool import Tool, ToolContext
from agno_workers.database.pool import Connection, Pool
from agno_workers.engine.turn import Extension, Turn
from agno_workers.errors import NotWaiting, ToolError, Unavailable, UnknownKnowledge
from agno_workers.knowledge.references import as_context, references
from agno_workers.knowledge.retriever import Retriever
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.store.feedback import Count, FeedbackStore, NoteStatus, ReviewNote
from agno_workers.knowledge.tools import add_tool, search_tool
from agno_workers.knowledge.types import (
    Knowledge,
    KnowledgeBinding,
    Note,
    Rerank,
    SearchResult,
    SearchType,
    Source,
    uses_of,
)

log = logging.getLogger(__name__)


class Searches(Protocol):
    """Searches a knowledge base; see retriever.py."""

    def search(
        self, knowledge: str, query: str, *, max_results: int, search_type: SearchType, filters: dict[str, Any], rerank: Rerank | None = None,
        near_duplicates: bool = True, min_score: float | None = None,
    ) -> list[SearchResult]: ...  # fmt: skip

    def similar(
        self, knowledge: str, uri: str, *, max_results: int, filters: dict[str, Any]
    ) -> list[SearchResult]: ...


Adds = Callable[[Knowledge, Source, Connection], object]
"""Submits the ingestion of one document in the caller's transaction."""


class KnowledgeService:
    """Combines a search with the feedback tables; searching and ingesting are passed in."""

    def __init__(self, pool: Pool, search: Searches, adds: Adds) -> None:
        self.feedback = FeedbackStore(pool)
        self._pool = pool
        self._search = search
        self._adds = adds

    @classmethod
    def on(
        cls, pool: Pool, knowledges: KnowledgeBases, embedder: Callable[[str], Embedder]
    ) -> KnowledgeService:
        """Build the service on Postgres. The keeper sends the steps of ingestions that are submitted in a transaction."""

        def add(knowledge: Knowledge, source: Source, connection: Connection) -> None:
            knowledges.submit(knowledge.name, [source], connection=connection, idempotency_key=source.uri)
            connection.execute("SELECT pg_notify('agno_outbox', '')")

        return cls(pool, Retriever(pool, knowledges, embedder), add)

    def search(
        self,
        knowledge: Knowledge,
        query: str,
        *,
        max_results: int | None = None,
        search_type: SearchType | None = None,
        filters: dict[str, Any] | None = None,
        rerank: Rerank | None = None,
        near_duplicates: bool | None = None,
        min_score: float | None = None,
    ) -> list[SearchResult]:
        """Return the best results, best first. A query without a good result is recorded as a gap, unless it has filters."""
        searching = knowledge.search_config
        hits = self._search.search(knowledge.name, query, max_results=searching.max_results if max_results is None else max_results, search_type=search_type or searching.search_type, filters=filters or {},
            rerank=rerank, near_duplicates=searching.near_duplicates if near_duplicates is None else near_duplicates,
            min_score=min_score,
        )  # fmt: skip
        best, is_gap = judged(hits, searching.gap_below)
        if is_gap and not filters:
            self.feedback.note_gap(knowledge.name, query, best)
        return hits

    def similar(
        self,
        knowledge: Knowledge,
        uri: str,
        *,
        max_results: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[SearchResult]:
        """Return the chunks of other documents that are most similar to this document."""
        return self._search.similar(
            knowledge.name,
            uri,
            max_results=knowledge.search_config.max_results if max_results is None else max_results,
            filters=filters or {},
        )

    def tools(self, uses: Sequence[KnowledgeBinding]) -> Sequence[Tool]:
        """Return the tools of an agent with these bindings."""
        return [
            *(search_tool(use, self._ask_for, uses) for use in uses if use.way == "tool"),
            *(add_tool(use, self.learn, uses) for use in uses if use.feedback),
        ]

    def ground(
        self, uses: Sequence[KnowledgeBinding], run_id: str, transcript: Iterable[tuple[int, Message]]
    ) -> Sequence[SearchResult]:
        """Return the results that accompany the last question of a run, of whose messages `transcript` has the positions. They are stored,
        so that a retried turn gets the same; where all questions were compacted, those of the last one are kept.
        """
        if not uses:
            return ()
        asked, kept = [each for each in transcript if each[1].role == "user"], self.feedback.grounded(run_id)
        if not asked:
            return kept[max(kept)] if kept else ()
        seq, question = asked[-1]
        if seq in kept:
            return kept[seq]
        results = [hit for use in uses for hit in self._ask_for(use, question.text)]
        return self.feedback.ground(run_id, seq, results)

    def learn(self, use: KnowledgeBinding, note: Note, ctx: ToolContext) -> str:
        """Ingest a note, or queue it for review, in the transaction of the call. Returns the message for the model."""
        assert use.feedback
        if note.confidence >= use.feedback.min_confidence:
            try:
                self._adds(use.knowledge, as_source(note, f"learned:{ctx.step_id}"), ctx.connection)
            except UnknownKnowledge as error:
                raise ToolError(str(error)) from error
            return f"The note is being added to {use.knowledge.name!r}."
        if self.feedback.add_review_note(use.knowledge.name, note, ctx.connection) is None:
            raise ToolError(f"There is no knowledge base {use.knowledge.name!r} yet: the note was not added.")
        return f"The note waits for a review before it is added to {use.knowledge.name!r}."

    def decide(
        self, knowledge: Knowledge, id: int, *, approve: bool, by: str | None = None, note: str | None = None
    ) -> ReviewNote:
        """Approve or reject a waiting note. An approved note becomes a document, in the same transaction. Raises NotWaiting."""
        status: NoteStatus = "approved" if approve else "rejected"
        with self._pool.connection() as connection, connection.transaction():
            kept = self.feedback.decide_note(knowledge.name, id, status, connection, by=by, note=note)
            if kept is None:
                raise NotWaiting(
                    f"note {id} of {knowledge.name!r} is not waiting: it was decided, or does not exist. "
                    f"`agno-workers knowledge review {knowledge.name}` lists waiting notes.",
                    note=id,
                )
            if approve:
                self._adds(knowledge, as_source(kept, f"learned:{kept.id}"), connection)
        return kept

    def credit(self, run_id: str, transcript: Sequence[Message], answer: str) -> None:
        """Count the results that a finished run received and cited. Counts are best effort."""
        try:
            given = references(transcript, self.feedback.grounded(run_id).values(), answer)
            used = Counter(each.chunk for each in given)
            cited = Counter(each.chunk for each in given if each.cited)
            self.feedback.count(
                Count(chunk, min(1, many), min(1, cited[chunk])) for chunk, many in used.items()
            )
        except Unavailable as error:
            log.warning("references were not counted: %s", error, extra={"run_id": run_id})

    def _ask_for(self, use: KnowledgeBinding, question: str) -> list[SearchResult]:
        return self.search(
            use.knowledge,
            question,
            max_results=use.max_results,
            search_type=use.search_type,
            filters=use.filters,
        )


def extension(service: KnowledgeService) -> Extension:
    """Return what knowledge adds to agents: tools to search and to add, context for a question, and credit for citations."""

    def tools(agent: Agent) -> Sequence[Tool]:
        return service.tools(uses_of(agent.knowledge))

    def prepare(turn: Turn) -> Turn:
        if not (uses := [use for use in uses_of(turn.agent.knowledge) if use.way == "context"]):
            return turn
        results = service.ground(uses, turn.claim.run_id, turn.claim.numbered)
        context = as_context([use.knowledge.name for use in uses], results)
        return replace(turn, context=(*turn.context, context))

    def ended(turn: Turn, answer: str) -> None:
        if turn.agent.knowledge:
            service.credit(turn.claim.run_id, turn.claim.messages, answer)

    return Extension(tools, prepare, ended)


def judged(hits: Sequence[SearchResult], gap_below: float) -> tuple[float | None, bool]:
    """Return the cosine of the best result, if known, and whether the query is a gap."""
    alike = [hit.scores["vector"] for hit in hits if "vector" in hit.scores]
    best = max(alike, default=None)
    return best, (not hits if best is None else best < gap_below)


def as_source(note: Note, uri: str) -> Source:
    """Convert a note to the source of a document."""
    about = {
        "author": note.author,
        "run_id": note.run_id,
        "confidence": note.confidence,
        "source": note.source,
    }
    return Source(
        uri=uri,
        title=note.title,
        text=note.content,
        bytes=len(note.content.encode()),
        media_type="text/plain",
        metadata={**note.metadata, **{name: value for name, value in about.items() if value is not None}},
    )
