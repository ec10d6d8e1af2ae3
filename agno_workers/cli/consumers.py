"""Which queues have a worker, asked of the workers themselves."""

from __future__ import annotations

import os

from agno_workers import wiring
from agno_workers.cli import connection
from agno_workers.settings import Settings

_ANSWER_WITHIN_S = 1.0


def listening(settings: Settings) -> dict[str, list[str]]:
    """The workers of each queue that any worker listens to. Takes a second; raises as `connection.redis_client`."""
    connection.redis_client(settings).close()
    os.environ["AGNO_DATABASE_URL"] = (
        settings.database_url.get_secret_value()
    )  # they may have been found, not set
    os.environ["AGNO_BROKER_URL"] = settings.broker_url.get_secret_value()
    answers = wiring.celery_app().control.inspect(timeout=_ANSWER_WITHIN_S).active_queues() or {}
    found: dict[str, list[str]] = {}
    for worker, queues in answers.items():
        for queue in queues:
            found.setdefault(queue["name"], []).append(worker)
    return found
