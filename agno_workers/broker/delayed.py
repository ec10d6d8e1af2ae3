"""Users' own tasks that are not due yet (`countdown`, `eta`, a retry): they wait in Postgres, not in the memory of a worker.

Celery keeps such a message in the worker that received it, until it is due. Our broker has no acknowledgements, so the message
would be lost with that worker. The keeper sends it when it is due, as its sender did; it may be sent twice when a keeper dies.
"""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from celery import Celery
from celery.app.amqp import task_message
from celery.app.task import Context
from celery.utils.time import maybe_iso8601
from kombu.utils.json import dumps, loads

from agno_workers.broker.names import CANARY, RUN, STEP_TASKS
from agno_workers.broker.outage import BROKER_ERRORS, Outage
from agno_workers.database.pool import Pool, jsonb, statements
from agno_workers.errors import AgnoError
from agno_workers.runs.base import utc

log = logging.getLogger(__name__)

_SQL = statements("broker/delayed")
_OURS = STEP_TASKS | {RUN, CANARY}
_KEPT = ("correlation_id", "reply_to", "priority")


class DelayedTasks:
    """See the module."""

    def __init__(self, app: Celery, pool: Pool) -> None:
        self._app = app
        self._pool = pool
        self._outage = Outage(log, "delayed tasks: Redis")

    def store(self, message: Any) -> bool:
        """Store a received message that is not due. False when it is due, or when the worker must keep it, as Celery does."""
        headers, queue = message.headers, message.delivery_info.get("routing_key")
        if headers["task"] in _OURS or not queue or (due_at := _due_at(headers.get("eta"))) is None:
            return False
        headers = {**headers, "compression": None}  # the body is not compressed any more
        content = {"headers": headers, "properties": message.properties, "body": dumps(message.payload)}
        params = {"task_id": headers["id"], "queue": queue, "message": jsonb(content), "due_at": due_at}
        try:
            return bool(self._pool.run(_SQL["store"], params))
        except (AgnoError, psycopg.Error) as error:
            log.warning(
                "task %s waits in the memory of this worker until it is due: %s", headers["id"], error
            )
            return False

    def send_due(self, limit: int) -> int:
        """Send tasks that are due, and return their number; what the broker does not take is sent later. Raises Unavailable."""
        due = self._pool.run(_SQL["take"], {"limit": limit})
        for row in due:
            try:
                self._end_or_send(row)
            except BROKER_ERRORS as error:
                self._outage.failed("delayed tasks wait for Redis: %s", error)
                return 0
            except Exception:
                log.exception("the delayed task %s can't be sent", row["message"]["headers"]["id"])
            else:
                self._outage.worked()
                self._pool.run(_SQL["delete"], {"id": row["id"]})
        return len(due)

    def _end_or_send(self, row: dict[str, Any]) -> None:
        headers, properties = row["message"]["headers"], row["message"]["properties"]
        body = loads(row["message"]["body"])
        if row["is_revoked"]:
            request = Context({**headers, **(body[2] or {}), "delivery_info": {}})
            self._app.backend.mark_as_revoked(headers["id"], "revoked", request)
            return
        kept = {name: properties[name] for name in _KEPT if properties.get(name) is not None}
        with self._app.producer_or_acquire() as producer:
            self._app.amqp.send_task_message(
                producer, headers["task"], task_message(headers, kept, body, None), queue=row["queue"]
            )


def _due_at(eta: Any) -> str | None:
    """Return the time of a header; None without one, and for one that Celery refuses."""
    try:
        return utc(maybe_iso8601(eta))
    except (AttributeError, OverflowError, TypeError, ValueError):
        return None
