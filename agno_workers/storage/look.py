"""Reading runs, for people and callers. Nothing here changes a row."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from agno_workers.core.messages import Message, Usage
from agno_workers.core.run import Canvas, Run, RunOutput, Step
from agno_workers.errors import RunNotFound
from agno_workers.storage.pool import Pool, Row, statements

_SQL = statements("look")


class Listed(msgspec.Struct, frozen=True):
    """A run in a list, with the beginning (200 characters) of what was asked."""

    run: Run
    asked: str


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One structural event of a run. `subject` is the id of the run or the step that it is about."""

    event: str
    subject: str
    at: datetime
    name: str = ""
    attempt: int = 0
    error: dict[str, Any] | None = None


class Look:
    """Questions to the journal. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def run(self, run_id: str) -> Run:
        """Raises RunNotFound, also for text that is no id."""
        rows = self._pool.run(_SQL["run"], {"run_id": known_id(run_id)})
        if not rows:
            raise RunNotFound(
                f"no run {run_id!r} in this database. `agno-workers runs ls` lists those there are.",
                run_id=run_id,
            )
        return _run(rows[0])

    def canvas(self, run_id: str) -> Canvas:
        """What a user's canvas has behind this run."""
        rows = self._pool.run(_SQL["run"], {"run_id": known_id(run_id)})
        return msgspec.convert((rows[0]["canvas"] if rows else None) or {}, Canvas)

    def runs(
        self,
        *,
        status: str | None = None,
        agent: str | None = None,
        session_id: str | None = None,
        limit: int = 50,
    ) -> list[Listed]:
        """The newest first."""
        rows = self._pool.run(
            _SQL["runs"], {"status": status, "agent": agent, "session_id": session_id, "limit": limit}
        )
        return [Listed(_run(row), row["asked"] or "") for row in rows]

    def steps(self, run_id: str) -> list[Step]:
        """In the order in which they were written."""
        return [
            msgspec.convert(row, Step) for row in self._pool.run(_SQL["steps"], {"run_id": known_id(run_id)})
        ]

    def transcript(self, run_id: str) -> list[Message]:
        return [
            msgspec.convert(row["content"], Message)
            for row in self._pool.run(_SQL["transcript"], {"run_id": known_id(run_id)})
        ]

    def events(self, run_id: str) -> list[Event]:
        """What has happened so far, in the order of time."""
        return [
            msgspec.convert(row, Event)
            for row in self._pool.run(_SQL["events"], {"run_id": known_id(run_id)})
        ]

    def queues(self) -> dict[str, tuple[int, datetime]]:
        """For each queue with waiting steps: how many, and since when the oldest waits."""
        return {row["queue"]: (row["ready"], row["oldest"]) for row in self._pool.run(_SQL["queues"])}

    def now(self) -> datetime:
        """The database's clock, the one that leases and timers go by."""
        when: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        return when


def output(run: Run) -> RunOutput:
    """What a caller gets of a run that has ended."""
    return RunOutput(
        run.id, run.agent, run.status, run.content, run.reason, run.usage, run.turns, run.tool_calls
    )


def known_id(run_id: str) -> str:
    """The id as Postgres takes it. Raises RunNotFound for text that can't be an id."""
    try:
        return str(UUID(run_id))
    except (ValueError, AttributeError, TypeError):
        raise RunNotFound(
            f"{run_id!r} is not a run id: a run id looks like 0198c0de-0000-7000-8000-000000000000.",
            run_id=run_id,
        ) from None


def _run(row: Row) -> Run:
    usage = msgspec.convert(row, Usage)
    return msgspec.convert({**row, "content": row["answer"], "usage": usage}, Run)
