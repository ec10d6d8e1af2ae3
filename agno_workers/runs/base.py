"""The base of the repositories of runs: a pool, the worker's name, and a few numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from agno_workers.core.run import RunKind
from agno_workers.core.step import FIRST_STEP
from agno_workers.database.pool import Payloads, Pool, Row

T = TypeVar("T")
_ATTEMPTS = {RunKind.INGESTION: 12}
"""The attempts of the first step by kind of run; the default is `turn_attempts`."""


class RunNumbers(msgspec.Struct, frozen=True):
    """Settings of the transactions of runs; see `settings.py`."""

    lease_s: float = 15.0
    publish_after_s: float = 0.5
    turn_attempts: int = 5
    inline_max_bytes: int = 64 * 1024


class Repository:
    """A part of the run store. Every call raises Unavailable when Postgres does not answer; then all of it happened, or nothing."""

    def __init__(self, pool: Pool, numbers: RunNumbers = RunNumbers(), worker: str = "") -> None:  # noqa: B008 - a frozen value
        self._pool = pool
        self._numbers = numbers
        self.worker = worker

    def _payloads(self) -> Payloads:
        return Payloads(self._numbers.inline_max_bytes)

    def _first_step(self, kind: RunKind) -> dict[str, object]:
        step = FIRST_STEP[kind]
        return {
            "kind": step,
            "key": f"{step}:1",
            "max_attempts": _ATTEMPTS.get(kind, self._numbers.turn_attempts),
        }


def utc(when: datetime | None) -> str | None:
    """Return a time for SQL, aware and in UTC. As in Celery, a naive time is in UTC."""
    if when is None:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def convert(row: Row, kind: type[T]) -> T:
    return msgspec.convert(row, kind)
