"""A wait for a batch polls once more after each pause, also after the last one."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from agno_workers.errors import WaitTimeout
from agno_workers.sdk.batch import Batch

BATCH = str(uuid4())


class Clock:
    """Time that passes only while somebody waits, and runs that end at a second of it."""

    def __init__(self, ends_at: float) -> None:
        self.now, self.ends_at = 0.0, ends_at

    def monotonic(self) -> float:
        return self.now

    def unfinished(self, _batch_id: str, _limit: int) -> list[str]:
        return [] if self.now >= self.ends_at else ["run"]


@pytest.fixture
def polled(monkeypatch: pytest.MonkeyPatch) -> Any:
    def poll(ends_at: float, timeout: float | None) -> tuple[float, bool]:
        clock = Clock(ends_at)
        monkeypatch.setattr("agno_workers.sdk.batch.time.monotonic", clock.monotonic)
        handle = Batch(BATCH, clock)  # type: ignore[arg-type] # what it asks
        try:
            polls = list[bool]()
            for is_over, pause_s in handle.polls(timeout):
                polls.append(is_over)
                clock.now += pause_s
        except WaitTimeout:
            return clock.now, False
        return clock.now, polls[-1]

    return poll


@pytest.mark.parametrize(
    ("ends_at", "timeout", "is_over"),
    [
        (0.0, 0.0, True),
        (5.0, 0.0, False),
        (1.99, 2.0, True),
        (2.001, 2.0, True),
        (9.0, 2.0, False),
        (9.0, None, True),
    ],
)
def test_end_of_a_wait(polled: Any, ends_at: float, timeout: float | None, is_over: bool) -> None:
    ended_at, seen = polled(ends_at, timeout)
    assert seen is is_over
    assert ended_at == 0.0 if timeout == 0 else ended_at >= min(ends_at, timeout or ends_at)
