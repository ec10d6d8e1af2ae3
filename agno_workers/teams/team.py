"""A team as a value: its members, and how they work together."""

from __future__ import annotations

from collections.abc import Sequence

from agno_workers.core.agent import Agent
from agno_workers.core.runnable import Program, Runnable
from agno_workers.teams import leading
from agno_workers.teams.spec import TeamSpec


class Team(TeamSpec, frozen=True, kw_only=True):
    """The definition of a team. Two teams with equal fields are equal."""

    @property
    def parts(self) -> Sequence[Runnable]:
        return tuple(self.members)

    def compiled(self) -> Agent | Program:
        return leading.coordinate(self)
