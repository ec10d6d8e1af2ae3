"""A run and its steps: their statuses, and how they move from one to the next.

The statuses of a run:

    submit ──▶ queued ──claim──▶ running ──────────────▶ done        it has an answer
                  │                 │  ▲
                  │                 ▼  │ chord body      ▶ failed      `error` has the reason
                  │              waiting
                  └──────cancel─────┴───────────────────▶ cancelled   generation + 1: late results are refused

`waiting`: its tools are running, and the last result starts the next turn.

The statuses of a step:

    ready ──claim──▶ running ──▶ done                 the first result of its generation is recorded, a later one refused
      ▲ ▲               │   ├──▶ unknown              a crash interrupted a `once` step: it is not executed again
      │ └─retry, lease──┘   ├──▶ dead                 no attempt is left
      │                     └──▶ waiting              as `unknown`, and a person is asked whether it took effect
      └──approve, answer── waiting ──▶ done           a person, an outside system or a child run ended it (see WaitsFor)
    (ready, running, waiting) ──cancel, deadline──▶ cancelled

A retry of a failed run makes it `queued` in the next generation; it continues after its last good turn.
A paused run keeps its status; none of its steps is claimed until it is resumed.

A `ready` step may have a timer (`not_before`): the keeper sends it at that time.
The check constraints in `database/tables/runs.py` are made from these enums; a test compares a migrated database with them.
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
    """Find the sources of an ingestion."""
    INGEST = "ingest"
    """Read a batch of documents and cut them into chunks."""
    EMBED = "embed"
    """Make the vectors of a batch of chunks."""
    FINALIZE = "finalize"
    """Finalize an ingestion."""


class WaitsFor(StrEnum):
    """The event that ends the wait of a `waiting` step."""

    CONFIRMATION = "confirmation"
    """A person approves or rejects the call."""
    ANSWER = "answer"
    """A person fills in arguments that the model must not choose."""
    EXECUTION = "execution"
    """An outside system executes the call and returns its result."""
    RESOLUTION = "resolution"
    """A `once` tool was interrupted: a person finds out whether it took effect."""
    RUN = "run"
    """The child run of a delegation ends."""
    WINDOW = "window"
    """The embedding window of an ingestion has room; only so many `embed` steps of a run are sent at a time."""


class Run(msgspec.Struct, frozen=True):
    """A row of `agno.run`: one agent working on one input."""

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
    """Why it ended: `end`, `length`, `refusal`, or the limit that it reached, such as `limit:turns`."""
    error: dict[str, Any] | None = None
    """The error of a failed run: `{"type", "message", "ids"}`."""
    usage: Usage = Usage()
    turns: int = 0
    tool_calls: int = 0
    cost_usd: float = 0.0
    """The cost by the agent's `prices`; 0 without prices."""
    parent_step_id: str | None = None
    depth: int = 0
    """The number of delegations above it."""
    forked_from: str | None = None
    batch_id: str | None = None
    batch_position: int | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    paused_at: datetime | None = None


class Step(msgspec.Struct, frozen=True):
    """A row of `agno.step`: one unit of a run, executed by one Celery task."""

    id: str
    run_id: str
    key: str
    """Unique in the run's generation: `turn:3`, `tool:3:0`."""
    kind: StepKind
    status: StepStatus
    queue: str
    name: str = ""
    """The name of the tool or, for a delegation, of the agent; empty for a turn."""
    seq: int = 0
    """The position of its first message in the transcript."""
    effect: str | None = None
    attempt: int = 0
    worker: str | None = None
    error: dict[str, Any] | None = None
    """The error of the last failed attempt, also when a later attempt succeeded."""
    waits_for: WaitsFor | None = None
    expires_at: datetime | None = None
    answer: dict[str, Any] | None = None
    """A person's answer: `{"verdict", "by", "note", "values"}`."""
    child_run_id: str | None = None
    """The run that a delegation waits for."""
    not_before: datetime | None = None
    created_at: datetime | None = None
    sent_at: datetime | None = None
    """The last time it was sent; a message that was lost is sent again."""
    ready_at: datetime | None = None
    """Since when it could start, if it has not."""
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def returns(self) -> int:
        """How often workers gave the step back, since they could not begin it; see `error`."""
        return int((self.error or {}).get("ids", {}).get("returns", 0))


class Canvas(msgspec.Struct, frozen=True, omit_defaults=True):
    """The Celery options of the task that started a run; the run stores them until it ends."""

    link: list[Any] = []
    link_error: list[Any] = []
    chain: list[Any] = []
    group_id: str | None = None
    group_index: int | None = None
    chord: bool = False
    root_id: str | None = None
    parent_id: str | None = None


class RunOutput(msgspec.Struct, frozen=True):
    """The result of a run that has ended."""

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
