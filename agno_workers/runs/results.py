"""The data of Celery's result backend in Postgres, and waiting for a result without polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

import msgspec
import psycopg

from agno_workers.core.run import RunStatus
from agno_workers.core.step import CanvasContinuation
from agno_workers.core.words import as_uuid
from agno_workers.database.connect import shown
from agno_workers.database.pool import Connection, Pool, jsonb, statements
from agno_workers.errors import Unavailable

_SQL = statements("runs/results")
_POLL_S = 0.25  # without notifications
_RECHECK_S = 1.0  # a notification may be lost with its connection: check again at least this often
T = TypeVar("T")


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of a run (`meta` is None), or of a user's own task (`meta` is Celery's encoding)."""

    task_id: str
    status: str
    meta: dict[str, Any] | None = None
    content: Any = None
    error: dict[str, Any] | None = None
    ended_at: datetime | None = None
    """The time when a run ended; None for a user's own task."""


class Part(msgspec.Struct, frozen=True):
    """The result of one header task of a chord. `status` is a RunStatus or a Celery state."""

    task_id: str
    status: str
    result: Any = None


class UserChord(msgspec.Struct, frozen=True):
    """A complete chord of a user."""

    body: dict[str, Any]
    """Celery's signature, as JSON."""
    parts: list[Part]
    """The parts in the order of the header."""
    last: str
    """The task whose part completed it."""


class Leftover(msgspec.Struct, frozen=True):
    """A user's chord that waits in vain; its text says why, and what to do."""

    chord_id: str
    size: int | None
    arrived: int
    body: str
    """The name of the task that is its body."""
    created_at: datetime

    def __str__(self) -> str:
        parts = f"{self.arrived} of {'?' if self.size is None else self.size} parts"
        why = (
            "its submit was cut off"
            if self.size is None
            else "the others are not open runs, and plain tasks can be lost"
        )
        return (
            f"the chord {self.chord_id} of {self.created_at:%Y-%m-%d %H:%M} (body: {self.body}) has {parts}; {why}: "
            "submit it again, with the same idempotency keys for its runs"
        )


class Results:
    """See the module. Every call raises Unavailable when Postgres does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def address(self) -> str:
        """The address of the database, without its secrets."""
        return shown(self._pool.url)

    def outcome(self, task_id: str) -> Outcome | None:
        """Return the outcome of a task, or None for an unknown task."""
        rows = self._pool.run(_SQL["task_meta"], {"task_id": task_id, "run_id": as_uuid(task_id)})
        return msgspec.convert(rows[0], Outcome) if rows else None

    def store(self, task_id: str, status: str, meta: dict[str, Any]) -> None:
        self._pool.run(_SQL["store_result"], {"task_id": task_id, "status": status, "meta": jsonb(meta)})

    def forget(self, task_id: str) -> None:
        self._pool.run(_SQL["forget"], {"task_id": task_id})

    def save_group(self, group_id: str, result: Any) -> None:
        self._pool.run(_SQL["save_group"], {"group_id": group_id, "result": jsonb(result)})

    def restore_group(self, group_id: str) -> dict[str, Any] | None:
        rows = self._pool.run(_SQL["restore_group"], {"group_id": group_id})
        return rows[0] if rows else None

    def delete_group(self, group_id: str) -> None:
        self._pool.run(_SQL["delete_group"], {"group_id": group_id})

    def pending_continuations(self, run_id: str | None, chord_id: str | None) -> list[CanvasContinuation]:
        """Return the pending canvas continuations of an ended run and of its chord; hold each before you continue it."""
        rows = self._pool.run(_SQL["pending_continuations"], {"run_id": run_id, "chord_id": chord_id})
        return msgspec.convert(rows, list[CanvasContinuation])

    def hold_continuation(self, outbox_id: int) -> bool:
        """Take the right to continue a canvas for 8 s; False when it was continued, or another process holds it."""
        return bool(self._pool.run(_SQL["hold_continuation"], {"outbox_id": outbox_id}))

    def release_continuation(self, outbox_id: int) -> None:
        """Release a continuation that failed; the keeper takes it in 1 s."""
        self._pool.run(_SQL["release_continuation"], {"outbox_id": outbox_id})

    def size_chord(self, chord_id: str, size: int) -> None:
        """Set the number of parts of a chord. If all have arrived already, the body becomes pending. Every `chord_id` here is a
        result of `barrier_id`.
        """
        self._pool.run(_SQL["size_chord"], {"chord_id": chord_id, "size": size})

    def chord_part(self, chord_id: str, task_id: str, position: int | None, status: str, result: Any) -> bool:
        """Record the result of a header task; False for an unknown chord."""
        params = {
            "chord_id": chord_id,
            "task_id": task_id,
            "position": position,
            "status": status,
            "result": jsonb(result),
        }
        return bool(self._pool.run(_SQL["chord_part"], params)[0]["known"])

    def has_chord(self, chord_id: str) -> bool:
        """Return whether a user's chord is in this database."""
        return bool(self._pool.run(_SQL["has_chord"], {"chord_id": chord_id}))

    def leftovers(self, limit: int = 20) -> list[Leftover]:
        """Return chords that wait in vain, the oldest first."""
        return msgspec.convert(self._pool.run(_SQL["leftovers"], {"limit": limit}), list[Leftover])

    def chord(self, chord_id: str) -> UserChord:
        """Return a complete chord with its parts."""
        (row,) = self._pool.run(_SQL["chord"], {"chord_id": chord_id})
        return msgspec.convert(row, UserChord)

    def wait(
        self,
        task_id: str,
        read: Callable[[], T | None],
        timeout_s: float | None,
        on_interval: Callable[[], Any] | None = None,
    ) -> T | None:
        """Call `read` when the task's end is notified, and once a second, until it returns a value. None after `timeout_s`.

        An outage of Postgres is waited out.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with suppress(Unavailable):
            if found := read():
                return found
        listener: Connection | None = None
        try:
            while True:
                with suppress(Unavailable):  # such as the limit of connections
                    listener = listener or self._pool.listen("agno_result")
                with suppress(Unavailable):
                    if (found := read()) is not None:
                        return found
                if on_interval:
                    on_interval()
                if (left := _left(deadline)) <= 0:
                    return None
                if listener is None:
                    time.sleep(min(left, _POLL_S))
                elif not _until_notified(listener, task_id, min(left, _RECHECK_S)):
                    listener.close()
                    listener = None
        finally:
            if listener:
                self._pool.put_back(listener)


def barrier_id(group_id: str) -> str:
    """Return the id of a group's barrier, a UUID. Celery accepts any text as the id of a group."""
    return as_uuid(group_id) or str(uuid5(NAMESPACE_OID, group_id))


def _until_notified(listener: Connection, task_id: str, timeout_s: float) -> bool:
    """Wait for a notification; False when the connection is lost."""
    try:
        for notification in listener.notifies(timeout=timeout_s):
            if notification.payload == task_id:
                break
    except psycopg.Error:
        return False
    return True


def _left(deadline: float | None) -> float:
    return float("inf") if deadline is None else deadline - time.monotonic()


def is_over(outcome: Outcome) -> bool:
    """Return True when a task has ended, by its RunStatus or Celery state."""
    ended = {str(status) for status in RunStatus if status.is_terminal} | {"SUCCESS", "FAILURE", "REVOKED"}
    return outcome.status in ended
