"""Delete old runs that have ended, with all that belongs to them, in small transactions. An interruption leaves whole runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec

from agno_workers.database.pool import Connection, Pool, execute, statements, translated

_SQL = statements("runs/prune")
_BATCH = 100


class Prunable(msgspec.Struct, frozen=True):
    """Runs of one agent with one status that can be deleted."""

    agent: str
    status: str
    runs: int
    keys: int
    """How many have an idempotency key. Without its run, the same submit begins another one."""
    sessions: int
    """How many sessions lose a part of their history."""
    oldest: datetime
    newest: datetime


class Pruning:
    """The ended runs of one moment that can be deleted."""

    def __init__(self, connection: Connection, older_than: timedelta) -> None:
        self._connection = connection
        self._params: dict[str, Any] = {"older_than_s": older_than.total_seconds()}
        execute(connection, _SQL["open"])
        execute(connection, _SQL["collect"], self._params)
        execute(connection, _SQL["analyze"])
        while execute(connection, _SQL["spare"]):
            pass

    def chosen(self) -> list[Prunable]:
        return [msgspec.convert(row, Prunable) for row in execute(self._connection, _SQL["chosen"])]

    def delete(self, on_progress: Callable[[int], object] = lambda _: None) -> tuple[int, int]:
        """Delete them; return the numbers of runs and of large strings that are gone."""
        gone = 0
        while ids := [row["id"] for row in execute(self._connection, _SQL["next"], {"limit": _BATCH})]:
            (row,) = execute(self._connection, _SQL["delete"], {**self._params, "ids": ids})
            execute(self._connection, _SQL["deleted"], {"ids": ids})
            gone += row["deleted"]
            on_progress(gone)
        execute(self._connection, _SQL["forget_context"], self._params)
        execute(self._connection, _SQL["forget_state"], self._params)
        execute(self._connection, _SQL["forget_memories"], self._params)
        (row,) = execute(self._connection, _SQL["forget_blobs"])
        return gone, row["blobs"]


@contextmanager
def pruning(pool: Pool, older_than: timedelta) -> Iterator[Pruning]:
    """Find what can be deleted. Raises Unavailable, and SettingsError where only a pooler's address is known."""
    with translated(), closing(pool.dedicated()) as connection:
        execute(connection, "SET statement_timeout = 0")
        yield Pruning(connection, older_than)
