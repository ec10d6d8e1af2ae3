"""Does this worker still hear? Each sends itself a message through the connection by which it gets its work.

A worker can be well in every other respect and get nothing: a connection that is half dead, prefetch credit that was
lost, a loop that is stuck. Nobody else can see that from outside: its queue may be empty, or others may serve it.

The canary is answered where messages are received, not by the pool, and one that was not heard counts only while
the pool has a free slot: so a busy worker is not deaf. While Redis is away, or Celery is connecting again, none counts.
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
from kombu.exceptions import OperationalError

from agno_workers.broker.names import CANARY

log = logging.getLogger(__name__)

MISSED = 3
"""So many in a row, and the worker is deaf."""


class Canary(threading.Thread):
    """Sends a canary each `every_s`; calls `deaf` when MISSED of them were not heard."""

    def __init__(
        self, worker: Any, app: Celery, client: redis.Redis, deaf: Callable[[str], None], *, name: str, every_s: float,
    ) -> None:  # fmt: skip
        super().__init__(name="agno-canary", daemon=True)
        self._worker = worker
        self._app = app
        self._redis = client
        self._deaf = deaf
        self._every_s = every_s
        # Of the nameless exchange, which needs no binding: those outlive a worker that was killed.
        self.queue = Queue(f"{CANARY}.{name}", routing_key=f"{CANARY}.{name}", durable=False)
        self._sent = False
        self._missed = 0
        self._stopping = threading.Event()

    def listen(self, consumer: Any) -> None:
        """Hear it on a consumer's connection; to be called at each new connection."""
        consumer.strategies[CANARY] = self._hear
        consumer.task_consumer.add_queue(self.queue)

    def run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._look()
            except Exception:
                log.exception("the canary failed; the next one follows")

    def stop(self) -> None:
        self._stopping.set()

    def _look(self) -> None:
        self._missed = self._missed + 1 if self._sent and self._could_hear() else 0
        if self._send() and self._missed >= MISSED:
            self._deaf(
                f"this worker is deaf: {self._missed} messages that it sent itself, {self._every_s} s apart, did not come in, "
                "although Redis answers and the pool has room; it ends, to be started again"
            )
            self.stop()

    def _send(self) -> bool:
        """False: Redis is away."""
        self._sent = True  # before it is sent, since it may be heard before we are told that it was sent
        try:
            self._app.send_task(CANARY, queue=self.queue, ignore_result=True, add_to_parent=False)
            self._redis.pexpire(
                self.queue.name, round(self._every_s * 10_000)
            )  # after a kill -9 nothing is left
        except (OperationalError, redis.RedisError, OSError) as error:
            log.debug("no canary was sent: %s", error)
            self._sent = False
        return self._sent

    def _hear(self, message: Any, *_: Any) -> None:
        message.ack()
        self._sent = False

    def _could_hear(self) -> bool:
        """Whether the consumer is connected, and may take a message."""
        consumer = getattr(self._worker, "consumer", None)
        if (
            consumer is None
            or consumer.connection is None
            or consumer.blueprint.started < len(consumer.steps)
        ):
            return False
        return len(state.reserved_requests) < int(self._worker.pool.num_processes)
