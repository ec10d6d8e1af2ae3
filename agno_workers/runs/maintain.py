"""Repair the state after a crash, for the keeper. Every call may be repeated, also by several keepers at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from uuid6 import uuid7

from agno_workers.core.step import ExhaustedStep, ExpiredWait, StepMessage
from agno_workers.database.migrations import NEWEST
from agno_workers.database.pool import Row, statements
from agno_workers.runs.base import Repository, convert

_SQL = {**statements("runs/maintain"), "clock": statements("runs/queries")["clock"]}


class Deployment(NamedTuple):
    """The identity of an installation."""

    id: str
    database: str
    """The name of its database in Postgres, for people."""


class Lead(msgspec.Struct, frozen=True):
    """The facts with which the leading keeper begins a round."""

    beat: int
    """How often a keeper has renewed its lease; see the epoch."""
    epoch: str | None
    """The value that Redis stores; None until the first keeper of this database has made it."""
    due: frozenset[str]
    """The kinds of work that are due, in the words of `lead` in maintain.sql."""


class Maintenance(Repository):
    """See the module; the numbers of the rules are those of `broker/keeper.py`."""

    def lead(self, lease_s: float) -> Lead | None:
        """Become or stay the leading keeper, and return what is due; None when another keeper leads."""
        asked = {"leader": self._leader, "revision": NEWEST, "lease_s": lease_s}
        rows = self._pool.run(_SQL["lead"], asked)
        return convert(rows[0], Lead) if rows else None

    def abdicate(self) -> None:
        """Stop being the leading keeper, so that another worker's keeper leads at once."""
        self._pool.run(_SQL["abdicate"], {"leader": self._leader})

    @property
    def _leader(self) -> str:
        """The name of this keeper, which ends with the revision of its tables."""
        return f"{self.worker} {NEWEST}"

    def release_expired(self, limit: int) -> list[StepMessage]:
        """Rule 3: make steps with an expired lease ready again, if another attempt is allowed."""
        rows = self._pool.run(
            _SQL["release_expired"], {"limit": limit, "again_s": self._numbers.publish_after_s}
        )
        return [convert(row, StepMessage) for row in rows]

    def exhausted(self, limit: int) -> list[ExhaustedStep]:
        """Rule 3: return steps with an expired lease that have no attempt left."""
        return [convert(row, ExhaustedStep) for row in self._pool.run(_SQL["exhausted"], {"limit": limit})]

    def sent_queues(self) -> list[str]:
        """Rule 4: return the queues with steps that were sent and not claimed yet."""
        return [row["queue"] for row in self._pool.run(_SQL["sent_queues"])]

    def take_lost(self, queues: Sequence[str], resend_after_s: float, limit: int) -> list[StepMessage]:
        """Rule 4: take steps of these empty queues, up to `limit` of each, that were not claimed for `resend_after_s`."""
        params = {"queues": list(queues), "resend_after_s": resend_after_s, "limit": limit}
        return [_message(row) for row in self._pool.run(_SQL["take_lost"], params)]

    def take_overdue(self, queues: Sequence[str], limit: int) -> list[StepMessage]:
        """Rule 4: take steps of these queues, up to `limit` of each, that have waited long, also where the queue is not empty."""
        rows = self._pool.run(_SQL["take_overdue"], {"queues": list(queues), "limit": limit})
        return [_message(row) for row in rows]

    def forgotten(self, sent_before: datetime, limit: int) -> Iterator[list[StepMessage]]:
        """Rule 1: take pages of steps of all queues whose message was sent before that time."""
        params: dict[str, Any] = {
            "sent_before": sent_before,
            "limit": limit,
            "queue": "",
            "resend_at": "-infinity",
        }
        while rows := self._pool.run(_SQL["take_forgotten"], params):
            params |= {"queue": rows[-1]["queue"], "resend_at": rows[-1]["resend_at"]}
            yield [_message(row) for row in rows]

    def take_due(self, limit: int) -> list[StepMessage]:
        """Rule 5: take steps whose timer is due."""
        rows = self._pool.run(_SQL["take_due"], {"limit": limit, "again_s": self._numbers.publish_after_s})
        return [convert(row, StepMessage) for row in rows]

    def end_due_timers(self, limit: int) -> int:
        """Rule 5: end timers of programs that are due, and return their number."""
        ended: int = self._pool.run(_SQL["end_due_timers"], {"limit": limit})[0]["ended"]
        return ended

    def expired_waits(self, limit: int) -> list[ExpiredWait]:
        """Rule 5: return waits that nobody answered in time."""
        return [convert(row, ExpiredWait) for row in self._pool.run(_SQL["expired_waits"], {"limit": limit})]

    def due_in_session(self, limit: int) -> list[str]:
        """Rule 5: return runs whose timer is due, and that have no place in their session yet."""
        return [row["run_id"] for row in self._pool.run(_SQL["due_in_session"], {"limit": limit})]

    def take_place(self, run_id: str) -> None:
        """Rule 5: give such a run its place."""
        self._pool.run(_SQL["take_place"], {"run_id": run_id})

    def time_out_sessions(self, limit: int) -> int:
        """Rule 5: end sessions that were idle for too long, and return how many were looked at."""
        return len(self._pool.run(_SQL["time_out_sessions"], {"limit": limit}))

    def overdue_runs(self, limit: int) -> list[str]:
        """Rule 5: return open runs past their deadline."""
        return [row["id"] for row in self._pool.run(_SQL["overdue_runs"], {"limit": limit})]

    def orphans(self, limit: int) -> list[str]:
        """Rule 5: return open runs whose parent has ended."""
        return [row["id"] for row in self._pool.run(_SQL["orphans"], {"limit": limit})]

    def deployment(self) -> Deployment:
        """Return the identity of this installation. Its id is made when it is first asked for."""
        row = self._pool.run(_SQL["deployment"], {"fresh": str(uuid7())})[0]
        return Deployment(row["value"], row["database"])

    def check_database(self) -> None:
        """Raises UnusableDatabase when the database behind our address is another one now."""
        self._pool.check()

    def epoch(self) -> str:
        """Return the value that Redis stores; without it, Redis has lost data."""
        return str(self._pool.run(_SQL["epoch"], {"fresh": str(uuid7())})[0]["value"])

    def new_epoch(self) -> str:
        """Set a new value, which Redis cannot have: this database was restored."""
        return str(self._pool.run(_SQL["new_epoch"], {"fresh": str(uuid7())})[0]["value"])

    def now(self) -> datetime:
        """Return the time of the database, whose clock is used everywhere here."""
        when: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        return when


def _message(row: Row) -> StepMessage:
    return convert(row | {"outbox_id": None}, StepMessage)
