"""Dead letters: failed runs, and tool calls that died or whose outcome is unknown. Reading only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.database.pool import Pool, statements
from agno_workers.errors import InvalidInput
from agno_workers.runs.queries import known_id

_SQL = {**statements("runs/dead"), "clock": statements("runs/queries")["clock"]}
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
TURN = "turn"
"""Instead of a tool's name: the run itself failed."""


class Which(msgspec.Struct, frozen=True):
    """Filters; None matches any dead letter."""

    agent: str | None = None
    tool: str | None = None
    error: str | None = None
    """The type of the error."""
    within: timedelta | None = None
    """At most this old."""

    @property
    def is_all(self) -> bool:
        return self == Which()

    @property
    def params(self) -> dict[str, Any]:
        within_s = None if self.within is None else self.within.total_seconds()
        return {"agent": self.agent, "tool": self.tool, "error": self.error, "within_s": within_s}


class Group(msgspec.Struct, frozen=True):
    """Dead letters with the same error."""

    status: str
    """`failed` for runs; `dead` or `unknown` for steps."""
    agent: str
    tool: str
    """The tool's name, or TURN."""
    type: str
    message: str | None
    """The message without ids and numbers."""
    letters: int
    newest: datetime
    sample: str
    """The id of one of them, a run or a step."""


class Letter(msgspec.Struct, frozen=True):
    """A run or a step, with what matters when it is dead."""

    id: str
    run_id: str
    agent: str
    tool: str
    key: str
    """The key of a step; empty for a run."""
    status: str
    """A RunStatus or a StepStatus."""
    run_status: RunStatus
    reason: str | None = None
    error: dict[str, Any] | None = None
    ended_at: datetime | None = None
    parent_run_id: str | None = None
    call: str | None = None
    """The arguments of a tool call, as JSON."""

    @property
    def is_run(self) -> bool:
        return not self.key

    @property
    def is_dead(self) -> bool:
        return self.status in (RunStatus.FAILED, StepStatus.DEAD, StepStatus.UNKNOWN)


class Retryable(msgspec.Struct, frozen=True):
    """How many failed runs can be retried, and how many cannot because another run delegated them."""

    runs: int
    delegated: int


class DeadLetters:
    """Reads dead letters. Raises Unavailable when Postgres does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def groups(self, which: Which, limit: int) -> list[Group]:
        """Return the groups, the largest first."""
        return [
            msgspec.convert(row, Group)
            for row in self._pool.run(_SQL["groups"], which.params | {"limit": limit})
        ]

    def letter(self, id: str) -> Letter:
        """Return a run or a step, dead or not. Raises InvalidInput if there is none, RunNotFound for text that is not an id."""
        rows = self._pool.run(_SQL["letter"], {"id": known_id(id)})
        if not rows:
            raise InvalidInput(
                f"no run or step has the id {id!r}: `agno-workers dead ls` lists dead letters."
            )
        return msgspec.convert(rows[0], Letter)

    def retryable(self, which: Which) -> Retryable:
        (row,) = self._pool.run(_SQL["count"], which.params)
        return msgspec.convert(row, Retryable)

    def failed(self, which: Which, page: int = 200) -> Iterator[str]:
        """Yield the ids of the failed runs that can be retried, the oldest first, read in pages.

        Runs that fail from now on are left out, so it ends although each run may be retried meanwhile.
        """
        until: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        place: dict[str, Any] = {"after": None, "after_id": _FIRST_ID}
        while rows := self._pool.run(_SQL["failed"], which.params | place | {"until": until, "limit": page}):
            yield from (row["id"] for row in rows)
            place = {"after": rows[-1]["ended_at"], "after_id": rows[-1]["id"]}
