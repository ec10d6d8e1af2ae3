"""The fields of a team."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from agno_workers.core.agent import Limits, Memory
from agno_workers.core.fields import Fields
from agno_workers.core.ports import Model
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Runnable


class TeamSpec(Runnable, metaclass=Fields, frozen=True, kw_only=True):
    """The fields of a team; `team.Team` adds how its turns are taken."""

    members: Sequence[Runnable]
    """Agents, teams and workflows, with different names."""
    mode: Any = "coordinate"
    """How they work together: `coordinate`, `route`, `broadcast`, `tasks`, `supervise`, `network`, `vote` or `debate`; or one with options, such as
    `vote(quorum=2)`."""
    leader: str | Model | Runnable | None = None
    """The agent that leads, or its model."""
    instructions: str | Sequence[str] = ""
    """The system text of the leader."""
    output_schema: Any = None
    """The type of the answer, as for an agent; in a vote the type of the choices."""
    member_timeout_s: float | None = None
    """Seconds for each answer of a member, in modes whose next move code chooses; None: as long as the team has."""
    share_member_interactions: bool = False
    """True: the leader reads the tool calls of a member with its answer."""
    memory: Memory | None = None
    """Memories that outlive a run: `Memory(scope="team")` for those of the team. The leader has them; members have their own option."""
    state: bool = False
    """Show the state of the team to the leader, as it is when its run begins."""
    roster: bool = True
    """Offer the tool `team_roster` to the leader and the members."""
    limits: Limits = Limits()
    """Limits of each run: `tokens`, `cost_usd` and `deadline_s` hold for all that it starts."""

    kind: ClassVar[RunKind] = RunKind.TEAM
