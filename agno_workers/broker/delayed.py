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
from agno_workers.broker.quarantine import Quarantine, Quarantined
from agno_workers.database.pool import Pool, jsonb, statements
from agno_workers.errors import AgnoError, Unavailable
from agno_workers.runs.base import utc

log = logging.getLogger(__name__)

_SQL = statements("broker/delayed")
_OURS = STEP_TASKS | {RUN, CANARY}
_TRIES = 8  # the last one comes about 40 minutes after the first
_KEPT = ("correlation_id", "reply_to", "priority")


class DelayedTasks:
    """See the module."""

    def __init__(self, app: Celery, pool: Pool) -> None:
        self._app = app
        self._pool = pool
        self._quarantine = Quarantine(pool)
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
        """Send tasks that are due, and return their number; what the broker does not take is sent later. Raises Unavailable.

        A task that can't be sent is tried again, after twice the time of the last try, and fails after `_TRIES`.
        """
        due = self._pool.run(_SQL["take"], {"limit": limit})
        done: list[int] = []
        try:
            for row in due:
                try:
                    self._end_or_send(row)
                    self._outage.worked()
                except BROKER_ERRORS as error:
                    self._outage.failed("delayed tasks wait for Redis: %s", error)
                    return 0
                except Unavailable:
                    raise
                except Exception as error:
                    if not self._gives_up(row, error):
                        continue
                done.append(row["id"])
        finally:
            if done:
                self._pool.run(_SQL["delete"], {"ids": done})
        return len(due)

    def _gives_up(self, row: dict[str, Any], error: Exception) -> bool:
        """Put off a task that can't be sent; or quarantine it, fail it for those who wait for it, and return True."""
        headers, tries = row["message"]["headers"], row["failures"] + 1
        why = f"{type(error).__name__}: {error}"
        if tries < _TRIES:
            log.warning(
                "the delayed task %s (%s) can't be sent, try %d of %d: %s",
                headers["id"], headers["task"], tries, _TRIES, why,
            )  # fmt: skip
            self._pool.run(_SQL["put_off"], {"id": row["id"]})
            return False
        log.error(
            "the delayed task %s (%s) can't be sent and is quarantined after %d tries", headers["id"], headers["task"], tries,
            exc_info=error,
        )  # fmt: skip
        text = str(dumps(row["message"]))
        self._quarantine.store(
            Quarantined("unsendable", why, row["queue"], headers["task"], headers["id"], text, len(text))
        )
        failure = RuntimeError(f"task {headers['id']} ({headers['task']}) can't be sent: {why}")
        self._app.backend.mark_as_failure(
            headers["id"], failure, request=_request(headers, row["message"]["body"])
        )
        return True

    def _end_or_send(self, row: dict[str, Any]) -> None:
        headers, properties = row["message"]["headers"], row["message"]["properties"]
        body = loads(row["message"]["body"])
        if row["is_revoked"]:
            self._app.backend.mark_as_revoked(
                headers["id"], "revoked", _request(headers, row["message"]["body"])
            )
            return
        kept = {name: properties[name] for name in _KEPT if properties.get(name) is not None}
        with self._app.producer_or_acquire() as producer:
            self._app.amqp.send_task_message(
                producer, headers["task"], task_message(headers, kept, body, None), queue=row["queue"]
            )


def _request(headers: dict[str, Any], body: str) -> Context:
    """Return a task with its canvas, or without it if its body can't be read."""
    try:
        canvas = loads(body)[2] or {}
    except Exception:  # decoders of dates, UUIDs and the like raise anything
        canvas = {}
    return Context({**headers, **canvas, "delivery_info": {}})


def _due_at(eta: Any) -> str | None:
    """Return the time of a header; None without one, and for one that Celery refuses."""
    try:
        return utc(maybe_iso8601(eta))
    except (AttributeError, OverflowError, TypeError, ValueError):
        return None
