"""Teams whose leader's model chooses each move: the leader is an agent, and the members are its tools.

* `coordinate`: each member is a delegation, which gets one visible message (see handover.py) and gives its answer back.
* `route`: each member may take the run over, with its transcript (see `core.handoff`).
* `network`: as `coordinate`, and the members consult each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from agno_workers.core.agent import Agent, History, Limits
from agno_workers.core.delegate import Arguments, Delegate, described_input
from agno_workers.core.handoff import Handoffs
from agno_workers.core.messages import ToolSpec
from agno_workers.core.runnable import Runnable
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import InvalidInput, InvalidTool
from agno_workers.teams.handover import handover
from agno_workers.teams.roles import role
from agno_workers.teams.spec import TeamSpec

_LEADS = (
    "You lead a team. Split the work, and give each piece to the member that fits: the calls of one answer run side by side. A member gets "
    "nothing but what you write in its call. Judge the results, ask again where something is missing, then answer yourself."
)
_ROUTES = (
    "You receive the conversations of a team. Hand each over to the member that fits, which then answers the user itself; answer yourself "
    "where none fits. Do not mention transfers to the user."
)
_TAKES = (
    "You have taken over this conversation as {name}, a member of the team {team}: answer the user yourself. When another one fits better, hand "
    "it on or back. Do not mention transfers to the user."
)
_CONSULTS = "You may consult the other members of the team while you work. One that you ask gets nothing but what you write in its call."
_CONVERSATION = History(summary=False, search_past_sessions=0, tools=False)
"""The history of a conversation whose leader is a model: the runs of its session."""
A = TypeVar("A", bound=Agent)


def coordinate(team: TeamSpec) -> Agent:
    """Return the leader, which delegates to the members side by side, reads their results, and answers."""
    leader = _leader(team, _LEADS)
    members = [_delegate(team, each) for each in team.members]
    return _checked(team, msgspec.structs.replace(leader, tools=[*leader.tools, *members]))


def route(team: TeamSpec) -> Agent:
    """Return the leader, which hands the conversation over to a member, and the members, which hand it on or back."""
    leader = _leader(team, _ROUTES)
    if not isinstance(team.leader, Agent):
        leader = msgspec.structs.replace(leader, history=_CONVERSATION)
    plain = {name: getattr(leader, name) for name in Agent.__struct_fields__}
    others = tuple(_taking(team, leader, each) for each in team.members)
    group = Handoffs(**plain, others=others)
    for each in others:
        _checked(team, each, group)
    return _checked(team, group)


def network(team: TeamSpec) -> Agent:
    """Return the leader of members that consult each other; without a leader, the first member leads."""
    leader, asked = _head(team)
    among = {each.name: _delegate(team, each, _consulted(team, each), f"{team.name}:") for each in asked}
    tools = []
    for each in asked:
        member: Runnable = each
        if isinstance(each, Agent):
            others = [tool for name, tool in among.items() if name != each.name]
            fields = {"name": _consulted(team, each), "tools": [*each.tools, *others]}
            member = _checked(team, _told(each, _CONSULTS, **fields))
        tools.append(msgspec.structs.replace(among[each.name], what=member))
    return _checked(team, msgspec.structs.replace(leader, tools=[*leader.tools, *tools]))


def _head(team: TeamSpec) -> tuple[Agent, Sequence[Runnable]]:
    """Return the leader of a network, and the members that are consulted."""
    if team.leader is not None:
        return _leader(team, _LEADS), team.members
    first, *rest = team.members
    if not isinstance(first, Agent):
        raise InvalidInput(
            f"team {team.name!r}: without a leader, the first member of a network leads, and {first.name!r} is a {first.kind}: add leader=..., "
            "or begin with an agent.",
            team=team.name,
        )
    return _as_leader(team, _told(first, _CONSULTS)), rest


def _consulted(team: TeamSpec, member: Runnable) -> str:
    """Return the name of a member's runs in a network. Teams and workflows consult nobody, and run as they are."""
    return f"{team.name}:{member.name}" if isinstance(member, Agent) else member.name


def _leader(team: TeamSpec, line: str) -> Agent:
    return _as_leader(team, role(team, "leader", instructions=line))


def _as_leader(team: TeamSpec, agent: Agent) -> Agent:
    """Return the agent that takes the turns of the team's runs. The team's limits and schema, where it has some, replace the agent's own."""
    return msgspec.structs.replace(
        agent, name=team.name, description=team.description, queue=team.queue or agent.queue,
        output_schema=agent.output_schema if team.output_schema is None else team.output_schema,
        # Those of the tree count the leader's calls too.
        limits=agent.limits if team.limits == Limits() else msgspec.structs.replace(team.limits, tokens=None, cost_usd=None),
    )  # fmt: skip


def _taking(team: TeamSpec, leader: Agent, member: Runnable) -> Agent:
    """Return a member as it takes a conversation over: the limits, the history and the memory of the run are the leader's."""
    agent = member.compiled()
    if not isinstance(agent, Agent) or isinstance(agent, Handoffs):
        raise InvalidInput(
            f"team {team.name!r}: a member of a team with mode='route' takes the conversation over, and the {member.kind} {member.name!r} can't: "
            "use an agent or a team with mode='coordinate', or give this team another mode.",
            team=team.name,
        )
    return _told(
        agent, _TAKES.format(name=member.name, team=team.name),
        output_schema=agent.output_schema if team.output_schema is None else team.output_schema,
        history=leader.history, memory=leader.memory, limits=leader.limits, queue=agent.queue or team.queue,
    )  # fmt: skip


def _told(agent: A, line: str, **fields: Any) -> A:
    """Return an agent with one more instruction, and with these fields."""
    own = [agent.instructions] if isinstance(agent.instructions, str) else agent.instructions
    return msgspec.structs.replace(agent, instructions=[*(each for each in own if each), line], **fields)


def _delegate(team: TeamSpec, member: Runnable, runs: str = "", peers: str = "") -> Delegate:
    described_task = described_input(member)
    fields = {"task": described_task} if described_task else _FIELDS
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    parameters = {
        "type": "object",
        "properties": properties,
        "required": ["task"],
        "additionalProperties": False,
    }
    return Delegate(
        spec=ToolSpec(member.name, described(member), parameters), runs=runs or member.name, kind=member.kind, queue=member.queue,
        message=_message, shares_interactions=team.share_member_interactions, peers=peers,
    )  # fmt: skip


_FIELDS = {
    "task": "The task. The member gets nothing but this call, so write everything that it needs.",
    "work": "The work so far that it continues from, and who said what.",
    "requirements": "The conditions that its answer must meet.",
    "expectations": "The form of the answer.",
}


def _message(given: Arguments) -> str:
    task, work, requirements, expectations = (given.get(name) or "" for name in _FIELDS)
    return handover(task, work=work, requirements=requirements, expectations=expectations)


def described(member: Runnable) -> str:
    """Return the text about a member, for the model that calls it: what it does, and who is in it."""
    text = f"Gives a task to the {member.kind} {member.name}, and returns its answer. {member.description}".rstrip()
    if isinstance(member, TeamSpec):
        text = f"{text} Its members: {', '.join(each.name for each in member.members)}."
    return text


def _checked(team: TeamSpec, agent: A, group: Handoffs | None = None) -> A:
    """Raise InvalidTool where providers would refuse the tools of an agent."""
    try:
        AgentPlan.of(agent, group=group)
    except InvalidTool as error:
        raise InvalidTool(f"team {team.name!r}: {error}", team=team.name) from error
    return agent
