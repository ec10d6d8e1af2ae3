"""A team as a value: its members, and how they work together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agno_workers.core import checks
from agno_workers.core.agent import Agent, Limits, Memory, name_fault
from agno_workers.core.budget import check_prices
from agno_workers.core.flow import Flow
from agno_workers.core.output import output_type
from agno_workers.core.runnable import Program, Runnable
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput
from agno_workers.teams import leading
from agno_workers.teams.debating import Debate
from agno_workers.teams.modes import Broadcast, Meeting, Mode
from agno_workers.teams.planning import Tasks
from agno_workers.teams.roles import role
from agno_workers.teams.spec import TeamSpec
from agno_workers.teams.supervising import Supervise
from agno_workers.teams.voting import Vote
from agno_workers.tools.decorate import ACCEPTED_NAME

LED = ("coordinate", "route", "network")
"""The modes in which a model chooses the next move, see leading.py."""
MODES: dict[str, type[Mode]] = {each.word: each for each in (Broadcast, Tasks, Supervise, Vote, Debate)}
"""The modes in which code does."""


class Team(TeamSpec, frozen=True, kw_only=True):
    """The definition of a team. Two teams with equal fields are equal."""

    def __post_init__(self) -> None:
        """Raise InvalidInput for what can't work, as far as it is known without a worker."""
        if fault := name_fault(self.name):
            raise InvalidInput(f"Team(name=...): {fault}.")
        if fault := next(_faults(self), None):
            raise InvalidInput(f"team {self.name!r}: {fault}.", team=self.name)
        if self.output_schema is not None:
            output_type(self.name, self.output_schema)
        check_prices(self, self.limits)
        self.compiled()

    @property
    def parts(self) -> Sequence[Runnable]:
        mode = self._mode
        more = self.compiled().parts if mode is None else mode.roles(self).values()
        return tuple({each.name: each for each in (*self.members, *more)}.values())

    @property
    def _mode(self) -> Mode | None:
        """The mode with its options; None: a model leads."""
        if isinstance(self.mode, Mode):
            return self.mode
        return MODES[self.mode]() if self.mode in MODES else None

    def compiled(self) -> Any:
        mode = self._mode
        if mode is None:
            lead: Callable[[TeamSpec], Agent] = getattr(leading, self.mode)
            return lead(self)
        roles = dict(mode.roles(self))
        leader = roles.get("leader") or (role(self, "leader") if self.memory else None)

        def body(flow: Flow) -> Any:
            return mode.run(Meeting(self, mode, roles, flow))

        return Program(
            name=self.name, kind=self.kind, body=body, queue=self.queue, deadline_s=self.limits.deadline_s, agent=leader,
            declared={"mode": mode.word, "members": [each.name for each in self.members]},
        )  # fmt: skip


def _faults(team: Team) -> Iterator[str]:
    """Yield what is wrong with the fields of a team."""
    for field, check in (("description", checks.text), ("instructions", checks.instructions), ("queue", checks.queue)):  # fmt: skip
        if reason := check(getattr(team, field)):
            yield f"{field} {reason}"
    limits: Any = team.limits
    if not isinstance(limits, Limits):
        yield f"limits must be Limits(...), got {checks.brief(limits)}"
    elif wrong := checks.misfit(Limits, limits):
        yield f"limits.{wrong[0]} {wrong[1]}"
    timeout = team.member_timeout_s
    if timeout is not None and (type(timeout) not in (int, float) or not 0 < timeout < 1e9):
        yield f"member_timeout_s must be seconds above 0, or None, got {checks.brief(timeout)}"
    yield from _faults_of_members(team)
    if isinstance(team.leader, Runnable):
        if team.leader.name in {each.name for each in team.members}:
            yield f"its leader {team.leader.name!r} is among its members: leave it out there"
    elif team.leader is not None and (fault := checks.model_fault(team.leader)):
        yield fault.replace("model=", "leader=", 1)
    yield from _faults_of_shared(team)
    yield from _faults_of_mode(team)


def _faults_of_members(team: Team) -> Iterator[str]:
    if not isinstance(team.members, list | tuple) or not team.members:
        yield f"members must be a list of agents, teams and workflows, got {checks.brief(team.members)}"
        return
    for each in team.members:
        if not isinstance(each, Runnable):
            yield f"a member must be an agent, a team or a workflow, got {checks.brief(each)}"
        elif not ACCEPTED_NAME.fullmatch(each.name):
            yield f"the member {each.name!r} needs a name of 1 to 64 letters, digits, _ and -, as providers accept them: rename it"
        elif team.name in _names_within(each):
            yield f"the team is among its own members{'' if each.name == team.name else f', by {each.name!r}'}: take it out, or rename one of them"
    names = [each.name for each in team.members]
    if twice := [name for name in names if names.count(name) > 1]:
        yield f"two members are named {twice[0]!r}: rename one of them"


def _names_within(what: Runnable) -> set[str]:
    """Return the names of all that a member starts."""
    known, todo = set(), [what]
    while todo:
        each = todo.pop()
        if each.name not in known:
            known.add(each.name)
            todo += each.parts
    return known


def _faults_of_shared(team: Team) -> Iterator[str]:
    for field in ("state", "roster", "share_member_interactions"):
        if not isinstance(value := getattr(team, field), bool):
            yield f"{field} must be True or False, got {checks.brief(value)}"
    memory: Any = team.memory
    if memory is not None and not isinstance(memory, Memory):
        yield f"memory must be Memory(...), got {checks.brief(memory)}"
    elif memory is not None and (wrong := checks.misfit(Memory, memory)):
        yield f"memory.{wrong[0]} {wrong[1]}"
    if team.leader is None and (memory is not None or team.state):
        yield f"{'state' if memory is None else 'memory'} is for the leader, and it has none: set leader=, or give it to members"


def _faults_of_mode(team: Team) -> Iterator[str]:
    mode = team.mode
    if team.member_timeout_s is not None and mode in LED:
        yield f"member_timeout_s is for modes whose next move code chooses, and mode is {str(mode)!r}: give members limits=Limits(deadline_s=...)"
    for field in ("turns", "tool_calls", "on_limit") if mode not in LED else ():
        if getattr(team.limits, field) != getattr(Limits(), field):
            yield f"limits.{field} is for modes in which a model chooses the next move: leave it out, or give it to the leader and the members"
    if team.share_member_interactions and mode not in ("coordinate", "network"):
        yield "share_member_interactions is for mode='coordinate' and 'network', in which the leader calls members as tools: leave it out"
    if isinstance(mode, Mode):
        if fault := mode.fault(team):
            yield f"mode {mode.word}: {fault}"
    elif isinstance(mode, type) and issubclass(mode, Mode):
        yield f"mode={mode.word} is not called: write mode={mode.word}(), or mode={mode.word!r}"
    elif isinstance(mode, str) and mode in MODES:
        if fault := MODES[mode]().fault(team):
            yield f"mode {mode}: {fault}"
    elif not isinstance(mode, str) or mode not in LED:
        known = (*LED, *MODES)
        near = did_you_mean(str(mode), known).rstrip("?")
        if mode == "collaborate":
            near = " In place of agno's older 'collaborate', write 'broadcast'"
        yield f"mode must be one of {', '.join(known)}, got {checks.brief(mode)}{'.' if near else ''}{near}"
