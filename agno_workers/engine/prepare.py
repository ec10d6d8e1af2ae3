"""What a model is asked: agent and transcript in, ModelRequest out; and how its answer is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import msgspec
import pydantic

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Message, ModelRequest, OutputSpec, ToolSpec
from agno_workers.core.tool import Tool
from agno_workers.errors import InvalidInput, InvalidTool
from agno_workers.knowledge.references import as_context
from agno_workers.knowledge.types import KnowledgeBinding, SearchResult, use_of
from agno_workers.runs.journal import Definition, TurnClaim
from agno_workers.tools import collect
from agno_workers.tools.decorate import ACCEPTED_NAME

_DECLARED = (
    "description",
    "instructions",
    "model",
    "settings",
    "history",
    "context",
    "limits",
    "prices",
    "retry",
)
"""What of an agent is kept with its runs; tools and output_schema are code, and those of the worker."""


class Prepared(msgspec.Struct, frozen=True):
    """An agent with its tools unpacked and its schema drawn up; made once a process."""

    agent: Agent
    tools: dict[str, Tool]
    output: OutputSpec | None
    members: dict[str, Agent]
    """The agents among its tools, by name."""
    definition: Definition
    use: KnowledgeBinding | None = None
    """How it uses a knowledge base."""

    @classmethod
    def of(
        cls, agent: Agent, tools_for: Callable[[KnowledgeBinding], Sequence[Tool]] = lambda _: ()
    ) -> Prepared:
        """`tools_for` gives the tools of a knowledge base.

        Raises InvalidTool where a tool can't be offered to a model, InvalidInput for a budget that can't be kept.
        """
        if agent.limits.cost_usd is not None and agent.prices is None:
            raise InvalidInput(
                f"agent {agent.name!r} has limits.cost_usd and no prices: give prices=Prices(input_usd=..., output_usd=...).",
                agent=agent.name,
            )
        use = None if agent.knowledge is None else use_of(agent.knowledge)
        members, tools = _members(agent, tools_for(use) if use else ())
        output = None
        if agent.output_schema is not None:
            schema = pydantic.TypeAdapter(agent.output_schema).json_schema()
            output = OutputSpec(agent.output_schema.__name__, schema)
        return cls(agent, tools, output, members, _definition(agent), use)

    def as_begun(self, content: dict[str, Any]) -> Prepared:
        """The same, as its definition stood when a run began."""
        fields = {name: msgspec.convert(content[name], _TYPES[name]) for name in _DECLARED if name in content}
        return msgspec.structs.replace(self, agent=msgspec.structs.replace(self.agent, **fields))

    def request(
        self, claim: TurnClaim, history: tuple[Message, ...], hits: Sequence[SearchResult] = ()
    ) -> ModelRequest:
        """The next model call of a run. `hits`: what goes with its question."""
        given = as_context(self.use.knowledge.name, hits) if self.use else ""
        return ModelRequest(
            messages=history + claim.transcript,
            system="\n\n".join(part for part in (_system(self.agent, claim), given) if part),
            tools=(
                *(tool.spec for tool in self.tools.values()),
                *(_delegation(member) for member in self.members.values()),
            ),
            output=self.output,
            settings=self.agent.settings,
        )

    def read(self, text: str) -> tuple[Any, str | None]:
        """The answer as `output_schema` reads it, and, where it does not fit, why: `(content, misfit)`."""
        if self.agent.output_schema is None:
            return text, None
        try:
            value = pydantic.TypeAdapter(self.agent.output_schema).validate_json(_unfenced(text))
        except pydantic.ValidationError as error:
            problems = [
                f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}"
                for e in error.errors(include_url=False)
            ]
            return None, "; ".join(problems)
        return pydantic.TypeAdapter(self.agent.output_schema).dump_python(value, mode="json"), None


_TYPES: dict[str, Any] = {
    **{name: hint for name, hint in get_type_hints(Agent).items() if name in _DECLARED},
    "instructions": str | tuple[str, ...],
    "model": str,
}


class Delegation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model says to an agent that it calls."""

    task: str


def _members(agent: Agent, more: Sequence[Tool]) -> tuple[dict[str, Agent], dict[str, Tool]]:
    """The agents and the tools among an agent's tools, and more tools; no two of them may share a name."""
    members = {each.name: each for each in agent.tools if isinstance(each, Agent)}
    tools = collect([*(each for each in agent.tools if not isinstance(each, Agent)), *more])
    for name in members:
        if name in tools:
            raise InvalidTool(
                f"agent {agent.name!r} has a tool and an agent called {name!r}: rename one of them.",
                agent=agent.name,
            )
        if not ACCEPTED_NAME.fullmatch(name):
            raise InvalidTool(
                f"agent {name!r} can't be a tool of {agent.name!r}: providers take 1 to 64 letters, digits, _ and -. Rename it.",
                agent=agent.name,
            )
    return members, tools


def _delegation(member: Agent) -> ToolSpec:
    task = {
        "type": "string",
        "description": "What is to be done, with all that is needed to do it: nothing else is passed on.",
    }
    return ToolSpec(
        member.name,
        member.description or f"Delegates a task to the agent {member.name} and returns its answer.",
        {"type": "object", "properties": {"task": task}, "required": ["task"], "additionalProperties": False},
    )


def _definition(agent: Agent) -> Definition:
    content = {name: getattr(agent, name) for name in _DECLARED}
    if not isinstance(agent.model, str):
        del content["model"]  # an object is code, too
    plain = msgspec.to_builtins(content, enc_hook=str)
    return Definition(hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest(), plain)


def _system(agent: Agent, claim: TurnClaim) -> str:
    """Description, instructions and facts. The time is that of the submit, so that a repeated turn asks the same."""
    instructions = (
        agent.instructions
        if isinstance(agent.instructions, str)
        else "\n".join(f"- {line}" for line in agent.instructions)
    )
    parts = [agent.description, instructions]
    if agent.context.datetime:
        parts.append(f"The time is {claim.created_at:%Y-%m-%d %H:%M} UTC.")
    if agent.context.facts:
        parts.append(f"Facts:\n{json.dumps(agent.context.facts, ensure_ascii=False, default=str)}")
    return "\n\n".join(part for part in parts if part)


def _unfenced(text: str) -> str:
    """JSON out of the Markdown fence that some models put around it."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        return text[3:-3].removeprefix("json").strip()
    return text
