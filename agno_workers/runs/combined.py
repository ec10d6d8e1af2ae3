"""One call for what several threads ask at the same time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from agno_workers.forks import after_fork

log = logging.getLogger(__name__)

_PATIENCE_S = 120.0
"""The longest wait for other threads: more than all time limits of a statement together."""
Q = TypeVar("Q")
A = TypeVar("A")


class Combined(Generic[Q, A]):
    """Answers the questions of many threads with few calls: those that come while a call is under way go together with the next.

    A question that comes alone does not wait. Each call is made by the thread whose question is the first in it; the others sleep
    until it has returned, and the first of the questions that came meanwhile leads the next call. A fork begins with none.
    """

    def __init__(
        self,
        together: Callable[[list[Q]], Sequence[A | None]],
        alone: Callable[[Q], A | None],
        most: int = 64,
    ) -> None:
        """`together` answers at most `most` questions, each in its place; None: this one must be asked `alone`, by its own thread.

        So is every question of several when `together` raises, so that a bad one fails by itself.
        """
        self._together = together
        self._alone = alone
        self._most = most
        self._begin()
        after_fork(self, Combined._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Question[Q, A]] = []
        self._is_busy = False

    def __call__(self, asked: Q) -> A | None:
        """Answer one question. Raises as `together` and `alone` do."""
        mine: _Question[Q, A] = _Question(asked)
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._is_busy = not self._is_busy, True
        if not mine.leads and not mine.woken.acquire(timeout=_PATIENCE_S):
            self._begin_again()
            return self._alone(asked)
        if mine.leads:
            self._lead()
        return self._alone(asked) if mine.answer is None else mine.answer

    def _begin_again(self) -> None:
        """Let each waiting thread ask alone: the one that was to make the next call is gone, or hangs."""
        log.error("a call for several steps did not end within %g s, so each is asked for alone", _PATIENCE_S)
        with self._lock:
            left, self._waiting, self._is_busy = self._waiting, [], False
        for each in left:
            if not each.leads:
                each.woken.release()

    def _lead(self) -> None:
        """Make a call; the caller's own question is the first in it."""
        with self._lock:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            answers = self._together([each.asked for each in batch])
            for each, answer in zip(batch, answers, strict=True):
                each.answer = answer
        except Exception as error:
            if len(batch) == 1:
                raise
            log.warning("a call for %d steps failed, so each is asked for alone: %s", len(batch), error)
        finally:
            with self._lock:
                self._is_busy = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].leads = True
                    self._waiting[0].woken.release()
            for each in batch[1:]:
                each.woken.release()


class _Question(Generic[Q, A]):
    def __init__(self, asked: Q) -> None:
        self.asked = asked
        self.answer: A | None = None
        self.leads = False
        self.woken = threading.Lock()
        self.woken.acquire()
