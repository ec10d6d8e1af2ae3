"""A worker's heartbeat in the table of workers, and its shutdown.

    SIGTERM, Ctrl-C, `control shutdown`   The worker takes no more steps and requeues those that it has not started. Active
                                          steps have `grace_s` to finish; then other workers take them over.
    a second signal, or SIGQUIT           Active steps are handed over at once.
    a failed self-test (canary.py)        as SIGTERM, with exit status 1

A thread can't be stopped, and a blocked main thread can't end itself, so this thread ends the process. `once` tools and
users' own tasks can't be handed over: the process waits for them, at most `max_s`.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Literal
from weakref import WeakSet

import psycopg
import redis
from celery.concurrency import ALIASES
from celery.worker import state
from kombu.exceptions import OperationalError

from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.names import RUN, STEP_TASKS, TASK_OF
from agno_workers.broker.outage import Outage
from agno_workers.core.step import StepMessage
from agno_workers.errors import AgnoError
from agno_workers.runs.workers import WorkerIdentity, Workers

log = logging.getLogger(__name__)

Command = Literal["shut_down", "hurry", "fail", "stopped"]
"""`stopped`: Celery's own shutdown is over."""

_TICK_S = 0.05
_HAND_OVER_EVERY_S = 0.5
_CLOSES_WITHIN_S = 5.0
_EXIT_TIMEOUT_S = 10.0
"""How long the main thread may take to end once no task is active."""
_REQUEUED = STEP_TASKS | {RUN}


class WorkerLifecycle(threading.Thread):
    """Writes the heartbeat each `every_s`; after a command to shut down, makes sure that the process ends."""

    def __init__(
        self, worker: Any, identity: WorkerIdentity, workers: Workers, dispatch: Dispatch, *,
        every_s: float, grace_s: float, max_s: float, on_new: Callable[[], object], active: Callable[[], Collection[str]],
    ) -> None:  # fmt: skip
        """`active` returns the ids of the steps that are executed. `on_new` is called after a later heartbeat that had to insert the
        worker's row, as after the restore of a backup.
        """
        super().__init__(name="agno-heartbeat", daemon=True)
        self._worker = worker
        self._identity = identity
        self._workers = workers
        self._dispatch = dispatch
        self._every_s = every_s
        self._on_new = on_new
        self._active = active
        self._grace_s = grace_s
        self._max_s = max_s
        self._status = 0
        self._outage = Outage(log, "the table of workers")
        self._shutting_down = False
        self._closed = threading.Event()
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()  # safe in a signal handler

    def register(self) -> None:
        """Write the first heartbeat; call it before the first step is taken."""
        self._attempt(self._workers.forget)
        self._beat()

    def takes(self, step: StepMessage) -> bool:
        """Return whether this worker may begin a step now without receiving its message, on which Celery applies rate limits."""
        is_ending = self._shutting_down or self._closed.is_set()
        return (
            not is_ending
            and step.queue in self._queues()
            and not self._worker.app.tasks[TASK_OF[step.kind]].rate_limit
        )

    def _queues(self) -> Collection[str]:
        queues: Collection[str] = self._worker.app.amqp.queues.consume_from
        return queues

    def command(self, command: Command) -> None:
        self._commands.put(command)

    def fail(self, reason: str) -> None:
        """Shut down with exit status 1."""
        log.critical(reason)
        self.command("fail")

    def close(self) -> None:
        """Requeue what was not started; Celery calls it for every kind of shutdown, with or without a signal."""
        self.command("shut_down")
        requeue_unstarted(self._worker)
        self._closed.set()

    def stop(self) -> None:
        """Record that the worker stopped, and wait for the record."""
        self.command("stopped")
        self.join(timeout=_EXIT_TIMEOUT_S)

    def run(self) -> None:
        while (command := self._next_command(self._every_s)) is None:
            self._report()
        if command != "stopped":
            self._shut_down(command)
        self._attempt(self._workers.stopped, self._identity.name)

    def _shut_down(self, command: Command) -> None:
        """Return when the main thread has stopped the worker; otherwise end the process."""
        if command == "fail":
            self._status = state.should_stop = 1
        self._shutting_down = True
        self._wake_event_loop()
        self._report()
        started = idle_since = reported_at = time.monotonic()
        until, hand_over_at = started + self._max_s, started + self._grace_s
        hurry = command == "hurry"
        while (later := self._next_command(_TICK_S)) != "stopped":
            now = time.monotonic()
            hurry = hurry or later == "hurry"
            if now - reported_at > self._every_s:
                self._report()
                reported_at = now
            if active_requests():
                idle_since = now
                if self._takes_nothing(started) and (hurry or now > hand_over_at):
                    hand_over_at = now + _HAND_OVER_EVERY_S
                    if self._has_handed_over() or hurry:
                        self._exit()
            if now > until or now - idle_since > _EXIT_TIMEOUT_S:
                self._exit()

    def _takes_nothing(self, since: float) -> bool:
        """Return whether a step that is handed over can't come back here. A blocked main thread takes nothing either."""
        return self._closed.is_set() or time.monotonic() - since > _CLOSES_WITHIN_S

    def _has_handed_over(self) -> bool:
        """Hand over the steps that can be; return whether the process need not wait for any other task."""
        return bool(self._attempt(self._hand_over)) and all(r.name in STEP_TASKS for r in active_requests())

    def _hand_over(self) -> bool:
        while sends := self._workers.hand_over(self._identity.name):
            log.warning("handing over %d step(s) to other workers", len(sends))
            self._dispatch.send(sends)
        return not self._workers.held(self._identity.name).intersection(self._active())

    def _exit(self) -> None:
        """End this process, whatever its threads do. Its children end first; they would outlive it."""
        self._attempt(self._workers.stopped, self._identity.name)
        with suppress(Exception):
            # Requeue users' tasks that were not started; in an orderly shutdown Celery does it.
            channel_of(self._worker).qos.restore_unacked_once()
        for process in getattr(self._worker.pool._pool, "_pool", ()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(self._worker.exitcode or self._status)

    def _report(self) -> None:
        if self._beat():
            self._attempt(self._on_new)

    def _beat(self) -> bool:
        """Write a heartbeat; return whether it inserted the worker's row."""
        is_new = self._attempt(
            self._workers.seen,
            self._identity,
            concurrency=self._worker.pool.num_processes or 0,
            queues=[] if self._shutting_down else list(self._queues()),
            steps=sum(request.name in STEP_TASKS for request in active_requests()),
        )
        return bool(is_new)

    def _attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call; a failure costs one report, never the thread."""
        try:
            result = call(*args, **kwargs)
            self._outage.worked()
            return result
        except (AgnoError, psycopg.Error, OSError) as error:
            self._outage.failed("the table of workers can't be used: %s", error)
        except Exception:
            log.exception("the table of workers was not written; the next attempt follows")
        return None

    def _next_command(self, timeout_s: float) -> Command | None:
        try:
            return self._commands.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _wake_event_loop(self) -> None:
        """Make Celery's event loop notice the shutdown: it checks only when an event arrives, and a signal is not one."""
        if self._worker.hub is not None:
            self._worker.hub.call_soon(lambda: None)


def active_requests() -> list[Any]:
    """Return the Celery requests that the pool executes, for every kind of pool."""
    return _members(state.active_requests)


def requeue_unstarted(worker: Any) -> None:
    """Requeue the steps that were taken and not started; call it in the main thread, after the worker stopped taking messages.

    A step may start all the same, when a slot becomes free just now: it is queued twice then, and one of the two claims
    nothing. A user's task must not run twice: Celery requeues it when the pool has stopped.
    """
    channel = channel_of(worker)
    if channel is None:
        return
    try:
        read_last(channel)
        for request in _unstarted_requests():
            if request.name in _REQUEUED:
                request.message.requeue()
    except (redis.RedisError, OperationalError, OSError) as error:
        log.warning("unstarted messages were not requeued, the keeper sends them again: %s", error)


def _unstarted_requests() -> list[Any]:
    reserved = _members(state.reserved_requests)
    return [
        request for request in reserved if request not in state.active_requests and not request.acknowledged
    ]


def _members(requests: WeakSet[Any]) -> list[Any]:
    """Copy a set that other threads change. `state.requests` won't do: it is keyed by id, so a second message of an active
    step hides the first.
    """
    while True:
        try:
            return list(requests)
        except RuntimeError:  # the set changed its size
            continue


def channel_of(worker: Any) -> Any:
    """Return the kombu channel that brings the worker its messages; None while it has none."""
    return getattr(getattr(getattr(worker, "consumer", None), "task_consumer", None), "channel", None)


def read_last(channel: Any) -> None:
    """Read the message that Redis may have popped for us, which nobody would read until the channel is closed."""
    if channel._in_poll:
        with suppress(queue.Empty):
            channel._brpop_read()


def pool_name(pool: type) -> str:
    """Return the name of a pool class as `-P` takes it."""
    path = f"{pool.__module__}:{pool.__qualname__}"
    return next((alias for alias, known in ALIASES.items() if known == path), path)
