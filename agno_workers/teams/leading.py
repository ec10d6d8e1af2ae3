"""Teams whose leader's model chooses each move: the leader is an agent, and the members are its tools."""

from __future__ import annotations

import msgspec

from agno_workers.core.agent import Agent
from agno_workers.teams.roles import role
from agno_workers.teams.spec import TeamSpec


def coordinate(team: TeamSpec) -> Agent:
    """Return the leader, which delegates to the members side by side, reads their results, and answers."""
    leader = role(team, "leader", output_schema=team.output_schema, limits=team.limits)
    return msgspec.structs.replace(
        leader,
        name=team.name,
        tools=[*leader.tools, *team.members],
        queue=team.queue,
        description=team.description,
    )
