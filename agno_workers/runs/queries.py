"""Reading runs, for people and callers. Nothing here changes a row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from agno_workers.core.agent import Limits
from agno_workers.core.messages import Message, ToolCall, Usage
from agno_workers.core.run import Canvas, Run, RunOutput, RunStatus, Step, WaitsFor
from agno_workers.core.tool import Policy
from agno_workers.core.words import as_uuid
from agno_workers.database.pool import Pool, Row, statements
from agno_workers.errors import AgnoError, RunNotFound

_SQL = statements("runs/queries")
IdKind = Literal["run", "step", "batch"]


class Listed(msgspec.Struct, frozen=True):
    """A run in a list, with the beginning (200 characters) of what was asked."""

    run: Run
    asked: str


class Waiting(msgspec.Struct, frozen=True):
    """A tool call that waits for a person, or for somebody outside."""

    step_id: str
    run_id: str
    generation: int
    key: str
    seq: int
    attempt: int
    agent: str
    name: str
    waits_for: WaitsFor
    call: ToolCall
    policy: Policy
    created_at: datetime
    expires_at: datetime | None = None
    error: dict[str, Any] | None = None
    """Of a resolution: how the call was cut short."""


class Lease(msgspec.Struct, frozen=True):
    """The right of a worker to a step."""

    until: datetime
    last: bool
    """No further attempt follows when it runs out."""


class Child(msgspec.Struct, frozen=True):
    """A run that another one delegated."""

    id: str
    agent: str
    status: RunStatus


class RunDiagnostics(msgspec.Struct, frozen=True):
    """What decides why a run is not over, beside its own row and its steps."""

    now: datetime
    leases: dict[str, Lease] = {}
    """By the id of the step."""
    children: tuple[Child, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    """What waits for a person."""
    keeper_until: datetime | None = None
    """Until when a keeper leads; in the past: none is alive."""
    limits: Limits | None = None
    """The agent's, once a turn of it has been recorded."""


class Stuck(msgspec.Struct, frozen=True):
    """Work that does not move."""

    what: Literal["no_step", "unclaimed", "lease", "outbox", "person"]
    queue: str
    count: int
    since: datetime
    sample: str | None
    """A run's id; of `person` a step's."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One structural event of a run. `subject` is the id of the run or of the step that it is about."""

    number: int
    """From 1 in each run, without a gap; it never changes."""
    event: str
    subject: str
    at: datetime
    name: str = ""
    attempt: int = 0
    error: dict[str, Any] | None = None


class RunQueries:
    """Questions to the journal. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool, tenant: str = "default") -> None:
        self._pool = pool
        self._tenant = tenant

    def run(self, run_id: str) -> Run:
        """Raises RunNotFound, also for text that is no id."""
        rows = self._pool.run(_SQL["run"], {"run_id": known_id(run_id)})
        if not rows:
            raise RunNotFound(
                f"no run {run_id!r} in this database. `agno-workers runs ls` lists the newest runs.",
                run_id=run_id,
            )
        return run_of(rows[0])

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
        batch_id: str | None = None,
        limit: int = 50,
    ) -> list[Listed]:
        """The newest first."""
        wanted = {
            "status": status,
            "agent": agent,
            "session_id": session_id,
            "limit": limit,
            "tenant": self._tenant,
        }
        rows = self._pool.run(_SQL["runs"], {**wanted, "batch_id": batch_id and known_id(batch_id)})
        return [Listed(run_of(row), row["asked"] or "") for row in rows]

    def find_ids(self, digits: str, kinds: Sequence[IdKind], newest: int = 100_000) -> list[str]:
        """Return the ids, at most six, that begin or end with these hex digits (at most 32); an end is looked for among the newest
        rows of each kind.
        """
        bounds = {"first": str(UUID(digits.ljust(32, "0"))), "last": str(UUID(digits.ljust(32, "f")))}
        wanted = {"digits": digits, "kinds": list(kinds), "newest": newest, "tenant": self._tenant}
        return [row["id"] for row in self._pool.run(_SQL["find_ids"], bounds | wanted)]

    def steps(self, run_id: str) -> list[Step]:
        """In the order in which they were written."""
        return [
            msgspec.convert(row, Step) for row in self._pool.run(_SQL["steps"], {"run_id": known_id(run_id)})
        ]

    def waiting(
        self, run_id: str | None = None, step_id: str | None = None, limit: int = 1000
    ) -> list[Waiting]:
        """What waits for a person, of one run or of all, the oldest first."""
        rows = self._pool.run(
            _SQL["waiting"],
            {"run_id": run_id and known_id(run_id), "step_id": step_id and known_id(step_id), "limit": limit},
        )
        return [msgspec.convert(row, Waiting) for row in rows]

    def call(self, step_id: str) -> ToolCall:
        """What a tool step was asked to do."""
        (row,) = self._pool.run(_SQL["call"], {"step_id": step_id})
        return msgspec.convert(row["call"], ToolCall)

    def transcript(self, run_id: str) -> list[Message]:
        return [
            msgspec.convert(row["content"], Message)
            for row in self._pool.run(_SQL["transcript"], {"run_id": known_id(run_id)})
        ]

    def events(self, run_id: str, after: int = 0) -> list[Event]:
        """Return the events of a run with numbers above `after`, in order. An event gets its number when it is first read."""
        rows = self._pool.run(_SQL["events"], {"run_id": known_id(run_id), "after": after})
        return [msgspec.convert(row, Event) for row in rows]

    def queues(self) -> dict[str, tuple[int, datetime]]:
        """For each queue with waiting steps: how many, and since when the oldest waits."""
        return {row["queue"]: (row["ready"], row["oldest"]) for row in self._pool.run(_SQL["queues"])}

    def now(self) -> datetime:
        """The database's clock, the one that leases and timers go by."""
        when: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        return when

    def diagnostics(self, run_id: str) -> RunDiagnostics:
        """What stands around a run: leases, delegated runs, what waits for a person, the keeper."""
        (row,) = self._pool.run(_SQL["diagnostics"], {"run_id": known_id(run_id)})
        return msgspec.convert({**row, "waiting": self.waiting(run_id)}, RunDiagnostics)

    def keeper_silent_s(self) -> float | None:
        """For how long no keeper has been alive; 0 where one is, None where there never was one."""
        (row,) = self._pool.run(_SQL["keeper"])
        return None if row["until"] is None else max(0.0, (row["now"] - row["until"]).total_seconds())

    def stuck(self, *, unclaimed: timedelta, overdue: timedelta, person: timedelta) -> list[Stuck]:
        """Work that does not move for so long: sent and not claimed, past its lease or due time, waiting for a person."""
        params = {
            "unclaimed_s": unclaimed.total_seconds(), "overdue_s": overdue.total_seconds(), "person_s": person.total_seconds(),
        }  # fmt: skip
        return [msgspec.convert(row, Stuck) for row in self._pool.run(_SQL["stuck"], params)]


def failure(run: Run) -> AgnoError | None:
    """Return the error of a run that did not succeed; None for a run that did."""
    if run.error is None:
        return None
    ids = {"run_id": run.id, "reason": run.reason} | ({} if run.content is None else {"content": run.content})
    return AgnoError.from_json(run.error, **ids)


def output(run: Run) -> RunOutput:
    """What a caller gets of a run that has ended."""
    return RunOutput(
        run.id,
        run.agent,
        run.status,
        run.content,
        run.reason,
        run.usage,
        run.turns,
        run.tool_calls,
        run.error,
    )


def known_id(run_id: str) -> str:
    """Return the id as Postgres prints it. Raises RunNotFound for text that cannot be an id."""
    if (known := as_uuid(run_id)) is None:
        raise RunNotFound(
            f"{run_id!r} is not a run id: a run id looks like 0198c0de-0000-7000-8000-000000000000.",
            run_id=run_id,
        )
    return known


def run_of(row: Row) -> Run:
    """A run from its row, with its answer inflated."""
    usage = msgspec.convert(row, Usage)
    return msgspec.convert(
        {**row, "content": row["answer"], "usage": usage, "cost_usd": float(row["cost_usd"])}, Run
    )
