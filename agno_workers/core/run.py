"""A run and its steps: the words for where they are, and how they move.

The life of a run:

    submit ──▶ queued ──claim──▶ running ──────────────▶ done        an answer, or what a limit left of it
                  │                 │  ▲
                  │                 ▼  │ chord body      ▶ failed      `error` says why
                  │              waiting
                  └──────cancel─────┴───────────────────▶ cancelled   generation + 1: late results are refused

`waiting`: no turn is under way; tools are out, and the last one in wakes the next turn.

The life of a step:

    ready ──claim──▶ running ──▶ done                 the first result of its generation is recorded, a later one refused
      ▲ ▲               │   ├──▶ unknown              a `once` step that a crash cut short: never run again by itself
      │ └─retry, lease──┘   ├──▶ dead                 attempts used up
      │                     └──▶ waiting              the same, where a person is to find out
      └──approve, answer── waiting ──▶ done           a person, somebody outside, or a child run (see WaitsFor)
    (ready, running, waiting) ──cancel, deadline──▶ cancelled

A failed run may be sent again (retry): it is `queued` in the next generation, and goes on from its last good turn.
A run that is paused keeps its status; no step of it is claimed until it is resumed.

A step that is `ready` may have `not_before` (a timer): the keeper sends it when that has come.
The check constraints of `database/tables/runs.py` repeat these two lists; a test holds them together.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from agno_workers.core.messages import Usage


class RunKind(StrEnum):
    AGENT = "agent"
    TEAM = "team"
    WORKFLOW = "workflow"
    INGESTION = "ingestion"


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)


class StepStatus(StrEnum):
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    UNKNOWN = "unknown"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        return self in (StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)


class StepKind(StrEnum):
    TURN = "turn"
    TOOL = "tool"
    DELEGATE = "delegate"
    SCAN = "scan"
    """Of an ingestion: find the sources."""
    INGEST = "ingest"
    """Read a batch of documents, and cut them into chunks."""
    EMBED = "embed"
    """The vectors of a batch of chunks."""
    FINALIZE = "finalize"
    """What comes at the end of an ingestion."""


class WaitsFor(StrEnum):
    """What a `waiting` step waits for."""

    CONFIRMATION = "confirmation"
    """A person approves or rejects the call."""
    ANSWER = "answer"
    """A person fills in arguments that the model must not choose."""
    EXECUTION = "execution"
    """Somebody outside executes the call and brings its result."""
    RESOLUTION = "resolution"
    """A `once` tool was cut short: a person finds out whether it took effect."""
    RUN = "run"
    """A delegation: the child run's end."""
    WINDOW = "window"
    """Of an ingestion, vectors to be made: its turn, since only so many of a run are sent at a time."""


class Run(msgspec.Struct, frozen=True):
    """One agent working on one input, as its row stands."""

    id: str
    agent: str
    status: RunStatus
    kind: RunKind = RunKind.AGENT
    tenant: str = "default"
    generation: int = 0
    session_id: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    parent_run_id: str | None = None
    metadata: dict[str, Any] = {}
    content: Any = None
    """The answer: text, or the JSON value of `output_schema`. None until the run has ended."""
    reason: str | None = None
    """Why it ended: `end`, `length`, `refusal`, or the name of the limit that it met, as `limit:turns`."""
    error: dict[str, Any] | None = None
    """`{"type", "message", "ids"}` of a failed run."""
    usage: Usage = Usage()
    turns: int = 0
    tool_calls: int = 0
    cost_usd: float = 0.0
    """By the agent's `prices`; 0 without."""
    parent_step_id: str | None = None
    depth: int = 0
    """How many delegations lead to it."""
    forked_from: str | None = None
    batch_id: str | None = None
    batch_position: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    paused_at: datetime | None = None


class Step(msgspec.Struct, frozen=True):
    """One unit of a run that one Celery task carries, as its row stands."""

    id: str
    run_id: str
    key: str
    """Unique in the run's generation: `turn:3`, `tool:3:0`."""
    kind: StepKind
    status: StepStatus
    queue: str
    name: str = ""
    """The tool's (the agent's) name; empty for a turn."""
    seq: int = 0
    """Where in the transcript its first message goes."""
    effect: str | None = None
    attempt: int = 0
    worker: str | None = None
    error: dict[str, Any] | None = None
    """Why the last attempt failed, also where a later one succeeded."""
    waits_for: WaitsFor | None = None
    expires_at: datetime | None = None
    answer: dict[str, Any] | None = None
    """What a person said to it: `{"verdict", "by", "note", "values"}`."""
    child_run_id: str | None = None
    """Of a delegation: the run that it waits for."""
    not_before: datetime | None = None
    created_at: datetime | None = None
    sent_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Canvas(msgspec.Struct, frozen=True, omit_defaults=True):
    """Celery's options of the task that a run stands for, kept with the run until it ends."""

    link: list[Any] = []
    link_error: list[Any] = []
    chain: list[Any] = []
    group_id: str | None = None
    group_index: int | None = None
    chord: bool = False
    root_id: str | None = None
    parent_id: str | None = None


class RunOutput(msgspec.Struct, frozen=True):
    """What a caller gets of a run that has ended."""

    run_id: str
    agent: str
    status: RunStatus
    content: Any
    reason: str | None
    usage: Usage
    turns: int
    tool_calls: int
    error: dict[str, Any] | None = None
    """`{"type", "message", "ids"}` of a run that failed or was cancelled."""
