"""The steps that this process executes, and those that it has lost: cancelled, or taken over by another worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from agno_workers.core.step import StepMessage
from agno_workers.errors import Unavailable

_CHECK_EVERY_S = 1.0


class Stopped(Exception):
    """Raised inside a step that this process no longer holds, to leave it early: its result would be discarded."""


class ActiveSteps:
    """The steps that run in this process. The lease renewer marks those that it has lost.

    A child of a prefork worker has no lease renewer, which is a thread of the main process: there `is_held` asks the database,
    at most once a second, when a caller asks whether the step is lost.
    """

    def __init__(self, is_held: Callable[[str], bool]) -> None:
        self._is_held = is_held
        self._lock = threading.Lock()
        self._lost: dict[str, list[threading.Event]] = {}
        self.is_renewed = False
        """True when this process renews its own leases."""
        self.takes: Callable[[StepMessage], bool] = lambda _: False
        """Return whether a thread that has just ended a step may at once begin this one."""

    @contextmanager
    def step(self, step_id: str) -> Iterator[Callable[[], bool]]:
        """Register a step while it is executed; yield a function that returns whether the step is lost."""
        event = threading.Event()
        with self._lock:  # this process may execute a step twice: both executions get the event
            self._lost.setdefault(step_id, []).append(event)
        check_at = time.monotonic() + _CHECK_EVERY_S

        def is_lost() -> bool:
            nonlocal check_at
            if not event.is_set() and not self.is_renewed and time.monotonic() >= check_at:
                check_at = time.monotonic() + _CHECK_EVERY_S
                try:
                    if not self._is_held(step_id):
                        event.set()
                except Unavailable:
                    pass  # unknown for now; the result of a lost step will be discarded
            return event.is_set()

        try:
            yield is_lost
        finally:
            with self._lock:
                self._lost[step_id].remove(event)
                if not self._lost[step_id]:
                    del self._lost[step_id]

    def ids(self) -> list[str]:
        """Return the ids of the steps that are executed now."""
        with self._lock:
            return list(self._lost)

    def lose(self, step_ids: Iterable[str]) -> None:
        with self._lock:
            for event in (event for step_id in step_ids for event in self._lost.get(step_id, ())):
                event.set()
