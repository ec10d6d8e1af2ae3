"""The calls of programs and what became of them: a turn reads those that are new to its process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime
from typing import Any

import msgspec

from agno_workers.core.messages import Message
from agno_workers.core.program import EXPIRED, CallKind, MadeCall, Outcome, Progress
from agno_workers.core.run import StepStatus
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import statements
from agno_workers.forks import after_fork
from agno_workers.runs.base import Repository

_SQL = statements("runs/claim")
_MOST_RUNS, _MOST_CALLS = 1_000, 100_000


class _Call(msgspec.Struct, frozen=True):
    """A call as `agno.progress_of` returns it."""

    key: str
    kind: CallKind
    name: str
    status: StepStatus
    arrival: int
    is_done: bool
    value: Any = None
    error: dict[str, Any] | None = None


class _Read(msgspec.Struct, frozen=True):
    now: datetime
    arrived: int
    calls: list[_Call]
    barrier_id: str | None = None


_DECODER = msgspec.json.Decoder(_Read)


class ProgressReader(Repository):
    """See the module. All threads of a process share what it knows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin()
        after_fork(self, ProgressReader._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._ended: OrderedDict[tuple[str, int], tuple[int, dict[str, MadeCall]]] = OrderedDict()

    def progress(self, claim: ClaimedStep) -> Progress:
        """Return what a program sees at this turn."""
        run = claim.run_id, claim.generation
        known, ended = self._ended.get(run, (0, {}))
        asked = {"run_id": claim.run_id, "generation": claim.generation, "known": known}
        (row,) = self._pool.run(_SQL["progress"], asked)
        read = _DECODER.decode(row["progress"])
        if read.arrived < known:  # the database was restored
            self.forget_progress(claim.run_id)
            return self.progress(claim)
        new = {call.key: MadeCall(call.kind, call.name, _outcome(call)) for call in read.calls}
        ended = ended | {key: made for key, made in new.items() if made.outcome is not None}
        self._keep(run, read.arrived, ended)
        return Progress(
            claim.run_id, claim.messages[0] if claim.messages else Message("user", ()), read.now, ended | new, read.arrived, read.barrier_id, claim.session_id, claim.user_id, claim.metadata
        )  # fmt: skip

    def forget_progress(self, run_id: str) -> None:
        with self._lock:
            for run in [run for run in self._ended if run[0] == run_id]:
                del self._ended[run]

    def _keep(self, run: tuple[str, int], arrived: int, ended: dict[str, MadeCall]) -> None:
        with self._lock:
            self._ended[run] = arrived, ended
            self._ended.move_to_end(run)
            while (
                len(self._ended) > _MOST_RUNS
                or sum(len(calls) for _, calls in self._ended.values()) > _MOST_CALLS
            ):
                self._ended.popitem(last=False)


def _outcome(call: _Call) -> Outcome | None:
    if call.arrival == 0:
        return None
    if call.is_done:
        return Outcome(call.arrival, "done", call.value)
    if call.status is StepStatus.CANCELLED:
        return Outcome(call.arrival, "cancelled", error=call.error)
    is_late = (call.error or {}).get("type") == EXPIRED
    return Outcome(call.arrival, "expired" if is_late else "failed", error=call.error)
