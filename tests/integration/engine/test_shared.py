"""What a team shares: its state, its memories, its roster, and reports of progress."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from agno_workers.core.agent import Agent, Memory
from agno_workers.core.context import Context
from agno_workers.core.flow import Flow
from agno_workers.core.messages import ModelRequest
from agno_workers.core.run import RunKind, RunStatus
from agno_workers.core.runnable import Program, Runnable
from agno_workers.core.step import StepMessage
from agno_workers.core.tool import ToolContext
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.registry import Registry
from agno_workers.runs import reports
from agno_workers.runs.prune import pruning
from agno_workers.runs.queries import Event
from agno_workers.sdk.states import StateHandle
from agno_workers.sessions.memory import MemoryService
from agno_workers.sessions.memory_store import MemoryOwner, MemoryStore
from agno_workers.sessions.state import StateStore
from agno_workers.sessions.store import Sessions
from agno_workers.streams import Streamed
from agno_workers.teams.roster import Roster
from agno_workers.teams.team import Team
from agno_workers.tools import tool
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import CountedPool, Scenario
from tests.steps import execute_step

Body = Callable[[ToolContext], object]
CREW = MemoryOwner("team", "crew")
asked: list[ModelRequest] = []
results: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_asked() -> None:
    asked.clear()
    results.clear()


def calling(name: str, *bodies: Body, members: int = 0, effect: str = "pure", **options: Any) -> Agent:
    """Return an agent that calls these tools and delegates to `m0` ... in its first turn, and then answers."""

    def named(number: int, body: Body) -> Any:
        def call(ctx: ToolContext) -> str:
            """Call."""
            results.append(body(ctx))
            return "ok"

        return tool(name=f"call_{number}", effect=effect)(call)

    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        *((f"call_{number}", {}) for number in range(len(bodies))),
        *((f"m{number}", {"task": f"Part {number}."}) for number in range(members)),
    )

    def reply(request: ModelRequest) -> Turn:
        asked.append(request)
        return Turn(calls=calls) if calls and request.messages[-1].role == "user" else Turn(text=f"{name}.")

    model = Scripted(f"shared_{name}_{id(calls)}", reply)
    return Agent(name=name, model=model, tools=[named(*each) for each in enumerate(bodies)], **options)


def crew(
    *members: Runnable, lead: tuple[Body, ...] = (), leader: dict[str, Any] | None = None, **options: Any
) -> Team:
    leading = calling("lead", *lead, members=len(members), **(leader or {}))
    return Team(**{"name": "crew", "members": list(members), "leader": leading, **options})


def engine_of(scenario: Scenario, *runnables: Runnable) -> Engine:
    """Return an engine that has memories and the roster, too."""
    engine = scenario.engine(*runnables)
    more = (
        MemoryService(MemoryStore(scenario.pool)).extension(),
        Roster(scenario.pool, Registry(runnables).all).extension(),
    )
    return replace(engine, extensions=(*engine.extensions, *more))


def run(scenario: Scenario, what: Runnable, **options: Any) -> str:
    step = scenario.submit(what.name, "Go.", **options)
    done = scenario.execute_all(engine_of(scenario, what), step)
    assert done.status is RunStatus.DONE, done.error
    return step.run_id


def begin(scenario: Scenario, engine: Engine, team: Team, **options: Any) -> tuple[str, list[StepMessage]]:
    """Execute a team up to the tool calls of its members; return the id of its run, and these."""
    step = scenario.submit(team.name, "Go.", **options)
    children = execute_step(engine, step).children
    return step.run_id, [send for child in children for send in execute_step(engine, child).sends]


def state(scenario: Scenario, owner: str) -> StateHandle:
    return StateHandle(StateStore(scenario.pool), "team", owner, "test")


# State.


@pytest.mark.parametrize("session_id", [None, "s1"])
def test_state_of_a_team_is_that_of_leader_and_members(scenario: Scenario, session_id: str | None) -> None:
    def count(ctx: ToolContext) -> None:
        ctx.state_of("team").increment("n")

    team = crew(calling("m0", count), calling("m1", count), lead=(count,))
    run_id = run(scenario, team, session_id=session_id)
    assert state(scenario, session_id or run_id).all() == {"n": 3}
    assert {bool(change.run_id) for change in state(scenario, session_id or run_id).history("n")} == {True}
    run(scenario, team, session_id=session_id)
    assert state(scenario, session_id or run_id).get("n") == (6 if session_id else 3)


def test_members_that_change_the_state_at_once_lose_nothing(scenario: Scenario) -> None:
    """Half of the changes are of the kind that conflicts."""

    def change(ctx: ToolContext) -> None:
        shared = ctx.state_of("team")
        shared.append("who", ctx.agent)
        shared["n"] = shared.get("n", 0) + 1

    team = crew(*(calling(f"m{number}", change) for number in range(20)))
    engine = engine_of(scenario, team)
    run_id, sends = begin(scenario, engine, team)
    with ThreadPoolExecutor(16) as threads:
        recorded = list(threads.map(partial(execute_step, engine), sends))
    assert [each.recorded for each in recorded] == [True] * 20
    found = state(scenario, run_id).all()
    assert (found["n"], sorted(found["who"])) == (20, sorted(f"m{number}" for number in range(20)))


def test_nested_team_has_a_state_of_its_own(scenario: Scenario) -> None:
    def note(ctx: ToolContext) -> None:
        ctx.state_of("team").append("teams", ctx.team)

    inner = Team(name="m0", members=[calling("m1", note)], leader=calling("inner", note))
    team = crew(inner, lead=(note,))
    run(scenario, team, session_id="s1")
    assert state(scenario, "s1").get("teams") == ["crew"]
    (owner,) = scenario.db.sql("SELECT owner FROM agno.state WHERE scope = 'team' AND owner <> 's1'")
    assert state(scenario, owner["owner"]).get("teams") == ["m0"]


def test_member_of_a_team_that_has_ended_changes_no_state(scenario: Scenario) -> None:
    team = crew(calling("m0", lambda ctx: ctx.state_of("team").set("late", True)))
    engine = engine_of(scenario, team)
    run_id, (send,) = begin(scenario, engine, team)
    scenario.db.sql(
        "UPDATE agno.run SET status = 'done', reason = 'end', ended_at = clock_timestamp() WHERE id = %(id)s",
        id=run_id,
    )
    execute_step(engine, send)
    assert state(scenario, run_id).all() == {}
    assert "has ended: its state takes no more changes" in scenario.results(send.run_id)[0]


def test_state_of_another_team_is_refused(scenario: Scenario) -> None:
    team = crew(calling("m0", lambda ctx: ctx._states.of("team", "s2").increment("n")))
    run(scenario, team, session_id="s1")
    assert state(scenario, "s2").all() == {}


def test_message_that_takes_the_place_of_a_team_run_undoes_what_its_members_wrote(scenario: Scenario) -> None:
    team = crew(calling("m0", lambda ctx: ctx.state_of("team").update("plan", {"step": 2})))
    state(scenario, "s1").set("plan", {"step": 1})
    engine = engine_of(scenario, team)
    run_id, sends = begin(scenario, engine, team, session_id="s1")
    assert [execute_step(engine, send).recorded for send in sends] == [True]
    assert state(scenario, "s1").get("plan") == {"step": 2}
    scenario.submit("crew", "No: this.", session_id="s1", if_busy="rollback")
    assert scenario.queries.run(run_id).status is RunStatus.CANCELLED
    assert state(scenario, "s1").get("plan") == {"step": 1}


def test_state_of_a_team_goes_with_its_run_or_session(scenario: Scenario) -> None:
    team = crew(calling("m0", lambda ctx: ctx.state_of("team").increment("n")))
    alone, named = run(scenario, team), run(scenario, team)
    run(scenario, team, session_id=named)  # the session has the id of a run
    scenario.db.sql("DELETE FROM agno.outbox")
    scenario.db.sql(
        "UPDATE agno.run SET ended_at = ended_at - interval '2 days' WHERE coalesce(lineage->>'root', id::text) = ANY(%(ids)s)",
        ids=[alone, named],
    )
    with pruning(scenario.db.pool, timedelta(days=1)) as old:
        assert old.delete()[0] == 4
    assert (state(scenario, alone).all(), state(scenario, named).get("n")) == ({}, 2)
    Sessions(scenario.pool, scenario.db.journal.store).delete(named)
    assert scenario.db.count("state") == scenario.db.count("state_change") == 0


def test_fork_of_a_session_copies_the_state_of_its_team(scenario: Scenario) -> None:
    team = crew(calling("m0", lambda ctx: ctx.state_of("team").increment("n")))
    first = run(scenario, team, session_id="s1")
    run(scenario, team, session_id="s1")
    sessions = Sessions(scenario.pool, scenario.db.journal.store)
    sessions.fork("s1", at=first, new_id="s2", actor="test")
    assert (state(scenario, "s1").get("n"), state(scenario, "s2").get("n")) == (2, 1)


@pytest.mark.parametrize("options", [{"state": True}, {"leader": {"context": Context(state="team")}}])
def test_leader_sees_the_state_of_its_team(scenario: Scenario, options: dict[str, Any]) -> None:
    state(scenario, "s1").set("plan", "Berlin")
    run(
        scenario,
        crew(calling("m0", lambda ctx: ctx.state_of("team").set("plan", "Bonn")), **options),
        session_id="s1",
    )
    first, _, _, last = (each.system for each in asked)
    assert first == last
    assert first.endswith('State of the team, when this run began:\n{"plan":"Berlin"}')


def test_agent_without_a_team_sees_no_state_of_one(scenario: Scenario) -> None:
    run(scenario, calling("solo", context=Context(state="team")))
    assert asked[0].system == ""


def remember_city(city: str, ctx: ToolContext) -> None:
    ctx.state["city"] = city
    ctx.report("half way", 0.5)


@pytest.mark.parametrize("session_id", [None, "s1"])
def test_function_step_has_the_state_of_its_session_or_run(
    scenario: Scenario, session_id: str | None
) -> None:
    workflow = Workflow(name="flow", function=lambda flow, text: flow.step("city", remember_city, text))
    run_id = run(scenario, workflow, session_id=session_id)
    scope, owner = ("session", "s1") if session_id else ("run", run_id)
    assert StateStore(scenario.pool).all(scope, owner) == {"city": "Go."}
    assert [each.data and each.data["text"] for each in reported(scenario, run_id)] == ["half way"]


# Memory.


def test_team_remembers_from_run_to_run(scenario: Scenario) -> None:
    store = MemoryStore(scenario.pool)
    store.add(CREW, "The team ships on Fridays.", actor="test")
    team = crew(calling("m0", memory=Memory(scope="team")), memory=Memory(scope="team"))
    run_id = run(scenario, team)
    assert ["ships on Fridays" in each.system for each in asked] == [True] * 3
    assert scenario.db.sql("SELECT kind, owner, run_id FROM agno.background_item") == [
        {"kind": "learn", "owner": "team:crew", "run_id": run_id}
    ]
    (exchange,) = store.exchanges(CREW, [run_id], 1000)
    assert (exchange["agent"], exchange["used_tools"]) == ("crew", False)


def test_answer_of_a_team_whose_members_used_tools_is_not_learned(scenario: Scenario) -> None:
    run_id = run(scenario, crew(calling("m0", lambda ctx: None)))
    (exchange,) = MemoryStore(scenario.pool).exchanges(CREW, [run_id], 1000)
    assert exchange["used_tools"]


def test_member_remembers_for_its_team(scenario: Scenario) -> None:
    call = ("remember", {"text": "The team decided on Postgres.", "kind": "fact"})
    replies = iter([Turn(calls=(call,)), Turn(text="Done.")])
    memory = Memory(scope="team", learn="agentic")
    member = Agent(name="m0", model=Scripted("remembers", lambda _: next(replies)), memory=memory)
    run(scenario, crew(member))
    (found,) = MemoryStore(scenario.pool).memories(CREW)
    assert (found.text, found.scope, found.owner) == ("The team decided on Postgres.", "team", "crew")


def test_memory_of_a_team_is_not_for_runs_without_one(scenario: Scenario) -> None:
    MemoryStore(scenario.pool).add(MemoryOwner("team", "m0"), "A secret.", actor="test")
    run(scenario, calling("m0", memory=Memory(scope="team")))
    assert asked[0].system == ""
    assert scenario.db.count("background_item") == 0


class Coded(Runnable, frozen=True, kw_only=True):
    """A team whose next move code chooses."""

    agent: Agent
    kind = RunKind.TEAM

    def compiled(self) -> Program:
        def body(flow: Flow) -> str:
            return str(flow.step("lead", self.agent, "Go."))

        return Program(name=self.name, kind=self.kind, body=body, agent=self.agent)


def test_team_that_code_leads_learns_by_its_agent(scenario: Scenario) -> None:
    leader = calling("lead", memory=Memory(scope="team"))
    team = Coded(name="crew", agent=leader)
    engine = engine_of(scenario, team, leader)
    step = scenario.submit("crew", "Go.")
    scenario.execute_all(engine, step)
    items = scenario.db.sql("SELECT owner, run_id FROM agno.background_item")
    assert items == [{"owner": "team:crew", "run_id": step.run_id}]
    assert engine.agent("crew") == leader


class Remembering:
    """A scripted agent that calls `remember`, and then answers."""

    def __init__(self, name: str, *calls: tuple[str, dict[str, Any]], **options: Any) -> None:
        turns = iter([*(Turn(calls=(call,)) for call in calls), *[Turn(text="ok")] * 9])

        def reply(request: ModelRequest) -> Turn:
            asked.append(request)
            return next(turns)

        self.agent = Agent(name=name, model=Scripted(f"remembering_{name}_{id(self)}", reply), **options)


REMEMBER = ("remember", {"text": "The team decided on Postgres.", "kind": "fact"})


@pytest.mark.parametrize("scope", ["agent", "session"])
def test_memories_of_a_routed_conversation_are_those_of_its_leader(scenario: Scenario, scope: Any) -> None:
    own = Memory(scope=scope, learn="agentic")
    lead = Remembering("lead", ("transfer_to_m0", {}), memory=own).agent
    member = Remembering("m0", REMEMBER, memory=Memory(scope="global")).agent
    team = Team(name="crew", members=[member], leader=lead, mode="route")
    run(scenario, team, session_id="s")
    asked.clear()
    run(scenario, team, session_id="s")
    assert "decided on Postgres" in asked[0].system


@pytest.mark.parametrize("scope", ["agent", "session"])
def test_roles_of_a_team_have_the_memories_that_its_runs_learn(scenario: Scenario, scope: Any) -> None:
    lead = Remembering("lead", REMEMBER, memory=Memory(scope=scope, learn="both")).agent
    team = Team(name="crew", members=[calling("m0")], leader=lead, mode="broadcast")
    run(scenario, team, session_id="s")
    learns = scenario.db.sql("SELECT owner FROM agno.background_item WHERE kind = 'learn'")
    owner = MemoryOwner.read(learns[0]["owner"], CREW.tenant)
    assert [each.text for each in MemoryStore(scenario.pool).memories(owner)] == [REMEMBER[1]["text"]]
    asked.clear()
    run(scenario, team, session_id="s")
    assert "decided on Postgres" in asked[-1].system


def test_agent_that_has_taken_over_has_its_own_state(scenario: Scenario) -> None:
    def count(ctx: ToolContext) -> None:
        ctx.state_of("agent").increment("n")
        ctx.report("counted")

    lead = Remembering("lead", ("transfer_to_m0", {})).agent
    member = calling("m0", count, context=Context(state="agent"))
    member = msgspec.structs.replace(member, model=Remembering("m0", ("call_0", {})).agent.model)
    team = Team(name="crew", members=[member], leader=lead, mode="route")
    run_id = run(scenario, team, session_id="s")
    run(scenario, team, session_id="s")
    assert [each.data and each.data["agent"] for each in reported(scenario, run_id)] == ["m0"]
    store = StateStore(scenario.pool)
    assert (store.all("agent", "m0"), store.all("agent", "crew")) == ({"n": 1}, {})
    assert asked[-1].system.endswith('State of the agent, when this run began:\n{"n":1}')


# Roster.


def look(ctx: ToolContext) -> None:
    ctx.report("reading", 0.25)


def roster(scenario: Scenario, engine: Engine, send: StepMessage) -> str:
    execute_step(engine, send)
    return scenario.results(send.run_id)[0]


def asking_roster(name: str) -> Agent:
    def reply(request: ModelRequest) -> Turn:
        asked.append(request)
        return Turn(calls=(("team_roster", {}),)) if request.messages[-1].role == "user" else Turn(text="ok")

    return Agent(name=name, model=Scripted(f"roster_{name}_{id(reply)}", reply), description="Asks.")


def test_member_sees_who_is_busy_with_what(scenario: Scenario) -> None:
    team = crew(asking_roster("m0"), calling("m1", look, description="Reads."), calling("m2"))
    engine = engine_of(scenario, team)
    step = scenario.submit("crew", "Go.")
    first, second, third = execute_step(engine, step).children
    (ask,) = execute_step(engine, first).sends
    (read,) = execute_step(engine, second).sends
    assert execute_step(engine, third).ended
    execute_step(engine, read)
    seen = roster(scenario, engine, ask)
    expected = (
        '[{"name":"m0","can":"Asks.","busy_with":[{"task":"Part 0.","for_s":0}],"is_you":true},'
        '{"name":"m1","can":"Reads.","busy_with":[{"task":"Part 1.","for_s":0,"report":"reading","fraction":0.25}]},'
        '{"name":"m2","can":"no description of this agent"}]'
    )
    assert seen.replace('"for_s":1', '"for_s":0') == expected
    assert {"team_roster"} <= {spec.name for spec in asked[-1].tools}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"memory": {"scope": "team"}}, "memory must be Memory(...)"),
        ({"state": {"n": 1}}, "state must be True or False"),
        ({"state": True, "leader": None}, "state is for the leader, and it has none"),
        ({"roster": "m0"}, "roster must be True or False"),
    ],
)
def test_team_refuses_to_share_what_can_not_work(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(fault)):
        Team(**{"name": "crew", "members": [calling("m0")], "leader": "scripted:echo", **options})


@pytest.mark.parametrize("option", [True, False])
def test_roster_is_offered_to_all_agents_of_a_team_or_to_none(scenario: Scenario, option: bool) -> None:
    team = crew(calling("m0"), calling("m1"), roster=option)
    engine = engine_of(scenario, team)
    assert {"team_roster" in engine.plan(name).tools for name in ("crew", "m0", "m1")} == {option}


def test_agent_that_works_alone_sees_no_roster(scenario: Scenario) -> None:
    team = crew(member := calling("m0"))
    engine = engine_of(scenario, team, member)
    scenario.execute_all(engine, scenario.submit("m0", "Go."))
    assert [each.tools for each in asked] == [()]


# Reports.


def reported(scenario: Scenario, run_id: str) -> list[Event]:
    events = scenario.handle(run_id).events(timeout=0)
    return [each for each in events if not isinstance(each, Streamed) and each.event == "Report"]


def test_report_is_an_event_of_the_run_and_of_the_team(scenario: Scenario) -> None:
    def work(ctx: ToolContext) -> str:
        ctx.report("half way", 0.5)
        ctx.report("nearly", 0.9)
        return ctx.run_id

    inner = Team(name="m0", members=[calling("m0_", work)], leader=calling("inner", work))
    run_id = run(scenario, crew(inner))
    (member,) = results
    assert isinstance(member, str)
    for each in (run_id, member):
        first, second = reported(scenario, each)
        assert first.data is not None
        assert (first.name, first.data["text"], first.data["fraction"]) == ("call_0", "half way", 0.5)
        assert (first.data["run_id"], first.data["agent"]) == (member, "m0")
        assert (second.data or {})["text"] == "nearly"
    events = [each.event for each in scenario.queries.events(member)]
    assert events[events.index("ToolCallStarted") + 1 :][:2] == ["Report", "Report"]
    assert [each.event for each in scenario.queries.events(member)] == events  # numbered once


def test_report_is_visible_while_the_call_runs(scenario: Scenario) -> None:
    seen: list[Event] = []

    def work(ctx: ToolContext) -> None:
        ctx.report("begun")
        seen.extend(each for each in scenario.queries.events(ctx.run_id) if each.event == "Report")

    run(scenario, calling("solo", work))
    assert [each.data and each.data["text"] for each in seen] == ["begun"]
    assert seen[0].data is not None
    assert "fraction" not in seen[0].data


def test_report_never_fails_a_call(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("no")

    def work(ctx: ToolContext) -> None:
        ctx.report("x" * 1000 + "\0", 50)
        ctx.report("nan", float("nan"))
        ctx.report("text", "half")  # type: ignore[arg-type]
        ctx.report(7)  # type: ignore[arg-type]
        ctx.report(Odd())  # type: ignore[arg-type]
        ctx.report("dropped")

    found = reported(scenario, run(scenario, calling("solo", work)))
    texts = [each.data["text"] for each in found if each.data and "fraction" not in each.data]
    assert texts == [f"{'x' * 499}…", "nan", "text", "7"]


def test_reports_are_bounded(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_BURST", 600)

    def work(ctx: ToolContext) -> None:
        for number in range(700):
            ctx.report(str(number))

    run_id = run(scenario, calling("solo", work))
    rows = scenario.db.sql("SELECT text FROM agno.report WHERE run_id = %(id)s ORDER BY number", id=run_id)
    assert len(rows) == 500
    assert 599 <= int(rows[-1]["text"]) < 650  # 600 at once, and a few of the time that they took
    scenario.db.sql("UPDATE agno.report SET number = number + 5000 - (SELECT min(number) FROM agno.report)")
    assert len(reported(scenario, run_id)) == 1


def test_call_that_has_ended_reports_no_more(scenario: Scenario) -> None:
    kept: list[ToolContext] = []
    run_id = run(scenario, calling("solo", kept.append, lambda _: kept[0].report("late")))
    assert reported(scenario, run_id) == []


def test_transactional_tool_that_holds_the_only_connection_is_not_delayed(
    scenario: Scenario, db_url: str
) -> None:
    pool = CountedPool(db_url, size=1, timeout_s=30, statement_timeout_s=30)
    pool.ran = []
    alone = Scenario(scenario.db, pool, scenario._streams)
    begun = time.monotonic()
    run_id = run(alone, calling("solo", lambda ctx: ctx.report("hi"), effect="transactional"))
    assert time.monotonic() - begun < pool._timeout_s / 2
    assert reported(alone, run_id) == []
    pool.close()
