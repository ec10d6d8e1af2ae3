"""Batches: runs that are submitted in one transaction, and their progress, results and cancel.

The items arrive by COPY, and the server inserts them into the tables, at a fraction of the cost of single submits. They have no
outbox rows: their first steps are due timers, which the keeper sends a hundred at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from agno_workers.core.messages import Message
from agno_workers.core.run import Run, RunKind
from agno_workers.database.pool import (
    Connection,
    Payloads,
    Pool,
    execute,
    jsonb,
    retry_while_unavailable,
    statements,
    to_json,
)
from agno_workers.errors import IdempotencyConflict, RunNotFound
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.control import Control
from agno_workers.runs.queries import run_of

_SQL = statements("runs/batch")
T = TypeVar("T")
_SUBMIT_TIMEOUT_S = 600.0
"""The timeout of each statement of a submit; the COPY lasts while the caller produces its inputs."""
_PAGE = 1000
_CONTENTS = 50
"""The most runs with their contents in memory at a time."""
_CANCELLED_AT_ONCE = 200


class Item(msgspec.Struct, frozen=True):
    """One run of a batch to submit: its first message and its idempotency key, if any."""

    message: Message
    key: str | None = None


class Common(msgspec.Struct, frozen=True):
    """The options that all runs of a batch share."""

    agent: str
    queue: str | None = None
    tenant: str = "default"
    allow_unknown: bool = False
    priority: int | None = None
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}
    deadline_s: float | None = None
    """Seconds from the submit to the deadline of each run."""
    if_busy: str = "queue"
    """`queue`, `reject` or `parallel`; see `core/session.py`."""
    kind: RunKind | None = None
    """None: that of the name, as a worker has registered it."""


class BatchRow(msgspec.Struct, frozen=True):
    id: str
    agent: str
    size: int
    created_at: datetime
    cancelled_at: datetime | None = None


class Progress(BatchRow, frozen=True):
    """The progress of a batch: the number of its items by the status of their runs."""

    queued: int = 0
    running: int = 0
    waiting: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    per_s: float = 0.0
    """Runs that ended per second in the last 30 s."""

    @property
    def ended(self) -> int:
        return self.done + self.failed + self.cancelled

    @property
    def unfinished(self) -> int:
        return self.queued + self.running + self.waiting

    @property
    def share(self) -> float:
        """The share of runs that have ended, from 0 to 1."""
        known = self.ended + self.unfinished
        return self.ended / known if known else 1.0

    @property
    def is_over(self) -> bool:
        return self.unfinished == 0

    @property
    def eta_s(self) -> float | None:
        """The seconds until the end at the rate of the last 30 s; None when no run ended in them."""
        if self.is_over:
            return 0.0
        return self.unfinished / self.per_s if self.per_s else None


class Ended(msgspec.Struct, frozen=True):
    """An item whose run has ended."""

    position: int
    run_id: str
    ended_at: datetime


class Batches:
    """See the module. Every call raises Unavailable when Postgres does not answer; then all of it happened, or nothing."""

    def __init__(self, pool: Pool, control: Control, numbers: RunNumbers = RunNumbers()) -> None:  # noqa: B008 - a frozen value
        self._pool = pool
        self._control = control
        self._numbers = numbers

    def submit(self, batch_id: str, items: Iterable[Item], common: Common) -> bool:
        """Store all items or none; the keeper sends their messages. False when the batch exists already; `items` is not read then.

        An item whose idempotency key belongs to an existing run shares that run. When `items` raises, nothing is stored.
        """
        params = {
            "batch_id": batch_id,
            "tenant": common.tenant,
            "agent": common.agent,
            "queue": common.queue,
            "allow_unknown": common.allow_unknown,
            "priority": common.priority,
            "session_id": _clean(common.session_id),
            "user_id": _clean(common.user_id),
            "metadata": jsonb(common.metadata),
            "deadline_s": common.deadline_s,
            "if_busy": common.if_busy,
            "kind": common.kind,
            "session_status": None,
            "session_position": None,
            "max_attempts": self._numbers.turn_attempts,
            "timeout_ms": round(_SUBMIT_TIMEOUT_S * 1000),
        }
        with self._pool.connection() as connection, connection.transaction():
            if not (opened := execute(connection, _SQL["open"], params)):
                return False
            params["queue"] = opened[0]["queue"]
            execute(connection, _SQL["stage"])
            size = self._copy(connection, items)
            params["size"] = size
            if common.session_id and size:
                params |= execute(connection, _SQL["enter_session"], params)[0]
            if connection.execute(_SQL["runs"], params).rowcount < size:
                for row in execute(connection, _SQL["conflict"], params):
                    raise _conflict(common.agent, **row)
                execute(connection, _SQL["known"], params)
            wake = ("wake",) if params["session_status"] == "waiting" else ()
            for statement in ("use_blobs", "blobs", "messages", "steps", *wake, "close"):
                execute(connection, _SQL[statement], params)
        return True

    def _copy(self, connection: Connection, items: Iterable[Item]) -> int:
        size = 0
        with connection.cursor() as cursor, cursor.copy(_SQL["copy"]) as copy:
            for position, item in enumerate(items):
                payloads = Payloads(self._numbers.inline_max_bytes)
                message = bytes(payloads.pack(item.message)).decode()
                blobs = to_json(payloads.blobs).decode() if payloads.blobs else None
                copy.write_row((position, _clean(item.key), message, blobs))
                size = position + 1
        return size

    def batch(self, batch_id: str) -> BatchRow:
        """Return the row of a batch. Raises RunNotFound."""
        return self._one(BatchRow, "batch", batch_id)

    def progress(self, batch_id: str) -> Progress:
        """Return the progress of a batch. Raises RunNotFound."""
        return self._one(Progress, "progress", batch_id)

    def unfinished(self, batch_id: str, limit: int) -> list[str]:
        """Return the ids of up to `limit` runs that have not ended."""
        return self._ids("unfinished", batch_id, limit=limit)

    def ended(self, batch_id: str, since: datetime | None) -> Iterator[list[Ended]]:
        """Yield pages of the items whose runs have ended since a time (None: all), in the order of their ends."""
        last: dict[str, Any] = {"ended_at": since or "-infinity", "id": str(UUID(int=0)), "position": -1}
        while rows := retry_while_unavailable(
            self._pool.run, _SQL["ended"], {**last, "batch_id": batch_id, "limit": _PAGE}
        ):
            last = rows[-1]
            yield [Ended(row["position"], row["id"], row["ended_at"]) for row in rows]
            if len(rows) < _PAGE:
                return

    def runs(self, batch_id: str) -> Iterator[Run]:
        """Yield all runs, a page in memory at a time: first the batch's own, in the order of the inputs, then shared ones."""
        after = -1
        while rows := self._pool.run(_SQL["made"], {"batch_id": batch_id, "after": after, "limit": _PAGE}):
            after = rows[-1]["position"]
            yield from self._contents([row["id"] for row in rows])
        yield from self._contents(self._ids("taken", batch_id))

    def _ids(self, statement: str, batch_id: str, **params: Any) -> list[str]:
        return [row["id"] for row in self._pool.run(_SQL[statement], {**params, "batch_id": batch_id})]

    def _contents(self, run_ids: Sequence[str]) -> Iterator[Run]:
        for first in range(0, len(run_ids), _CONTENTS):
            some = run_ids[first : first + _CONTENTS]
            runs = self.these(some)
            yield from (runs[run_id] for run_id in some if run_id in runs)

    def these(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Return runs with their contents by id; deleted runs are missing."""
        rows = self._pool.run(_SQL["these"], {"run_ids": list(run_ids)})
        return {row["id"]: run_of(row) for row in rows}

    def cancel(self, batch_id: str) -> int:
        """Cancel all open runs and return their number. Raises RunNotFound.

        After a crash in the middle, the next call or `cancel_abandoned` cancels the rest.
        """
        if not self._pool.run(_SQL["cancel"], {"batch_id": batch_id}):
            raise _unknown(batch_id)
        cancelled = 0
        while run_ids := self.unfinished(batch_id, _CANCELLED_AT_ONCE):
            cancelled += self._control.cancel_all(run_ids)
        return cancelled

    def cancel_abandoned(self, older_s: float = 10.0) -> int:
        """Finish cancels that began more than `older_s` ago and were interrupted; for the keeper."""
        rows = self._pool.run(_SQL["left_open"], {"older_s": older_s, "limit": 10})
        return sum(
            self._control.cancel_all(self._ids("abandoned", row["id"], limit=_CANCELLED_AT_ONCE))
            for row in rows
        )

    def _one(self, kind: type[T], statement: str, batch_id: str) -> T:
        rows = self._pool.run(_SQL[statement], {"batch_id": batch_id})
        if not rows:
            raise _unknown(batch_id)
        return msgspec.convert(rows[0], kind)


def _clean(text: str | None) -> str | None:
    """Return text without the characters that Postgres refuses; see `to_json`."""
    return None if text is None else msgspec.json.decode(to_json(text), type=str)


def _conflict(agent: str, key: str, run_id: str, position: int) -> IdempotencyConflict:
    """Return the error for a key that belongs to a run with another input."""
    return IdempotencyConflict(
        f"input {position}: the idempotency key {key!r} of agent {agent!r} belongs to run {run_id}, which has another input: use another key, or "
        "submit the same input.",
        run_id=run_id, agent=agent, position=position,
    )  # fmt: skip


def _unknown(batch_id: str) -> RunNotFound:
    return RunNotFound(
        f"batch {batch_id!r} is not in this database: pass the value of `Batch.id`.", batch_id=batch_id
    )
