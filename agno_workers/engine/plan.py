"""An agent prepared for its turns: collect its tools, make its schema, build its requests and read its answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, get_type_hints

import msgspec

from agno_workers.core.agent import NO_HISTORY, Agent
from agno_workers.core.messages import Message, ModelRequest, ToolSpec, stored_results
from agno_workers.core.output import OutputType, output_type
from agno_workers.core.runnable import Runnable
from agno_workers.core.step import ClaimedStep, Definition
from agno_workers.core.tool import Tool
from agno_workers.errors import InvalidTool
from agno_workers.tools import collect
from agno_workers.tools.decorate import ACCEPTED_NAME

_DECLARED = (
    "description",
    "instructions",
    "model",
    "settings",
    "history",
    "memory",
    "context",
    "compaction",
    "limits",
    "prices",
    "retry",
)
"""The fields of an agent that are stored with its runs; tools and output_schema are code of the worker."""


class AgentPlan(msgspec.Struct, frozen=True):
    """An agent with its tools and its schema; built once per process."""

    agent: Agent
    tools: dict[str, Tool]
    output: OutputType | None
    members: dict[str, Runnable]
    """The agents, teams and workflows among its tools, by name."""
    definition: Definition

    @classmethod
    def of(cls, agent: Agent, more: Sequence[Tool] = ()) -> AgentPlan:
        """Build the plan of an agent; `more` are tools that features add.

        Raises InvalidTool when a tool cannot be offered to a model.
        """
        members, tools = members_and_tools(agent, more)
        output = None if agent.output_schema is None else output_type(agent.name, agent.output_schema)
        return cls(agent, tools, output, members, _definition(agent))

    def as_begun(self, content: dict[str, Any]) -> AgentPlan:
        """Return the same plan with the agent's definition at the start of a run."""
        content = content | {"history": _WITHOUT | content.get("history", {})}
        fields = {name: msgspec.convert(content[name], _TYPES[name]) for name in _DECLARED if name in content}
        return msgspec.structs.replace(self, agent=msgspec.structs.replace(self.agent, **fields))

    def request(
        self, claim: ClaimedStep, history: tuple[Message, ...] = (), context: Sequence[str] = ()
    ) -> ModelRequest:
        """Build the next model call of a run. `context` is more text for the system message."""
        messages = history + claim.messages
        offered = [tool for tool in self.tools.values() if not tool.reads_stored]
        if len(offered) < len(self.tools) and any(stored_results(message) for message in messages):
            offered = list(self.tools.values())
        return ModelRequest(
            messages=messages,
            system="\n\n".join(part for part in (_system(self.agent, claim), *context) if part),
            tools=(
                *(tool.spec for tool in offered),
                *(_delegation(member) for member in self.members.values()),
            ),
            output=None if self.output is None else self.output.spec,
            settings=self.agent.settings,
        )

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of its tools and agents, as the model sees them."""
        return (*(name for name, tool in self.tools.items() if not tool.reads_stored), *self.members)

    def read(self, text: str) -> tuple[Any, str | None]:
        """Parse an answer by `output_schema`; return `(content, misfit)`, where `misfit` describes why it does not fit, or is None."""
        if self.output is None:
            return text, None
        for written in (text, *_json_within(text)):
            content, misfit = self.output.read(written.strip(_BLANK))
            if misfit is None:
                break
        return content, misfit


_WITHOUT = msgspec.to_builtins(NO_HISTORY)
"""The definitions of earlier code have only the number of runs in their history, and meant no more."""
_TYPES: dict[str, Any] = {
    **{name: hint for name, hint in get_type_hints(Agent).items() if name in _DECLARED},
    "instructions": str | tuple[str, ...],
    "model": str,
}


class Delegation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a call to an agent."""

    task: str


def members_and_tools(agent: Agent, more: Sequence[Tool]) -> tuple[dict[str, Runnable], dict[str, Tool]]:
    """Return the agents, teams and workflows, and the tools among an agent's tools; no two of them may share a name."""
    members = {each.name: each for each in agent.parts}
    tools = collect([*(each for each in agent.tools if not isinstance(each, Runnable)), *more])
    for name in members:
        if name in tools:
            raise InvalidTool(
                f"agent {agent.name!r} has a tool and an agent called {name!r}: rename one of them.",
                agent=agent.name,
            )
        if not ACCEPTED_NAME.fullmatch(name):
            raise InvalidTool(
                f"agent {name!r} cannot be a tool of {agent.name!r}: providers accept 1 to 64 letters, digits, _ and -. Rename it.",
                agent=agent.name,
            )
    return members, tools


def _delegation(member: Runnable) -> ToolSpec:
    task = {
        "type": "string",
        "description": "The task, with everything needed to do it: the agent gets nothing else.",
    }
    return ToolSpec(
        member.name,
        member.description or f"Delegates a task to the {member.kind} {member.name} and returns its answer.",
        {"type": "object", "properties": {"task": task}, "required": ["task"], "additionalProperties": False},
    )


def _definition(agent: Agent) -> Definition:
    content = {name: getattr(agent, name) for name in _DECLARED} | {"context": agent.context.declared}
    if not isinstance(agent.model, str):
        del content["model"]  # a model object is code
    plain = msgspec.to_builtins(content, enc_hook=str)
    return Definition(hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest(), plain)


def _system(agent: Agent, claim: ClaimedStep) -> str:
    """Join description, instructions and the time. The time is that of the submit, so that a repeated turn sends the same text."""
    instructions = (
        agent.instructions
        if isinstance(agent.instructions, str)
        else "\n".join(f"- {line}" for line in agent.instructions)
    )
    parts = [agent.description, instructions]
    if agent.context.datetime:
        parts.append(f"The time is {claim.created_at:%Y-%m-%d %H:%M} UTC.")
    return "\n\n".join(part for part in parts if part)


_DECODER = json.JSONDecoder(strict=False)
_BLANK = "\ufeff\u200b\u00a0 \t\r\n"
_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_FENCED = re.compile(
    r"^[ \t]*(`{3,}+|~{3,}+)[ \t]*(?:json\w*)?[ \t]*\n?(.*?)\1", re.DOTALL | re.IGNORECASE | re.MULTILINE
)
_BEGINNING = re.compile(r'(?=\{\s*["}])|(?:^|(?<=[\n:>]))[ \t]*(?=\[\s*["{\[\]\d-])')
"""The beginning of an object, or of a list where a sentence has no `[1]`."""


def _json_within(text: str) -> Iterator[str]:
    """Yield what may be the JSON of an answer: what follows its thinking, what stands in Markdown fences, from the last to the first,
    and the objects and lists among its sentences, up to one that is broken.
    """
    answer = _THOUGHT.split(text)[-1]
    yield answer
    for _, fenced in reversed(_FENCED.findall(answer)):
        yield fenced
    end = 0
    with suppress(ValueError, RecursionError):
        while found := _BEGINNING.search(answer, end):
            _, end = _DECODER.raw_decode(answer, found.end())
            yield answer[found.end() : end]
