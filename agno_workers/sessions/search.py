"""Search the exchanges of a user's sessions. The index is written as background work, see index.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from agno_workers.database.pool import Pool, Row, statements
from agno_workers.sessions.compose import Exchange

_SQL = statements("sessions/search")
_SPARE = 5
"""The runs that are looked for beyond the limit, since some may just have been rolled back."""
_MAX_CHARS = 20_000
"""The most characters of a question or an answer that are indexed and returned: background work reads those of many runs at once."""


class FindsRuns(Protocol):
    """The search over what was said; wiring passes it in."""

    def search(
        self, tenant: str, query: str, *, about: Mapping[str, Any], since: datetime | None, limit: int
    ) -> list[tuple[str, float]]:
        """Return the ids of runs and their scores, best first. `about` is a filter on user_id, session_id and agent."""
        ...


class SessionSearch:
    """Raises Unavailable if Postgres can't be reached."""

    def __init__(self, pool: Pool, index: FindsRuns) -> None:
        self._pool = pool
        self._index = index

    def __call__(
        self,
        *,
        tenant: str,
        user_id: str | None,
        query: str,
        agent: str | None = None,
        session_id: str | None = None,
        without_session: str | None = None,
        limit: int = 10,
        days: float | None = None,
    ) -> list[Exchange]:
        """Return a user's exchanges that match best, best first: of all sessions, of one, or of all but one; with all agents, or with one;
        of the last `days`.

        A `user_id` of None stands for the runs without a user, and no others.
        """
        about: dict[str, Any] = {"user_id": user_id}
        if agent is not None:
            about["agent"] = agent
        if session_id is not None:
            about["session_id"] = session_id
        if without_session is not None:
            about["not"] = {"session_id": without_session}
        since = None if days is None else datetime.now(UTC) - timedelta(days=days)
        found = dict(self._index.search(tenant, query, about=about, since=since, limit=limit + _SPARE))
        known = exchanges(self._pool, tenant, list(found))
        own = [row for row in known if row["user_id"] == user_id]  # whatever the index has
        return [_exchange(row, found[row["run_id"]]) for row in own[:limit]]


def exchanges(pool: Pool, tenant: str, run_ids: Sequence[str]) -> list[Row]:
    """Return what was said in runs, in the order of the ids. Runs that were rolled back are left out."""
    asked = {"tenant": tenant, "run_ids": list(run_ids), "chars": _MAX_CHARS}
    return pool.run(_SQL["exchanges"], asked) if run_ids else []


def _exchange(row: Row, score: float) -> Exchange:
    return Exchange(row["session_id"], row["run_id"], row["asked"], row["answered"], row["at"], score)
