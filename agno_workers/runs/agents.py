"""The agents that workers have registered: a submit reads the queue of an agent from here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from agno_workers.database.pool import jsonb, statements
from agno_workers.runs.base import Repository, convert

_SQL = statements("runs/agents")


class RegisteredAgent(msgspec.Struct, frozen=True):
    """An agent that a worker has registered."""

    name: str
    queue: str
    background_queue: str | None = None
    """The queue of its background work; None is `background`."""
    kind: str = "agent"
    description: str = ""
    definition: dict[str, Any] = {}
    tools: tuple[str, ...] = ()
    seen_at: datetime | None = None
    """When a worker last registered it."""


class Agents(Repository):
    """See the module."""

    def register(self, agents: Iterable[RegisteredAgent], tenant: str = "default") -> None:
        """Insert or replace these agents."""
        rows = sorted(agents, key=lambda agent: agent.name)
        self._pool.run(_SQL["register"], {"tenant": tenant, "agents": jsonb(rows)})

    def all(self, tenant: str = "default") -> list[RegisteredAgent]:
        """Return all agents in the order of their names."""
        return [convert(row, RegisteredAgent) for row in self._pool.run(_SQL["all"], {"tenant": tenant})]
