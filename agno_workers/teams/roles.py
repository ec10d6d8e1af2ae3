"""The agents of a team beside its members, named `TEAM:ROLE`: its leader, its judge, and members that answer in a form of the mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agno_workers.core.agent import Agent
from agno_workers.core.context import Context
from agno_workers.core.runnable import Runnable
from agno_workers.errors import InvalidInput
from agno_workers.teams.spec import TeamSpec


def role(
    team: TeamSpec, name: str, *, model: Any = None, instructions: str | Sequence[str] = "", **fields: Any
) -> Agent:
    """Return the agent `TEAM:NAME`. `model` is an agent or a model; None is the team's leader. Its own instructions come first.

    `fields` are those of an agent; an agent keeps its own `output_schema` where that is None.
    """
    given = team.leader if model is None else model
    if model is None:
        fields = _shared(team, given) | fields
    lines = [
        line
        for each in (team.instructions, instructions)
        for line in ([each] if isinstance(each, str) else each)
        if line
    ]
    if fields.get("output_schema") is None:
        fields.pop("output_schema", None)
    if isinstance(given, Agent):
        own = [given.instructions] if isinstance(given.instructions, str) else given.instructions
        lines = [*(line for line in own if line), *lines]
        plain = {name: getattr(given, name) for name in Agent.__struct_fields__}
        return Agent(**{**plain, "name": f"{team.name}:{name}", "instructions": lines, **fields})
    if given is None or isinstance(given, Runnable):
        got = f"; the {given.kind} {given.name!r} can't be one" if given is not None else ""
        raise InvalidInput(
            f'team {team.name!r} needs a leader: an agent, or a model such as leader="openai:gpt-5-mini"{got}.',
            team=team.name,
        )
    return Agent(name=f"{team.name}:{name}", model=given, instructions=lines, **fields)


def typed(team: TeamSpec, member: Runnable, schema: Any) -> Runnable:
    """Return a member whose answers have this type, as `TEAM:MEMBER`. A workflow, a team that votes, and a member with a type of its own stay
    as they are.
    """
    is_vote = isinstance(member, TeamSpec) and "vote" in (member.mode, getattr(member.mode, "word", ""))
    if is_vote or getattr(member, "output_schema", schema) is not None:
        return member
    return msgspec.structs.replace(member, name=f"{team.name}:{member.name}", output_schema=schema)


def _shared(team: TeamSpec, leader: Any) -> dict[str, Any]:
    """Return the fields of an agent that is made of the leader, for what the team shares."""
    fields: dict[str, Any] = {} if team.memory is None else {"memory": team.memory}
    if team.state:
        own = leader.context if isinstance(leader, Agent) else Context()
        fields["context"] = msgspec.structs.replace(own, state="team")
    return fields
