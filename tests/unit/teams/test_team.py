"""The definition of a team: its parts, and what is refused."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from agno_workers import Agent, Flow, Limits, Team, Workflow
from agno_workers.core import agent as core
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program
from agno_workers.errors import InvalidInput
from agno_workers.registry import Registry
from agno_workers.teams import debate, supervise, vote

ann, bob = (Agent(name=name, model="scripted:echo") for name in ("ann", "bob"))


def team(**fields: Any) -> Team:
    return Team(
        **{"name": "desk", "members": [ann, bob], "leader": "scripted:echo", "mode": "broadcast"} | fields
    )


def test_team_whose_next_move_code_chooses_is_a_program_and_its_roles_are_parts() -> None:
    made = team(queue="slow", limits=Limits(deadline_s=60))
    program = made.compiled()
    assert isinstance(program, Program)
    assert (program.name, program.kind, program.queue, program.deadline_s) == (
        "desk",
        RunKind.TEAM,
        "slow",
        60,
    )
    assert program.declared == {"mode": "broadcast", "members": ["ann", "bob"]}
    for mode, roles in (
        ("broadcast", ["desk:leader"]),
        ("tasks", ["desk:planner", "desk:leader"]),
        ("supervise", ["desk:reviewer", "desk:leader"]),
        ("vote", ["desk:ann", "desk:bob", "desk:leader"]),
        (vote(tie="first"), ["desk:ann", "desk:bob"]),
        ("debate", ["desk:ann", "desk:bob", "desk:judge"]),
        ("coordinate", []),
    ):
        assert [each.name for each in team(mode=mode).parts] == ["ann", "bob", *roles]


def test_worker_finds_all_parts_of_nested_teams_by_their_names() -> None:
    inner = team(name="inner", members=[ann])
    registry = Registry(
        [team(members=[inner, bob], mode=supervise(reviewer=Agent(name="critic", model="scripted:echo")))]
    )
    known = {each.name for each in registry.all()}
    assert known == {"desk", "desk:reviewer", "desk:leader", "inner", "inner:leader", "ann", "bob"}


@pytest.mark.parametrize(
    "mode", ["broadcast", "tasks", "supervise", vote(quorum=2), debate(judge="scripted:echo"), "coordinate"]
)
def test_team_in_two_modules_is_one_team_and_another_of_its_name_is_refused(mode: Any) -> None:
    registry = Registry([team(mode=mode), team(mode=mode, output_schema=None)])
    other = Agent(name="ann", model="scripted:other")
    with pytest.raises(
        InvalidInput, match="'other' starts the agent 'ann', and another team or agent starts a different one"
    ):
        registry.add(team(name="other", mode=mode, members=[other, bob]))
    registry = Registry([ann, team(mode=mode)])
    registry.add(team(name="third", members=[ann, bob]))


def test_mode_may_be_a_member_of_an_enumeration_as_in_agno() -> None:
    class TeamMode(str, Enum):  # noqa: UP042 - as agno writes it
        broadcast = "broadcast"

    assert team(mode=TeamMode.broadcast).compiled().declared["mode"] == "broadcast"


def test_role_has_the_options_of_the_agent_that_leads() -> None:
    lead = Agent(
        name="lead",
        model="scripted:echo",
        instructions="Be kind.",
        limits=Limits(turns=3),
        output_schema=bool,
    )
    role = _leader(team(leader=lead, instructions=["Be brief."]))
    assert (role.limits.turns, role.output_schema) == (3, bool)
    assert list(role.instructions)[:2] == ["Be kind.", "Be brief."]
    assert _leader(team(leader=lead, output_schema=int)).output_schema is int


def _leader(team: Team) -> core.Agent:
    (found,) = [each for each in team.parts if each.name == "desk:leader"]
    assert isinstance(found, core.Agent)
    return found


def _flow(flow: Flow, text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": []}, "team 'desk': members must be a list of agents, teams and workflows, got []."),
        ({"members": ann}, "team 'desk': members must be a list of agents, teams and workflows, got Agent("),
        ({"members": [ann, len]}, "team 'desk': a member must be an agent, a team or a workflow, got <built-in function len>."),
        ({"members": [ann, ann]}, "team 'desk': two members are named 'ann': rename one of them."),
        ({"members": [Agent(name="an n", model="scripted:echo")]}, "team 'desk': the member 'an n' needs a name of 1 to 64 letters, digits, _ and -"),
        ({"members": [team(name="desk")]}, "team 'desk': the team is among its own members: take it out, or rename one of them."),
        ({"members": [team(name="up", members=[Workflow(name="desk", function=_flow)])]}, "team 'desk': the team is among its own members, by 'up':"),
        ({"leader": ann}, "team 'desk': its leader 'ann' is among its members: leave it out there."),
        ({"leader": None}, 'team \'desk\' needs a leader: an agent, or a model such as leader="openai:gpt-5-mini".'),
        ({"leader": Workflow(name="flow", function=_flow)}, "such as leader=\"openai:gpt-5-mini\"; the workflow 'flow' can't be one."),
        ({"leader": "gpt-5"}, "team 'desk': leader='gpt-5' names no provider"),
        ({"mode": "tusks"}, "team 'desk': mode must be one of coordinate, route, network, broadcast, tasks, supervise, vote, debate, got 'tusks'. Did you mean 'tasks'."),
        ({"mode": "collaborate"}, "got 'collaborate'. In place of agno's older 'collaborate', write 'broadcast'."),
        ({"mode": 3}, "got 3."),
        ({"mode": vote}, "team 'desk': mode=vote is not called: write mode=vote(), or mode='vote'."),
        ({"mode": vote(n=1)}, "team 'desk': mode vote: n=1 is fewer than its 2 members: leave n out, or drop members."),
        ({"mode": vote(quorum=3)}, "team 'desk': mode vote: quorum=3 is more than its 2 votes."),
        ({"mode": vote(quorum=0)}, "team 'desk': mode vote: quorum must be a whole number from 1 to 100, got 0."),
        ({"mode": vote(tie="last")}, "team 'desk': mode vote: tie must be 'leader', 'fail' or 'first', got 'last'."),  # type: ignore[arg-type]
        ({"mode": "vote", "members": [Agent(name="leader", model="scripted:echo")]}, "team 'desk': mode vote: a member is named 'leader', as the agent"),
        ({"mode": "debate", "members": [ann]}, "team 'desk': mode debate: a debate takes at least two members."),
        ({"mode": debate(rounds=True)}, "team 'desk': mode debate: rounds must be a whole number from 1 to 100, got True."),
        ({"mode": debate(judge=team(name="court"))}, "team 'desk': judge= takes an agent or a model, got the team 'court'."),
        ({"mode": supervise(criteria=7)}, "team 'desk': mode supervise: criteria must be text or a list of texts, got 7."),  # type: ignore[arg-type]
        ({"member_timeout_s": 0}, "team 'desk': member_timeout_s must be seconds above 0, or None, got 0."),
        ({"mode": "route", "member_timeout_s": 3}, "member_timeout_s is for modes whose next move code chooses, and mode is 'route'"),
        ({"share_member_interactions": True}, "team 'desk': share_member_interactions is for mode='coordinate' and 'network'"),
        ({"limits": Limits(turns=3)}, "team 'desk': limits.turns is for modes in which a model chooses the next move"),
        ({"mode": "vote", "output_schema": {"type": "string"}}, "'desk': output_schema={'type': 'string'} has no JSON schema"),
        ({"limits": 3}, "team 'desk': limits must be Limits(...), got 3."),
        ({"name": " "}, "Team(name=...): name must be text that is not blank, got ' '."),
        ({"member": [ann]}, "Team has no field 'member'. Did you mean 'members'?"),
        ({"model": "x"}, "Team has no field 'model', which is a word of agno: use leader=\"openai:...\"."),
        ({"success_criteria": "x"}, "Team has no field 'success_criteria', which is a word of agno: use mode=supervise(criteria=...)."),
        ({"tools": []}, "Team has no field 'tools': use leader=Agent(..., tools=...)."),
        ({"num_history_runs": 3}, "Team has no field 'num_history_runs', which is a word of agno: use leader=Agent(..., history=History(runs=5))."),
        ({"db": 3}, "Team has no field 'db', which is a word of agno: use the setting database.url"),
    ],
)  # fmt: skip
def test_team_that_cannot_work_is_refused_with_the_next_move(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        team(**fields)
    assert message in str(refused.value)


def test_mode_refuses_an_option_that_it_does_not_have() -> None:
    with pytest.raises(InvalidInput, match=r"Vote has no field 'quorums'. Did you mean 'quorum'\?"):
        vote(quorums=2)  # type: ignore[call-arg]
