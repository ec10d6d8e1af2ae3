"""The owners of what runs share: state, memories, and values of the context."""

from __future__ import annotations

import msgspec

ROLES = ("leader", "planner", "reviewer", "judge")
"""The agents that modes make of a team's leader, or ask beside it: they run as `TEAM:ROLE`."""


class TeamPlace(msgspec.Struct, frozen=True):
    """The team that a run works for."""

    name: str
    """The name of the team."""
    run_id: str
    """The team's run."""
    session_id: str | None = None
    """The session of that run."""

    def is_led_by(self, agent: str, run_id: str) -> bool:
        """Return whether an agent speaks for the team: it takes a turn of the team's run, or has a role such as `TEAM:leader`."""
        return self.run_id == run_id or agent in {f"{self.name}:{role}" for role in ROLES}

    @property
    def state_owner(self) -> str:
        """The owner of the team's state: the session of the team's run; without one, that run."""
        return self.session_id or self.run_id


def owner_in(
    scope: str,
    *,
    session_id: str | None,
    user_id: str | None,
    agent: str,
    run_id: str = "",
    team: str | None = None,
) -> str | None:
    """Return the owner that a run has in a scope; None where it has none, such as a run without a user. An empty session id counts as none.
    `team` is the owner that its team has: state is that of one run or session of the team, memories are those of its name.
    """
    owners = {
        "session": session_id or None,
        "user": user_id or None,
        "agent": agent,
        "team": team,
        "run": run_id,
        "global": "",
    }
    return owners[scope]
