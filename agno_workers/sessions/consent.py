"""The consent of users, and the uses of context, for callers without the agents' code."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from agno_workers.database.pool import Pool, statements
from agno_workers.runs.base import convert

_SQL = statements("sessions/context")


class ContextAccess(msgspec.Struct, frozen=True):
    """One use of a value of the context by a run."""

    id: int
    """Orders the uses."""
    run_id: str
    """The run."""
    key: str
    """The name of the value."""
    source: str
    """`static`, `dynamic`, `external`, `computed` or `private`."""
    outcome: str
    """`used`; `stale`: an old value was used; `left_out`: no room; `denied` by the user; `omitted`: its function failed."""
    at: datetime
    """The time, in UTC."""
    user_id: str | None = None
    """The run's user."""
    category: str | None = None
    """The category that the user may deny."""
    bytes: int = 0
    """The size of the value as JSON."""
    from_cache: bool = False
    """True when no function was called for it."""


class Consents:
    """The decisions of users about categories, and the uses of context."""

    def __init__(self, pool: Pool, tenant: str) -> None:
        self._pool = pool
        self._tenant = tenant

    def allow(self, user_id: str, category: str, allowed: bool) -> None:
        """Store whether a user allows a category; raises Unavailable."""
        asked = {"tenant": self._tenant, "user_id": user_id, "category": category, "allowed": allowed}
        self._pool.run(_SQL["allow"], asked)

    def of(self, user_id: str) -> dict[str, bool]:
        """Return the categories that the user has decided on."""
        rows = self._pool.run(_SQL["consents"], {"tenant": self._tenant, "user_id": user_id})
        return {row["category"]: row["allowed"] for row in rows}

    def accesses(
        self,
        *,
        run_id: str | None = None,
        user_id: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[ContextAccess]:
        """Return uses of context, the newest first."""
        asked = {
            "tenant": self._tenant,
            "run_id": run_id,
            "user_id": user_id,
            "before": before,
            "limit": limit,
        }
        return [convert(row, ContextAccess) for row in self._pool.run(_SQL["accesses"], asked)]

    def of_run(self, run_id: str) -> dict[str, Any]:
        """Return the values that the run's model sees, by name."""
        rows = self._pool.run(_SQL["seen"], {"run_id": run_id})
        return {name: value for row in rows for name, value in (row["facts"] or {}).items()}
