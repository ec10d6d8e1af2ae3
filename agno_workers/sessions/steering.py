"""Messages that join a live run (`if_busy="steer"`), and what became of them.

    pending ──the next turn is recorded──▶ committed      it is a part of that turn, and stays in the transcript if that is retried
       └──────the run ends before────────▶ returned       it is the next run of the session, together with the others that were pending

Submits write them (`agno.add_steer`), claims read them (`ClaimedStep.steers`), and the turn that used them records them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from agno_workers.database.pool import Pool, statements
from agno_workers.errors import RunNotFound
from agno_workers.runs.base import convert

_SQL = statements("sessions/steering")


class SteerReceipt(msgspec.Struct, frozen=True):
    """The fate of a message to a live run, at the time of the query."""

    id: str
    """A UUID: the id of the message."""
    status: Literal["pending", "committed", "returned"]
    """`pending`: it waits for the next turn. `committed`: it is a part of a turn. `returned`: the run ended before, and it is a run now."""
    run_id: str
    """The run that was live."""
    step_id: str | None = None
    """The turn that it joined."""
    next_run_id: str | None = None
    """The run that it became."""
    created_at: datetime | None = None
    """The time of the submit, in UTC."""
    decided_at: datetime | None = None
    """Since when it is not pending; UTC."""


class Steering:
    """Reads receipts. Raises Unavailable when Postgres does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def receipt(self, steer_id: str) -> SteerReceipt:
        """Return what became of a message. Raises RunNotFound when it was deleted with its run."""
        for row in self._pool.run(_SQL["receipt"], {"id": steer_id}):
            return convert(row, SteerReceipt)
        raise RunNotFound(
            f"message {steer_id} is not in this database: it was deleted with its run.", steer_id=steer_id
        )
