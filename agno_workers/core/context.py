"""The context of an agent: values that its model sees beside the conversation, and where they come from.

Context({
    "timezone": "UTC",                                                   static
    "hours": business_hours,                                             dynamic: a function, called once a run
    "weather": External(get_weather, ttl_s=600, scope="agent"),          from outside, kept for all runs until it is old
    "mood": Computed(mood_of, needs=("history",)),                       from other values
    "place": Private(where_is, category="location"),                     not called for users who denied the category
}, tokens=2_000)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, Literal

import msgspec

from agno_workers.core.checks import Count, Positive, brief, json_object, misfit
from agno_workers.core.fields import Fields
from agno_workers.core.state import Scope
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput

CacheScope = Literal["session", "user", "agent", "global"]
GIVEN = ("history", "input", "state")
"""The names that `Computed(needs=...)` may have beside other values of the context."""


class RunContext(msgspec.Struct, frozen=True):
    """The run that context is for: a parameter named `ctx` of a function in `Context` receives it."""

    run_id: str
    """The run."""
    agent: str
    """The name of the agent."""
    session_id: str | None = None
    """The run's session."""
    user_id: str | None = None
    """The run's user."""
    metadata: dict[str, Any] = {}
    """The metadata of the run."""
    input: str = ""
    """The text of the run's input."""


class Source(msgspec.Struct, metaclass=Fields, frozen=True):
    """Where a value of the context comes from."""

    value: Any
    """A JSON value, or a function that returns one: plain or async, with a parameter `ctx` if it needs the run."""


class Fact(Source, frozen=True, kw_only=True):
    """A value, or a function, with options. `Context({"name": value})` is the short form of `Fact(value)`."""

    category: str | None = None
    """A category that a user may deny, such as `location`; see `client.consent`. None: it is always shown."""
    priority: int = 0
    """The value with the lower priority is left out first; of equal ones the later."""
    timeout_s: Positive = 10.0
    """Seconds that the function may take."""
    on_error: Literal["fail", "omit", "stale"] = "fail"
    """When the function raises or is late. `fail`: the turn fails and is tried again. `omit`: it is left out. `stale`: the last value is
    shown, or it is left out."""

    _kind: ClassVar[str] = "dynamic"

    @property
    def source(self) -> str:
        """`static`, `dynamic`, `external`, `computed` or `private`."""
        return self._kind if self.is_called or type(self) is not Fact else "static"

    @property
    def is_called(self) -> bool:
        """True for a function."""
        return callable(self.value)

    def fault(self, known: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - for Computed
        """Return what is wrong with it, or None. `known` are the values of the context by name."""
        if wrong := misfit(type(self), self):
            return f"{wrong[0]} {wrong[1]}"
        if not self.is_called:
            return None if json_object({"": self.value}) is None else f"is not JSON: {brief(self.value)}"
        return _parameters_fault(self.value, self._passed)

    @property
    def _passed(self) -> tuple[str, ...]:
        return ("ctx",)


class External(Fact, frozen=True, kw_only=True):
    """A value from outside, which is kept until it is old. One worker fetches it; others take the old value, or wait for the new one."""

    ttl_s: Positive = 600.0
    """Seconds for which a fetched value is used."""
    scope: CacheScope = "agent"
    """The runs that share the value: those of a session, of a user, of the agent, or of all agents with this key. For the last two, the
    function can't ask for `ctx`: it would show a user what was fetched for another."""
    timeout_s: Positive = 3.0
    """Seconds that the function may take."""
    on_error: Literal["fail", "omit", "stale"] = "stale"
    """See Fact."""

    _kind: ClassVar[str] = "external"

    def fault(self, known: Mapping[str, Any]) -> str | None:
        """See Fact."""
        if fault := Fact.fault(self, known):
            return fault
        if not self.is_called:
            return "needs a function that fetches the value"
        if self.scope in ("agent", "global") and "ctx" in parameters_of(self.value):
            return (
                f"is shared by the runs of all users (scope={self.scope!r}), and its function asks for ctx, which is the run of one: "
                "use scope='user' or 'session', or a function without ctx"
            )
        return None


class Computed(Fact, frozen=True, kw_only=True):
    """A value that a function computes from others, which are passed by their names."""

    needs: tuple[str, ...] = ()
    """Names of other values of the context, or `history` (a tuple of messages), `input` (text), `state` (a dict)."""

    _kind: ClassVar[str] = "computed"

    def fault(self, known: Mapping[str, Any]) -> str | None:
        """See Fact."""
        if fault := Fact.fault(self, known):
            return fault
        for name in self.needs:
            if name not in known and name not in GIVEN:
                return (
                    f"needs {name!r}, which the context does not have.{did_you_mean(name, [*known, *GIVEN])}"
                )
        return None if self.is_called else "needs a function that computes the value"

    @property
    def _passed(self) -> tuple[str, ...]:
        return ("ctx", *self.needs)


class Private(Fact, frozen=True, kw_only=True):
    """A value of a category that a user may deny: then its function is not called."""

    category: str
    """The category, such as `location`."""
    on_error: Literal["fail", "omit", "stale"] = "omit"
    """See Fact."""

    _kind: ClassVar[str] = "private"


class Context(msgspec.Struct, metaclass=Fields, frozen=True):
    """Values that are added to the system text, as JSON under a heading. Functions are called once a run, side by side, and the run
    keeps what they returned: a repeated turn sees the same."""

    facts: dict[str, Any] = {}
    """By name: JSON values, functions, and `External`, `Computed`, `Private` or `Fact` with options."""
    datetime: bool = False
    """Tell the model the time at which the run was submitted (UTC)."""
    resolve: bool = True
    """Call the functions. False: only values that need no call are shown."""
    tokens: Count | None = 2_000
    """The most tokens of all values, estimated. What does not fit is left out by its priority, and the run records that. None: no limit."""
    state: bool | Scope = False
    """Show the state of the session, or of another scope, such as "team", as it is when the run begins. A run without an owner there sees none."""

    def __post_init__(self) -> None:
        """Raise InvalidInput for a value that can't work."""
        if wrong := misfit(Context, self):
            raise InvalidInput(f"Context: {wrong[0]} {wrong[1]}.")
        sources = self.sources
        for name, source in sources.items():
            if fault := source.fault(sources):
                raise InvalidInput(f"Context: {name!r} {fault.rstrip('.')}.")
        needs = {name: [*each.needs] for name, each in sources.items() if isinstance(each, Computed)}
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            ring = " -> ".join(map(repr, error.args[1]))
            raise InvalidInput(
                f"Context: values need each other in a ring: {ring}. Remove one of the needs."
            ) from None

    @property
    def sources(self) -> dict[str, Fact]:
        """The values by name, in order."""
        return {name: each if isinstance(each, Fact) else Fact(each) for name, each in self.facts.items()}

    @property
    def declared(self) -> Context:
        """The part without functions, for the definition that runs store."""
        plain = {
            name: value
            for name, value in self.facts.items()
            if not isinstance(value, Fact) and not callable(value)
        }
        return msgspec.structs.replace(self, facts=plain)


def _parameters_fault(function: Callable[..., Any], passed: tuple[str, ...]) -> str | None:
    if isinstance(function, type):
        return f"is the class {function.__name__}: pass a function or a value"
    for each in parameters_of(function).values():
        is_named = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if (
            each.default is each.empty
            and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            and not (is_named and each.name in passed)
        ):
            return f"has a function with a parameter {each.name!r}: only {', '.join(passed)} can be passed"
    return None


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function by name. A function of C without a signature gets no argument."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
