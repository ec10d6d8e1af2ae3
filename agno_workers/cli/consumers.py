"""The workers of the last day, from the table in which they register, and the queues that they consume."""

from __future__ import annotations

from collections.abc import Iterable

from agno_workers.runs.workers import State, Worker
from agno_workers.settings import Settings


def state(worker: Worker, settings: Settings) -> State:
    return worker.state(renew_every_s=settings.runs.renew_every_s, lease_s=settings.runs.lease_s)


def consumers(workers: Iterable[Worker], settings: Settings) -> dict[str, list[Worker]]:
    """Return the living workers of each queue."""
    found: dict[str, list[Worker]] = {}
    for worker in workers:
        for queue in worker.queues if state(worker, settings) in ("alive", "silent") else ():
            found.setdefault(queue, []).append(worker)
    return found
