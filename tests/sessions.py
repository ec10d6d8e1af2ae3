"""Conversations in the database of a test."""

from __future__ import annotations

from typing import Any

from agno_workers.core.step import ClaimedStep
from tests.database import FEW, RunDatabase, claimed, said


def submit(db: RunDatabase, session: str, text: str = "hi", status: str = "live", **options: Any) -> str:
    """Submit a run to a session; return its id."""
    if status == "parallel":
        options["if_busy"] = "parallel"
    return db.submit(text, session_id=session, **options).run_id


def first_turn(db: RunDatabase, run_id: str) -> ClaimedStep:
    (step,) = db.sql(
        "SELECT id FROM agno.step WHERE run_id = %(id)s AND status IN ('ready', 'waiting')", id=run_id
    )
    return claimed(db.journal.claim_turn(run_id, str(step["id"]), 0))


def told(db: RunDatabase, session: str, *texts: str, **options: Any) -> list[str]:
    """Have a conversation; return the ids of its runs."""
    runs = []
    for text in texts:
        runs.append(submit(db, session, text, **options))
        db.journal.end(first_turn(db, runs[-1]), said(f"<{text}>"), FEW, f"<{text}>", "end")
    return runs
