"""The knowledge bases of this database, as runs use them: asked with a tool or with each question, added to, credited."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agno_workers.core.messages import Message
from agno_workers.core.ports import Embedder
from agno_workers.core.tool import Tool, ToolContext
from agno_workers.database.pool import Connection, Pool
from agno_workers.errors import NotWaiting, ToolError, Unavailable, UnknownKnowledge
from agno_workers.knowledge.references import references
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
)
from agno_workers.runs.queries import RunQueries

log = logging.getLogger(__name__)


class Searches(Protocol):
    """Finds what fits; see asking.py."""

    def search(
        self, knowledge: str, query: str, *, max_results: int, search_type: SearchType, filters: dict[str, Any], rerank: Rerank | None = None,
        near_duplicates: bool = True,
    ) -> list[SearchResult]: ...  # fmt: skip

    def similar(
        self, knowledge: str, uri: str, *, max_results: int, filters: dict[str, Any]
    ) -> list[SearchResult]: ...


Adds = Callable[[Knowledge, Source, Connection], object]
"""Submits the ingestion of a document whose text is at hand, in the caller's transaction."""


class KnowledgeService:
    """See the module. What it needs of searching and ingesting is handed in."""

    def __init__(self, pool: Pool, search: Searches, adds: Adds) -> None:
        self.feedback = FeedbackStore(pool)
        self._pool = pool
        self._look = RunQueries(pool)
        self._search = search
        self._adds = adds

    @classmethod
    def on(
        cls, pool: Pool, knowledges: KnowledgeBases, embedder: Callable[[str], Embedder]
    ) -> KnowledgeService:
        """On real shelves. Who adds within a transaction leaves it to the keeper to send what follows from that."""

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
    ) -> list[SearchResult]:
        """The best hits, best first. A question without a good one is kept as a gap, unless a filter may be why."""
        searching = knowledge.search_config
        hits = self._search.search(knowledge.name, query, max_results=max_results or searching.max_results, search_type=search_type or searching.search_type, filters=filters or {},
            rerank=rerank, near_duplicates=searching.near_duplicates if near_duplicates is None else near_duplicates,
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
        """Of other documents, the chunks most like this one."""
        return self._search.similar(
            knowledge.name,
            uri,
            max_results=max_results or knowledge.search_config.max_results,
            filters=filters or {},
        )

    def tools(self, use: KnowledgeBinding) -> Sequence[Tool]:
        """What an agent is offered of a knowledge base."""
        offered: list[Tool] = [search_tool(use, self._ask_for)] if use.way == "tool" else []
        return [*offered, add_tool(use, self.learn)] if use.feedback else offered

    def ground(
        self, use: KnowledgeBinding, run_id: str, transcript: Sequence[Message]
    ) -> Sequence[SearchResult]:
        """What goes with the last question of a run. Found once and kept: a turn that is executed again searches the same."""
        asked = [seq for seq, message in enumerate(transcript) if message.role == "user"]
        if use.way != "context" or not asked:
            return ()
        kept = self._look.grounded(run_id)
        if asked[-1] in kept:
            return kept[asked[-1]]
        return self.feedback.ground(run_id, asked[-1], self._ask_for(use, transcript[asked[-1]].text))

    def learn(self, use: KnowledgeBinding, note: Note, ctx: ToolContext) -> str:
        """Believe a note, or put it before a person; in the transaction of the call. Gives what the model is told."""
        assert use.feedback
        if note.confidence >= use.feedback.min_confidence:
            try:
                self._adds(use.knowledge, as_source(note, f"learned:{ctx.step_id}"), ctx.connection)
            except UnknownKnowledge as error:
                raise ToolError(str(error)) from error
            return f"It is being added to {use.knowledge.name!r}."
        if self.feedback.add_review_note(use.knowledge.name, note, ctx.connection) is None:
            raise ToolError(f"There is no knowledge base {use.knowledge.name!r} yet: nothing was added.")
        return f"It waits for a person, who decides whether it becomes part of {use.knowledge.name!r}."

    def decide(
        self, knowledge: Knowledge, id: int, *, approve: bool, by: str | None = None, note: str | None = None
    ) -> ReviewNote:
        """A person's word on a note that waits: approved, it becomes a document, in the same transaction. Raises NotWaiting."""
        status: NoteStatus = "approved" if approve else "rejected"
        with self._pool.connection() as connection, connection.transaction():
            kept = self.feedback.decide_note(knowledge.name, id, status, connection, by=by, note=note)
            if kept is None:
                raise NotWaiting(
                    f"no note {id} of {knowledge.name!r} waits: somebody decided, or there is none. "
                    f"`agno-workers knowledge review {knowledge.name}` lists those that do.",
                    note=id,
                )
            if approve:
                self._adds(knowledge, as_source(kept, f"learned:{kept.id}"), connection)
        return kept

    def credit(self, run_id: str, transcript: Sequence[Message], answer: str) -> None:
        """Count what a run that has ended was given, and what of it its answer cites. It is a hint: a count may be lost."""
        try:
            given = references(transcript, self._look.grounded(run_id).values(), answer)
            used = Counter(each.chunk for each in given)
            cited = Counter(each.chunk for each in given if each.cited)
            self.feedback.count(
                Count(chunk, min(1, many), min(1, cited[chunk])) for chunk, many in used.items()
            )
        except Unavailable as error:
            log.warning("the references of a run are not counted: %s", error, extra={"run_id": run_id})

    def _ask_for(self, use: KnowledgeBinding, question: str) -> list[SearchResult]:
        return self.search(
            use.knowledge,
            question,
            max_results=use.max_results,
            search_type=use.search_type,
            filters=use.filters,
        )


def judged(hits: Sequence[SearchResult], gap_below: float) -> tuple[float | None, bool]:
    """The cosine of the best hit, where it is known, and whether the question found nothing good."""
    alike = [hit.scores["vector"] for hit in hits if "vector" in hit.scores]
    best = max(alike, default=None)
    return best, (not hits if best is None else best < gap_below)


def as_source(note: Note, uri: str) -> Source:
    """A note as a document."""
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
