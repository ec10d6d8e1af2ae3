"""A team as a value: its members, and how they work together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from agno_workers.core.agent import Agent, Limits
from agno_workers.core.fields import Fields
from agno_workers.core.ports import Model
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program, Runnable


class Team(Runnable, metaclass=Fields, frozen=True, kw_only=True):
    """The definition of a team. Two teams with equal fields are equal."""

    members: Sequence[Runnable]
    """Agents, teams and workflows."""
    mode: Any = "coordinate"
    """How they work together: `coordinate`, `route`, `broadcast`, `tasks`, `supervise`, `network`, `vote(...)` or `debate(...)`."""
    leader: str | Model | Runnable | None = None
    """The agent that leads, or its model."""
    instructions: str | Sequence[str] = ""
    """The system text of the leader."""
    output_schema: Any = None
    """The type of the answer, as for an agent."""
    limits: Limits = Limits()
    """Limits of each run: `tokens`, `cost_usd` and `deadline_s` hold for all that it starts."""

    kind: ClassVar[RunKind] = RunKind.TEAM

    @property
    def parts(self) -> Sequence[Runnable]:
        return tuple(self.members)

    def compiled(self) -> Agent | Program:
        assert self.leader is not None and not isinstance(self.leader, Runnable)
        return Agent(
            name=self.name, model=self.leader, description=self.description, instructions=self.instructions, tools=[*self.members],
            output_schema=self.output_schema, limits=self.limits, queue=self.queue,
        )  # fmt: skip
