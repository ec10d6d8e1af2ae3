"""Agents and knowledge bases by name. A worker finds them by importing the modules of `AGNO_IMPORTS` and looking at what
stands in them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from agno_workers.core.agent import Agent
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput, SettingsError, UnknownAgent
from agno_workers.knowledge.types import Knowledge, use_of


class Registry:
    """The agents that this process knows, and the knowledge bases that stand beside them or that they use."""

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents: dict[str, Agent] = {}
        self._knowledge: dict[str, Knowledge] = {}
        for agent in agents:
            self.add(agent)

    def add(self, agent: Agent) -> None:
        """Raises InvalidInput when a different agent has that name already."""
        if self._agents.setdefault(agent.name, agent) != agent:
            raise InvalidInput(
                f"two different agents are named {agent.name!r}: callers could not tell them apart. Rename one.",
                agent=agent.name,
            )
        if agent.knowledge is not None:
            self.add_knowledge(use_of(agent.knowledge).knowledge)

    def add_knowledge(self, knowledge: Knowledge) -> None:
        """Raises InvalidInput when another one has that name already."""
        if self._knowledge.setdefault(knowledge.name, knowledge) != knowledge:
            raise InvalidInput(
                f"two different knowledge bases are named {knowledge.name!r}: their documents would be one heap. Rename one.",
                knowledge=knowledge.name,
            )

    def knowledge(self, name: str) -> Knowledge | None:
        """As the code describes it; None: it stands in none of the modules, and Postgres may still know it."""
        return self._knowledge.get(name)

    def get(self, name: str) -> Agent:
        """Raises UnknownAgent, which lists the known ones."""
        try:
            return self._agents[name]
        except KeyError:
            hint = did_you_mean(name, self._agents)
            known = ", ".join(sorted(self._agents)) or "none"
            raise UnknownAgent(
                f"no agent {name!r} is imported here (known: {known}).{hint} AGNO_IMPORTS must name the module that defines it.",
                agent=name,
            ) from None

    def all(self) -> list[Agent]:
        return [self._agents[name] for name in sorted(self._agents)]

    @classmethod
    def importing(cls, *modules: str) -> Registry:
        """Return every Agent and Knowledge of these modules that has a name of its own.

        Raises SettingsError for a module that can't be imported, with what its import said.
        """
        registry = cls()
        for name in modules:
            try:
                module = importlib.import_module(name)
            except Exception as error:
                raise SettingsError(
                    f"AGNO_IMPORTS names {name!r}, which can't be imported: {type(error).__name__}: {error}. Correct it, or its import.",
                    module=name,
                ) from error
            for value in vars(module).values():
                if isinstance(value, Agent):
                    registry.add(value)
                elif isinstance(value, Knowledge):
                    registry.add_knowledge(value)
        return registry
