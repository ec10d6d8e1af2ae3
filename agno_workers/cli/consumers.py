"""The queues that have a worker, by the table in which workers register."""

from __future__ import annotations

from collections.abc import Sequence

from agno_workers.cli import connection
from agno_workers.runs.workers import State, Worker
from agno_workers.settings import Settings


def known(settings: Settings) -> list[Worker]:
    """Return the workers of the last day. Raises as `connection.database_url`."""
    with connection.database(settings) as database:
        return database.workers.all()


def state(worker: Worker, settings: Settings) -> State:
    return worker.state(renew_every_s=settings.runs.renew_every_s, lease_s=settings.runs.lease_s)


def listening(settings: Settings) -> dict[str, list[str]]:
    """Return the living workers of each queue. Raises as `known`."""
    return by_queue([worker for worker in known(settings) if state(worker, settings) in ("alive", "silent")])


def by_queue(workers: Sequence[Worker]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for worker in workers:
        for queue in worker.queues:
            found.setdefault(queue, []).append(worker.name)
    return found
