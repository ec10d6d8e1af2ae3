"""A tool as a value: what the model is told, what is called, and what a repeated call may do to the world."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any, Literal

import msgspec

from agno_workers.core.messages import ToolSpec
from agno_workers.core.policy import Retry
from agno_workers.core.run import WaitsFor


class Effect(StrEnum):
    """What a second execution of a tool call does outside; it decides what follows a crash in the middle."""

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
    """What a reconcile hook returns when the effect did not happen, and can't happen any more: the tool runs then."""

    NOT_DONE = "not_done"


NOT_DONE = NotDone.NOT_DONE


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tool asks for beyond its effect. It is written with each of its steps: the keeper and people go by it."""

    offered: bool = True
    """The worker that wrote the step has this tool; False: the model made its name up."""
    reconcile: bool = False
    """After a crash the tool's hook is asked what happened."""
    on_unknown: Literal["tell", "ask"] = "tell"
    """Of a `once` tool that was cut short, and nobody knows: tell the model so, or wait for a person."""
    needs: WaitsFor | None = None
    """What a call waits for before it is executed: `confirmation`, `answer` or `execution`."""
    fields: tuple[str, ...] = ()
    """Arguments that a person fills in; the model does not see them."""
    within_s: float | None = None
    """How long a person may take; None: for as long as the run lives."""
    on_timeout: Literal["reject", "approve", "fail"] = "reject"
    """What follows when nobody answered: the model is told, the call is made, the run fails."""


class Tool(msgspec.Struct, frozen=True):
    """A function that a model may call. Made by `@tool`; see `agno_workers.tools`."""

    spec: ToolSpec
    function: Callable[..., Any]
    """Called with the validated arguments, and with `ctx` where its signature asks for one."""
    effect: Effect = Effect.AT_LEAST_ONCE
    timeout_s: float = 60.0
    queue: str | None = None
    """The Celery queue that carries its calls; None is the setting `queues.tools`."""
    max_attempts: int = 3
    """Executions at the most that a crash may cut short."""
    retry: Retry = Retry()
    """How often, and how long apart, a call is tried that raised `TryAgain` or one of `retry_on`."""
    retry_on: tuple[type[BaseException], ...] = ()
    reconcile: Callable[..., Any] | None = None
    """Called in a `once` tool's place after a crash, with the same arguments."""
    policy: Policy = Policy()

    @property
    def name(self) -> str:
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it had never been decorated."""
        return self.function(*args, **kwargs)


class ToolContext(msgspec.Struct, frozen=True):
    """What a tool may know of the run it works for: a parameter named `ctx` receives it."""

    run_id: str
    step_id: str
    call_id: str
    agent: str
    attempt: int
    """1 for the first execution of this call."""
    key: str = ""
    """Which call of the run it is: `tool:2:0` is the first one of the second turn."""
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}
    """What the caller gave with the run."""
    answer: dict[str, Any] = {}
    """What a person said to this call: `{"verdict", "by", "note", "values"}`; empty where nobody was asked."""
    connection: Any = None
    """A psycopg connection inside the step's transaction, for `transactional` tools; None for the others."""
    cancelled: Callable[[], bool] = lambda: False
    """True once the run was cancelled: a long tool looks at it now and then, and returns."""
    emit: Callable[[str], None] = lambda _: None
    """Shows a line of progress to whoever watches the run."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this call, and for no other call: hand it to APIs that take one."""
        return self.step_id


class ToolOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one call. A failure is an outcome too: the model reads `content`."""

    content: str
    is_error: bool = False
    kind: str = "ok"
    """`ok`, `raised`, `again`, `timeout`, `invalid_arguments`, `unknown_tool` or `unserialisable`; of a reconcile
    hook also `not_done` and `unknown`."""
    after_s: float | None = None
    """Of `again`: wait at least so long."""
