"""The table of workers: their heartbeats, and the handover of a worker's steps when it ends."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

import msgspec

from agno_workers.core.step import StepMessage
from agno_workers.database.pool import Pool, jsonb, statements

_SQL = statements("runs/workers")

State = Literal["alive", "silent", "lost", "stopped"]


class WorkerIdentity(msgspec.Struct, frozen=True):
    """The constant facts of a worker process."""

    name: str
    """The name in its leases: `node@host#pid-random`, new at each start."""
    hostname: str
    pid: int
    version: str
    pool: str
    agents: tuple[str, ...] = ()
    """The names of the agents that it knows."""


class Worker(msgspec.Struct, frozen=True):
    """A worker process at its last heartbeat."""

    name: str
    hostname: str
    pid: int
    version: str
    pool: str
    concurrency: int
    queues: tuple[str, ...]
    steps: int
    """Active steps."""
    started_at: datetime
    seen_at: datetime
    silent_s: float
    stopped_at: datetime | None = None
    agents: tuple[str, ...] | None = None
    """The agents that it knows; None for a worker of earlier code."""

    def knows(self, agent: str) -> bool:
        return self.agents is None or agent in self.agents

    @property
    def node(self) -> str:
        """Celery's node name, which the worker keeps after a restart."""
        return self.name.partition("#")[0]

    def state(self, *, renew_every_s: float, lease_s: float) -> State:
        """Return the state: `silent` when it missed a heartbeat, `lost` when its leases have expired."""
        if self.stopped_at is not None:
            return "stopped"
        if self.silent_s > lease_s:
            return "lost"
        return "silent" if self.silent_s > 2 * renew_every_s else "alive"


class Workers:
    """See the module. Every call is one statement and may be repeated; it raises Unavailable when Postgres does not answer."""

    def __init__(self, pool: Pool, *, publish_after_s: float = 0.5) -> None:
        self._pool = pool
        self._publish_after_s = publish_after_s

    def seen(self, itself: WorkerIdentity, *, concurrency: int, queues: Collection[str], steps: int) -> bool:
        """Write a heartbeat; return whether the worker is new in the table, as at its start and after the restore of a backup."""
        now = {
            "concurrency": concurrency,
            "queues": jsonb(sorted(queues)),
            "steps": steps,
            "agents": jsonb(itself.agents),
        }
        (row,) = self._pool.run(_SQL["seen"], msgspec.structs.asdict(itself) | now)
        return bool(row["is_new"])

    def stopped(self, name: str) -> None:
        """Record that a worker stopped normally."""
        self._pool.run(_SQL["stopped"], {"name": name})

    def forget(self) -> None:
        """Delete workers without a heartbeat for a day."""
        self._pool.run(_SQL["forget"])

    def all(self) -> list[Worker]:
        """Return all workers; stopped ones come last."""
        return [msgspec.convert(row, Worker) for row in self._pool.run(_SQL["workers"])]

    def hand_over(self, name: str) -> list[StepMessage]:
        """Release the steps of a worker, except `once` tools, and return their messages. The keeper sends them if you do not."""
        rows = self._pool.run(_SQL["hand_over"], {"worker": name, "publish_after_s": self._publish_after_s})
        return [msgspec.convert(row, StepMessage) for row in rows]

    def held(self, name: str) -> set[str]:
        """Return the ids of the steps that a worker holds."""
        return {row["id"] for row in self._pool.run(_SQL["held"], {"worker": name})}
