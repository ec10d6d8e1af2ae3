"""Time, money, pauses, deploys and delegations: what bounds a run from outside of its turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_workers.core.agent import Agent, Limits, Prices
from agno_workers.core.messages import Usage, user
from agno_workers.core.run import RunStatus, StepKind, StepStatus
from agno_workers.core.step import StepMessage
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import InvalidInput, InvalidTool, ModelRejected
from agno_workers.models.scripted import Turn
from agno_workers.runs.base import utc
from agno_workers.tools import tool
from tests.integration.engine.conftest import Cue, Play
from tests.steps import carry, take


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


ADD = Turn(text="let me see", calls=(("add", {"a": 1, "b": 2}),))


def deadline_comes(play: Play) -> list[str]:
    play.world.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE deadline_at IS NOT NULL")
    return [run_id for run_id in play.world.journal.overdue_runs(10) if play.world.journal.end_overdue(run_id)]  # fmt: skip


# Deadlines.


@pytest.mark.parametrize(("on_limit", "status"), [("fail", RunStatus.FAILED), ("return", RunStatus.DONE)])
def test_run_over_its_deadline_keeps_its_last_text(play: Play, on_limit: Any, status: RunStatus) -> None:
    cue = Cue(ADD, Turn(text="late"))
    engine = play.engine(
        Agent(name="a", model=cue.model, tools=[add], limits=Limits(deadline_s=60, on_limit=on_limit))
    )
    step = play.submit("a")
    (adding,) = take(engine, step).sends
    assert play.world.journal.overdue_runs(10) == []
    assert deadline_comes(play) == [step.run_id]
    run = play.look.run(step.run_id)
    assert (run.status, run.reason, run.content) == (status, "limit:deadline", "let me see")
    assert (run.error or {}).get("type") == (None if status is RunStatus.DONE else "LimitReached")
    assert play.results(run.id) == ["add did not end: the run was stopped (limit:deadline)."]
    with play.world.unchanged():
        assert not take(engine, adding).recorded
        assert not play.world.journal.end_overdue(step.run_id)


def test_a_run_that_said_nothing_before_its_deadline_has_failed(play: Play) -> None:
    step = play.submit("a", deadline_s=60.0)
    assert deadline_comes(play) == [step.run_id]
    run = play.look.run(step.run_id)
    assert (run.status, run.reason, run.content) == (RunStatus.FAILED, "limit:deadline", None)
    assert run.error is not None
    assert "is over: raise deadline_s" in run.error["message"]


def test_a_deadline_counts_from_when_the_run_is_due(play: Play) -> None:
    engine = play.engine(Agent(name="a", model=Cue(ADD).model, tools=[add], limits=Limits(deadline_s=60)))
    later = datetime.now(UTC) + timedelta(hours=1)
    given = play.world.journal.submit(
        user("hi"), agent="a", queue="agents", deadline_s=60.0, not_before=utc(later)
    ).run_id
    own = play.world.journal.submit(user("hi"), agent="a", queue="agents", not_before=utc(later)).run_id
    play.let_time_pass()
    (step,) = play.look.steps(own)
    take(engine, StepMessage(None, own, step.id, 0, step.kind, step.queue))
    for run_id in (given, own):
        assert play.look.run(run_id).deadline_at == later + timedelta(seconds=60)


def test_a_member_with_a_shorter_deadline_than_its_parent_keeps_its_own(play: Play) -> None:
    member = Agent(name="member", model=Cue(Turn(text="ok")).model, limits=Limits(deadline_s=5))
    lead = Agent(
        name="lead",
        model=Cue(Turn(calls=(("member", {"task": "x"}),))).model,
        tools=[member],
        limits=Limits(deadline_s=600),
    )
    engine = play.engine(lead, member)
    (child,) = take(engine, play.submit("lead")).children
    take(engine, child)
    left = "SELECT round(extract(epoch FROM deadline_at - created_at))::int FROM agno.run WHERE id = %(id)s"
    assert play.world.value(left, id=child.run_id) == 5


def test_the_deadline_of_the_submit_wins_over_that_of_the_agent(play: Play) -> None:
    cue = Cue(ADD)
    engine = play.engine(Agent(name="a", model=cue.model, tools=[add], limits=Limits(deadline_s=60)))
    given, own = play.submit("a", deadline_s=3600.0), play.submit("a")
    for step in (given, own):
        take(engine, step)
    left = "SELECT extract(epoch FROM deadline_at - created_at)::int FROM agno.run WHERE id = %(id)s"
    assert [play.world.value(left, id=step.run_id) for step in (given, own)] == [3600, 60]


# Money.


def test_a_run_ends_when_it_has_cost_what_it_may(play: Play) -> None:
    cue = Cue(ADD, ADD, Turn(text="never asked"))
    prices = Prices(
        input_usd=1e6, output_usd=0
    )  # a dollar a token: the script's requests are as long as their transcripts
    agent = Agent(name="a", model=cue.model, tools=[add], limits=Limits(cost_usd=1.5), prices=prices)
    run = play.run(agent)
    assert (run.status, run.reason, run.turns) == (RunStatus.FAILED, "limit:cost", 2)
    assert run.cost_usd == float(run.usage.input_tokens)


def test_cached_input_has_a_price_of_its_own() -> None:
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=500_000)
    assert Prices(input_usd=2, output_usd=10, cached_usd=0.5).cost_usd(usage) == pytest.approx(1.2 + 0.2 + 5)
    assert Prices(input_usd=2, output_usd=10).cost_usd(usage) == pytest.approx(2 + 5)


def test_a_budget_without_prices_is_refused_when_the_worker_starts() -> None:
    with pytest.raises(InvalidInput, match="prices="):
        AgentPlan.of(Agent(name="a", model="scripted:echo", limits=Limits(cost_usd=1)))


# Pauses.


def test_no_step_of_a_paused_run_begins_until_it_is_resumed(play: Play) -> None:
    cue = Cue(ADD, Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[add]))
    step = play.submit("a")
    (adding,) = take(engine, step).sends
    assert play.handle(step.run_id).pause()
    assert not play.handle(step.run_id).pause()
    with play.world.unchanged():
        assert not take(engine, adding).recorded
    assert play.handle(step.run_id).resume()
    assert not play.handle(step.run_id).resume()
    assert play.carry_owed(engine, step.run_id).content == "ok"


def test_what_was_under_way_when_a_run_is_paused_is_recorded_and_nothing_follows(play: Play) -> None:
    engine: Any = None

    def pausing() -> Turn:
        play.handle(step.run_id).pause()
        return ADD

    cue = Cue(pausing, Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[add]))
    step = play.submit("a")
    recorded = take(engine, step)
    assert recorded.recorded
    assert not take(engine, recorded.sends[0]).recorded
    assert play.world.journal.take_lost(None, -60, 10) == []  # the keeper leaves it alone, too
    play.handle(step.run_id).resume()
    assert play.carry_owed(engine, step.run_id).content == "ok"


def test_a_paused_run_can_be_cancelled(play: Play) -> None:
    step = play.submit("a")
    play.handle(step.run_id).pause()
    assert play.handle(step.run_id).cancel()
    assert play.look.run(step.run_id).paused_at is None


# Deploys.


def test_a_run_goes_on_as_the_agent_was_when_it_began_and_a_new_one_as_it_is_now(play: Play) -> None:
    old, new = Cue(ADD, Turn(text="ok")), Cue(Turn(text="ok"))
    agent = Agent(name="a", model=old.model, tools=[add], instructions=["Be brief.", "Be right."])
    step = play.submit("a")
    (adding,) = take(play.engine(agent), step).sends
    deployed = Agent(name="a", model=new.model, tools=[add], instructions="Be verbose.", limits=Limits(turns=1))  # fmt: skip
    carry(play.engine(deployed), adding)
    assert new.asked[0].system == old.asked[0].system == "- Be brief.\n- Be right."
    play.run(deployed)
    assert new.asked[1].system == "Be verbose."
    assert play.world.count("definition") == 2


# Delegations.


def teams(play: Play, *turns: Turn, member: Cue | None = None, **options: Any) -> tuple[Any, Cue]:
    worker = Agent(name="member", model=(member or Cue(Turn(text="found it"))).model, queue="members")
    cue = Cue(*turns)
    lead = Agent(name="lead", model=cue.model, tools=[add, worker], **options)
    return play.engine(lead, worker), cue


ASK = Turn(calls=(("member", {"task": "find it"}), ("add", {"a": 1, "b": 2})))


def carry_all(play: Play, engine: Any, run_id: str) -> None:
    """A run and all that it delegates to."""
    for _ in range(5):
        play.carry_owed(engine, run_id)
        for child_id in play.world.journal.open_children(run_id):
            carry_all(play, engine, child_id)


def test_a_member_is_a_run_of_its_own_and_its_answer_the_result_of_the_call(play: Play) -> None:
    engine, cue = teams(play, ASK, Turn(text="ok"))
    step = play.submit("lead", user_id="u", metadata={"order": 17}, priority=3)
    take(engine, step)
    (child_id,) = play.world.journal.open_children(step.run_id)
    child = play.look.run(child_id)
    assert (child.agent, child.parent_run_id, child.depth, child.user_id, child.metadata) == (
        "member", step.run_id, 1, "u", {"order": 17},
    )  # fmt: skip
    assert play.look.steps(child_id)[0].queue == "members"
    carry_all(play, engine, step.run_id)
    assert play.look.run(step.run_id).content == "ok"
    assert play.results(step.run_id) == ["found it", "3"]
    delegation = play.look.steps(step.run_id)[1]
    assert (delegation.kind, delegation.status, delegation.child_run_id) == (
        StepKind.DELEGATE,
        "done",
        child_id,
    )
    assert [spec.name for spec in cue.asked[0].tools] == ["add", "member"]


def test_the_turn_that_the_end_of_a_member_wakes_is_sent_at_once(play: Play) -> None:
    engine, _ = teams(play, Turn(calls=(("member", {"task": "x"}),)), Turn(text="ok"))
    (child,) = take(engine, play.submit("lead")).children
    ended = take(engine, child)
    assert ended.parent_run_id is not None
    assert [send.run_id for send in play.world.journal.pending(ended.parent_run_id)] == [ended.parent_run_id]


def test_a_member_that_fails_is_a_result_that_the_model_reads(play: Play) -> None:
    rejected = Turn(error=ModelRejected("the key is wrong", provider="scripted", model="m"))
    engine, _ = teams(play, ASK, Turn(text="ok"), member=Cue(rejected))
    step = play.submit("lead")
    carry(engine, step)
    carry_all(play, engine, step.run_id)
    assert play.results(step.run_id)[0] == "The run of member ended failed: the key is wrong"
    assert play.look.run(step.run_id).status is RunStatus.DONE


def test_a_member_that_is_cancelled_is_a_result_too(play: Play) -> None:
    engine, _ = teams(play, ASK, Turn(text="ok"))
    step = play.submit("lead")
    carry(engine, step)
    (child_id,) = play.world.journal.open_children(step.run_id)
    play.world.journal.cancel(child_id)
    assert "ended cancelled" in play.results(step.run_id)[0]
    assert play.carry_owed(engine, step.run_id).content == "ok"


def test_cancel_pause_and_resume_reach_the_members(play: Play) -> None:
    engine, _ = teams(play, ASK)
    step = play.submit("lead")
    take(engine, step)
    (child_id,) = play.world.journal.open_children(step.run_id)
    play.handle(step.run_id).pause()
    assert play.look.run(child_id).paused_at
    play.handle(step.run_id).resume()
    assert not play.look.run(child_id).paused_at
    play.handle(step.run_id).cancel()
    assert play.look.run(child_id).status is RunStatus.CANCELLED
    assert [step.status for step in play.look.steps(step.run_id)] == [StepStatus.DONE, *[StepStatus.CANCELLED] * 2]  # fmt: skip


def test_a_member_whose_parent_is_over_is_found_by_the_keeper(play: Play) -> None:
    engine, _ = teams(play, ASK, limits=Limits(deadline_s=60))
    step = play.submit("lead")
    take(engine, step)
    (child_id,) = play.world.journal.open_children(step.run_id)
    assert play.world.journal.orphans(10) == []
    play.world.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE id = %(id)s", id=step.run_id)
    assert play.world.journal.end_overdue(step.run_id)
    assert play.world.journal.orphans(10) == [child_id]


def test_a_member_has_the_deadline_of_its_parent(play: Play) -> None:
    engine, _ = teams(play, ASK, limits=Limits(deadline_s=60))
    take(engine, play.submit("lead"))
    assert play.world.value("SELECT count(DISTINCT deadline_at) FROM agno.run") == 1


def test_agents_that_call_each_other_come_to_an_end(play: Play) -> None:
    ring: list[Agent] = []
    cue = Cue(*[Turn(calls=(("ring", {"task": "x"}),))] * 9, Turn(text="ok"))
    inner = Agent(name="ring", model=cue.model)
    ring.append(Agent(name="ring", model=cue.model, tools=[inner]))
    engine = play.engine(*ring)
    step = play.submit("ring")
    carry(engine, step)
    deepest = step.run_id
    while children := play.world.journal.open_children(deepest):
        (deepest,) = children
        play.carry_owed(engine, deepest)
    assert play.world.value("SELECT max(depth) FROM agno.run") == 8
    assert "delegates at most 8 deep" in play.results(deepest)[0]


@pytest.mark.parametrize("name", ["two words", "add"])
def test_an_agent_whose_name_can_be_no_tool_is_refused_when_the_worker_starts(name: str) -> None:
    member = Agent(name=name, model="scripted:echo")
    with pytest.raises(InvalidTool, match="ename"):
        AgentPlan.of(Agent(name="lead", model="scripted:echo", tools=[add, member]))
