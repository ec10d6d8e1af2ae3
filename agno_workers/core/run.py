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

A `ready` step may have a timer (`not_before`): the keeper sends it at that time. At the timer of a step that waits for its session, the
keeper gives its run a place in the session.
The check constraints in `database/tables/runs.py` are made from these enums; a test compares a migrated database with them.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from agno_workers.core.messages import Usage


class RunKind(StrEnum):
    """The kinds of runs."""

    AGENT = "agent"
    """An agent works on an input."""
    TEAM = "team"
    """A team of agents works on an input."""
    WORKFLOW = "workflow"
    """A workflow works on an input."""
    INGESTION = "ingestion"
    """A knowledge base reads documents."""
    BACKGROUND = "background"
    """Work that follows the runs of a session: summaries, memories, the index of past sessions."""


NAMED = (RunKind.AGENT, RunKind.TEAM, RunKind.WORKFLOW)
"""The kinds of runs that callers name; a name has one of them, see `agno.agent`."""


class RunStatus(StrEnum):
    """The status of a run: how far it is."""

    QUEUED = "queued"
    """No step has started."""
    RUNNING = "running"
    """A step is executed, or is ready to be."""
    WAITING = "waiting"
    """Its tools are running, or a call waits for a person or a delegation."""
    DONE = "done"
    """It has an answer."""
    FAILED = "failed"
    """It has an error."""
    CANCELLED = "cancelled"
    """It was cancelled; later results are refused."""

    @property
    def is_terminal(self) -> bool:
        """True for `done`, `failed` and `cancelled`."""
        return self in (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)


class StepStatus(StrEnum):
    """The status of a step: how far it is."""

    READY = "ready"
    """A worker may claim it."""
    RUNNING = "running"
    """A worker executes it, and holds its lease."""
    WAITING = "waiting"
    """It waits for what `waits_for` names."""
    DONE = "done"
    """Its result is stored."""
    UNKNOWN = "unknown"
    """A crash interrupted a `once` tool, and nobody knows whether it took effect."""
    DEAD = "dead"
    """No attempt is left."""
    CANCELLED = "cancelled"
    """Its run was cancelled."""

    @property
    def is_open(self) -> bool:
        """True for `ready`, `running` and `waiting`."""
        return self in (StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)


class StepKind(StrEnum):
    """The kinds of steps."""

    TURN = "turn"
    """One model call, and what follows from its reply."""
    TOOL = "tool"
    """One tool call."""
    DELEGATE = "delegate"
    """The call of another agent, which is a run of its own."""
    SCAN = "scan"
    """Find the sources of an ingestion."""
    INGEST = "ingest"
    """Read a batch of documents and cut them into chunks."""
    EMBED = "embed"
    """Make the vectors of a batch of chunks."""
    FINALIZE = "finalize"
    """Finalize an ingestion."""
    COMPACT = "compact"
    """Summarize the oldest messages of a long transcript."""
    BACKGROUND = "background"
    """Do the background work of a session or a user."""
    WAIT = "wait"
    """A program waits for a time, a signal or a person."""


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
    SESSION = "session"
    """The runs before it in its session end."""
    COMPACTION = "compaction"
    """The transcript of a turn is compacted."""
    TIMER = "timer"
    """A time comes."""
    SIGNAL = "signal"
    """A signal is sent to the run."""


class Run(msgspec.Struct, frozen=True):
    """A row of `agno.run`: one agent working on one input."""

    id: str
    """A UUID."""
    agent: str
    """The name of the agent; for an ingestion `knowledge:` and the name of the base."""
    status: RunStatus
    """Its status at the time of the query."""
    kind: RunKind = RunKind.AGENT
    """An agent's run, or an ingestion."""
    tenant: str = "default"
    """The tenant whose rows these are; leave it out."""
    generation: int = 0
    """Counts cancels and retries: results of an earlier generation are refused."""
    session_id: str | None = None
    """The conversation that the run belongs to; `Agent(history=...)` reads its earlier runs."""
    session_position: int | None = None
    """Its place in the order of its session."""
    session_status: str | None = None
    """How it entered its session: `live`, `waiting`, `parallel`, ..."""
    rolled_back_at: datetime | None = None
    """When it left the history of its session; UTC."""
    user_id: str | None = None
    """The person whom the run is for. Sessions and idempotency keys belong to a user."""
    idempotency_key: str | None = None
    """The key of its submit."""
    parent_run_id: str | None = None
    """The run that delegated it."""
    metadata: dict[str, Any] = {}
    """The submit's."""
    content: Any = None
    """The answer: text, or the JSON value of `output_schema`. None until the run has ended."""
    reason: str | None = None
    """Why it ended: `end`, `length`, `refusal`, or the limit that it reached, such as `limit:turns`; `interrupted` where another message
    of its session took its place."""
    error: dict[str, Any] | None = None
    """The error of a failed run: `{"type", "message", "ids"}`."""
    usage: Usage = Usage()
    """Tokens of all turns."""
    turns: int = 0
    """Model calls so far."""
    tool_calls: int = 0
    """Tool calls so far."""
    cost_usd: float = 0.0
    """The cost by the agent's `prices`; 0 without prices."""
    parent_step_id: str | None = None
    """The delegation that waits for it."""
    depth: int = 0
    """The number of delegations above it."""
    forked_from: str | None = None
    """The run that it was forked from."""
    batch_id: str | None = None
    """The batch that made it."""
    batch_position: int | None = None
    """The position of its input in the batch, from 0."""
    created_at: datetime | None = None
    """The time of the submit, in UTC."""
    started_at: datetime | None = None
    """The time of the first claim, in UTC."""
    ended_at: datetime | None = None
    """The time of its end, in UTC."""
    deadline_at: datetime | None = None
    """When it is ended, whatever it does; UTC."""
    paused_at: datetime | None = None
    """Since when it is paused; UTC."""


class Step(msgspec.Struct, frozen=True):
    """A row of `agno.step`: one unit of a run, executed by one Celery task."""

    id: str
    """A UUID, and the idempotency key of a tool call."""
    run_id: str
    """Its run."""
    key: str
    """Unique in the run's generation: `turn:3`, `tool:3:0`."""
    kind: StepKind
    """A turn, a tool call, a delegation, or a part of an ingestion."""
    status: StepStatus
    """Its status at the time of the query."""
    queue: str
    """The Celery queue that it is sent to."""
    name: str = ""
    """The name of the tool or of the agent that a call goes to; for a turn that of its agent, where agents hand a run over to each other, else empty."""
    seq: int = 0
    """The position of its first message in the transcript."""
    arrival: int | None = None
    """For a step of a workflow or of a team that code leads: the place of its end among the ends of the run's steps; 0 before."""
    effect: str | None = None
    """The effect of its tool."""
    attempt: int = 0
    """Executions so far."""
    worker: str | None = None
    """The worker that claimed it last; ` (its process died)` or ` (gave it up)` follows where that ended the step's lease."""
    error: dict[str, Any] | None = None
    """The error of the last failed attempt, also when a later attempt succeeded."""
    waits_for: WaitsFor | None = None
    """The event that ends its wait, if it waits."""
    expires_at: datetime | None = None
    """The end of its lease or of its wait; UTC."""
    answer: dict[str, Any] | None = None
    """A person's answer: `{"verdict", "by", "note", "values"}`."""
    child_run_id: str | None = None
    """The run that a delegation waits for."""
    not_before: datetime | None = None
    """When it is due; UTC."""
    created_at: datetime | None = None
    """UTC."""
    sent_at: datetime | None = None
    """The last time it was sent; a message that was lost is sent again."""
    ready_at: datetime | None = None
    """Since when it could start, if it has not."""
    started_at: datetime | None = None
    """The start of the last execution; UTC."""
    ended_at: datetime | None = None
    """UTC."""

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
    """A UUID."""
    agent: str
    """The name of the agent."""
    status: RunStatus
    """`done`, `failed` or `cancelled`."""
    content: Any
    """The answer: text, or the JSON value of `output_schema`."""
    reason: str | None
    """Why it ended; see `Run.reason`."""
    usage: Usage
    """Tokens of all turns."""
    turns: int
    """Model calls."""
    tool_calls: int
    """Tool calls."""
    error: dict[str, Any] | None = None
    """`{"type", "message", "ids"}` of a run that failed or was cancelled."""
