"""Teams that a model leads: delegations, hand-overs, and members that consult each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, takewhile
from typing import Any

import msgspec
import pydantic
import pytest

from agno_workers.core.agent import Agent, Limits
from agno_workers.core.context import Computed, Context
from agno_workers.core.handoff import MAX_HAND_OVERS
from agno_workers.core.messages import Message, ModelSettings, Reasoning, ToolResult, user
from agno_workers.core.run import Run, RunStatus, StepKind
from agno_workers.core.tool import Effect, ToolContext
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, InvalidTool
from agno_workers.models import resolve
from agno_workers.models.scripted import Turn
from agno_workers.teams.team import Team
from agno_workers.tools import tool
from agno_workers.workflows.workflow import Workflow
from tests.fakes.provider import Provider, running
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step


class Score(pydantic.BaseModel):
    points: int


@tool(effect=Effect.PURE)
def look_up(account: str) -> str:
    """Look an account up."""
    if account == "none":
        raise ValueError("no such account")
    return f"{account}: 3 open invoices"


def asking(**tasks: str | dict[str, str]) -> Turn:
    """Call members by their names."""
    calls = tuple((name, {"task": task} if isinstance(task, str) else task) for name, task in tasks.items())
    return Turn(calls=calls)


def calling(*names: str, text: str = "", **arguments: Any) -> Turn:
    return Turn(text=text, calls=tuple((name, arguments) for name in names))


def turns(scenario: Scenario, run: Run) -> list[tuple[str, str]]:
    return [(step.key, step.name) for step in scenario.queries.steps(run.id) if step.kind is StepKind.TURN]


def result_of(request: Any, name: str) -> ToolResult:
    found = [
        part
        for message in request.messages
        for part in message.parts
        if isinstance(part, ToolResult) and part.name == name
    ]
    return found[-1]


# coordinate


def test_leader_delegates_side_by_side_and_reads_the_results(scenario: Scenario) -> None:
    numbers = ScriptedReplies(Turn(text='{"points": 7}'))
    words = ScriptedReplies(Turn(text="seven is prime"), Turn(text="and odd"))
    lead = ScriptedReplies(
        asking(
            numbers="How many?",
            words={
                "task": "Write it.", "work": "numbers counted 7.", "requirements": "One line.", "expectations": "Text for a letter.",
            },
        ),
        asking(words="More."),
        Turn(text="done"),
    )  # fmt: skip
    team = Team(
        name="desk",
        leader=lead.model,
        instructions="Answer briefly.",
        members=[
            Agent(name="numbers", description="Counts.", model=numbers.model, output_schema=Score),
            Agent(name="words", model=words.model),
        ],
    )
    step = scenario.submit("desk", "Go")
    run = scenario.execute_all(scenario.engine(team), step)
    assert (run.status, run.content) == (RunStatus.DONE, "done")
    first, second, third = lead.asked
    assert first.system.startswith("- Answer briefly.\n- You lead a team.")
    assert [(spec.name, spec.description) for spec in first.tools] == [
        ("numbers", "Gives a task to the agent numbers, and returns its answer. Counts."),
        ("words", "Gives a task to the agent words, and returns its answer."),
    ]
    schema = first.tools[0].parameters
    assert (list(schema["properties"]), schema["required"]) == (
        ["task", "work", "requirements", "expectations"],
        ["task"],
    )
    assert numbers.asked[0].messages == (user("How many?"),)
    assert words.asked[0].messages == (
        user("Write it.\n\n## Work so far\nnumbers counted 7.\n\n## Requirements\nOne line.\n\n## Expected answer\nText for a letter."),
    )  # fmt: skip
    calls = second.messages[1].tool_calls
    assert second.messages[2:] == (
        Message("tool", (ToolResult(calls[0].id, "numbers", '{"points": 7}'),)),
        Message("tool", (ToolResult(calls[1].id, "words", "seven is prime"),)),
    )
    assert third.messages[-1].parts[0].content == "and odd"  # type: ignore[union-attr]


def test_member_that_fails_is_a_result_and_the_leader_goes_on(scenario: Scenario) -> None:
    lead = ScriptedReplies(asking(broken="x", limited="y", good="z"), Turn(text="with one of three"))
    limited = ScriptedReplies(calling("look_up", account="a"))
    team = Team(
        name="desk",
        leader=lead.model,
        members=[
            Agent(
                name="broken",
                model=ScriptedReplies(Turn(text="not JSON")).model,
                output_schema=Score,
                tools=[],
            ),
            Agent(name="limited", model=limited.model, tools=[look_up], limits=Limits(turns=1)),
            Agent(name="good", model=ScriptedReplies(Turn(text="fine")).model),
        ],
    )
    run = scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    assert run.content == "with one of three"
    broken, limit, good = (result_of(lead.asked[1], name) for name in ("broken", "limited", "good"))
    assert broken.is_error
    assert "The run of broken ended failed: the answer does not fit output_schema" in broken.content
    assert limit.is_error
    assert "its limit of turns" in limit.content
    assert (good.is_error, good.content) == (False, "fine")


def test_leader_reads_the_tool_calls_of_a_member_when_it_is_asked_to(scenario: Scenario) -> None:
    lead = ScriptedReplies(asking(books="Check acme."), Turn(text="ok"))
    books = ScriptedReplies(
        Turn(calls=(("look_up", {"account": "acme"}), ("look_up", {"account": "none"}))),
        Turn(text="3 invoices"),
    )
    team = Team(
        name="desk",
        leader=lead.model,
        share_member_interactions=True,
        members=[Agent(name="books", model=books.model, tools=[look_up])],
    )
    scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    assert result_of(lead.asked[1], "books").content == (
        "3 invoices\n\n[Tool calls of books]\n"
        'look_up({"account": "acme"}) -> acme: 3 open invoices\n'
        'look_up({"account": "none"}) -> ValueError: no such account'
    )


def test_shared_tool_calls_are_the_last_ones_and_long_texts_are_cut(scenario: Scenario) -> None:
    lead = ScriptedReplies(asking(books="Check."), Turn(text="ok"))
    long = "x" * 2_000
    books = ScriptedReplies(
        Turn(calls=tuple(("look_up", {"account": f"{number}{long}"}) for number in range(25))),
        Turn(text="many"),
    )
    member = Agent(name="books", model=books.model, tools=[look_up])
    team = Team(name="desk", leader=lead.model, share_member_interactions=True, members=[member])
    scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    (stored,) = scenario.db.sql("SELECT content FROM agno.stored_result")
    lines = stored["content"].splitlines()
    assert lines[:3] == ["many", "", "[Tool calls of books: the last 20 of 25]"]
    assert lines[3].startswith('look_up({"account": "5x')
    assert "[... 1716 characters]) -> 5xx" in lines[3]
    assert max(map(len, lines)) < 1_500
    assert "[Result r" in result_of(lead.asked[1], "books").content


def test_call_of_a_member_that_does_not_fit_names_its_arguments(scenario: Scenario) -> None:
    lead = ScriptedReplies(asking(books={"goal": "x"}), asking(books={"task": " "}), Turn(text="ok"))
    team = Team(name="desk", leader=lead.model, members=[Agent(name="books", model=ScriptedReplies().model)])
    scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    text = (
        'books takes {"task": "..."}, and texts for work, requirements, expectations: nothing was delegated.'
    )
    assert {(result_of(each, "books").content) for each in lead.asked[1:]} == {text}


def test_fifty_members_are_delegated_to_in_one_commit(scenario: Scenario) -> None:
    names = [f"m{number}" for number in range(50)]
    lead = ScriptedReplies(asking(**dict.fromkeys(names, "go")), Turn(text="all in"))
    member = ScriptedReplies(Turn(text="in"))
    team = Team(
        name="desk", leader=lead.model, members=[Agent(name=name, model=member.model) for name in names]
    )
    engine, step = scenario.engine(team), scenario.submit("desk")
    scenario.pool.ran.clear()
    committed = execute_step(engine, step)
    assert (scenario.pool.ran, len(committed.children)) == (["claim", "finish"], 50)
    for child in committed.children:
        scenario.pool.ran.clear()
        execute_step(engine, child)
        assert scenario.pool.ran == ["claim", "finish"]
    run = scenario.execute_pending(engine, step.run_id)
    assert (run.content, run.turns, len(lead.asked[1].messages)) == ("all in", 2, 52)


def test_nested_team_is_a_member_and_its_members_know_their_place(scenario: Scenario) -> None:
    inner = Team(
        name="inner",
        description="Digs.",
        leader=ScriptedReplies(asking(deep="dig"), Turn(text="dug")).model,
        members=[Agent(name="deep", model=ScriptedReplies(Turn(text="gold")).model)],
    )
    lead = ScriptedReplies(asking(inner="go"), Turn(text="ok"))
    team = Team(name="outer", leader=lead.model, members=[inner])
    scenario.execute_all(scenario.engine(team), scenario.submit("outer"))
    assert (
        lead.asked[0].tools[0].description
        == "Gives a task to the team inner, and returns its answer. Digs. Its members: deep."
    )
    assert result_of(lead.asked[1], "inner").content == "dug"
    lineage = scenario.db.value("SELECT lineage FROM agno.run WHERE agent = 'deep'")
    assert (lineage["path"], lineage["team"]["name"]) == (["outer", "inner"], "inner")


# route


class Desk:
    """A team that routes: support leads, and billing and refunds take over. `scripts` are the replies of each."""

    def __init__(self, support: Any, billing: Any, refunds: Any, **fields: Any) -> None:
        self.scripts = {
            name: ScriptedReplies(*script)
            for name, script in {"support": support, "billing": billing, "refunds": refunds}.items()
        }
        lead, billing_model, refunds_model = (script.model for script in self.scripts.values())
        self.members = [
            Agent(name="billing", description="Invoices.", model=billing_model, instructions="You know invoices.", tools=[look_up], queue="money"),
            Agent(name="refunds", model=refunds_model),
        ]  # fmt: skip
        self.team = Team(name="support", mode="route", leader=lead, members=self.members, **fields)

    def asked(self, name: str) -> list[Any]:
        return self.scripts[name].asked

    def run(self, scenario: Scenario, *content: str, **options: Any) -> Run:
        return scenario.execute_all(self.engine(scenario), scenario.submit("support", *content, **options))

    def engine(self, scenario: Scenario) -> Engine:
        return scenario.engine(self.team)


BILLING, REFUNDS, BACK = "transfer_to_billing", "transfer_to_refunds", "transfer_back"
NOW = "The conversation is with {} now."


def test_conversation_is_handed_over_with_all_that_was_said(scenario: Scenario) -> None:
    desk = Desk(
        [calling(BILLING, reason="an invoice")],
        [calling("look_up", account="acme"), calling(REFUNDS, text="I see.")],
        [Turn(text="The order 4711 is refunded.")],
    )
    run = desk.run(scenario, "My order is 4711, the account acme.")
    assert (run.status, run.content, run.turns) == (RunStatus.DONE, "The order 4711 is refunded.", 4)
    assert turns(scenario, run) == [
        ("turn:1", ""), ("turn:2", "billing"), ("turn:3", "billing"), ("turn:4", "refunds"),
    ]  # fmt: skip
    (first,), (second, third), (last,) = (desk.asked(name) for name in desk.scripts)
    assert [spec.name for spec in first.tools] == [BILLING, REFUNDS]
    assert first.tools[0].description == (
        "Hand the conversation over to billing, who takes the next turn and has read all of it. Invoices."
    )
    assert [spec.name for spec in second.tools] == ["look_up", BACK, REFUNDS]
    assert second.system.startswith(
        "Invoices.\n\n- You know invoices.\n- You have taken over this conversation as billing, a member of the team support"
    )
    assert [spec.name for spec in last.tools] == [BACK, BILLING]
    told, transfer, result, looked, found, moved, moved_result = last.messages
    assert told == user("My order is 4711, the account acme.")
    assert transfer.tool_calls[0].name == BILLING
    assert result == Message("tool", (ToolResult(transfer.tool_calls[0].id, BILLING, NOW.format("billing")),))
    assert found == Message(
        "tool", (ToolResult(looked.tool_calls[0].id, "look_up", "acme: 3 open invoices"),)
    )
    assert (moved.text, moved_result.parts[0].content) == ("I see.", NOW.format("refunds"))
    assert second.messages == last.messages[:3]
    assert third.messages == last.messages[:5]
    assert scenario.db.value("SELECT count(*) FROM agno.run") == 1


def test_calls_beside_a_transfer_are_made_and_the_next_agent_reads_them(scenario: Scenario) -> None:
    desk = Desk(
        [calling(BILLING)],
        [Turn(calls=(("look_up", {"account": "acme"}), (REFUNDS, {}), (BACK, {}), ("nobody", {})))],
        [Turn(text="ok")],
    )
    run = desk.run(scenario)
    assert run.content == "ok"
    (request,) = desk.asked("refunds")
    assert result_of(request, "look_up").content == "acme: 3 open invoices"
    assert result_of(request, REFUNDS).content == NOW.format("refunds")
    late = result_of(request, BACK)
    assert (late.content, late.is_error) == (
        f"{BACK} was not made: the conversation goes to refunds first.",
        True,
    )
    assert result_of(request, "nobody").content == (
        f"There is no tool named 'nobody'. Known tools: look_up, {BACK}, {REFUNDS}."
    )
    calls = [call.id for message in request.messages for call in message.tool_calls]
    results = [part.call_id for message in request.messages for part in message.parts if isinstance(part, ToolResult)]  # fmt: skip
    assert sorted(calls) == sorted(results)


def test_transfer_to_oneself_and_to_an_unknown_agent_are_errors(scenario: Scenario) -> None:
    desk = Desk([calling(BACK), calling("transfer_to_biling"), Turn(text="ok")], [], [])
    run = desk.run(scenario)
    assert (run.content, {name for _, name in turns(scenario, run)[1:]}) == ("ok", {"support"})
    first, second = (
        part for message in scenario.transcript(run) for part in message.parts if isinstance(part, ToolResult)
    )
    assert (first.is_error, first.content) == (
        True,
        "You are support, and have the conversation already: answer, or hand it over to another one.",
    )
    assert "There is no tool named 'transfer_to_biling'. Did you mean transfer_to_billing?" in second.content


def test_conversation_is_not_handed_over_for_ever(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING)], [calling(BACK)], [], limits=Limits(turns=MAX_HAND_OVERS + 2))
    run = desk.run(scenario)
    assert (run.reason, run.turns) == ("limit:turns", MAX_HAND_OVERS + 2)
    names = [name for _, name in turns(scenario, run)]
    assert names[-2:] == ["support", "support"]
    assert (
        f"has been handed over {MAX_HAND_OVERS} times"
        in result_of(desk.asked("support")[-1], BILLING).content
    )


def test_next_message_of_a_session_goes_to_the_agent_that_had_the_last_turn(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING), Turn(text="ok")], [Turn(text="Which invoice?"), calling(BACK)], [])
    first = desk.run(scenario, "My name is Ada.", session_id="s")
    assert first.content == "Which invoice?"
    scenario.run(Agent(name="other", model=ScriptedReplies(Turn(text="hm")).model), session_id="s")
    second = desk.run(scenario, "Number 7.", session_id="s")
    assert turns(scenario, second)[:2] == [("turn:1", "billing"), ("turn:2", "support")]
    texts = [message.text for message in desk.asked("billing")[1].messages if message.role != "tool"]
    assert texts == ["My name is Ada.", "", "Which invoice?", "Number 7."]
    other = scenario.submit("support", "Hello", session_id="t")
    execute_step(desk.engine(scenario), other)
    assert scenario.db.step(other.step_id)["name"] == "support"


def test_turn_of_a_session_that_is_executed_again_has_the_same_agent(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING)], [Turn(text="one"), Turn(text="two")], [])
    desk.run(scenario, session_id="s")
    step = scenario.submit("support", session_id="s")
    claim = scenario.db.journal_of("dead").claim_turn(step.run_id, step.step_id, 0)
    assert claim is not None
    for known in (["support", "billing"], ["support"]):
        assert scenario.db.journal.continue_with(step.step_id, known) == "billing"
    scenario.db.expire(step.step_id)
    execute_step(desk.engine(scenario), step)
    assert [len(desk.asked(name)) for name in ("support", "billing")] == [1, 2]


def test_deploy_in_the_middle_changes_no_agent_of_an_open_run(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING), Turn(text="ok")], [calling(BACK), Turn(text="ok")], [])
    step = scenario.submit("support")
    execute_step(desk.engine(scenario), step)
    members = [msgspec.structs.replace(each, instructions="New.") for each in desk.members]
    lead = desk.scripts["support"].model
    engine = scenario.engine(
        Team(name="support", mode="route", leader=lead, instructions="New.", members=members)
    )
    scenario.execute_pending(engine, step.run_id)
    assert "New." not in desk.asked("billing")[0].system
    assert desk.asked("support")[1].system == desk.asked("support")[0].system
    desk.scripts["support"].asked.clear()
    scenario.execute_all(engine, scenario.submit("support"))
    assert "- New.\n" in desk.asked("support")[0].system
    assert "- New.\n" in desk.asked("billing")[1].system


def test_agent_that_a_worker_does_not_have_is_left_to_another_worker(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING)], [Turn(text="ok")], [])
    step = scenario.submit("support")
    (turn,) = execute_step(desk.engine(scenario), step).sends
    assert turn.queue == "money"
    older = Team(
        name="support", mode="route", leader=desk.scripts["support"].model, members=desk.team.members[1:]
    )
    assert not execute_step(scenario.engine(older), turn).recorded
    assert scenario.db.step(turn.step_id)["status"] == "ready"
    scenario.let_time_pass()
    execute_step(desk.engine(scenario), turn)
    assert scenario.queries.run(step.run_id).content == "ok"


def test_retry_and_fork_continue_with_the_agent_that_had_the_turn(scenario: Scenario) -> None:
    desk = Desk(
        [calling(BILLING)],
        [Turn(calls=(("look_up", {"account": "a"}), (REFUNDS, {})))],
        [calling("look_up"), Turn(text="second"), Turn(text="third"), Turn(text="fourth")],
        limits=Limits(turns=3),
    )  # fmt: skip
    run = desk.run(scenario)
    assert (run.status, run.reason) == (RunStatus.FAILED, "limit:turns")
    assert scenario.db.journal.retry_run(run.id)
    engine = desk.engine(scenario)
    again = scenario.execute_pending(engine, run.id)
    assert (again.content, turns(scenario, again)[-1]) == ("second", ("turn:3", "refunds"))
    for at, content in (("turn:3", "third"), ("tool:2:0", "fourth")):
        forked = scenario.handle(run.id).fork(at=at)
        done = scenario.execute_pending(engine, forked.id)
        assert (done.content, turns(scenario, done)[-1]) == (content, ("turn:3", "refunds"))
    assert [len(desk.asked(name)) for name in desk.scripts] == [1, 1, 4]


def test_retry_in_the_middle_of_calls_continues_with_the_agent_that_takes_over(scenario: Scenario) -> None:
    desk = Desk(
        [Turn(calls=((BILLING, {}), ("nothing", {})))], [Turn(text="ok")], [], limits=Limits(deadline_s=60)
    )
    engine, step = desk.engine(scenario), scenario.submit("support")
    execute_step(engine, step)
    scenario.db.sql("UPDATE agno.run SET deadline_at = clock_timestamp()")
    assert scenario.db.journal.end_overdue(step.run_id)
    assert scenario.db.journal.retry_run(step.run_id)
    run = scenario.execute_pending(engine, step.run_id)
    assert (run.content, turns(scenario, run)[-1]) == ("ok", ("turn:2", "billing"))
    (request,) = desk.asked("billing")
    assert "did not end" in result_of(request, "nothing").content


def test_team_that_routes_works_for_another_agent(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING)], [Turn(text="paid")], [])
    lead = ScriptedReplies(asking(support="Is it paid?"), Turn(text="yes"))
    agent = Agent(name="boss", model=lead.model, tools=[desk.team])
    run = scenario.execute_all(scenario.engine(agent), scenario.submit("boss"))
    assert (run.content, result_of(lead.asked[1], "support").content) == ("yes", "paid")


def test_events_and_tool_calls_name_the_agent_that_acts(scenario: Scenario) -> None:
    @tool
    def whoami(ctx: ToolContext) -> str:
        """Return the name of the agent."""
        return ctx.agent

    script = ScriptedReplies(calling("whoami"), calling(BILLING), calling("whoami"), Turn(text="ok"))
    team = Team(
        name="support",
        mode="route",
        leader=Agent(name="triage", model=script.model, tools=[whoami]),
        members=[Agent(name="billing", model=script.model, tools=[whoami])],
    )
    run = scenario.execute_all(scenario.engine(team), scenario.submit("support"))
    assert scenario.results(run.id) == ["support", NOW.format("billing"), "billing"]
    events = scenario.db.sql("SELECT event, name FROM agno.read_events(%(run)s, 0)", run=run.id)
    asked = [row["name"] for row in events if row["event"] == "ModelCallStarted"]
    assert asked == ["", "support", "billing", "billing"]


def test_each_agent_has_its_own_context(scenario: Scenario) -> None:
    one, two = Context({"desk": Computed(lambda: "first")}), Context({"room": Computed(lambda: "second")})
    script = ScriptedReplies(calling(BILLING), Turn(text="ok"))
    team = Team(
        name="support",
        mode="route",
        leader=Agent(name="triage", model=script.model, context=one),
        members=[Agent(name="billing", model=script.model, context=two)],
    )
    run = scenario.execute_all(scenario.engine(team), scenario.submit("support"))
    assert scenario.handle(run.id).context == {"desk": "first", "room": "second"}
    assert ["first" in request.system for request in script.asked] == [True, False]
    assert ["second" in request.system for request in script.asked] == [False, True]


def test_thinking_of_another_model_is_left_out(scenario: Scenario) -> None:
    desk = Desk(
        [Turn(reasoning="hm", calls=((BILLING, {}),))],
        [Turn(reasoning="aha", calls=((BILLING, {}),)), Turn(text="ok")],
        [],
    )
    desk.run(scenario)
    thoughts = [
        [part.text for message in request.messages for part in message.parts if isinstance(part, Reasoning)]
        for request in desk.asked("billing")
    ]
    assert thoughts == [[], ["aha"]]


def test_message_to_a_live_run_is_read_by_the_agent_that_has_it(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING)], [Turn(text="ok")], [])
    step = scenario.submit("support", "one", session_id="s")
    (turn,) = execute_step(desk.engine(scenario), step).sends
    scenario.db.journal.submit(user("two"), agent="support", queue="agents", session_id="s", if_busy="steer")
    execute_step(desk.engine(scenario), turn)
    assert desk.asked("billing")[0].messages[-1] == user("two")


def test_schema_of_a_team_holds_for_every_agent(scenario: Scenario) -> None:
    desk = Desk([calling(BILLING)], [Turn(text="one"), Turn(text='{"points": 1}')], [], output_schema=Score)
    run = desk.run(scenario)
    assert run.content == {"points": 1}
    assert turns(scenario, run)[1:] == [("turn:2", "billing"), ("turn:3", "billing")]
    assert desk.asked("billing")[0].output is not None


# network


def test_members_consult_each_other(scenario: Scenario) -> None:
    analyst = ScriptedReplies(asking(lawyer="Is 7 legal?"), Turn(text="7, legally"))
    lawyer = ScriptedReplies(Turn(text="It is."))
    lead = ScriptedReplies(asking(analyst="How many?"), Turn(text="ok"))
    team = Team(
        name="desk",
        mode="network",
        leader=lead.model,
        members=[
            Agent(name="analyst", model=analyst.model, instructions="You count."),
            Agent(name="lawyer", description="Knows law.", model=lawyer.model),
        ],
    )
    run = scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    assert run.content == "ok"
    assert [spec.name for spec in analyst.asked[0].tools] == ["lawyer"]
    assert analyst.asked[0].system.startswith("- You count.\n- You may consult")
    assert lawyer.asked[0].messages == (user("Is 7 legal?"),)
    assert [spec.name for spec in lawyer.asked[0].tools] == ["analyst"]
    assert result_of(lead.asked[1], "analyst").content == "7, legally"


def test_fork_of_a_consultation_starts_the_same_member(scenario: Scenario) -> None:
    team, scripts = network(first=asking(a="?"), a=Turn(text="old"))
    engine = scenario.engine(team)
    run = scenario.execute_all(engine, scenario.submit("desk"))
    forked = scenario.handle(run.id).fork(at="tool:1:0", arguments={"task": "!"})
    (child,) = scenario.db.journal.open_children(forked.id)
    scenario.execute_pending(engine, child)
    assert scripts["a"].asked[-1].messages == (user("!"),)
    row = scenario.db.run(child)
    assert (row["agent"], row["lineage"]["root"], row["lineage"]["path"]) == ("desk:a", forked.id, ["desk"])
    assert row["lineage"]["team"]["run_id"] == forked.id


def test_ring_of_consultations_is_refused(scenario: Scenario) -> None:
    lawyer = ScriptedReplies(asking(analyst="You say?"), Turn(text="I say"))
    analyst = ScriptedReplies(asking(lawyer="And you?"), Turn(text="we say"))
    lead = ScriptedReplies(asking(analyst="?"), Turn(text="ok"))
    team = Team(
        name="desk",
        mode="network",
        leader=lead.model,
        members=[Agent(name="analyst", model=analyst.model), Agent(name="lawyer", model=lawyer.model)],
    )
    scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    refused = result_of(lawyer.asked[1], "analyst")
    assert (refused.is_error, refused.content) == (
        True,
        "analyst was not asked, since it waits for this answer itself (desk > analyst > lawyer): answer with what you know.",
    )
    assert len(analyst.asked) == 2


def network(**nexts: Turn) -> tuple[Team, dict[str, ScriptedReplies]]:
    """Return a network whose first member leads, and the replies of each: the next one, then an answer."""
    scripts = {name: ScriptedReplies(turn, Turn(text=f"{name} knows")) for name, turn in nexts.items()}
    members = [Agent(name=name, model=script.model) for name, script in scripts.items()]
    return Team(name="desk", mode="network", members=members), scripts


def test_consultations_are_bounded_in_depth(scenario: Scenario) -> None:
    team, scripts = network(
        first=asking(a="?"), a=asking(b="?"), b=asking(c="?"), c=asking(d="?"), d=Turn(text="-")
    )
    run = scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    assert run.content == "first knows"
    assert result_of(scripts["c"].asked[1], "d").content == (
        "d was not asked: members consult each other at most 3 deep. Answer with what you know."
    )
    assert result_of(scripts["a"].asked[1], "b").content == "b knows"


def test_consultations_of_one_answer_are_bounded(scenario: Scenario) -> None:
    others = {name: Turn(text=name) for name in "bcdef"}
    team, scripts = network(first=asking(a="?"), a=asking(**dict.fromkeys("bcdef", "?")), **others)
    scenario.execute_all(scenario.engine(team), scenario.submit("desk"))
    assert result_of(scripts["a"].asked[1], "e").content == "e"
    assert result_of(scripts["a"].asked[1], "f").content == (
        "f was not asked: one answer consults at most 4 members. Ask the others in your next one."
    )


# What is refused.


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"mode": "route", "members": ["x" * 60]},
            "its tool would be 'transfer_to_x+' and providers accept 1 to 64 letters",
        ),
        ({"mode": "route", "members": ["a"], "leader": None}, "needs a leader"),
        ({"mode": "coordinate", "members": ["two words"]}, "'two words' .* 1 to 64 letters"),
        ({"mode": "network", "members": ["two words", "a"]}, "'two words' .* 1 to 64 letters"),
    ],
)
def test_team_that_no_model_can_lead_is_refused(fields: dict[str, Any], said: str) -> None:
    members = [Agent(name=name, model="scripted:echo") for name in fields.pop("members")]
    with pytest.raises((InvalidInput, InvalidTool), match=said):
        Team(**{"name": "desk", "leader": "scripted:echo", **fields, "members": members})


def test_tool_with_the_name_of_a_transfer_is_refused() -> None:
    @tool(name=BACK)
    def back() -> str:
        """Go back."""
        return ""

    member = Agent(name="billing", model="scripted:echo", tools=[back])
    with pytest.raises(InvalidTool, match="agent 'billing' has a tool called 'transfer_back'"):
        Team(name="desk", mode="route", leader="scripted:echo", members=[member])


def test_workflow_cannot_take_a_conversation_over() -> None:
    member = Workflow(name="steps", function=lambda flow, text: text)
    with pytest.raises(InvalidInput, match="the workflow 'steps' can't"):
        Team(name="desk", mode="route", leader="scripted:echo", members=[member])


# Providers' rules.


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running() as found:
        yield found


def _chat_pairs(body: dict[str, Any]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the calls of each answer, and the results that directly follow it."""
    messages = body["messages"]
    for place, message in enumerate(messages):
        if calls := [call["id"] for call in message.get("tool_calls") or ()]:
            results = takewhile(lambda each: each["role"] == "tool", messages[place + 1 :])
            yield calls, [each["tool_call_id"] for each in results]


def _responses_pairs(body: dict[str, Any]) -> Iterator[tuple[list[str], list[str]]]:
    kinds: dict[str, list[str]] = {"function_call": [], "function_call_output": []}
    for item in body["input"]:
        if item["type"] in kinds:
            kinds[item["type"]].append(item["call_id"])
    yield kinds["function_call"], kinds["function_call_output"]


def _anthropic_pairs(body: dict[str, Any]) -> Iterator[tuple[list[str], list[str]]]:
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * (
        len(body["messages"]) // 2
    ) + ["user"]
    for asked, told in pairwise(body["messages"]):
        if calls := [block["id"] for block in asked["content"] if block["type"] == "tool_use"]:
            results = takewhile(lambda block: block["type"] == "tool_result", told["content"])
            yield calls, [block["tool_use_id"] for block in results]


PAIRS = {"openai-chat": _chat_pairs, "openai": _responses_pairs, "anthropic": _anthropic_pairs}


@pytest.mark.parametrize("name", ["openai-chat:gpt-5", "openai:gpt-5", "anthropic:claude-sonnet-5"])
def test_transcript_after_hand_overs_keeps_the_rules_of_each_provider(
    scenario: Scenario, provider: Provider, name: str
) -> None:
    kind = name.partition(":")[0]
    url = provider.url if kind == "anthropic" else provider.openai_url
    model, other = (resolve(each, api_key="sk-fake", base_url=url) for each in (name, f"{name}-mini"))
    provider.forget()
    team = Team(
        name="support",
        mode="route",
        leader=model,
        members=[
            Agent(name="billing", model=model, tools=[look_up]),
            Agent(name="refunds", model=other),
        ],
    )
    script = "\n".join(
        (
            "think It is about money.", f"call {BILLING}", "then", f"call {REFUNDS}", 'call look_up {"account": "acme"}', f"call {BACK}",
            "then", f"call {REFUNDS}", f"call {BACK}", "then", "call look_up {}", "say done",
        )
    )  # fmt: skip
    run = scenario.execute_all(scenario.engine(team), scenario.submit("support", script))
    assert (run.status, run.content) == (RunStatus.DONE, "done")
    assert [acting for _, acting in turns(scenario, run)] == ["", "billing", "refunds", "support", "support"]
    bodies = [request["body"] for request in provider.requests()]
    assert len(bodies) == 5
    for body in bodies:
        assert body["tools"]
        for calls, results in PAIRS[kind](body):
            assert len(set(calls)) == len(calls)
            assert sorted(calls) == sorted(results)


def test_thinking_begins_after_the_calls_of_an_agent_that_does_not_think(
    scenario: Scenario, provider: Provider
) -> None:
    """Anthropic refuses thinking in the middle of tool calls that began without it, and thoughts where it is off."""
    provider.forget()
    model = resolve("anthropic:claude-sonnet-5", api_key="sk-fake", base_url=provider.url)
    thinking = ModelSettings(thinking_budget_tokens=2_000)
    team = Team(
        name="support",
        mode="route",
        leader=Agent(name="triage", model=model),
        members=[Agent(name="billing", model=model, settings=thinking)],
    )
    script = f"think Hm.\ncall {BILLING}\nthen\ncall {BACK}\nsay done"
    engine = scenario.engine(team)
    run = scenario.execute_all(engine, scenario.submit("support", script, session_id="s"))
    assert [acting for _, acting in turns(scenario, run)] == ["support", "billing", "support"]
    scenario.execute_all(engine, scenario.submit("support", f"call {BILLING}", session_id="s"))
    scenario.execute_all(engine, scenario.submit("support", "think Hm.\nsay done", session_id="s"))
    bodies = [request["body"] for request in provider.requests()]
    assert ["thinking" in body for body in bodies] == [False, False, False, False, False, True]
    thoughts = [[block["type"] for block in body["messages"][-2]["content"]] for body in bodies[1:3]]
    assert thoughts == [["tool_use"], ["tool_use"]]
