"""A tool as a value: its description for the model, its function, and the effect of a repeated call."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any, Literal

import msgspec

from agno_workers.core.messages import ToolSpec
from agno_workers.core.policy import Retry
from agno_workers.core.run import WaitsFor
from agno_workers.core.scopes import TeamPlace
from agno_workers.core.state import Scope, State, States, owner_of


class Effect(StrEnum):
    """The effect of a second execution of a tool call; it decides what follows a crash in the middle."""

    AT_LEAST_ONCE = "at_least_once"
    """The default: run again, so the effect may happen twice."""
    PURE = "pure"
    """Only reads or calculates: run again."""
    IDEMPOTENT = "idempotent"
    """Run again; the author promises that the same `ctx.idempotency_key` has the effect once."""
    TRANSACTIONAL = "transactional"
    """Writes on `ctx.connection`, which commits with the result or not at all: run again."""
    ONCE = "once"
    """Not run again after a crash: its `reconcile` hook or a person decides, or the step stays `unknown`."""


class NotDone(Enum):
    """The answer of a reconcile hook that the effect did not happen and can't happen any more; then the tool runs."""

    NOT_DONE = "not_done"


NOT_DONE = NotDone.NOT_DONE


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool's rules beside its effect. Each of its steps stores them, for the keeper and for people."""

    offered: bool = True
    """False when the model made up the tool's name."""
    reconcile: bool = False
    """The tool has a hook that is asked after a crash."""
    on_unknown: Literal["tell", "ask"] = "tell"
    """For an interrupted `once` tool whose effect is unknown: tell the model, or ask a person."""
    needs: WaitsFor | None = None
    """A call waits for this before it is executed: `confirmation`, `answer` or `execution`."""
    fields: tuple[str, ...] = ()
    """Arguments that a person fills in; the model does not see them."""
    types: dict[str, str] = {}
    """Their types in JSON schema, such as `integer`, where it is a single one."""
    within_s: float | None = None
    """Seconds that a person may take; None: until the run ends."""
    on_timeout: Literal["reject", "approve", "fail"] = "reject"
    """When nobody answered: the model is told, the call is made, or the run fails."""
    agent: str = ""
    """The agent whose tool it is, where agents hand a run over to each other."""
    refusal: str = ""
    """Why the call is not made: its result."""
    shares_interactions: bool = False
    """For a delegation: its result has the tool calls of its run."""


class Tool(msgspec.Struct, frozen=True):
    """A function that a model may call. Made by `@tool`; see `agno_workers.tools`."""

    spec: ToolSpec
    """Name, description and JSON schema, as the model reads them."""
    function: Callable[..., Any]
    """Called with the validated arguments, and with `ctx` if it has that parameter."""
    effect: Effect = Effect.AT_LEAST_ONCE
    """The effect of a repeated call."""
    timeout_s: float = 60.0
    """Seconds that one execution may take."""
    queue: str | None = None
    """The Celery queue of its calls; None is the setting `queues.tools`."""
    max_attempts: int = 3
    """The call is `dead` after this many executions that a crash interrupted."""
    retry: Retry = Retry()
    """Attempts and delays of a call that raises `TryAgain` or one of `retry_on`."""
    retry_on: tuple[type[BaseException], ...] = ()
    """Exceptions that are worth another attempt."""
    reconcile: Callable[..., Any] | None = None
    """For a `once` tool: called in its place after a crash, with the same arguments."""
    policy: Policy = Policy()
    """The rules for people, and for a call whose effect nobody knows."""
    offload: bool = True
    """False: its results stay in the transcript, however large."""
    reads_stored: bool = False
    """It reads results that were stored beside the transcript: it is offered once there are some."""
    for_teams: bool = False
    """It is offered in runs that work for a team only."""

    @property
    def name(self) -> str:
        """The name that the model calls."""
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the undecorated function."""
        return self.function(*args, **kwargs)


class ToolContext(msgspec.Struct, frozen=True):
    """The call and its run, for a tool: a parameter named `ctx` receives it."""

    run_id: str
    """The run."""
    step_id: str
    """The step of this call."""
    call_id: str
    """The model's id of the call."""
    agent: str
    """The name of the agent."""
    attempt: int
    """1 for the first execution of this call."""
    key: str = ""
    """The step's key: `tool:2:0` is the first call of the second turn."""
    session_id: str | None = None
    """The run's session."""
    user_id: str | None = None
    """The run's user."""
    team: str | None = None
    """The name of the team that the run works for, or is a run of; None: no team."""
    metadata: dict[str, Any] = {}
    """The metadata of the run."""
    answer: dict[str, Any] = {}
    """A person's answer: `{"verdict", "by", "note", "values"}`; empty when nobody was asked."""
    connection: Any = None
    """For a `transactional` tool: a psycopg connection in the step's transaction."""
    cancelled: Callable[[], bool] = lambda: False
    """Return True once the run is cancelled or the call is late: a long tool checks it, and returns."""
    emit: Callable[[str], None] = lambda _: None
    """Send a line of progress to the readers of the run's events."""
    scratch: dict[str, Any] = {}
    """Values of any kind for later calls of this run in this process. Another process has others, and all are lost when the run or the process ends."""
    _states: States = msgspec.field(default_factory=States)
    _place: TeamPlace | None = None
    _report: Callable[[object, object], None] = lambda *_: None

    def report(self, text: str, fraction: float | None = None) -> None:
        """Report how far the work is: `ctx.report("half way", 0.5)`. It is an event `Report` of the run at once, also of the team's run and of
        the first run above it. `fraction` is from 0 to 1. It never raises: what can't be stored is dropped, and logged.
        """
        self._report(text, fraction)

    @property
    def state(self) -> State:
        """The state of the run's session; without a session, that of the run. What a call writes is committed with its result."""
        return self.state_of("session" if self.session_id else "run")

    def state_of(self, scope: Scope) -> State:
        """Return the state of the run's user, agent or team, of the run, or of all runs (`global`). Raises InvalidInput where the run has no such owner."""
        owner = owner_of(
            scope,
            session_id=self.session_id,
            user_id=self.user_id,
            agent=self.agent,
            run_id=self.run_id,
            team=self._team,
        )
        return self._states.of(scope, owner)

    @property
    def _team(self) -> TeamPlace | None:
        """The team; one of a unit test that names one is that of its run."""
        if self._place or not self.team:
            return self._place
        return TeamPlace(self.team, self.run_id, self.session_id)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this call, and for no other call: pass it to APIs that accept one."""
        return self.step_id


class ToolOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one call. A failure is an outcome too: the model reads `content`."""

    content: str
    is_error: bool = False
    kind: str = "ok"
    """`ok`, `raised`, `again`, `timeout`, `invalid_arguments`, `unknown_tool`, `refused` or `unserialisable`; from a reconcile hook
    also `not_done` and `unknown`."""
    after_s: float | None = None
    """For `again`: the least number of seconds to wait."""
