"""Values that the engine, the broker and Postgres exchange about steps: claims, new steps, results, messages to publish.

STEP_TYPES is the one table of step kinds. A new kind of step is a row here and a handler in its feature's module, which
`wiring.handlers` binds to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from agno_workers.core.messages import Message, ToolCall, Usage, read_call
from agno_workers.core.run import RunKind, RunStatus, StepKind, WaitsFor
from agno_workers.core.scopes import TeamPlace
from agno_workers.core.tool import Effect, Policy

Queue = Literal["agents", "tools", "knowledge", "background"]
"""The role of a queue in the settings."""


class StepType(NamedTuple):
    """A kind of step: the Celery task that executes it, the role of its queue, and the kind of run that it starts."""

    kind: StepKind
    task: str
    queue: Queue
    starts: RunKind | None = None
    """A run of this kind begins with such a step."""


STEP_TYPES = {
    each.kind: each
    for each in (
        StepType(StepKind.TURN, "agno.turn", "agents", starts=RunKind.AGENT),
        StepType(StepKind.TOOL, "agno.tool", "tools"),
        StepType(StepKind.SCAN, "agno.scan", "knowledge", starts=RunKind.INGESTION),
        StepType(StepKind.INGEST, "agno.ingest", "knowledge"),
        StepType(StepKind.EMBED, "agno.embed", "knowledge"),
        StepType(StepKind.FINALIZE, "agno.finalize", "knowledge"),
        StepType(StepKind.COMPACT, "agno.compact", "agents"),
        StepType(StepKind.BACKGROUND, "agno.background", "background", starts=RunKind.BACKGROUND),
    )
}
"""Every kind of step that a worker executes. A delegation is not among them: its child run does the work."""

FIRST_STEP = {each.starts: each.kind for each in STEP_TYPES.values() if each.starts} | {
    RunKind.TEAM: StepKind.TURN,
    RunKind.WORKFLOW: StepKind.TURN,
}


class TreeLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a team or a workflow, which hold for all model calls of a run of it and of the runs below."""

    run_id: str
    tokens: int | None = None
    cost_usd: float | None = None


class LimitMet(msgspec.Struct, frozen=True):
    """The limit of a tree that is in the way of a model call."""

    run_id: str
    """The run whose limit it is."""
    what: str
    """`tokens` or `cost`."""
    used: float
    held: float
    """The most that other calls under way may still use."""
    limit: float

    def is_final(self, need: float) -> bool:
        """Return whether the call can't be made, also after the end of all calls under way."""
        return not self.held or self.used + need > self.limit

    @property
    def reason(self) -> str:
        return f"limit:tree_{self.what}"

    @property
    def waiting(self) -> str:
        return f"the call waits for others: run {self.run_id} has used {self.used:g} of its limit of {self.limit:g} {self._unit}, and calls under way may use {self.held:g}"

    def refusal(self, need: float) -> str:
        return (
            f"the model was not called: run {self.run_id} and those below it have used {self.used:g} of {self.limit:g} {self._unit}, "
            f"and the call may use {need:g}: raise the limits of its team or workflow"
        )

    @property
    def _unit(self) -> str:
        return "US dollars" if self.what == "cost" else "tokens"


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The place of a delegated run in its tree; empty for the root."""

    root: str = ""
    """The id of the first run."""
    path: tuple[str, ...] = ()
    """The names of the agents, teams and workflows from the root to the run's parent."""
    team: TeamPlace | None = None
    """The nearest team above it."""
    limits: tuple[TreeLimit, ...] = ()
    """The limits of the runs above it."""


class StepMessage(msgspec.Struct, frozen=True):
    """A pending message for Celery: the ids of a ready step."""

    outbox_id: int | None
    run_id: str
    step_id: str
    generation: int
    kind: StepKind
    queue: str
    priority: int | None = None


class CanvasContinuation(msgspec.Struct, frozen=True):
    """A pending part of a user's canvas: the tasks after an ended run, or the body of a chord."""

    outbox_id: int
    ended_run_id: str | None = None
    chord_id: str | None = None


class Submitted(msgspec.Struct, frozen=True):
    """The result of a submit."""

    run_id: str
    created: bool
    """False: a run with this id or idempotency key exists already, or the message joined a live run; that run is returned."""
    send: StepMessage | None
    steer_id: str | None = None
    """The id of the message that joined a live run."""


class Steered(msgspec.Struct, frozen=True):
    """A message to a live run, which joins it at this turn."""

    id: str
    message: Message


class Compacted(msgspec.Struct, frozen=True):
    """The part of a transcript that a summary stands for."""

    until_seq: int
    """The summary stands for the messages before this position."""
    keeps_first: bool = True
    """True: the first message, the task, stands before the summary as it is."""

    @property
    def prefix(self) -> int:
        """The number of messages in front of the one at `until_seq`."""
        return 1 + self.keeps_first


class CompactionOrder(msgspec.Struct, frozen=True):
    """The size of a compaction: the `call` of its step. All numbers are tokens as `core.tokens` estimates them."""

    number: int
    """1 for the first compaction before a turn."""
    window: int
    """The context window of the agent's model."""
    keep: int
    """The newest messages that are kept as they are."""
    used: Usage = Usage()
    """The tokens of a model call that met the end of the window."""


class CompactionRecord(msgspec.Struct, frozen=True):
    """A summary that takes the place of the messages before a position."""

    until_seq: int
    keeps_first: bool
    summary: str
    tokens_before: int
    """The estimated tokens of the transcript."""
    tokens_after: int


class ClaimedStep(msgspec.Struct, frozen=True):
    """The right to execute one step, with the data of the step and its run that the worker needs."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    key: str
    seq: int
    """The position of its first message in the transcript."""
    attempt: int
    tries: int
    """Attempts that ended with an error instead of a crash."""
    agent: str
    created_at: datetime
    """When the run was submitted."""
    name: str = ""
    call: dict[str, Any] | None = None
    """The arguments of the step: a ToolCall for a tool step; other kinds store their own."""
    effect: Effect | None = None
    policy: Policy = Policy()
    answer: dict[str, Any] | None = None
    """A person's answer: `{"verdict", "by", "note", "values"}`."""
    reconciling: bool = False
    """The last attempt of a `once` tool was interrupted: call its reconcile hook first."""
    tenant: str = "default"
    priority: int | None = None
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}
    canvas: dict[str, Any] | None = None
    turns: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    cost_usd: float = 0.0
    depth: int = 0
    deadline_at: datetime | None = None
    parent_run_id: str | None = None
    lineage: Lineage = Lineage()
    team: TeamPlace | None = None
    """The team that its run works for, or is a run of; `Engine.placed` sets it."""
    arrival: int | None = None
    """0 for a call of a program; None for other steps."""
    definition: str | None = None
    """The sha256 of the agent's definition when the run began; None before its first turn is recorded."""
    transcript: tuple[Message, ...] | None = None
    """The messages before a turn or a compaction; None for other kinds. Those that were compacted are missing, see `compacted`."""
    compacted: Compacted | None = None
    """Set where the transcript begins with a summary."""
    steers: tuple[Steered, ...] = ()
    """The messages that join the run at this turn: they follow the transcript, and are recorded with the turn."""
    counted_by: tuple[TreeLimit, ...] = ()
    """The limits of trees that its model call counts for; the engine sets them before the call."""
    unreadable: str = ""
    """Why the stored call or transcript can't be read; it is then missing here."""

    def below(self, is_team: bool, limits: tuple[TreeLimit, ...] = ()) -> Lineage:
        """Return the lineage of the runs that this run starts. `limits` are those of its tree and of the trees above."""
        above = self.lineage
        team = TeamPlace(self.agent, self.run_id, self.session_id) if is_team else above.team
        return Lineage(above.root or self.run_id, self.path, team, limits)

    @property
    def acting(self) -> str:
        """The agent whose turn or tool call it is; the run's, or another one that has taken the run over, see `core.handoff`."""
        return (self.name if self.kind is StepKind.TURN else self.policy.agent) or self.agent

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the root of the tree to this run."""
        return (*self.lineage.path, self.agent)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript, and the messages that join the run at this turn."""
        before = self.transcript or ()
        return (*before, *(each.message for each in self.steers)) if self.steers else before

    @property
    def input(self) -> str:
        """The text of the first message."""
        return self.messages[0].text if self.messages else ""

    @property
    def numbered(self) -> Iterator[tuple[int, Message]]:
        """The messages with their positions in the whole transcript; a summary has none."""
        first = self.compacted.until_seq - self.compacted.prefix if self.compacted else 0
        for place, message in enumerate(self.messages):
            if self.compacted is None or place >= self.compacted.prefix:
                yield first + place, message
            elif place == 0 and self.compacted.keeps_first:
                yield 0, message

    @property
    def tool_call(self) -> ToolCall:
        return read_call(self.call) if self.call else ToolCall("", self.name)

    @property
    def call_id(self) -> str | None:
        return (self.call or {}).get("id")


class ExhaustedStep(msgspec.Struct, frozen=True):
    """A step whose lease ran out, or that no worker could begin, and that will not be attempted again."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    name: str
    attempt: int
    worker: str
    seq: int
    effect: Effect | None = None
    call_id: str | None = None
    policy: Policy = Policy()
    agent: str = ""
    arrival: int | None = None
    """0 for a call of a program."""
    raised: dict[str, Any] | None = None
    """The error that workers raised before they began it; None for a lease that ran out."""

    @property
    def error(self) -> dict[str, Any]:
        """Return why it ends, as `AgnoError.to_json` does."""
        ids = {"run_id": self.run_id, "step_id": self.step_id}
        if self.raised is not None:
            text = f"no worker could begin it in {self.raised['ids']['returns']} tries, the last one {self.raised['message']}"
            return self.raised | {"message": text, "ids": ids}
        text = f"attempt {self.attempt} on {self.worker} ended without a result, and no further attempt is allowed"
        return {"type": "LeaseExpired", "message": text, "ids": ids}

    @property
    def reason(self) -> str:
        """The reason of a run that ends with it."""
        return "worker_lost" if self.raised is None else "worker_error"


class ExpiredWait(msgspec.Struct, frozen=True):
    """A waiting step that a person answers now, or whose time to answer has expired."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    name: str
    seq: int
    waits_for: WaitsFor
    attempt: int
    """The attempt after which it began to wait; an answer about an earlier attempt is refused."""
    call_id: str | None = None
    policy: Policy = Policy()
    agent: str = ""
    arrival: int | None = None
    """0 for a call of a program."""


class ChildRun(msgspec.Struct, frozen=True):
    """A run to be submitted by the turn that delegates to it."""

    agent: str
    queue: str
    input: Message
    kind: RunKind = RunKind.AGENT
    lineage: Lineage = Lineage()


class CallStep(msgspec.Struct, frozen=True):
    """A call of a program, to be written by its turn."""

    key: str
    kind: StepKind
    queue: str
    name: str = ""
    call: dict[str, Any] = {}
    """`kind`, a CallKind, and the arguments of a function or the data of an approval."""
    effect: Effect | None = None
    max_attempts: int = 1
    policy: Policy = Policy()
    waits_for: WaitsFor | None = None
    expires_at: datetime | None = None
    """The time of a timer."""
    child: ChildRun | None = None


class ToolStep(msgspec.Struct, frozen=True):
    """A tool call to be written by a turn."""

    call: ToolCall
    queue: str
    effect: Effect
    max_attempts: int
    policy: Policy = Policy()
    child: ChildRun | None = None
    """The run that a delegation starts; no worker executes the step itself."""


class Definition(msgspec.Struct, frozen=True):
    """An agent as it was when a run began, as JSON, and the hash that identifies it."""

    sha256: str
    content: dict[str, Any]


class FollowUp(msgspec.Struct, frozen=True):
    """Background work that the end of a run asks for; see `sessions/background.py`."""

    kind: str
    """The work, such as `summary`."""
    owner: str
    """The session, the user or the other owner of the work: one run at a time does the work of one kind for one owner."""
    after_position: int = 0
    """Above 0: only runs at a later position in their session ask."""
    every: int = 1
    """Above 1: of these, only each one at so many positions asks."""


class TurnRecord(msgspec.Struct, frozen=True):
    """The facts of a turn that are recorded with its move: messages, usage, cost, and the agent's definition at the first turn."""

    messages: tuple[Message, ...] = ()
    usage: Usage | None = None
    """None: no model was called."""
    cost_usd: float = 0.0
    definition: Definition | None = None
    follow_ups: tuple[FollowUp, ...] = ()
    """Set where the run ends."""
    next_agent: str = ""
    """The agent that takes the next turn, where agents hand a run over to each other."""
    is_program: bool = False
    """A turn of a program: its end is that of its open calls."""
    kept: Any = None
    """JSON that is stored with the turn, for `RunHandle.record`."""
    steered: tuple[str, ...] = ()
    """The ids of the messages to the live run that are among `messages`."""


class RunEnd(msgspec.Struct, frozen=True):
    """The end of a run, for the log and for Celery."""

    run_id: str
    agent: str
    status: RunStatus
    reason: str
    error: dict[str, Any] | None = None
    """The error of a failed run, as `AgnoError.to_json` describes it."""


class CommitResult(msgspec.Struct, frozen=True):
    """The effect of a commit. `recorded` is False when another result came first or the run has ended: this one was discarded."""

    recorded: bool
    sends: tuple[StepMessage, ...] = ()
    body: StepMessage | None = None
    """The turn that the last tool of a fan-out starts; it is sent then, not now."""
    barrier_id: str | None = None
    children: tuple[StepMessage, ...] = ()
    """The first turns of the delegated runs of a fan-out."""
    parent_run_id: str | None = None
    """Set when a delegated run ends: the run whose next turn that may start."""
    continues: tuple[str, str | None] | None = None
    """Set when a run in a user's canvas ends: `(run_id, chord_id)`."""
    ended: RunEnd | None = None
    """Set when the run ends."""
    agent: str = ""
    """The agent of the step that a worker executed."""
    cause: Any = None
    """The exception that failed the run, if there is one."""


NOT_RECORDED = CommitResult(False)
