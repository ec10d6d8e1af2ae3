"""Deadlines, costs, pauses, deploys and delegations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_workers.core.agent import Agent, Limits, Prices
from agno_workers.core.messages import Usage, user
from agno_workers.core.run import RunStatus, StepKind, StepStatus
from agno_workers.core.step import StepMessage
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import InvalidTool, ModelRejected
from agno_workers.models.scripted import Turn
from agno_workers.runs.base import utc
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


ADD = Turn(text="let me see", calls=(("add", {"a": 1, "b": 2}),))


def deadline_comes(scenario: Scenario) -> list[str]:
    scenario.db.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE deadline_at IS NOT NULL")
    return [run_id for run_id in scenario.db.journal.overdue_runs(10) if scenario.db.journal.end_overdue(run_id)]  # fmt: skip


# Deadlines.


@pytest.mark.parametrize(("on_limit", "status"), [("fail", RunStatus.FAILED), ("return", RunStatus.DONE)])
def test_run_over_its_deadline_keeps_its_last_text(
    scenario: Scenario, on_limit: Any, status: RunStatus
) -> None:
    replies = ScriptedReplies(ADD, Turn(text="late"))
    engine = scenario.engine(
        Agent(name="a", model=replies.model, tools=[add], limits=Limits(deadline_s=60, on_limit=on_limit))
    )
    step = scenario.submit("a")
    (adding,) = execute_step(engine, step).sends
    assert scenario.db.journal.overdue_runs(10) == []
    assert deadline_comes(scenario) == [step.run_id]
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason, run.content) == (status, "limit:deadline", "let me see")
    assert (run.error or {}).get("type") == (None if status is RunStatus.DONE else "LimitReached")
    assert scenario.results(run.id) == ["add did not end: the run was stopped (limit:deadline)."]
    with scenario.db.unchanged():
        assert not execute_step(engine, adding).recorded
        assert not scenario.db.journal.end_overdue(step.run_id)


def test_run_without_text_fails_at_its_deadline(scenario: Scenario) -> None:
    step = scenario.submit("a", deadline_s=60.0)
    assert deadline_comes(scenario) == [step.run_id]
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason, run.content) == (RunStatus.FAILED, "limit:deadline", None)
    assert run.error is not None
    assert "reached its deadline: raise deadline_s" in run.error["message"]


def test_deadline_counts_from_the_due_time(scenario: Scenario) -> None:
    engine = scenario.engine(
        Agent(name="a", model=ScriptedReplies(ADD).model, tools=[add], limits=Limits(deadline_s=60))
    )
    later = datetime.now(UTC) + timedelta(hours=1)
    given = scenario.db.journal.submit(
        user("hi"), agent="a", queue="agents", deadline_s=60.0, not_before=utc(later)
    ).run_id
    own = scenario.db.journal.submit(user("hi"), agent="a", queue="agents", not_before=utc(later)).run_id
    scenario.let_time_pass()
    (step,) = scenario.queries.steps(own)
    execute_step(engine, StepMessage(None, own, step.id, 0, step.kind, step.queue))
    for run_id in (given, own):
        assert scenario.queries.run(run_id).deadline_at == later + timedelta(seconds=60)


def test_member_keeps_its_own_shorter_deadline(scenario: Scenario) -> None:
    member = Agent(name="member", model=ScriptedReplies(Turn(text="ok")).model, limits=Limits(deadline_s=5))
    lead = Agent(
        name="lead",
        model=ScriptedReplies(Turn(calls=(("member", {"task": "x"}),))).model,
        tools=[member],
        limits=Limits(deadline_s=600),
    )
    engine = scenario.engine(lead, member)
    (child,) = execute_step(engine, scenario.submit("lead")).children
    execute_step(engine, child)
    left = "SELECT round(extract(epoch FROM deadline_at - created_at))::int FROM agno.run WHERE id = %(id)s"
    assert scenario.db.value(left, id=child.run_id) == 5


def test_deadline_of_the_submit_replaces_that_of_the_agent(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD)
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add], limits=Limits(deadline_s=60)))
    given, own = scenario.submit("a", deadline_s=3600.0), scenario.submit("a")
    for step in (given, own):
        execute_step(engine, step)
    left = "SELECT extract(epoch FROM deadline_at - created_at)::int FROM agno.run WHERE id = %(id)s"
    assert [scenario.db.value(left, id=step.run_id) for step in (given, own)] == [3600, 60]


# Money.


def test_run_ends_at_its_cost_limit(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, ADD, Turn(text="never asked"))
    prices = Prices(
        input_usd=1e6, output_usd=0
    )  # a dollar a token: the script's requests are as long as their transcripts
    agent = Agent(name="a", model=replies.model, tools=[add], limits=Limits(cost_usd=1.5), prices=prices)
    run = scenario.run(agent)
    assert (run.status, run.reason, run.turns) == (RunStatus.FAILED, "limit:cost", 2)
    assert run.cost_usd == float(run.usage.input_tokens)


def test_cached_input_has_its_own_price() -> None:
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=500_000)
    assert Prices(input_usd=2, output_usd=10, cached_usd=0.5).cost_usd(usage) == pytest.approx(1.2 + 0.2 + 5)
    assert Prices(input_usd=2, output_usd=10).cost_usd(usage) == pytest.approx(2 + 5)


# Pauses.


def test_paused_run_starts_no_step_until_it_is_resumed(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a")
    (adding,) = execute_step(engine, step).sends
    assert scenario.handle(step.run_id).pause()
    assert not scenario.handle(step.run_id).pause()
    with scenario.db.unchanged():
        assert not execute_step(engine, adding).recorded
    assert scenario.handle(step.run_id).resume()
    assert not scenario.handle(step.run_id).resume()
    assert scenario.execute_pending(engine, step.run_id).content == "ok"


def test_running_step_of_a_paused_run_is_recorded(scenario: Scenario) -> None:
    engine: Any = None

    def pausing() -> Turn:
        scenario.handle(step.run_id).pause()
        return ADD

    replies = ScriptedReplies(pausing, Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a")
    recorded = execute_step(engine, step)
    assert recorded.recorded
    assert not execute_step(engine, recorded.sends[0]).recorded
    assert scenario.db.journal.take_lost(["agents"], -60, 10) == []  # the keeper leaves it alone, too
    scenario.handle(step.run_id).resume()
    assert scenario.execute_pending(engine, step.run_id).content == "ok"


def test_paused_run_can_be_cancelled(scenario: Scenario) -> None:
    step = scenario.submit("a")
    scenario.handle(step.run_id).pause()
    assert scenario.handle(step.run_id).cancel()
    assert scenario.queries.run(step.run_id).paused_at is None


# Deploys.


def test_open_run_keeps_the_agents_definition_after_a_deploy(scenario: Scenario) -> None:
    old, new = ScriptedReplies(ADD, Turn(text="ok")), ScriptedReplies(Turn(text="ok"))
    agent = Agent(name="a", model=old.model, tools=[add], instructions=["Be brief.", "Be right."])
    step = scenario.submit("a")
    (adding,) = execute_step(scenario.engine(agent), step).sends
    deployed = Agent(name="a", model=new.model, tools=[add], instructions="Be verbose.", limits=Limits(turns=1))  # fmt: skip
    execute_run(scenario.engine(deployed), adding)
    assert new.asked[0].system == old.asked[0].system == "- Be brief.\n- Be right."
    scenario.run(deployed)
    assert new.asked[1].system == "Be verbose."
    assert scenario.db.count("definition") == 2


# Delegations.


def teams(
    scenario: Scenario, *turns: Turn, member: ScriptedReplies | None = None, **options: Any
) -> tuple[Any, ScriptedReplies]:
    worker = Agent(
        name="member", model=(member or ScriptedReplies(Turn(text="found it"))).model, queue="members"
    )
    replies = ScriptedReplies(*turns)
    lead = Agent(name="lead", model=replies.model, tools=[add, worker], **options)
    return scenario.engine(lead, worker), replies


ASK = Turn(calls=(("member", {"task": "find it"}), ("add", {"a": 1, "b": 2})))


def carry_all(scenario: Scenario, engine: Any, run_id: str) -> None:
    """Return a run and all runs that it delegates to."""
    for _ in range(5):
        scenario.execute_pending(engine, run_id)
        for child_id in scenario.db.journal.open_children(run_id):
            carry_all(scenario, engine, child_id)


def test_answer_of_a_member_is_the_result_of_its_call(scenario: Scenario) -> None:
    engine, replies = teams(scenario, ASK, Turn(text="ok"))
    step = scenario.submit("lead", user_id="u", metadata={"order": 17}, priority=3)
    execute_step(engine, step)
    (child_id,) = scenario.db.journal.open_children(step.run_id)
    child = scenario.queries.run(child_id)
    assert (child.agent, child.parent_run_id, child.depth, child.user_id, child.metadata) == (
        "member", step.run_id, 1, "u", {"order": 17},
    )  # fmt: skip
    assert scenario.queries.steps(child_id)[0].queue == "members"
    carry_all(scenario, engine, step.run_id)
    assert scenario.queries.run(step.run_id).content == "ok"
    assert scenario.results(step.run_id) == ["found it", "3"]
    delegation = scenario.queries.steps(step.run_id)[1]
    assert (delegation.kind, delegation.status, delegation.child_run_id) == (
        StepKind.DELEGATE,
        "done",
        child_id,
    )
    assert [spec.name for spec in replies.asked[0].tools] == ["add", "member"]


def test_turn_after_a_member_is_sent_at_once(scenario: Scenario) -> None:
    engine, _ = teams(scenario, Turn(calls=(("member", {"task": "x"}),)), Turn(text="ok"))
    (child,) = execute_step(engine, scenario.submit("lead")).children
    ended = execute_step(engine, child)
    assert ended.parent_run_id is not None
    assert [send.run_id for send in scenario.db.journal.pending(ended.parent_run_id)] == [ended.parent_run_id]


def test_failed_member_is_an_error_result(scenario: Scenario) -> None:
    rejected = Turn(error=ModelRejected("the key is wrong", provider="scripted", model="m"))
    engine, _ = teams(scenario, ASK, Turn(text="ok"), member=ScriptedReplies(rejected))
    step = scenario.submit("lead")
    execute_run(engine, step)
    carry_all(scenario, engine, step.run_id)
    assert scenario.results(step.run_id)[0] == "The run of member ended failed: the key is wrong"
    assert scenario.queries.run(step.run_id).status is RunStatus.DONE


def test_cancelled_member_is_an_error_result(scenario: Scenario) -> None:
    engine, _ = teams(scenario, ASK, Turn(text="ok"))
    step = scenario.submit("lead")
    execute_run(engine, step)
    (child_id,) = scenario.db.journal.open_children(step.run_id)
    scenario.db.journal.cancel(child_id)
    assert "ended cancelled" in scenario.results(step.run_id)[0]
    assert scenario.execute_pending(engine, step.run_id).content == "ok"


def test_cancel_pause_and_resume_include_the_members(scenario: Scenario) -> None:
    engine, _ = teams(scenario, ASK)
    step = scenario.submit("lead")
    execute_step(engine, step)
    (child_id,) = scenario.db.journal.open_children(step.run_id)
    scenario.handle(step.run_id).pause()
    assert scenario.queries.run(child_id).paused_at
    scenario.handle(step.run_id).resume()
    assert not scenario.queries.run(child_id).paused_at
    scenario.handle(step.run_id).cancel()
    assert scenario.queries.run(child_id).status is RunStatus.CANCELLED
    assert [step.status for step in scenario.queries.steps(step.run_id)] == [StepStatus.DONE, *[StepStatus.CANCELLED] * 2]  # fmt: skip


def test_keeper_finds_members_of_ended_parents(scenario: Scenario) -> None:
    engine, _ = teams(scenario, ASK, limits=Limits(deadline_s=60))
    step = scenario.submit("lead")
    execute_step(engine, step)
    (child_id,) = scenario.db.journal.open_children(step.run_id)
    assert scenario.db.journal.orphans(10) == []
    how = {"status": "failed", "reason": "limit:deadline", "error": {"type": "", "message": "", "ids": {}}}
    assert scenario.db.journal._stop(step.run_id, how)  # and the keeper dies before it cancels the member
    assert scenario.db.journal.orphans(10) == [child_id]


def test_member_has_the_deadline_of_its_parent(scenario: Scenario) -> None:
    engine, _ = teams(scenario, ASK, limits=Limits(deadline_s=60))
    execute_step(engine, scenario.submit("lead"))
    assert scenario.db.value("SELECT count(DISTINCT deadline_at) FROM agno.run") == 1


def test_agents_that_call_each_other_end(scenario: Scenario) -> None:
    ring: list[Agent] = []
    replies = ScriptedReplies(*[Turn(calls=(("ring", {"task": "x"}),))] * 9, Turn(text="ok"))
    inner = Agent(name="ring", model=replies.model)
    ring.append(Agent(name="ring", model=replies.model, tools=[inner]))
    engine = scenario.engine(*ring)
    step = scenario.submit("ring")
    execute_run(engine, step)
    deepest = step.run_id
    while children := scenario.db.journal.open_children(deepest):
        (deepest,) = children
        scenario.execute_pending(engine, deepest)
    assert scenario.db.value("SELECT max(depth) FROM agno.run") == 8
    assert "delegates at most 8 deep" in scenario.results(deepest)[0]


@pytest.mark.parametrize("name", ["two words", "add"])
def test_member_with_an_invalid_tool_name_is_refused_at_worker_start(name: str) -> None:
    member = Agent(name=name, model="scripted:echo")
    with pytest.raises(InvalidTool, match="ename"):
        AgentPlan.of(Agent(name="lead", model="scripted:echo", tools=[add, member]))
