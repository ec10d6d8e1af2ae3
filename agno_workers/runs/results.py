"""What Celery's result backend keeps in Postgres, and waiting for a result without polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

import msgspec
import psycopg

from agno_workers.core.run import RunStatus
from agno_workers.core.step import CanvasContinuation
from agno_workers.core.words import as_uuid
from agno_workers.database.pool import Pool, jsonb, statements
from agno_workers.errors import Unavailable

_SQL = statements("runs/results")
_RECHECK_S = 1.0  # a notification may be lost with its connection: look again at least this often
T = TypeVar("T")


class Outcome(msgspec.Struct, frozen=True):
    """What is known of a task: of a run (`meta` None), or of a user's own task (`meta` as Celery encoded it)."""

    task_id: str
    status: str
    meta: dict[str, Any] | None = None
    content: Any = None
    error: dict[str, Any] | None = None
    ended_at: datetime | None = None
    """Of a run."""


class Part(msgspec.Struct, frozen=True):
    """What one header task brought to a chord. `status` is a run's own word or Celery's."""

    task_id: str
    status: str
    result: Any = None


class UserChord(msgspec.Struct, frozen=True):
    """A user's chord that is complete."""

    body: dict[str, Any]
    """Celery's signature, as JSON."""
    parts: list[Part]
    """In the order of the header."""
    last: str
    """The task whose part completed it."""


class Results:
    """See the module. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def outcome(self, task_id: str) -> Outcome | None:
        """None: nothing is known of that task."""
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
        """What an ended run, and the chord that its part completed, owe to a canvas; to be held before it is done."""
        rows = self._pool.run(_SQL["pending_continuations"], {"run_id": run_id, "chord_id": chord_id})
        return msgspec.convert(rows, list[CanvasContinuation])

    def hold_continuation(self, outbox_id: int) -> bool:
        """Take the right to do what is owed to a canvas, for 8 s; False: it is done, or somebody is at it."""
        return bool(self._pool.run(_SQL["hold_continuation"], {"outbox_id": outbox_id}))

    def release_continuation(self, outbox_id: int) -> None:
        """Give it back undone; the keeper takes it in 1 s."""
        self._pool.run(_SQL["release_continuation"], {"outbox_id": outbox_id})

    def open_chord(self, chord_id: str, body: dict[str, Any]) -> None:
        """Write down a user's chord before its first header task is sent. All `chord_id`s as `barrier_id` gives them."""
        self._pool.run(_SQL["open_chord"], {"chord_id": chord_id, "body": jsonb(body)})

    def size_chord(self, chord_id: str, size: int) -> None:
        """Say how many parts a chord waits for. Owes the body when they are all in already."""
        self._pool.run(_SQL["size_chord"], {"chord_id": chord_id, "size": size})

    def chord_part(self, chord_id: str, task_id: str, position: int | None, status: str, result: Any) -> bool:
        """A header task came back; False: no such chord is known here."""
        params = {
            "chord_id": chord_id,
            "task_id": task_id,
            "position": position,
            "status": status,
            "result": jsonb(result),
        }
        return bool(self._pool.run(_SQL["chord_part"], params)[0]["known"])

    def chord(self, chord_id: str) -> UserChord:
        """A complete chord, with all that it was given."""
        (row,) = self._pool.run(_SQL["chord"], {"chord_id": chord_id})
        return msgspec.convert(row, UserChord)

    def wait(
        self,
        task_id: str,
        look: Callable[[], T | None],
        timeout_s: float | None,
        on_interval: Callable[[], Any] | None = None,
    ) -> T | None:
        """Call `look` until it gives something, each time that the task's end is notified and once a second besides.

        None when `timeout_s` is over. Rides out a Postgres that is away for a while.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if found := _patient(look):
            return found
        while (left := _left(deadline)) > 0:
            try:
                with self._pool.dedicated() as listener:
                    listener.execute("LISTEN agno_result")
                    while True:
                        if (found := look()) is not None:
                            return found
                        if on_interval:
                            on_interval()
                        if (left := _left(deadline)) <= 0:
                            return None
                        _until_notified(listener, task_id, min(left, _RECHECK_S))
            except Unavailable:
                time.sleep(min(left, _RECHECK_S))
        return None


def barrier_id(group_id: str) -> str:
    """The id of a group's barrier. Celery takes any text for the id of a group; ours are UUIDs."""
    return as_uuid(group_id) or str(uuid5(NAMESPACE_OID, group_id))


def _until_notified(listener: Any, task_id: str, timeout_s: float) -> None:
    try:
        for notification in listener.notifies(timeout=timeout_s):
            if notification.payload == task_id:
                return
    except psycopg.Error as error:
        raise Unavailable(f"Postgres went away while a result was awaited: {error}") from error


def _patient(look: Callable[[], T | None]) -> T | None:
    try:
        return look()
    except Unavailable:
        return None


def _left(deadline: float | None) -> float:
    return float("inf") if deadline is None else deadline - time.monotonic()


def is_over(outcome: Outcome) -> bool:
    """Whether a task has ended, by its run's status or by Celery's state."""
    ended = {str(status) for status in RunStatus if status.is_terminal} | {"SUCCESS", "FAILURE", "REVOKED"}
    return outcome.status in ended
