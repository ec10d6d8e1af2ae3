"""The self-test of a worker: it sends itself messages through the connection that brings its work.

A worker can be healthy in every other respect and receive nothing: a half-open connection, lost prefetch credit, a blocked
event loop. Others can't tell: its queue may be empty, or other workers may serve it.

The consumer acknowledges the message, not the pool. A lost message counts only while the pool has a free slot, so a busy
worker passes. None counts while Redis is unreachable or Celery reconnects.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery
from celery.worker import state
from kombu.entity import Queue

from agno_workers.broker.names import CANARY
from agno_workers.broker.outage import BROKER_ERRORS

log = logging.getLogger(__name__)

MAX_LOST = 3
"""The number of self-test messages in a row that a worker may lose before it is shut down."""


class Canary(threading.Thread):
    """Sends a self-test message each `every_s`, and calls `on_failure` with the reason when MAX_LOST were lost in a row."""

    def __init__(
        self, worker: Any, app: Celery, client: redis.Redis, on_failure: Callable[[str], None], *, name: str, every_s: float,
        key_prefix: str = "",
    ) -> None:  # fmt: skip
        super().__init__(name="agno-canary", daemon=True)
        self._worker = worker
        self._app = app
        self._redis = client
        self._on_failure = on_failure
        self._every_s = every_s
        self._key_prefix = key_prefix
        # The nameless exchange needs no binding; a binding would outlive a worker that was killed.
        self.queue = Queue(f"{CANARY}.{name}", routing_key=f"{CANARY}.{name}", durable=False)
        self._is_pending = False
        self._lost = 0
        self._stopping = threading.Event()

    def listen(self, consumer: Any) -> None:
        """Receive self-test messages on a consumer's connection; call it for each new connection."""
        consumer.strategies[CANARY] = self._receive
        consumer.task_consumer.add_queue(self.queue)

    def run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._check()
            except Exception:
                log.exception("the self-test failed; the next one follows")

    def stop(self) -> None:
        self._stopping.set()

    def _check(self) -> None:
        self._lost = self._lost + 1 if self._is_pending and self._can_receive() else 0
        if self._send() and self._lost >= MAX_LOST:
            self._on_failure(
                f"worker is not receiving messages: {self._lost} self-test messages, {self._every_s} s apart, were lost "
                "although Redis answers and the pool has a free slot; shutting down for a restart"
            )
            self.stop()

    def _send(self) -> bool:
        """Send a self-test message; return False when Redis is unreachable."""
        self._is_pending = True  # first, since the message may arrive before the send returns
        try:
            self._app.send_task(CANARY, queue=self.queue, ignore_result=True, add_to_parent=False)
            # The queue of a worker that was killed expires.
            self._redis.pexpire(f"{self._key_prefix}{self.queue.name}", round(self._every_s * 10_000))
        except BROKER_ERRORS as error:
            log.debug("no self-test message was sent: %s", error)
            self._is_pending = False
        return self._is_pending

    def _receive(self, message: Any, *_: Any) -> None:
        message.ack()
        self._is_pending = False

    def _can_receive(self) -> bool:
        """Return whether the consumer is connected and the pool has a free slot."""
        consumer = getattr(self._worker, "consumer", None)
        if (
            consumer is None
            or consumer.connection is None
            or consumer.blueprint.started < len(consumer.steps)
        ):
            return False
        return len(state.reserved_requests) < int(self._worker.pool.num_processes)
