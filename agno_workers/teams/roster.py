"""The roster: who is in a team, what each can do, and who is busy with what right now. Its tool is offered in runs of the team only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from agno_workers.core.agent import Agent
from agno_workers.core.runnable import Runnable
from agno_workers.core.tool import Effect, Tool, ToolContext
from agno_workers.database.pool import Pool, Row, statements
from agno_workers.engine.turn import Extension
from agno_workers.errors import ToolError
from agno_workers.teams.spec import TeamSpec
from agno_workers.tools.decorate import tool

_SQL = statements("teams/roster")
_MOST_BUSY = 100


@dataclass(frozen=True)
class Roster:
    """The tool `team_roster` for the agents of teams."""

    pool: Pool
    runnables: Callable[[], Iterable[Runnable]]
    """Return the agents, teams and workflows of this process."""

    def extension(self) -> Extension:
        return Extension(self.tools)

    @cached_property
    def teams(self) -> dict[str, TeamSpec]:
        """The teams whose agents see the roster."""
        return {each.name: each for each in self.runnables() if isinstance(each, TeamSpec) and each.roster}

    @cached_property
    def agents(self) -> frozenset[str]:
        """The names of those agents."""
        teams = self.teams.values()
        return frozenset(name for team in teams for name in (team.name, *(part.name for part in team.parts)))

    def tools(self, agent: Agent) -> Sequence[Tool]:
        """Return the tool for an agent that leads a team, or is in one."""
        if agent.name not in self.agents:
            return ()

        @tool(effect=Effect.PURE)
        def team_roster(ctx: ToolContext) -> list[dict[str, Any]]:
            """List the members of your team: what each can do, and what it is busy with now."""
            place = ctx._team
            if place is None or place.name not in self.teams:
                raise ToolError("this run does not see the members of a team: continue without them.")
            rows = self.pool.run(_SQL["busy"], {"run_id": place.run_id, "limit": _MOST_BUSY})
            return listed(place.name, self.teams[place.name].members, rows, ctx.agent)

        return (msgspec.structs.replace(team_roster, for_teams=True),)


def listed(team: str, members: Sequence[Runnable], busy: Sequence[Row], asking: str) -> list[dict[str, Any]]:
    """Return the roster as a model reads it: the members, then others who work for the team, such as its leader."""
    found: dict[str, dict[str, Any]] = {
        each.name: {"name": each.name, "can": each.description or f"no description of this {each.kind}"}
        for each in members
    }
    for row in busy:
        name = row["agent"].removeprefix(f"{team}:")
        task = {key: row[key] for key in ("task", "for_s", "report", "fraction") if row[key] is not None}
        found.setdefault(name, {"name": name}).setdefault("busy_with", []).append(task)
    if (me := asking.removeprefix(f"{team}:")) in found:
        found[me]["is_you"] = True
    return list(found.values())
