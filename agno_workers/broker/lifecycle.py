"""The life of a worker: it says that it is there, and when it is asked to end, it leaves in time.

    SIGTERM, Ctrl-C, `control shutdown`   takes nothing more; what it had taken and not begun goes back to its queue at once;
                                          what is under way may end within `grace_s`, and is then handed over to others
    once more, or SIGQUIT                 handed over now
    deaf (see canary.py)                  as SIGTERM, with exit status 1

A thread can't be stopped, and a stuck main thread can't end itself: so the process is ended from here. A `once` tool and
tasks that are none of our steps can't be handed over: they are waited for, for `max_s` at the most.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal
from weakref import WeakSet

import psycopg
import redis
from celery.concurrency import ALIASES
from celery.worker import state

from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.names import RUN, STEP_TASKS
from agno_workers.errors import AgnoError
from agno_workers.runs.workers import WorkerIdentity, Workers

log = logging.getLogger(__name__)

Asked = Literal["leave", "hurry", "deaf", "over"]

_TICK_S = 0.05
_LOOK_EVERY_S = 0.5
_CLOSES_WITHIN_S = 5.0
_LAST_WORDS_S = 10.0
"""For the main thread to end, once nothing is under way."""
_OURS = STEP_TASKS | {RUN}


class WorkerLifecycle(threading.Thread):
    """Tells the table of workers each `every_s`; once asked to leave, sees to it that the process ends."""

    def __init__(
        self, worker: Any, itself: WorkerIdentity, workers: Workers, dispatch: Dispatch, *,
        every_s: float, grace_s: float, max_s: float,
    ) -> None:  # fmt: skip
        super().__init__(name="agno-heartbeat", daemon=True)
        self._worker = worker
        self._itself = itself
        self._workers = workers
        self._dispatch = dispatch
        self._every_s = every_s
        self._grace_s = grace_s
        self._max_s = max_s
        self._status = 0
        self._leaving = False
        self._closed = threading.Event()
        self._asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()  # may be put into by a signal's handler

    def register(self) -> None:
        """To be seen before the first step is taken."""
        self._trying(self._workers.forget)
        self._say()

    def ask(self, what: Asked) -> None:
        self._asked.put(what)

    def deaf(self, why: str) -> None:
        log.critical(why)
        self.ask("deaf")

    def close(self) -> None:
        """The worker takes nothing more, whoever asked it to end: not all ways are signals."""
        self.ask("leave")
        give_back(self._worker)
        self._closed.set()

    def stop(self) -> None:
        """The worker is over: say so, and wait until it is said."""
        self.ask("over")
        self.join(timeout=_LAST_WORDS_S)

    def run(self) -> None:
        while (asked := self._wait(self._every_s)) is None:
            self._say()
        if asked != "over":
            self._leave(asked)
        self._trying(self._workers.stopped, self._itself.name)

    def _leave(self, asked: Asked) -> None:
        """Comes back when the main thread has ended the worker; otherwise ends the process."""
        if asked == "deaf":
            self._status = state.should_stop = 1
        self._leaving = True
        self._wake()
        self._say()
        begun = idle_since = said_at = time.monotonic()
        until, look_at = begun + self._max_s, begun + self._grace_s
        hurry = asked == "hurry"
        while (heard := self._wait(_TICK_S)) != "over":
            now = time.monotonic()
            hurry = hurry or heard == "hurry"
            if now - said_at > self._every_s:
                self._say()
                said_at = now
            if under_way():
                idle_since = now
                if self._takes_nothing(begun) and (hurry or now > look_at):
                    look_at = now + _LOOK_EVERY_S
                    if self._is_handed_over() or hurry:
                        self._end()
            if now > until or now - idle_since > _LAST_WORDS_S:
                self._end()

    def _takes_nothing(self, since: float) -> bool:
        """A step that was handed over too soon might come back here. A main thread that is stuck takes nothing either."""
        return self._closed.is_set() or time.monotonic() - since > _CLOSES_WITHIN_S

    def _is_handed_over(self) -> bool:
        """Hand over what can be, and say whether nothing is left that must be waited for."""
        return bool(self._trying(self._hand_over)) and all(r.name in STEP_TASKS for r in under_way())

    def _hand_over(self) -> bool:
        while sends := self._workers.hand_over(self._itself.name):
            log.warning("handing over %d step(s) that were still under way", len(sends))
            self._dispatch.send(sends)
        return not self._workers.held(self._itself.name).intersection(r.id for r in under_way())

    def _end(self) -> None:
        """End this process, whatever its threads are doing. Its children end first: they would live on."""
        self._trying(self._workers.stopped, self._itself.name)
        with suppress(Exception):
            # Users' tasks that were taken and not begun go back. At an orderly end Celery sees to it.
            _channel(self._worker).qos.restore_unacked_once()
        for process in getattr(self._worker.pool._pool, "_pool", ()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(self._worker.exitcode or self._status)

    def _say(self) -> None:
        self._trying(
            self._workers.seen,
            self._itself,
            concurrency=self._worker.pool.num_processes or 0,
            queues=[] if self._leaving else list(self._worker.app.amqp.queues.consume_from),
            steps=sum(request.name in STEP_TASKS for request in under_way()),
        )

    def _trying(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """An outage of Postgres costs a report, never the thread."""
        try:
            return call(*args, **kwargs)
        except (AgnoError, psycopg.Error, OSError) as error:
            log.warning("the table of workers was not reached: %s", error)
        except Exception:
            log.exception("the table of workers was not written; the next try follows")
        return None

    def _wait(self, seconds: float) -> Asked | None:
        try:
            return self._asked.get(timeout=seconds)
        except queue.Empty:
            return None

    def _wake(self) -> None:
        """Celery's loop looks whether it should stop when something comes in; a signal is nothing that comes in."""
        if self._worker.hub is not None:
            self._worker.hub.call_soon(lambda: None)


def under_way() -> list[Any]:
    """The Celery requests that the pool is at work on, whatever kind of pool it is."""
    return _members(state.active_requests)


def give_back(worker: Any) -> None:
    """Put what was taken and not begun back into its queue; in the main thread, once it takes no more.

    It may begin all the same, if a slot is free just now: then it is there twice, and one of the two claims nothing.
    Users' tasks could not bear that: Celery puts them back when the pool has ended.
    """
    channel = _channel(worker)
    if channel is None:
        return
    try:
        if (
            channel._in_poll
        ):  # Redis may have popped a message for us, which nobody would read until the pool has ended
            with suppress(queue.Empty):
                channel._brpop_read()
        for request in _not_begun():
            if request.name in _OURS:
                request.message.requeue()
    except (redis.RedisError, OSError) as error:
        log.warning(
            "messages that were not begun were not given back, the keeper sends them again: %s", error
        )


def _not_begun() -> list[Any]:
    taken = _members(state.reserved_requests)
    return [request for request in taken if request not in state.active_requests and not request.acknowledged]


def _members(requests: WeakSet[Any]) -> list[Any]:
    """What is in a set that other threads change meanwhile. Not `state.requests`: by its ids, a second message of a step
    that is under way hides the first.
    """
    while True:
        try:
            return list(requests)
        except RuntimeError:  # it changed its size
            continue


def _channel(worker: Any) -> Any:
    """The kombu channel on which the worker gets its work; None while it has none."""
    return getattr(getattr(getattr(worker, "consumer", None), "task_consumer", None), "channel", None)


def kind_of(pool: type) -> str:
    """The name by which a pool is asked for with `-P`."""
    path = f"{pool.__module__}:{pool.__qualname__}"
    return next((alias for alias, known in ALIASES.items() if known == path), path)
