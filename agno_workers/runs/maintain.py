"""Repair the state after a crash, for the keeper. Every call may be repeated, also by several keepers at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from uuid6 import uuid7

from agno_workers.core.step import ExhaustedStep, ExpiredWait, StepMessage
from agno_workers.database.pool import statements
from agno_workers.runs.base import Repository, convert

_SQL = {**statements("runs/maintain"), "clock": statements("runs/queries")["clock"]}


class Deployment(NamedTuple):
    """The identity of an installation."""

    id: str
    database: str
    """The name of its database in Postgres, for people."""


class Maintenance(Repository):
    """See the module; the numbers of the rules are those of `broker/keeper.py`."""

    def lead(self, lease_s: float) -> int | None:
        """Become or stay the leading keeper, and return the number of this round; None when another keeper leads."""
        rows = self._pool.run(_SQL["lead"], {"worker": self.worker, "lease_s": lease_s})
        return rows[0]["beat"] if rows else None

    def abdicate(self) -> None:
        """Stop being the leading keeper, so that another worker's keeper leads at once."""
        self._pool.run(_SQL["abdicate"], {"worker": self.worker})

    def release_expired(self, limit: int) -> list[StepMessage]:
        """Rule 3: make steps with an expired lease ready again, if another attempt is allowed."""
        rows = self._pool.run(
            _SQL["release_expired"], {"limit": limit, "again_s": self._numbers.publish_after_s}
        )
        return [convert(row, StepMessage) for row in rows]

    def exhausted(self, limit: int) -> list[ExhaustedStep]:
        """Rule 3: return steps with an expired lease that have no attempt left."""
        return [convert(row, ExhaustedStep) for row in self._pool.run(_SQL["exhausted"], {"limit": limit})]

    def silent_queues(self, resend_after_s: float) -> list[str]:
        """Rule 4: return the queues with steps that were sent and not claimed for `resend_after_s`."""
        rows = self._pool.run(_SQL["silent_queues"], {"resend_after_s": resend_after_s})
        return [row["queue"] for row in rows]

    def take_lost(self, queues: Sequence[str] | None, resend_after_s: float, limit: int) -> list[StepMessage]:
        """Rule 4: take steps of these queues (None: of all) that were not claimed for `resend_after_s`."""
        named = None if queues is None else list(queues)
        return self._take_lost(queues=named, resend_after_s=resend_after_s, limit=limit, sent_before=None)

    def take_forgotten(self, sent_before: datetime, limit: int) -> list[StepMessage]:
        """Rule 1: take steps of all queues whose message was sent before that time."""
        return self._take_lost(queues=None, resend_after_s=0, limit=limit, sent_before=sent_before)

    def _take_lost(self, **params: Any) -> list[StepMessage]:
        return [
            convert(row | {"outbox_id": None}, StepMessage)
            for row in self._pool.run(_SQL["take_lost"], params)
        ]

    def take_overdue(self, patience_s: float, limit: int) -> list[StepMessage]:
        """Rule 4: take steps that have waited long, also when their queue is not empty."""
        rows = self._pool.run(_SQL["take_overdue"], {"patience_s": patience_s, "limit": limit})
        return [convert(row | {"outbox_id": None}, StepMessage) for row in rows]

    def take_due(self, limit: int) -> list[StepMessage]:
        """Rule 5: take steps whose timer is due."""
        rows = self._pool.run(_SQL["take_due"], {"limit": limit, "again_s": self._numbers.publish_after_s})
        return [convert(row, StepMessage) for row in rows]

    def expired_waits(self, limit: int) -> list[ExpiredWait]:
        """Rule 5: return waits that nobody answered in time."""
        return [convert(row, ExpiredWait) for row in self._pool.run(_SQL["expired_waits"], {"limit": limit})]

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

    def has_epoch(self) -> bool:
        """Return False until the first keeper of this database has asked for the epoch."""
        return bool(self._pool.run(_SQL["has_epoch"]))

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
