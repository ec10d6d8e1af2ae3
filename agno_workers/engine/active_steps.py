"""Which steps this process carries, and which of them it has lost meanwhile: cancelled, or taken over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from agno_workers.errors import Unavailable

_LOOK_EVERY_S = 1.0


class Stopped(Exception):
    """Raised inside a step that this process no longer holds, to leave it early; its result would be refused."""


class ActiveSteps:
    """The steps under way in this process. The renewal marks those that it could not hold.

    A child of a prefork worker has no renewal, which runs in the main process: there `is_held` asks the database, at most
    once a second, and only when somebody wants to know.
    """

    def __init__(self, is_held: Callable[[str], bool]) -> None:
        self._is_held = is_held
        self._lock = threading.Lock()
        self._lost: dict[str, list[threading.Event]] = {}
        self.is_renewed = False
        """Whether this process renews its leases itself."""

    @contextmanager
    def step(self, step_id: str) -> Iterator[Callable[[], bool]]:
        """Carry a step; gives a question: is it lost?"""
        event = threading.Event()
        with self._lock:  # a step may be carried twice here: both are told
            self._lost.setdefault(step_id, []).append(event)
        look_at = time.monotonic() + _LOOK_EVERY_S

        def is_lost() -> bool:
            nonlocal look_at
            if not event.is_set() and not self.is_renewed and time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK_EVERY_S
                try:
                    if not self._is_held(step_id):
                        event.set()
                except Unavailable:
                    pass  # not known now; the result will be refused if it is so
            return event.is_set()

        try:
            yield is_lost
        finally:
            with self._lock:
                self._lost[step_id].remove(event)
                if not self._lost[step_id]:
                    del self._lost[step_id]

    def lose(self, step_ids: Iterable[str]) -> None:
        with self._lock:
            for event in (event for step_id in step_ids for event in self._lost.get(step_id, ())):
                event.set()
