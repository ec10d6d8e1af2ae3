"""Feedback on knowledge: notes for review, gaps, counts of used results, and the results that accompanied a message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from agno_workers.database.pool import Connection, Pool, execute, jsonb, statements
from agno_workers.knowledge.types import Note, SearchResult

_SQL = statements("knowledge/store/feedback")
_MAX_QUESTION_CHARS = 500
"""Limit of a gap's question, which is a primary key."""

NoteStatus = Literal["waiting", "approved", "rejected"]
Verdict = Literal["up", "down"]


class ReviewNote(Note, frozen=True, kw_only=True):
    """A note in the review queue."""

    id: int
    knowledge: str
    status: NoteStatus
    created_at: datetime
    decided_by: str | None = None
    note: str | None = None
    """The comment of the reviewer."""
    decided_at: datetime | None = None


class Gap(msgspec.Struct, frozen=True):
    """A question without a good result."""

    question: str
    asked: int
    first_at: datetime
    last_at: datetime
    best_score: float | None = None
    """Cosine of the best result when it was last asked. None: no result."""


class Count(msgspec.Struct, frozen=True):
    """Uses and votes of one chunk."""

    chunk: int
    used: int = 0
    cited: int = 0
    up: int = 0
    down: int = 0


class FeedbackStore:
    """Raises Unavailable if Postgres can't be reached."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def add_review_note(self, knowledge: str, note: Note, connection: Connection) -> int | None:
        """Add a note to the review queue, in the caller's transaction. Returns None if there is no such knowledge base."""
        row = msgspec.structs.asdict(note) | {"knowledge": knowledge, "metadata": jsonb(note.metadata)}
        rows = execute(connection, _SQL["add_review_note"], row)
        return rows[0]["id"] if rows else None

    def notes(
        self,
        knowledge: str,
        status: NoteStatus | None = "waiting",
        *,
        id: int | None = None,
        limit: int = 100,
    ) -> list[ReviewNote]:
        """Return notes, oldest first."""
        asked = {"knowledge": knowledge, "status": status, "id": id, "limit": limit}
        return [msgspec.convert(row, ReviewNote) for row in self._pool.run(_SQL["notes"], asked)]

    def decide_note(
        self, knowledge: str, id: int, status: NoteStatus, connection: Connection, *, by: str | None, note: str | None
    ) -> ReviewNote | None:  # fmt: skip
        """Approve or reject, in the caller's transaction. Returns None if the note is not waiting."""
        said = {"knowledge": knowledge, "id": id, "status": status, "by": by, "note": note}
        rows = execute(connection, _SQL["decide_note"], said)
        return msgspec.convert(rows[0], ReviewNote) if rows else None

    def note_gap(self, knowledge: str, question: str, best_score: float | None) -> None:
        """Count a question without a good result. Case, spaces and final punctuation are ignored."""
        said = {"knowledge": knowledge, "question": normalised(question), "best_score": best_score}
        self._pool.run(_SQL["note_gap"], said)

    def gaps(self, knowledge: str, limit: int = 50) -> list[Gap]:
        """Return gaps, the most frequent first."""
        rows = self._pool.run(_SQL["gaps"], {"knowledge": knowledge, "limit": limit})
        return [msgspec.convert(row, Gap) for row in rows]

    def forget_gap(self, knowledge: str, question: str) -> bool:
        """Delete a gap. Returns False if there is no such gap."""
        said = {"knowledge": knowledge, "question": normalised(question)}
        return bool(self._pool.run(_SQL["forget_gap"], said))

    def count(self, counts: Iterable[Count]) -> int:
        """Add to the counts of chunks. Returns how many of the chunks exist."""
        said = [msgspec.structs.asdict(count) for count in counts]
        return len(self._pool.run(_SQL["count_feedback"], {"counts": jsonb(said)})) if said else 0

    def grounded(self, run_id: str) -> dict[int, list[SearchResult]]:
        """Return the results that went with the messages of a run, by the number of the message."""
        rows = self._pool.run(_SQL["grounded"], {"run_id": run_id})
        return {row["seq"]: msgspec.convert(row["hits"], list[SearchResult]) for row in rows}

    def ground(self, run_id: str, seq: int, hits: Sequence[SearchResult]) -> list[SearchResult]:
        """Store the results that accompany a message of a run, and return the stored ones: the first call wins."""
        (row,) = self._pool.run(_SQL["ground"], {"run_id": run_id, "seq": seq, "hits": jsonb(list(hits))})
        return msgspec.convert(row["hits"], list[SearchResult])


def normalised(question: str) -> str:
    """Normalise a question, so that equal ones are counted together."""
    return " ".join(question.casefold().split()).rstrip(" ?!.…")[:_MAX_QUESTION_CHARS]
