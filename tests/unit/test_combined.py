"""Combined: which questions go together, and what one of them does to the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from agno_workers.runs.combined import Combined

WAIT_S = 10


class Calls:
    """Answers a question with its double. The first call waits until `gate` is set, so that others come meanwhile."""

    def __init__(
        self, together: Callable[[list[int]], list[int | None]] | None = None, most: int = 64
    ) -> None:
        self.gate, self.has_begun = threading.Event(), threading.Event()
        self.together: list[list[int]] = []
        self.alone: list[int] = []
        self._answer = together or (lambda asked: [2 * each for each in asked])
        self.combined = Combined(self._together, self._alone, most)
        self._threads = ThreadPoolExecutor(16)

    def _together(self, asked: list[int]) -> list[int | None]:
        self.together.append(asked)
        if not self.has_begun.is_set():
            self.has_begun.set()
            assert self.gate.wait(WAIT_S)
        return self._answer(asked)

    def _alone(self, asked: int) -> int | None:
        self.alone.append(asked)
        if asked < 0:
            raise ValueError(asked)
        return 2 * asked

    def all(self, *questions: int) -> list[Future[int | None]]:
        """Ask the first, and the others while its call is under way."""
        first = self._threads.submit(self.combined, questions[0])
        assert self.has_begun.wait(WAIT_S)
        others = []
        for place, question in enumerate(questions[1:], start=1):
            others.append(self._threads.submit(self.combined, question))
            while len(self.combined._waiting) < place:
                pass
        self.gate.set()
        return [first, *others]


def answers(asked: list[Future[int | None]]) -> list[Any]:
    return [each.result(WAIT_S) for each in asked]


def test_questions_that_come_during_a_call_share_the_next_one() -> None:
    calls = Calls()
    assert answers(calls.all(1, 2, 3, 4)) == [2, 4, 6, 8]
    assert calls.together == [[1], [2, 3, 4]]
    assert calls.combined(5) == 10
    assert calls.together[2:] == [[5]]


def test_a_call_has_at_most_so_many_questions() -> None:
    calls = Calls(most=2)
    assert answers(calls.all(1, 2, 3, 4)) == [2, 4, 6, 8]
    assert calls.together == [[1], [2, 3], [4]]


def test_question_without_an_answer_is_asked_alone() -> None:
    calls = Calls(lambda asked: [None if each == 3 else 2 * each for each in asked])
    assert answers(calls.all(1, 2, 3)) == [2, 4, 6]
    assert calls.alone == [3]


def test_bad_question_fails_by_itself() -> None:
    def refuse(asked: list[int]) -> list[int | None]:
        if min(asked) < 0:
            raise ValueError(asked)
        return [2 * each for each in asked]

    calls = Calls(refuse)
    first, bad, good = calls.all(1, -2, 3)
    assert (first.result(WAIT_S), good.result(WAIT_S)) == (2, 6)
    with pytest.raises(ValueError, match="-2"):
        bad.result(WAIT_S)
    with pytest.raises(ValueError, match="-4"):
        calls.combined(-4)
    assert -4 not in calls.alone
    assert calls.combined(5) == 10


def test_interrupt_of_the_thread_that_calls_leaves_nobody_asleep() -> None:
    def interrupt(asked: list[int]) -> list[int | None]:
        if asked[0] == 2:
            raise KeyboardInterrupt
        return [2 * each for each in asked]

    calls = Calls(interrupt)
    first, leads, follows = calls.all(1, 2, 3)
    with pytest.raises(KeyboardInterrupt):
        leads.result(WAIT_S)
    assert (first.result(WAIT_S), follows.result(WAIT_S)) == (2, 6)


def test_fork_during_a_call_can_ask() -> None:
    calls = Calls()
    first = calls._threads.submit(calls.combined, 1)
    assert calls.has_begun.wait(WAIT_S)
    child = os.fork()
    if not child:
        os._exit(calls.combined(21) or 0)
    _, status = os.waitpid(child, 0)
    calls.gate.set()
    assert os.waitstatus_to_exitcode(status) == 42
    assert first.result(WAIT_S) == 2


def test_threads_ask_alone_when_the_call_that_they_wait_for_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agno_workers.runs.combined._PATIENCE_S", 0.2)
    calls = Calls()
    first = calls._threads.submit(calls.combined, 1)
    assert calls.has_begun.wait(WAIT_S)
    others = [calls._threads.submit(calls.combined, question) for question in (2, 3)]
    assert answers(others) == [4, 6]
    assert calls.combined(4) == 8
    assert (calls.together, sorted(calls.alone)) == ([[1], [4]], [2, 3])
    calls.gate.set()
    assert answers([first]) == [2]
    assert calls.combined(5) == 10
