"""What a model is asked: agent and transcript in, ModelRequest out; and how its answer is read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pydantic

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Message, ModelRequest, OutputSpec
from agno_workers.core.tool import Tool
from agno_workers.storage.journal import TurnClaim
from agno_workers.tools import collect


class Prepared(msgspec.Struct, frozen=True):
    """An agent with its tools unpacked and its schema drawn up; made once a process."""

    agent: Agent
    tools: dict[str, Tool]
    output: OutputSpec | None

    @classmethod
    def of(cls, agent: Agent) -> Prepared:
        """Raises InvalidTool where a tool can't be offered to a model."""
        output = None
        if agent.output_schema is not None:
            schema = pydantic.TypeAdapter(agent.output_schema).json_schema()
            output = OutputSpec(agent.output_schema.__name__, schema)
        return cls(agent, collect(agent.tools), output)

    def request(self, claim: TurnClaim, history: tuple[Message, ...]) -> ModelRequest:
        """The next model call of a run."""
        return ModelRequest(
            messages=history + claim.transcript,
            system=_system(self.agent, claim),
            tools=tuple(tool.spec for tool in self.tools.values()),
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
