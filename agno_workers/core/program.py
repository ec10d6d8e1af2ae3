"""A program decides the next move of a run in place of a model: a team, a workflow. Pure: recorded results in, a move out.

    claim ──▶ progress ──▶ next_move(body, progress) ──▶ Do(calls) ──▶ ... the next turn, when enough of the calls have ended
                                                  ├─▶ End
                                                  └─▶ Fail

A call is a step of the run: a run of an agent, a team or a workflow, a function, or a wait for a time, a signal or a person. Its id is its
key, and it is made once: a later turn sees what became of it. `arrival` is the place of its end in the order of all ends of the run, and
never changes; whatever depends on which call ended first is decided by it, so every later turn decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec

from agno_workers.core.messages import Message
from agno_workers.core.moves import End, Fail

EXPIRED = "StepExpired"
"""The type of the error of a call that did not end in its time."""


class CallKind(StrEnum):
    """The thing that a call waits for."""

    RUN = "run"
    """The run of an agent, a team or a workflow."""
    MAP = "map"
    """A run, a function or the like for each item of a list; see `core.mapping`."""
    FUNCTION = "function"
    """A function, which a worker executes."""
    TIMER = "timer"
    """A time."""
    SIGNAL = "signal"
    """A signal, which `RunHandle.signal` sends."""
    APPROVAL = "approval"
    """A person, who approves or rejects."""


class ResultOf(msgspec.Struct, frozen=True):
    """In the arguments of a function: the result of an earlier step, or the field of one, which the worker reads. So it is stored once."""

    step: str
    field: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a program makes. The same `key` again is the same call."""

    key: str
    kind: CallKind
    name: str = ""
    """The agent, the function or the signal; for an approval the question."""
    input: Message | None = None
    """The first message of a run."""
    arguments: str = ""
    """The arguments of a function, as a JSON object."""
    results: Sequence[tuple[Sequence[str | int], ResultOf]] = ()
    """The places in the arguments that results of other steps take."""
    shown: dict[str, Any] = {}
    """JSON that a person is shown with the question."""
    what: Any = None
    """The Runnable of a run, the Tool of a function, or what a map calls."""
    until: datetime | None = None
    """The time of a timer."""
    within_s: float | None = None
    """The time for the answer to an approval, the signal, or the end of a run; then the call ends as `expired`."""
    on_timeout: Literal["reject", "approve", "fail"] = "reject"
    """For an approval that nobody answers in time."""


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended."""

    arrival: int
    """Its place in the order of all ends, from 1."""
    status: Literal["done", "failed", "cancelled", "expired"] = "done"
    value: Any = None
    """JSON: the content of a run, the result of a function, the payload of a signal, the answer of a person."""
    error: dict[str, Any] | None = None
    """Why it failed, as `AgnoError.to_json` describes it."""


class MadeCall(msgspec.Struct, frozen=True):
    """A call that an earlier turn made."""

    kind: CallKind
    name: str
    outcome: Outcome | None = None
    """None: it has not ended."""


class Progress(msgspec.Struct, frozen=True):
    """The facts that a program sees at a turn."""

    run_id: str
    input: Message
    now: datetime
    """The time of the turn, by the clock of Postgres."""
    calls: Mapping[str, MadeCall] = {}
    """The calls of earlier turns, by their keys."""
    arrived: int = 0
    """The ends that are among them."""
    barrier_id: str | None = None
    """The barrier that counts the ends; None before the first call."""
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}


class Do(msgspec.Struct, frozen=True):
    """Make these calls, and cancel those; the next turn follows when `wake_after` more calls have ended than this turn has seen."""

    calls: tuple[Call, ...] = ()
    cancel: tuple[str, ...] = ()
    """The keys of open calls that are needed no more."""
    wake_after: int = 1


ProgramMove: TypeAlias = Do | End | Fail
