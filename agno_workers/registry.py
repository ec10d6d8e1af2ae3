"""Agents and knowledge bases by name. A worker finds them in the modules of `AGNO_IMPORTS`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from agno_workers.core.agent import Agent
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput, SettingsError, UnknownAgent, message_of
from agno_workers.knowledge.types import Knowledge, uses_of


def import_from_here() -> None:
    """Let AGNO_IMPORTS name modules of the working folder, as `celery -A` does."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


class Registry:
    """The agents of this process, and the knowledge bases that are defined beside them or that they use."""

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents: dict[str, Agent] = {}
        self._members: dict[str, Agent] = {}
        self._knowledge: dict[str, Knowledge] = {}
        for agent in agents:
            self.add(agent)

    def add(self, agent: Agent) -> None:
        """Add an agent. Raises InvalidInput when a different agent has that name."""
        if self._agents.setdefault(agent.name, agent) != agent:
            raise InvalidInput(
                f"two different agents are named {agent.name!r}: rename one of them.",
                agent=agent.name,
            )
        for use in uses_of(agent.knowledge):
            self.add_knowledge(use.knowledge)
        self._add_members(agent)

    def _add_members(self, agent: Agent) -> None:
        """Add the agents among its tools: a worker executes their runs by name. An agent of a module replaces one of its name."""
        for member in agent.tools:
            if isinstance(member, Agent) and member.name not in self._members:
                self._members[member.name] = member
                self._add_members(member)

    def add_knowledge(self, knowledge: Knowledge) -> None:
        """Add a knowledge base. Raises InvalidInput when a different one has that name."""
        if self._knowledge.setdefault(knowledge.name, knowledge) != knowledge:
            raise InvalidInput(
                f"two different knowledge bases are named {knowledge.name!r}: rename one of them.",
                knowledge=knowledge.name,
            )

    def knowledge(self, name: str) -> Knowledge | None:
        """Return the knowledge base that the code defines, or None; Postgres may still know it."""
        return self._knowledge.get(name)

    def get(self, name: str) -> Agent:
        """Return an agent. Raises UnknownAgent, which lists the known names."""
        known = self._known()
        if name not in known:
            raise UnknownAgent(
                f"agent {name!r} is not imported in this process (known: {', '.join(sorted(known)) or 'none'})."
                f"{did_you_mean(name, known)} Add the module that defines it to AGNO_IMPORTS.",
                agent=name,
            )
        return known[name]

    def _known(self) -> dict[str, Agent]:
        return self._members | self._agents

    def all(self) -> list[Agent]:
        return [agent for _, agent in sorted(self._known().items())]

    @classmethod
    def importing(cls, *modules: str) -> Registry:
        """Import these modules, and register each Agent and Knowledge that is a global of one of them.

        Raises SettingsError for a module that cannot be imported, with the error of its import.
        """
        registry = cls()
        for name in modules:
            try:
                module = importlib.import_module(name)
            except (Exception, SystemExit) as error:
                raise SettingsError(
                    f"AGNO_IMPORTS names {name!r}, which cannot be imported: {type(error).__name__}: {message_of(error).rstrip('.')}. Fix the name or the module.",
                    module=name,
                ) from error
            for value in vars(module).values():
                if isinstance(value, Agent):
                    registry.add(value)
                elif isinstance(value, Knowledge):
                    registry.add_knowledge(value)
        return registry
