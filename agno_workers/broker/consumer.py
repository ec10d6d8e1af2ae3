"""The worker's consumer: Celery's, but bad messages never stop it, and with a signing key it accepts only signed ones.

    list element ──not JSON───────────▶ ┐
    message ──wrong shape─────────────▶ │
            ──no or invalid signature─▶ ├──▶ logged, removed from the queue, stored in agno.quarantine;
            ──replayed────────────────▶ │    the next message is taken
            ──unknown task────────────▶ ┘    (and its caller gets an error, as in Celery)
       │
       ▼  as in Celery

A thread writes the rows: while Postgres is unreachable the consumer continues, and the log has the line in any case.

When the connection is lost, Celery drops the messages that it took and did not start: a broker with acknowledgements sends
them again. Ours has none (see app.py), so they are requeued as soon as there is a connection.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from celery import signals
from celery.app.task import Context
from celery.exceptions import NotRegistered
from celery.worker import consumer as stock
from celery.worker import state
from kombu.exceptions import OperationalError
from kombu.transport.redis import Transport as RedisTransport

from agno_workers.broker.envelope import Transport, describe, shape_error
from agno_workers.broker.quarantine import Quarantined
from agno_workers.broker.signing import Refusal
from agno_workers.database.pool import retry_while_unavailable

log = logging.getLogger(__name__)

_BROKER_UNREACHABLE = (redis.RedisError, OperationalError, OSError)
"""Not caused by the message: Celery reconnects."""
_MAX_PENDING = 1000
_FINISH_TIMEOUT_S = 5.0


class Consumer(stock.Consumer):
    """`worker_consumer` of our app. It needs `app.verifier`, which returns this process's MessageVerifier."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._writer = QuarantineWriter()
        self._unstarted: list[Any] = []
        super().__init__(*args, **options)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        for request in _dropped_requests(self):
            if not request.message.acknowledged:
                request.message.ack()  # so that Celery, next, does not try to requeue it on the lost connection
                self._unstarted.append(request.message)
        super().on_connection_error_after_connected(exc)

    def on_ready(self) -> None:
        super().on_ready()
        while self._unstarted:
            self.task_consumer.channel._restore(self._unstarted[-1])
            self._unstarted.pop()

    def ensure_connected(self, conn: Any) -> Any:
        # kombu ignores the setting `broker_transport` for redis+socket:// URLs.
        if conn.get_transport_cls() is RedisTransport:
            conn.transport_cls = Transport
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **options)
        verifier, tasks = self.app.verifier(), self.app.tasks

        def on_task_received(message: Any) -> None:
            try:
                if (error := shape_error(message, tasks)) is not None:
                    self._quarantine(message, Refusal("unreadable", error))
                elif (refusal := verifier.refusal(message)) is not None:
                    self._quarantine(message, refusal)
                elif message.headers["task"] in tasks and self.app.dispatch().delayed.store(message):
                    message.ack()
                else:
                    handle(message)
            except _BROKER_UNREACHABLE:
                raise
            except Exception as raised:  # no message may end the worker
                self._quarantine(message, _unreadable(raised))

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._quarantine(message, _unreadable(exc))

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        self._quarantine(message, _unreadable(exc))
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        self._quarantine(message, Refusal("unreadable", "the message names no task."))
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, _body: Any, message: Any, exc: Exception) -> None:
        detail = "no module of this worker defines the task: import one that does, or send the task to another queue."
        self._quarantine(message, Refusal("unknown_task", detail), partial(self._fail_unknown, message, exc))

    def shutdown(self) -> None:
        super().shutdown()
        for message in self._unstarted:
            log.error(
                "task %s (%s) was not started and can't be requeued: Redis is unreachable",
                message.headers["id"], message.headers["task"],
            )  # fmt: skip
        self._writer.finish()

    def _quarantine(self, message: Any, refusal: Refusal, then: Callable[[], None] | None = None) -> None:
        """Log a message, remove it from its queue and store it; `then` tells those who wait for it."""
        if not message.acknowledged:
            message.ack()
        rejected = describe(message, *refusal)
        log.error(
            "message %.255r (task %.255r) of queue %.255r is quarantined as %s: %.500s",
            rejected.message_id, rejected.task, rejected.queue, rejected.reason, rejected.detail,
        )  # fmt: skip
        self._writer.put(partial(self._store, rejected), rejected)
        if then is not None:
            self._writer.put(then, rejected)

    def _store(self, message: Quarantined) -> None:
        if not self.app.verifier().quarantine.store(message):
            log.warning(
                "message %.255r is only logged: the hourly limit of the quarantine is reached",
                message.message_id,
            )

    def _fail_unknown(self, message: Any, exc: Exception) -> None:
        """Fail the task, its chord and its chain: Celery fails only the task, and the others would wait forever."""
        name, task_id = message.headers["task"], message.headers["id"]
        _, _, embedded = message.payload
        request = Context({**message.headers, **embedded, "delivery_info": {}})
        self.app.backend.mark_as_failure(task_id, NotRegistered(name), request=request)
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)


def _dropped_requests(consumer: Any) -> list[Any]:
    """Return the requests that Celery drops with a connection: those that wait for a prefork process, their eta or their rate
    limit. A pool of threads keeps its own queue.
    """
    semaphore = consumer.controller.semaphore
    waiting = [arguments[0] for _, arguments, _ in semaphore._waiting] if semaphore else []
    limited = [
        request for bucket in consumer.task_buckets.values() if bucket for request, _ in bucket.contents
    ]
    started = {*state.active_requests, *state.reserved_requests}
    return [*waiting, *limited, *(request for request in state.scheduled_requests if request not in started)]


class QuarantineWriter:
    """Writes rows without blocking the consumer. The first row starts its thread."""

    def __init__(self) -> None:
        self._pending: queue.Queue[tuple[Callable[[], None], Quarantined] | None] = queue.Queue(_MAX_PENDING)
        self._thread: threading.Thread | None = None

    def put(self, write: Callable[[], None], message: Quarantined) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="agno-quarantine", daemon=True)
            self._thread.start()
        try:
            self._pending.put_nowait((write, message))
        except queue.Full:
            log.warning(
                "message %.255r is only logged: %d rows are pending", message.message_id, _MAX_PENDING
            )

    def finish(self) -> None:
        """Write the pending rows, for at most a few seconds."""
        if self._thread is not None:
            try:
                self._pending.put(None, timeout=_FINISH_TIMEOUT_S)
            except queue.Full:
                return
            self._thread.join(_FINISH_TIMEOUT_S)

    def _run(self) -> None:
        while (item := self._pending.get()) is not None:
            write, message = item
            try:
                retry_while_unavailable(write)
            except Exception as error:
                log.error("message %.255r is only logged: %s", message.message_id, error)


def _unreadable(error: Exception) -> Refusal:
    return Refusal("unreadable", f"{type(error).__name__}: {error}")
