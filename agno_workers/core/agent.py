"""An agent as a value: its model, instructions, tools and limits.

An Agent has no connection, no state and no history, so it is cheap to build and safe to share. `agno_workers.Agent` adds the
verbs: `delay`, `s`, `run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from agno_workers.core import checks
from agno_workers.core.checks import Check, Count, CountOrZero, Positive, PositiveOrZero, Share
from agno_workers.core.context import Context
from agno_workers.core.delegate import Delegate
from agno_workers.core.fields import Fields
from agno_workers.core.messages import ModelSettings, Usage
from agno_workers.core.policy import Retry
from agno_workers.core.ports import Model
from agno_workers.core.runnable import Runnable
from agno_workers.errors import InvalidInput


class History(msgspec.Struct, metaclass=Fields, frozen=True):
    """The part of the run's session and of earlier ones that the model sees. Runs of other agents and of other users are not part of it.

    In the order of the request: the summary of the session and relevant exchanges of earlier sessions, then the older runs of the
    session, compressed, then its last `runs` as they were. The newest come first where `tokens` does not suffice for all.
    """

    runs: CountOrZero = 5
    """The last runs of the session, word for word; 0: no runs of the session, also no older ones."""
    tokens: Count = 8_000
    """The most tokens of the whole history, estimated (4 bytes of UTF-8 are a token)."""
    tool_results: CountOrZero = 3
    """The number of newest tool results that keep their text; an older one is replaced by a line with its tool and its size."""
    roles: tuple[Literal["user", "assistant", "tool"], ...] = ("user", "assistant", "tool")
    """The messages that are kept: questions, answers, and tool calls with their results."""
    only: Literal["done", "all"] = "done"
    """`done`: runs that succeeded, and interrupted ones, which are marked. `all`: also failed and cancelled ones, marked."""
    older: bool = True
    """Also the runs before the last `runs`, as the budget allows: without reasoning and blank runs, and with repeated tool results once."""
    summary: bool = True
    """Sum up the runs before the last `runs` in the background, and show the summary where not all of those are in the history."""
    summary_model: str | None = None
    """The name of the model that writes summaries; None: the agent's own model."""
    summary_instructions: str = ""
    """Instructions for summaries, in place of ours."""
    search_past_sessions: CountOrZero = 3
    """The exchanges of the user's earlier sessions with this agent that are found for the input; 0: none."""
    tools: bool = True
    """Offer the model `read_chat_history`, `search_history` and `read_tool_call_history`."""

    @property
    def is_empty(self) -> bool:
        """True when the model is sent nothing of earlier runs."""
        return not (self.runs or self.summary or self.search_past_sessions)


NO_HISTORY = History(runs=0, summary=False, search_past_sessions=0, tools=False)
"""The default of an agent: each run stands alone."""


MemoryScope = Literal["user", "agent", "team", "session", "global"]


class Memory(msgspec.Struct, metaclass=Fields, frozen=True):
    """Facts that outlive a session: learned from its runs or remembered by the model, and recalled in later runs."""

    scope: MemoryScope = "user"
    """The owner of the memories. `user`: the run's user; a run without a `user_id` learns and recalls nothing. `agent`: the agent.
    `team`: the team that the run works for; a run without one learns and recalls nothing. `session`: the session. `global`: all runs."""
    learn: Literal["background", "agentic", "both", "off"] = "background"
    """`background`: a background run learns from each answer. `agentic`: the model gets the tools `remember`, `update_memory` and
    `forget`. `off`: memories are recalled only."""
    recall: CountOrZero = 10
    """The most memories that a run recalls; while there are no more than that, it recalls all."""
    tokens: Count = 1_000
    """The most tokens of recalled memories."""
    instructions: str = ""
    """Further instructions for learning, such as what to remember."""
    model: str | None = None
    """The name of the model that learns; None: the agent's model."""
    min_confidence: Share = 0.5
    """The least confidence, from 0 to 1, with which a memory is learned."""
    half_life_days: Positive | None = None
    """A memory that was last confirmed this many days ago ranks half as high in recall; None: age does not count."""


class Compaction(msgspec.Struct, metaclass=Fields, frozen=True):
    """Keeps long runs within the context window of their model: large tool results are stored beside the transcript, and the oldest
    messages are summarized.
    """

    offload_tokens: Count | None = 4_000
    """A tool result with more tokens is stored once: the model reads a preview of it, and has tools to read and to search the rest. None:
    every result stays whole."""
    window_tokens: Count | None = None
    """The context window of the model. None: that of its provider, where it is known, and what the provider reports."""
    at: Share = 0.8
    """The oldest messages are summarized before a request has more than this share of the window."""
    keep: Share = 0.3
    """The newest messages that are kept as they are, as a share of the window."""
    model: str | None = None
    """The model that writes summaries; None: the agent's own."""
    instructions: str = ""
    """Further instructions for summaries, which keep the task, decisions, facts and open work."""


class Limits(msgspec.Struct, metaclass=Fields, frozen=True):
    """Limits of one run; its `reason` names the limit that it met, as `limit:turns`."""

    turns: Count = 20
    """Model calls."""
    tool_calls: CountOrZero = 200
    """Tool calls in all turns together."""
    tokens: Count | None = None
    """Input and output tokens of all turns together."""
    cost_usd: Positive | None = None
    """US dollars of all turns together, by the agent's `prices`. A run that an agent delegates has its own limits; `tokens` and `cost_usd` of a
    team or a workflow also hold for all runs below it."""
    deadline_s: Positive | None = None
    """Seconds from the submit to the end, also while the run waits; its delegations end with it."""
    on_limit: Literal["fail", "return"] = "fail"
    """`fail`: the run fails with LimitReached and keeps its last text. `return`: it is done, and its last text is the answer."""


class Prices(msgspec.Struct, metaclass=Fields, frozen=True):
    """Prices of the agent's model, in US dollars per million tokens. None are built in, because providers change them."""

    input_usd: PositiveOrZero
    """US dollars per million input tokens."""
    output_usd: PositiveOrZero
    """US dollars per million output tokens."""
    cached_usd: PositiveOrZero | None = None
    """For input that the provider has cached; None: the same as other input."""

    def cost_usd(self, usage: Usage) -> float:
        """Return the US dollars that these tokens cost."""
        cached = self.input_usd if self.cached_usd is None else self.cached_usd
        fresh = usage.input_tokens - usage.cached_tokens
        return (
            fresh * self.input_usd + usage.cached_tokens * cached + usage.output_tokens * self.output_usd
        ) / 1e6


class Agent(Runnable, metaclass=Fields, frozen=True, kw_only=True):
    """The definition of an agent. Two agents with equal fields are equal."""

    model: str | Model
    """`"openai:gpt-..."`, `"anthropic:claude-..."`, `"local:..."`, or any object with `name` and `ask`."""
    instructions: str | Sequence[str] = ""
    """The system text: one text, or a list of lines."""
    tools: Sequence[Any] = ()
    """Functions, `@tool`s, toolkits and other agents: a call of an agent is a run of its own (a delegation)."""
    knowledge: Any = None
    """A knowledge base to search, or a binding of one; see `agno_workers.Knowledge`."""
    output_schema: Any = None
    """The type of the final answer, whose JSON value is then the run's content: a pydantic model, a dataclass, a TypedDict, or any
    other type with a JSON schema, such as `A | B`, `list[A]` or a Literal."""
    settings: ModelSettings = ModelSettings()
    """Parameters of the model."""
    history: History = NO_HISTORY
    """The part of its session that the model sees; by default nothing. `History()` has good defaults."""
    memory: Memory | None = None
    """Facts that it learns and recalls across sessions; None: it has no memory."""
    context: Context = Context()
    """Values in the system text."""
    compaction: Compaction = Compaction()
    """How a long run stays within the context window of the model."""
    limits: Limits = Limits()
    """Limits of each run."""
    prices: Prices | None = None
    """For `limits.cost_usd` and `Run.cost_usd`."""
    retry: Retry = Retry()
    """Attempts of a model call, and the waits between."""
    metadata: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    """JSON of yours about the agent."""

    def compiled(self) -> Agent:
        return self

    @property
    def parts(self) -> Sequence[Runnable]:
        found = (each.what if isinstance(each, Delegate) else each for each in self.tools)
        return tuple(each for each in found if isinstance(each, Runnable))

    def __post_init__(self) -> None:
        """Raise InvalidInput for what can't work, as far as it is known without a worker."""
        if fault := name_fault(self.name):
            raise InvalidInput(f"Agent(name=...): {fault}.")
        if fault := checks.model_fault(self.model):
            raise self.fault(fault)
        for field, check in _CHECKS:
            if reason := check(getattr(self, field)):
                raise self.fault(f"{field} {reason}")
        for field, default, kind in _GROUPS:
            if (value := getattr(self, field)) is default:
                continue
            if not isinstance(value, kind):
                raise self.fault(f"{field} must be {kind.__name__}(...), got {checks.brief(value)}")
            if wrong := checks.misfit(kind, value):
                raise self.fault(f"{field}.{wrong[0]} {wrong[1]}")
        other_models = (
            ("memory.", self.memory and self.memory.model), ("history.summary_", self.history.summary_model),
            ("compaction.", self.compaction.model),
        )  # fmt: skip
        for prefix, model in other_models:
            if model is not None and (fault := checks.model_fault(model)):
                raise self.fault(f"{prefix}{fault}")
        if self.compaction.keep >= self.compaction.at:
            raise self.fault(
                f"compaction.keep ({self.compaction.keep:g}) must be less than compaction.at ({self.compaction.at:g}), or nothing would be "
                "summarized"
            )
        if self.limits.cost_usd is not None and self.prices is None:
            raise self.fault(
                "limits.cost_usd needs the model's prices: add prices=Prices(input_usd=..., output_usd=...)"
            )
        if self.output_schema is not None:
            from agno_workers.core.output import output_type  # noqa: PLC0415 - loads pydantic

            output_type(self.name, self.output_schema)

    def fault(self, fault: str) -> InvalidInput:
        """Return the error about this agent."""
        return InvalidInput(f"agent {self.name!r}: {fault}.", agent=self.name)


MODEL_PREFIX = "model:"


@lru_cache(1_000)
def model_agent(model: str) -> Agent:
    """Return the agent of one question to a model, which every worker knows by its name. Raises InvalidInput for an unknown provider."""
    if fault := checks.model_fault(model):
        raise InvalidInput(f"{fault}.")
    return Agent(name=f"{MODEL_PREFIX}{model}", model=model)


def cost_of(agent: Agent, usage: Usage, model: str | Model | None = None) -> float:
    """Return the US dollars of calls of a model, by the agent's prices; None: the agent's model. 0 for another one: its prices are not known."""
    if agent.prices is None or model not in (None, agent.model):
        return 0.0
    return agent.prices.cost_usd(usage)


MAX_AGENT_NAME_CHARS = 200
_CHECKS: tuple[tuple[str, Check], ...] = (
    ("description", checks.text), ("instructions", checks.instructions), ("tools", checks.items),
    ("queue", checks.queue), ("metadata", checks.json_object),
)  # fmt: skip
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Agent)}
_GROUPS: tuple[tuple[str, Any, type[msgspec.Struct]], ...] = tuple(
    (name, _DEFAULTS[name], kind)
    for name, kind in (
        ("settings", ModelSettings), ("history", History), ("memory", Memory), ("context", Context),
        ("compaction", Compaction), ("limits", Limits), ("prices", Prices), ("retry", Retry),
    )
)  # fmt: skip
"""The groups of options: the field, its default, which is one shared value, and its type."""


def name_fault(name: Any) -> str | None:
    """Return a sentence about what can't be the name of an agent, a team or a workflow, or None."""
    if not isinstance(name, str) or not name.strip():
        return f"name must be text that is not blank, got {checks.brief(name)}"
    if len(name) > MAX_AGENT_NAME_CHARS:
        return f"name has {len(name):,} characters, and the most is {MAX_AGENT_NAME_CHARS}: shorten {checks.brief(name)}"
    if name != name.strip() or not name.isprintable():
        return f"name {name!r} has blanks around it, or characters that can't be seen: use letters, digits, '_' and '-'"
    if name.startswith("knowledge:"):
        return f"name {name!r} begins with 'knowledge:', which names ingestions: choose another one"
    if name.startswith("agno:"):
        return (
            f"name {name!r} begins with 'agno:', which names runs of ours, such as maps: choose another one"
        )
    return None
