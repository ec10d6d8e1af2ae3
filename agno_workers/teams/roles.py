"""The agents of a team beside its members: its leader, its judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agno_workers.core.agent import Agent
from agno_workers.core.runnable import Runnable
from agno_workers.errors import InvalidInput
from agno_workers.teams.spec import TeamSpec


def role(
    team: TeamSpec, name: str, *, model: Any = None, instructions: str | Sequence[str] = "", **fields: Any
) -> Agent:
    """Return the agent `TEAM:NAME`. `model` is an agent or a model; None is the team's leader. Its own instructions come first."""
    given = team.leader if model is None else model
    lines = [
        line
        for each in (team.instructions, instructions)
        for line in ([each] if isinstance(each, str) else each)
        if line
    ]
    if isinstance(given, Agent):
        own = [given.instructions] if isinstance(given.instructions, str) else given.instructions
        lines = [*(line for line in own if line), *lines]
        plain = {name: getattr(given, name) for name in Agent.__struct_fields__}
        return Agent(**{**plain, "name": f"{team.name}:{name}", "instructions": lines, **fields})
    if given is None or isinstance(given, Runnable):
        raise InvalidInput(
            f'team {team.name!r} needs a leader: an agent, or a model such as leader="openai:gpt-5-mini".',
            team=team.name,
        )
    return Agent(name=f"{team.name}:{name}", model=given, instructions=lines, **fields)
