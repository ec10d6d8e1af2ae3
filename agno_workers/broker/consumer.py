"""The worker's consumer: Celery's, but a bad message never stops it, and with a signing key it takes signed ones only.

    list element ──no JSON──▶ ┐
    message ──wrong shape───▶ │
            ──no or false ──▶ ├──▶ logged, out of the queue, into agno.quarantine; the next message is taken
              signature       │
            ──seen before───▶ │
            ──unknown task──▶ ┘    (whoever waits for an unknown task is told that it failed, as by Celery)
       │
       ▼  as in stock Celery

Rows are written by a thread: with Postgres away the consumer goes on, and the log has the line in any case.

When the connection is lost, Celery forgets what it had taken and not begun: a broker that knows acknowledgements sends it
again. Ours does not (see app.py), so it goes back to its queue as soon as there is a connection.
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
from celery.exceptions import NotRegistered
from celery.utils.objects import Bunch
from celery.worker import consumer as stock
from celery.worker import state
from kombu.exceptions import OperationalError
from kombu.transport.redis import Transport as RedisTransport

from agno_workers.broker.envelope import Transport, described, misshapen
from agno_workers.broker.quarantine import Quarantined
from agno_workers.broker.signing import Refusal
from agno_workers.database.pool import retry_while_unavailable

log = logging.getLogger(__name__)

_BROKER_AWAY = (redis.RedisError, OperationalError, OSError)
"""Not the message's fault: Celery connects anew."""
_WAITING_ROWS = 1000
_LAST_ROWS_S = 5.0


class Consumer(stock.Consumer):
    """`worker_consumer` of our app. It needs `app.gate`, a callable that gives this process's Gate."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._rows = Rows()
        self._not_begun: list[Any] = []
        super().__init__(*args, **options)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        for request in _forgotten(self):
            if not request.message.acknowledged:
                request.message.ack()  # or the lost connection might put it back, too, which it tries next
                self._not_begun.append(request.message)
        super().on_connection_error_after_connected(exc)

    def on_ready(self) -> None:
        super().on_ready()
        while self._not_begun:
            self.task_consumer.channel._restore(self._not_begun[-1])
            self._not_begun.pop()

    def ensure_connected(self, conn: Any) -> Any:
        # Not the setting `broker_transport`: kombu overrules it for redis+socket:// URLs.
        if conn.get_transport_cls() is RedisTransport:
            conn.transport_cls = Transport
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        carry, gate, tasks = super().create_task_handler(*args, **options), self.app.gate(), self.app.tasks

        def on_task_received(message: Any) -> None:
            try:
                if (wrong := misshapen(message, tasks)) is not None:
                    self._refuse(message, Refusal("unreadable", wrong))
                elif (refusal := gate.refusal(message)) is not None:
                    self._refuse(message, refusal)
                else:
                    carry(message)
            except _BROKER_AWAY:
                raise
            except Exception as error:  # whatever else a message can do: it must not end the worker
                self._refuse(message, _raised(error))

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, _raised(exc))

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        self._refuse(message, _raised(exc))
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        self._refuse(message, Refusal("unreadable", "it names no task."))
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, _body: Any, message: Any, exc: Exception) -> None:
        detail = "no module of this worker has that task: import it, or send the task to another queue."
        self._refuse(message, Refusal("unknown_task", detail), partial(self._fail_unknown, message, exc))

    def shutdown(self) -> None:
        super().shutdown()
        for message in self._not_begun:
            log.error(
                "task %s (%s) was not begun and can't be put back: Redis is away",
                message.headers["id"], message.headers["task"],
            )  # fmt: skip
        self._rows.finish()

    def _refuse(self, message: Any, refusal: Refusal, then: Callable[[], None] | None = None) -> None:
        """Out of the queue, into the log and the quarantine; `then` is what Celery owes to those who wait."""
        if not message.acknowledged:
            message.ack()
        kept = described(message, *refusal)
        log.error(
            "message %.255r (task %.255r) of queue %.255r is quarantined as %s: %.500s",
            kept.message_id, kept.task, kept.queue, kept.reason, kept.detail,
        )  # fmt: skip
        self._rows.put(partial(self._keep, kept), kept)
        if then is not None:
            self._rows.put(then, kept)

    def _keep(self, kept: Quarantined) -> None:
        if not self.app.gate().quarantine.keep(kept):
            log.warning(
                "message %.255r is in the log only: too many were quarantined lately", kept.message_id
            )

    def _fail_unknown(self, message: Any, exc: Exception) -> None:
        """What Celery's own on_unknown_task does, but for its log and the acknowledgement."""
        name, task_id = message.headers["task"], message.headers["id"]
        request = Bunch(
            name=name,
            chord=None,
            root_id=message.headers.get("root_id"),
            correlation_id=message.properties.get("correlation_id"),
            reply_to=message.properties.get("reply_to"),
            errbacks=None,
        )
        self.app.backend.mark_as_failure(task_id, NotRegistered(name), request=request)
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)


def _forgotten(consumer: Any) -> list[Any]:
    """The requests that Celery drops with a connection: those that wait for a process of the pool, for their time or for
    their rate. What a pool of threads has taken stays in its queue.
    """
    semaphore = consumer.controller.semaphore
    waiting = [arguments[0] for _, arguments, _ in semaphore._waiting] if semaphore else []
    limited = [
        request for bucket in consumer.task_buckets.values() if bucket for request, _ in bucket.contents
    ]
    begun = {*state.active_requests, *state.reserved_requests}
    return [*waiting, *limited, *(request for request in state.scheduled_requests if request not in begun)]


class Rows:
    """Writes what the consumer must not wait for. Begins its thread with the first row."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Callable[[], None], Quarantined] | None] = queue.Queue(_WAITING_ROWS)
        self._thread: threading.Thread | None = None

    def put(self, write: Callable[[], None], kept: Quarantined) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="agno-quarantine", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait((write, kept))
        except queue.Full:
            log.warning("message %.255r is in the log only: %d others wait", kept.message_id, _WAITING_ROWS)

    def finish(self) -> None:
        """Write what waits, as far as that is done in a few seconds."""
        if self._thread is not None:
            try:
                self._waiting.put(None, timeout=_LAST_ROWS_S)
            except queue.Full:
                return
            self._thread.join(_LAST_ROWS_S)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            write, kept = item
            try:
                retry_while_unavailable(write)
            except Exception as error:
                log.error("message %.255r is in the log only: %s", kept.message_id, error)


def _raised(error: Exception) -> Refusal:
    return Refusal("unreadable", f"{type(error).__name__}: {error}")
