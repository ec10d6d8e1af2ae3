"""Which steps this process carries, and which of them it has lost meanwhile: cancelled, or taken over."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Raised inside a step that this process no longer holds, to leave it early; its result would be refused."""


class Held:
    """The steps under way in this process. The renewal marks those that it could not hold."""

    def __init__(self) -> None:
        self._lost: dict[str, threading.Event] = {}

    @contextmanager
    def step(self, step_id: str) -> Iterator[threading.Event]:
        """Carry a step; the event is set once it is lost."""
        lost = self._lost.setdefault(step_id, threading.Event())
        try:
            yield lost
        finally:
            self._lost.pop(step_id, None)

    def lose(self, step_ids: Iterable[str]) -> None:
        for step_id in step_ids:
            if event := self._lost.get(step_id):
                event.set()
