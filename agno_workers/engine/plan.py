"""An agent prepared for its turns: collect its tools, make its schema, build its requests and read its answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_type_hints

import msgspec

from agno_workers.core.agent import NO_HISTORY, Agent
from agno_workers.core.delegate import Delegate, delegate_to
from agno_workers.core.handoff import BACK, Handoffs, without_thinking_of_others
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
    members: dict[str, Delegate]
    """The agents, teams and workflows among its tools, by the names that the model calls."""
    definition: Definition
    """That of the run: of all agents that hand over to each other."""
    transfers: Mapping[str, str] = {}
    """The tools that hand the run over, and the agents that take it."""
    transfer_specs: tuple[ToolSpec, ...] = ()
    is_mixed: bool = False
    """True: the agents that hand over to each other do not all think with the same model in the same way."""

    @classmethod
    def of(cls, agent: Agent, more: Sequence[Tool] = (), group: Handoffs | None = None) -> AgentPlan:
        """Build the plan of an agent; `more` are tools that features add, and `group` are the agents that it hands over to.

        Raises InvalidTool when a tool cannot be offered to a model.
        """
        members, tools = members_and_tools(agent, more)
        output = None if agent.output_schema is None else output_type(agent.name, agent.output_schema)
        plan = cls(agent, tools, output, members, _definition(group or agent))
        group = agent if isinstance(agent, Handoffs) else group
        if group is None:
            return plan
        transfers, specs = group.transfers, group.specs(agent.name)
        check_transfers(agent, (*tools, *members), transfers)
        is_mixed = any(_thinks(each) != _thinks(group) for each in group.others)
        return msgspec.structs.replace(plan, transfers=transfers, transfer_specs=specs, is_mixed=is_mixed)

    def as_begun(self, content: dict[str, Any]) -> AgentPlan:
        """Return the same plan with the agent's definition at the start of a run. One that came into a team later is as it is."""
        if self.transfers.get(BACK, self.agent.name) != self.agent.name:
            others: dict[str, dict[str, Any]] = content.get("others", {})
            if self.agent.name not in others:
                return self
            content = others[self.agent.name]
        content = content | {"history": _WITHOUT | content.get("history", {})}
        fields = {name: msgspec.convert(content[name], _TYPES[name]) for name in _DECLARED if name in content}
        return msgspec.structs.replace(self, agent=msgspec.structs.replace(self.agent, **fields))

    def request(
        self, claim: ClaimedStep, history: tuple[Message, ...] = (), context: Sequence[str] = ()
    ) -> ModelRequest:
        """Build the next model call of a run. `context` is more text for the system message."""
        messages = history + claim.messages
        if self.is_mixed:
            messages = without_thinking_of_others(messages, self.transfers)
        offered = [tool for tool in self.tools.values() if claim.team or not tool.for_teams]
        at_once = [tool for tool in offered if not tool.reads_stored]
        if len(at_once) < len(offered) and not any(stored_results(message) for message in messages):
            offered = at_once
        return ModelRequest(
            messages=messages,
            system="\n\n".join(part for part in (_system(self.agent, claim), *context) if part),
            tools=(
                *(tool.spec for tool in offered),
                *(member.spec for member in self.members.values()),
                *self.transfer_specs,
            ),
            output=None if self.output is None else self.output.spec,
            settings=self.agent.settings,
        )

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of its tools and agents, as the model sees them."""
        own = (name for name, tool in self.tools.items() if not tool.reads_stored)
        return (*own, *self.members, *(spec.name for spec in self.transfer_specs))

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


def members_and_tools(agent: Agent, more: Sequence[Tool]) -> tuple[dict[str, Delegate], dict[str, Tool]]:
    """Return the agents, teams and workflows, and the tools among an agent's tools; no two of them may share a name."""
    asked = [delegate_to(each) if isinstance(each, Runnable) else each for each in agent.tools]
    members = {each.name: each for each in asked if isinstance(each, Delegate)}
    tools = collect([*(each for each in asked if not isinstance(each, Delegate)), *more])
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


def _thinks(agent: Agent) -> tuple[Any, ...]:
    return agent.model, agent.settings.thinking_budget_tokens, agent.settings.extra


def check_transfers(agent: Agent, names: Collection[str], transfers: Mapping[str, str]) -> None:
    """Raise InvalidTool when a tool that hands over can't be offered to a model beside an agent's own."""
    for tool, name in transfers.items():
        if tool in names:
            text = f"agent {agent.name!r} has a tool called {tool!r}, which hands the conversation over to {name!r}: rename the tool."
            raise InvalidTool(text, agent=agent.name)
        if not ACCEPTED_NAME.fullmatch(tool):
            text = (
                f"agent {name!r} can't take over a conversation, since its tool would be {tool!r} and providers accept 1 to 64 letters, digits, "
                "_ and -: rename the agent."
            )
            raise InvalidTool(text, agent=name)


def _definition(agent: Agent) -> Definition:
    plain = _declared(agent)
    if isinstance(agent, Handoffs):
        plain["others"] = {each.name: _declared(each) for each in agent.others}
    return Definition(hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest(), plain)


def _declared(agent: Agent) -> dict[str, Any]:
    content = {name: getattr(agent, name) for name in _DECLARED} | {"context": agent.context.declared}
    if not isinstance(agent.model, str):
        del content["model"]  # a model object is code
    plain: dict[str, Any] = msgspec.to_builtins(content, enc_hook=str)
    return plain


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
