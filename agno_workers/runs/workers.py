"""The table of workers: who is there, since when one is silent, and what a worker that ends leaves to others."""

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
    """What does not change in the life of a worker process."""

    name: str
    """The one that its leases carry: `node@host#pid-random`, new at each start."""
    hostname: str
    pid: int
    version: str
    pool: str


class Worker(msgspec.Struct, frozen=True):
    """A worker process, as it was seen last."""

    name: str
    hostname: str
    pid: int
    version: str
    pool: str
    concurrency: int
    queues: tuple[str, ...]
    steps: int
    """Steps under way."""
    started_at: datetime
    seen_at: datetime
    silent_s: float
    stopped_at: datetime | None = None

    @property
    def node(self) -> str:
        """Celery's name for it, which its successor bears as well."""
        return self.name.partition("#")[0]

    def state(self, *, renew_every_s: float, lease_s: float) -> State:
        """`silent`: it has missed a time, `lost`: its leases have run out."""
        if self.stopped_at is not None:
            return "stopped"
        if self.silent_s > lease_s:
            return "lost"
        return "silent" if self.silent_s > 2 * renew_every_s else "alive"


class Workers:
    """Every method is one statement, and may be repeated. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool, *, publish_after_s: float = 0.5) -> None:
        self._pool = pool
        self._publish_after_s = publish_after_s

    def seen(self, itself: WorkerIdentity, *, concurrency: int, queues: Collection[str], steps: int) -> None:
        """Say that a worker is there, and what it is doing."""
        told = {"concurrency": concurrency, "queues": jsonb(sorted(queues)), "steps": steps}
        self._pool.run(_SQL["seen"], msgspec.structs.asdict(itself) | told)

    def stopped(self, name: str) -> None:
        """Say that a worker ended as it should."""
        self._pool.run(_SQL["stopped"], {"name": name})

    def forget(self) -> None:
        """Remove those that have been gone for a day."""
        self._pool.run(_SQL["forget"])

    def all(self) -> list[Worker]:
        """Those that are there first."""
        return [msgspec.convert(row, Worker) for row in self._pool.run(_SQL["workers"])]

    def hand_over(self, name: str) -> list[StepMessage]:
        """Give back the steps that a worker carries, except `once` tools; what is to be sent now. The keeper sends it
        otherwise.
        """
        rows = self._pool.run(_SQL["hand_over"], {"worker": name, "publish_after_s": self._publish_after_s})
        return [msgspec.convert(row, StepMessage) for row in rows]

    def held(self, name: str) -> set[str]:
        """The ids of the steps that a worker holds."""
        return {row["id"] for row in self._pool.run(_SQL["held"], {"worker": name})}
