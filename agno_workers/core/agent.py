"""An agent as a value: its model, instructions, tools and bounds.

An Agent holds no connection, no state and no history, so it costs next to nothing to build and is safe to
share. `agno_workers.Agent` adds the verbs: `delay`, `s`, `run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from agno_workers.core.messages import ModelSettings, Usage
from agno_workers.core.policy import Retry
from agno_workers.core.ports import Model


class History(msgspec.Struct, frozen=True):
    """How much of the session's past the model sees: the messages of the last `runs` finished runs."""

    runs: int = 0


class Context(msgspec.Struct, frozen=True):
    """Facts put into the system text under a heading, as JSON."""

    facts: dict[str, Any] = {}
    datetime: bool = False
    """Tell the model the time at which the run was submitted (UTC)."""


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one run; its `reason` names the limit that it met, as `limit:turns`."""

    turns: int = 20
    """Model calls."""
    tool_calls: int = 200
    """Tool calls in all turns together."""
    tokens: int | None = None
    """Input and output tokens of all turns together."""
    cost_usd: float | None = None
    """US dollars of all turns together, by the agent's `prices`; a delegation's run has limits of its own."""
    deadline_s: float | None = None
    """Seconds from the submit to the end, whatever the run is doing then; its delegations end with it."""
    on_limit: Literal["fail", "return"] = "fail"
    """`fail`: the run fails with LimitReached, and keeps its last text. `return`: it is done, with its last text as the answer."""


class Prices(msgspec.Struct, frozen=True):
    """Prices of the agent's model, in US dollars for a million tokens. Providers change theirs: none are built in."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = None
    """For input that the provider had cached; None: as other input."""

    def cost_usd(self, usage: Usage) -> float:
        cached = self.input_usd if self.cached_usd is None else self.cached_usd
        fresh = usage.input_tokens - usage.cached_tokens
        return (
            fresh * self.input_usd + usage.cached_tokens * cached + usage.output_tokens * self.output_usd
        ) / 1e6


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of an agent. Two agents with equal fields are equal."""

    name: str
    """Callers in other services use this name; unique among the imported agents."""
    model: str | Model
    """`"openai:gpt-..."`, `"anthropic:claude-..."`, `"local:..."`, or any object with `name` and `ask`."""
    description: str = ""
    instructions: str | Sequence[str] = ""
    tools: Sequence[Any] = ()
    """Functions, `@tool`s, toolkits, and other agents: a call of an agent is a run of its own (a delegation)."""
    knowledge: Any = None
    """A knowledge base that it may search, or a binding that says how; see `agno_workers.Knowledge`."""
    output_schema: type[Any] | None = None
    """A pydantic model that the final answer must fit; the run's content is then its JSON value."""
    settings: ModelSettings = ModelSettings()
    history: History = History()
    context: Context = Context()
    limits: Limits = Limits()
    prices: Prices | None = None
    retry: Retry = Retry()
    queue: str | None = None
    """The Celery queue of its turns; None: the settings' queue for agents."""
    metadata: dict[str, Any] = {}
