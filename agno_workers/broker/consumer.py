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

An error reply of Redis is treated as a lost connection (see envelope.py): after a failover, with a full disk or after a change of
its ACL the worker waits until Redis accepts its commands again, with one line in the log, and does not exit.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from celery import signals
from celery.app.task import Context
from celery.exceptions import CPendingDeprecationWarning, NotRegistered
from celery.worker import consumer as stock
from celery.worker import state
from kombu.exceptions import OperationalError

from agno_workers.broker.checks import redis_refusal
from agno_workers.broker.envelope import MAX_UNSTARTED, describe, shape_error
from agno_workers.broker.lifecycle import channel_of, read_last
from agno_workers.broker.outage import BROKER_ERRORS
from agno_workers.broker.quarantine import Quarantined
from agno_workers.broker.signing import Refusal
from agno_workers.database.pool import retry_while_unavailable
from agno_workers.errors import Unavailable

log = logging.getLogger(__name__)

_RETRY_EVERY_S = 1.0
_STEADY_S = 2.0
"""A connection that lived this long is opened again at once, another one after a pause that doubles."""
_MAX_PAUSE_S = 10.0
_MAX_PENDING = 1000
_FINISH_TIMEOUT_S = 5.0


class Consumer(stock.Consumer):
    """`worker_consumer` of our app. It needs `app.verifier`, which returns this process's MessageVerifier."""

    class Blueprint(stock.Consumer.Blueprint):
        # Nothing uses gossip, and it can't be stopped while Redis refuses commands.
        default_steps: ClassVar[list[str]] = [
            step for step in stock.Consumer.Blueprint.default_steps if not step.endswith(":Gossip")
        ]

    gossip = None
    initial_prefetch_count: int

    def __init__(self, *args: Any, **options: Any) -> None:
        self._writer = QuarantineWriter()
        self._unstarted: list[Any] = []
        self._connected_at = 0.0
        self._pause_s = 0.0
        super().__init__(*args, **options)
        self.initial_prefetch_count = min(self.initial_prefetch_count, MAX_UNSTARTED)
        self.connection_errors = (*self.conninfo.connection_errors, *BROKER_ERRORS)

    @property
    def max_prefetch_count(self) -> int:
        return min(MAX_UNSTARTED, int(super().max_prefetch_count))

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        channel = channel_of(self.controller)
        if channel is not None:
            with suppress(*BROKER_ERRORS):
                read_last(channel)
            dropped = _dropped_requests(self)
            self._unstarted += [each.message for each in dropped if not each.message.acknowledged]
            # Celery would requeue every message without an ack, also those that this process executes: it forgets the acks that
            # its event loop has not handled yet.
            channel.qos._delivered.clear()
        lived_s = time.monotonic() - self._connected_at
        is_steady = lived_s > _STEADY_S
        self._pause_s = 0.0 if is_steady else min(_MAX_PAUSE_S, self._pause_s * 2 or _RETRY_EVERY_S)
        with warnings.catch_warnings():  # of a default that Celery 6 changes, and that app.py sets
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(OperationalError(f"{type(exc).__name__}: {exc}"))
        _sleep(self._pause_s)

    def on_ready(self) -> None:
        super().on_ready()
        while self._unstarted:
            self.task_consumer.channel._restore(self._unstarted[-1])
            self._unstarted.pop()

    def ensure_connected(self, conn: Any) -> Any:
        """Wait until Redis answers and accepts what this worker sends, however long. The log has the reason once."""
        since, told = time.monotonic(), ""
        while (reason := self._why_unusable(conn)) is not None:
            if not told:
                log.error("this worker takes no messages: %s It waits until Redis can be used.", reason)
            told = reason
            _sleep(_RETRY_EVERY_S)
        if told:
            log.warning("Redis can be used again after %.0f s", time.monotonic() - since)
        self.first_connection_attempt = False
        self._connected_at = time.monotonic()
        return conn

    def _why_unusable(self, conn: Any) -> str | None:
        app = self.app
        try:
            refused = redis_refusal(
                app.verifier().client, app.amqp.queues.consume_from, remote_control=app.conf.worker_enable_remote_control,
                prefix=app.verifier().key_prefix,
            )  # fmt: skip
            if refused is None:
                conn.ensure_connection(
                    max_retries=1, interval_start=0, interval_step=0, reraise_as_library_errors=False
                )
        except (Unavailable, *BROKER_ERRORS) as error:
            return str(error)
        return refused

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
            except BROKER_ERRORS:
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
        queue = message.delivery_info.get("routing_key")
        error = NotRegistered(
            f"{name}: no module of the worker of queue {queue!r} defines this task. Import one that does (celery -I), or name its queue."
        )
        self.app.backend.mark_as_failure(task_id, error, request=request)
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)


def _sleep(seconds: float) -> None:
    """Sleep, unless the worker is asked to stop."""
    until = time.monotonic() + seconds
    while True:
        state.maybe_shutdown()
        if (left_s := until - time.monotonic()) <= 0:
            return
        time.sleep(min(left_s, _RETRY_EVERY_S))


def _dropped_requests(consumer: Any) -> list[Any]:
    """Return the requests that Celery drops with a connection: those that wait for a slot, their eta or their rate limit, and
    those that a pool of processes has not accepted.
    """
    semaphore = consumer.controller.semaphore
    waiting = [arguments[0] for _, arguments, _ in semaphore._waiting] if semaphore else []
    limited = [
        request for bucket in consumer.task_buckets.values() if bucket for request, _ in bucket.contents
    ]
    reserved = {*state.active_requests, *state.reserved_requests}
    has_processes = "flush" in vars(consumer.pool)
    unaccepted = [each for each in reserved if not each.acknowledged] if has_processes else []
    scheduled = [request for request in state.scheduled_requests if request not in reserved]
    return list({id(each): each for each in (*waiting, *limited, *scheduled, *unaccepted)}.values())


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
