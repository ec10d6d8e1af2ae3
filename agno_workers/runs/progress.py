"""The calls of programs and what became of them: a turn reads those that are new to its process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from agno_workers.core.messages import Message
from agno_workers.core.program import EXPIRED, CallKind, MadeCall, Outcome, Progress
from agno_workers.core.run import StepStatus
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import statements
from agno_workers.forks import after_fork
from agno_workers.runs.base import Repository

_SQL = statements("runs/claim")


class _Call(msgspec.Struct, frozen=True):
    """A call as `agno.progress_of` returns it."""

    key: str
    kind: CallKind
    name: str
    status: StepStatus
    arrival: int
    is_done: bool
    at: int | None = None
    value: Any = None
    error: dict[str, Any] | None = None


class _Read(msgspec.Struct, frozen=True):
    now: datetime
    arrived: int
    known: int
    calls: list[_Call]
    barrier_id: str | None = None


_DECODER = msgspec.json.Decoder(_Read)
_NO_INPUT = Message("user", ())
"""A tool step has no transcript."""


class _Ended(NamedTuple):
    """The calls of a run that ended, up to one of them."""

    generation: int
    calls: dict[str, MadeCall] = {}  # noqa: RUF012 - never changed
    arrived: int = 0
    at: int | None = None
    """When the last of them ended, in microseconds since 1970."""
    size: int = 0
    """The characters of their JSON."""


class ProgressReader(Repository):
    """See the module. All threads of a process share what it knows: at most `most_known` characters of JSON."""

    most_known = 16 * 1024 * 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin()
        after_fork(self, ProgressReader._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._size = 0

    def progress(self, claim: ClaimedStep) -> Progress:
        """Return what a program sees at this turn. Postgres decides whether what this process knows still holds."""
        ended = self._ended.get(claim.run_id)
        if ended is None or ended.generation != claim.generation:
            ended = _Ended(claim.generation)
        asked = {
            "run_id": claim.run_id,
            "generation": claim.generation,
            "known": ended.arrived,
            "known_at": ended.at,
        }
        (row,) = self._pool.run(_SQL["progress"], asked)
        read = _DECODER.decode(row["progress"])
        if read.known != ended.arrived:
            ended = _Ended(claim.generation)
        new = {call.key: MadeCall(call.kind, call.name, _outcome(call)) for call in read.calls}
        last = max(read.calls, key=lambda call: call.arrival, default=None)
        if last is not None and last.arrival > ended.arrived:
            calls = ended.calls | {key: made for key, made in new.items() if made.outcome is not None}
            ended = _Ended(claim.generation, calls, last.arrival, last.at, ended.size + len(row["progress"]))
            self._keep(claim.run_id, ended)
        return Progress(
            claim.run_id, claim.messages[0] if claim.messages else _NO_INPUT, read.now, ended.calls | new, read.arrived, read.barrier_id, claim.session_id, claim.user_id,
            claim.metadata,
        )  # fmt: skip

    def forget_progress(self, run_id: str) -> None:
        with self._lock:
            self._drop(run_id)

    def _keep(self, run_id: str, ended: _Ended) -> None:
        """Keep the calls of a run in place of those that are kept of it, and drop those that were not used for longest."""
        with self._lock:
            self._drop(run_id)
            self._ended[run_id] = ended
            self._size += ended.size
            while self._size > self.most_known:
                self._drop(next(iter(self._ended)))

    def _drop(self, run_id: str) -> None:
        if ended := self._ended.pop(run_id, None):
            self._size -= ended.size


def _outcome(call: _Call) -> Outcome | None:
    if call.arrival == 0:
        return None
    if call.is_done:
        return Outcome(call.arrival, "done", call.value)
    if call.status is StepStatus.CANCELLED:
        return Outcome(call.arrival, "cancelled", error=call.error)
    is_late = (call.error or {}).get("type") == EXPIRED
    return Outcome(call.arrival, "expired" if is_late else "failed", error=call.error)
