"""Retry: a failed run continues under its own id. Fork: a new run starts in the middle of an old one, which does not change."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from agno_workers.core.agent import Agent, Limits
from agno_workers.core.messages import StopReason, user
from agno_workers.core.policy import Retry
from agno_workers.core.run import Run, RunStatus, StepStatus
from agno_workers.errors import InvalidInput, ModelRejected, RunFailed
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step

REJECTED = Turn(error=ModelRejected("the key is wrong", provider="scripted", model="m"))
ADD = Turn(text="let me see", calls=(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})))


@tool
def add(a: int, b: int) -> int:
    """Add."""
    added.append((a, b))
    return a + b


@tool(requires_confirmation=True)
def publish(text: str) -> str:
    """Publish."""
    return text


added: list[tuple[int, int]] = []


@pytest.fixture(autouse=True)
def _nothing_added() -> None:
    added.clear()


def test_retry_continues_after_the_last_good_turn(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, REJECTED, Turn(text="3 and 7"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a")
    execute_run(engine, step)
    assert scenario.queries.run(step.run_id).status is RunStatus.FAILED
    assert scenario.handle(step.run_id).retry()
    run = scenario.execute_pending(engine, step.run_id)
    assert (run.status, run.content, run.generation, run.turns, run.tool_calls) == (
        RunStatus.DONE, "3 and 7", 1, 2, 2,
    )  # fmt: skip
    assert added == [(1, 2), (3, 4)]
    assert replies.asked[1].messages == replies.asked[2].messages


def test_retry_deletes_the_messages_of_the_failed_turn(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="too", stop=StopReason.CONTEXT_WINDOW), Turn(text="short"))
    engine = scenario.engine(Agent(name="a", model=replies.model))
    step = scenario.submit("a")
    execute_run(engine, step)
    assert scenario.queries.run(step.run_id).turns == 1
    assert scenario.handle(step.run_id).retry()
    run = scenario.execute_pending(engine, step.run_id)
    assert (run.content, run.turns) == ("short", 1)
    assert [message.text for message in scenario.transcript(run)] == ["hi", "short"]
    assert [step.status for step in scenario.queries.steps(run.id)] == [StepStatus.DEAD, StepStatus.DONE]


def test_run_may_be_retried_more_than_once(scenario: Scenario) -> None:
    replies = ScriptedReplies(REJECTED, REJECTED, REJECTED, Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model))
    step = scenario.submit("a")
    execute_run(engine, step)
    for _ in range(3):
        assert scenario.handle(step.run_id).retry()
        scenario.execute_pending(engine, step.run_id)
    assert scenario.queries.run(step.run_id).content == "ok"


def test_only_a_failed_run_is_retried(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    run = scenario.run(Agent(name="a", model=replies.model))
    waiting = scenario.submit("a").run_id
    cancelled = scenario.submit("a").run_id
    scenario.db.journal.cancel(cancelled)
    with scenario.db.unchanged():
        assert not any(scenario.handle(run_id).retry() for run_id in (run.id, waiting, cancelled))


def test_late_result_of_the_failed_generation_changes_nothing(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="late"))
    engine = scenario.engine(Agent(name="a", model=replies.model, retry=Retry(attempts=1)))
    step = scenario.submit("a")
    claim = scenario.db.journal.claim_turn(step.run_id, step.step_id, 0)
    assert claim
    scenario.db.journal.fail(claim, RunFailed("x").to_json(), "x")
    assert scenario.handle(step.run_id).retry()
    with scenario.db.unchanged():
        assert not execute_step(engine, step).recorded


def test_retried_run_has_the_same_time_and_is_not_paused(scenario: Scenario) -> None:
    step = scenario.submit("a", deadline_s=3600.0)
    scenario.db.sql(
        "UPDATE agno.run SET created_at = created_at - interval '2 h', deadline_at = deadline_at - interval '2 h'"
    )
    scenario.db.sql("UPDATE agno.step SET created_at = created_at - interval '2 h'")
    claim = scenario.db.journal.claim_turn(step.run_id, step.step_id, 0)
    assert claim
    scenario.handle(step.run_id).pause()
    scenario.db.journal.fail(claim, RunFailed("x").to_json(), "x")
    assert scenario.handle(step.run_id).retry()
    run = scenario.queries.run(step.run_id)
    assert run.paused_at is None
    left = "SELECT round(extract(epoch FROM deadline_at - clock_timestamp()) / 60)::int FROM agno.run"
    assert scenario.db.value(left) == 60
    claim = scenario.db.journal.claim_turn(step.run_id, scenario.queries.steps(step.run_id)[-1].id, 1)
    assert claim
    scenario.db.journal.fail(claim, RunFailed("x").to_json(), "x")
    assert scenario.handle(step.run_id).retry()
    assert scenario.db.value(left) == 60


def test_run_that_stands_for_another_is_not_retried(scenario: Scenario) -> None:
    scenario.submit("a", idempotency_key="k", id=str(uuid4()))
    other = str(uuid4())
    scenario.db.journal.submit(
        user("hi"),
        agent="a",
        queue="agents",
        idempotency_key="k",
        id=other,
        canvas={"group_id": str(uuid4())},
    )
    scenario.db.sql("UPDATE agno.run SET status = 'failed', ended_at = clock_timestamp()")
    with scenario.db.unchanged():
        assert not scenario.handle(other).retry()


# Forks.


def done(scenario: Scenario, replies: ScriptedReplies) -> tuple[Any, str]:
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a", session_id="s", metadata={"order": 17})
    execute_run(engine, step)
    return engine, step.run_id


def test_fork_from_the_first_turn_repeats_the_run_with_other_input(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, Turn(text="one"), Turn(text="two"))
    engine, run_id = done(scenario, replies)
    before = scenario.db.everything()
    fork = scenario.handle(run_id).fork(None, "other input")
    run = scenario.execute_pending(engine, fork.id)
    assert (run.content, run.forked_from, run.session_id, run.metadata) == ("two", run_id, "s", {"order": 17})
    assert [message.text for message in scenario.transcript(run)] == ["other input", "two"]
    kept = [row for row in scenario.db.everything()["agno.run"] if row["id"] == run_id]
    assert kept == [row for row in before["agno.run"] if row["id"] == run_id]


def test_fork_from_a_later_turn_keeps_earlier_results_and_adds_input(
    scenario: Scenario,
) -> None:
    replies = ScriptedReplies(ADD, Turn(text="one"), Turn(text="two"))
    engine, run_id = done(scenario, replies)
    run = scenario.execute_pending(engine, scenario.handle(run_id).fork("turn:2", "and in words?").id)
    assert (run.content, run.turns, run.tool_calls) == ("two", 2, 2)
    assert added == [(1, 2), (3, 4)]
    assert replies.asked[2].messages == (*replies.asked[1].messages, user("and in words?"))


def test_fork_from_a_tool_repeats_only_that_call(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, Turn(text="one"), Turn(text="two"))
    engine, run_id = done(scenario, replies)
    run = scenario.execute_pending(
        engine, scenario.handle(run_id).fork("tool:1:1", arguments={"a": 30, "b": 40}).id
    )
    assert (run.content, run.tool_calls, scenario.results(run.id)) == ("two", 2, ["3", "70"])
    assert added == [(1, 2), (3, 4), (30, 40)]
    assert '{"a":30,"b":40}' in str(replies.asked[2].messages[1])


def test_fork_of_a_fork_of_a_retried_run(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, REJECTED, Turn(text="one"), Turn(text="two"), Turn(text="three"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a")
    execute_run(engine, step)
    scenario.handle(step.run_id).retry()
    scenario.execute_pending(engine, step.run_id)
    first = scenario.handle(step.run_id).fork("turn:2")
    assert scenario.execute_pending(engine, first.id).content == "two"
    assert scenario.execute_pending(engine, first.fork("turn:2").id).content == "three"


def test_same_key_returns_the_same_fork(scenario: Scenario) -> None:
    engine, run_id = done(scenario, ScriptedReplies(Turn(text="one"), Turn(text="two")))
    first = scenario.handle(run_id).fork(idempotency_key="k")
    scenario.execute_pending(engine, first.id)
    with scenario.db.unchanged():
        assert scenario.handle(run_id).fork(idempotency_key="k").id == first.id


def given_s(run: Run) -> int:
    """Return the time from a run's submit to its deadline."""
    assert run.deadline_at is not None
    assert run.created_at is not None
    return round((run.deadline_at - run.created_at).total_seconds())


@pytest.mark.parametrize("at", ["turn:1", "turn:2", "tool:1:0"])
def test_fork_has_its_agents_deadline_from_its_start(scenario: Scenario, at: str) -> None:
    limits = Limits(deadline_s=60)
    engine = scenario.engine(
        Agent(name="a", model=ScriptedReplies(ADD, Turn(text="one")).model, tools=[add], limits=limits)
    )
    step = scenario.submit("a")
    execute_run(engine, step)
    scenario.db.sql("UPDATE agno.run SET created_at = created_at - interval '2 h'")
    scenario.db.sql("UPDATE agno.step SET created_at = created_at - interval '2 h'")
    fork = scenario.execute_pending(engine, scenario.handle(step.run_id).fork(at).id)
    assert given_s(fork) == 60


def test_fork_that_waits_for_a_person_has_a_deadline(scenario: Scenario) -> None:
    limits = Limits(deadline_s=60)
    asking = Turn(calls=(("publish", {"text": "hi"}),))
    engine = scenario.engine(
        Agent(name="a", model=ScriptedReplies(asking).model, tools=[publish], limits=limits)
    )
    step = scenario.submit("a")
    execute_run(engine, step)
    scenario.handle(step.run_id).requirements[0].reject()
    run = scenario.handle(step.run_id)
    assert given_s(run.fork("tool:1:0").run) == 60
    assert given_s(run.fork("tool:1:0", deadline_s=5).run) == 5


@pytest.mark.parametrize(
    ("at", "input", "arguments", "message"),
    [
        ("turn:9", (), None, "it has turn:1, tool:1:0, tool:1:1, turn:2"),
        ("turn:2", (), {"a": 1}, "fork a turn with input, and a tool call"),
        ("tool:1:0", ("x",), None, "takes arguments"),
        ("turn:2", ("",), None, "is empty"),
    ],
)
def test_fork_that_cannot_begin_is_refused(
    scenario: Scenario, at: str, input: tuple[str, ...], arguments: Any, message: str
) -> None:
    _, run_id = done(scenario, ScriptedReplies(ADD, Turn(text="one")))
    with scenario.db.unchanged(), pytest.raises(InvalidInput, match=message):
        scenario.handle(run_id).fork(at, *input, arguments=arguments)


# Forks at a delegation.


class Desk:
    """A finished run of an agent that delegates and answers with the result."""

    def __init__(self, scenario: Scenario, *said: str, limits: Limits | None = None) -> None:
        self.scenario = scenario
        asking = Turn(
            text="let me ask", calls=(("add", {"a": 1, "b": 2}), ("expert", {"task": "look up 17"}))
        )
        self.asks = ScriptedReplies(asking, Turn(text="told"))
        self.looks = ScriptedReplies(*(Turn(text=text) for text in said))
        self.expert = Agent(name="expert", model=self.looks.model, queue="experts")
        desk = Agent(name="desk", model=self.asks.model, tools=[add, self.expert], limits=limits or Limits())
        self.engine = scenario.engine(desk, self.expert)
        self.run_id = scenario.submit("desk", user_id="u", metadata={"order": 17}, priority=3).run_id
        self.end(self.run_id)

    def end(self, run_id: str) -> Run:
        """Execute a run and its child runs until no message is pending."""
        todo = [run_id]
        while todo:
            self.scenario.execute_pending(self.engine, todo[0])
            open_children = self.scenario.db.journal.open_children(todo[0])
            todo = [*open_children, *todo] if open_children else todo[1:]
        return self.scenario.queries.run(run_id)

    def children(self, run_id: str) -> list[Run]:
        ids = "SELECT id::text FROM agno.run WHERE parent_run_id = %(run_id)s"
        return [self.scenario.queries.run(row["id"]) for row in self.scenario.db.sql(ids, run_id=run_id)]

    def asked(self, run_id: str) -> str:
        return self.scenario.queries.transcript(run_id)[0].text


def test_fork_from_a_delegation_starts_a_run_with_another_task(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen", "eighteen")
    scenario.db.sql("UPDATE agno.run SET tenant = 'acme'")
    before = scenario.db.everything()
    fork = scenario.handle(desk.run_id).fork("tool:1:1", arguments={"task": "look up 18"})
    (child,) = desk.children(fork.id)
    assert (child.agent, child.depth, child.user_id, child.metadata, child.status) == (
        "expert", 1, "u", {"order": 17}, RunStatus.QUEUED,
    )  # fmt: skip
    assert (scenario.db.run(child.id)["queue"], scenario.db.run(child.id)["priority"]) == ("experts", 3)
    assert desk.asked(child.id) == "look up 18"
    assert {scenario.db.run(run_id)["tenant"] for run_id in (fork.id, child.id)} == {"acme"}
    run = desk.end(fork.id)
    assert (run.status, run.content, run.turns, run.tool_calls) == (RunStatus.DONE, "told", 2, 2)
    assert scenario.results(run.id) == ["3", "eighteen"]
    assert added == [(1, 2)]
    assert '{"task":"look up 18"}' in str(desk.asks.asked[-1].messages[1])
    after = scenario.db.everything()
    for table in ("agno.run", "agno.step", "agno.message"):
        assert [row for row in before[table] if row not in after[table]] == []


def test_fork_from_a_delegation_may_repeat_its_task(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen", "17")
    run = desk.end(scenario.handle(desk.run_id).fork("tool:1:1").id)
    assert scenario.results(run.id) == ["3", "17"]
    assert [request.messages for request in desk.looks.asked] == [(user("look up 17"),)] * 2


def test_copied_delegation_can_be_forked_again(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen", "eighteen", "seventeen at last")
    first = scenario.handle(desk.run_id).fork("tool:1:0", arguments={"a": 5, "b": 5})
    desk.end(first.id)
    assert desk.children(first.id) == []
    again = first.fork("tool:1:1")
    (child,) = desk.children(again.id)
    assert (scenario.db.run(child.id)["queue"], desk.asked(child.id)) == ("experts", "look up 17")
    assert scenario.results(desk.end(again.id).id) == ["10", "eighteen"]


def test_fork_of_a_fork_repeats_its_task(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen", "eighteen", "eighteen again")
    first = scenario.handle(desk.run_id).fork("tool:1:1", arguments={"task": "look up 18"})
    desk.end(first.id)
    assert scenario.results(desk.end(first.fork("tool:1:1").id).id) == ["3", "eighteen again"]
    assert [request.messages[0].text for request in desk.looks.asked] == [
        "look up 17",
        "look up 18",
        "look up 18",
    ]


def test_child_run_of_a_fork_has_the_deadline_of_the_fork(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen", limits=Limits(deadline_s=60))
    fork = scenario.handle(desk.run_id).fork("tool:1:1")
    (child,) = desk.children(fork.id)
    assert given_s(fork.run) == 60
    assert child.deadline_at == fork.run.deadline_at


def test_cancel_of_a_fork_cancels_its_child_run(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen")
    fork = scenario.handle(desk.run_id).fork("tool:1:1")
    fork.cancel()
    assert [child.status for child in desk.children(fork.id)] == [RunStatus.CANCELLED]
    assert desk.end(desk.run_id).status is RunStatus.DONE


def test_same_key_returns_the_same_fork_of_a_delegation(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen", "eighteen")
    first = scenario.handle(desk.run_id).fork("tool:1:1", idempotency_key="k")
    with scenario.db.unchanged():
        assert scenario.handle(desk.run_id).fork("tool:1:1", idempotency_key="k").id == first.id


@pytest.mark.parametrize(
    "arguments", [{}, {"task": " "}, {"task": 17}, {"task": "x", "by": "noon"}, {"a": 1}]
)
def test_fork_of_a_delegation_takes_only_a_task(scenario: Scenario, arguments: dict[str, Any]) -> None:
    desk = Desk(scenario, "seventeen")
    with scenario.db.unchanged(), pytest.raises(InvalidInput, match="is a delegation to expert, which takes"):
        scenario.handle(desk.run_id).fork("tool:1:1", arguments=arguments)
    with scenario.db.unchanged(), pytest.raises(InvalidInput, match="is a delegation, which takes arguments"):
        scenario.handle(desk.run_id).fork("tool:1:1", "look up 18")


def test_delegation_without_its_child_run_is_not_forked(scenario: Scenario) -> None:
    desk = Desk(scenario, "seventeen")
    scenario.db.sql("DELETE FROM agno.run WHERE parent_run_id IS NOT NULL")
    with scenario.db.unchanged(), pytest.raises(InvalidInput, match="was deleted: fork from the turn before"):
        scenario.handle(desk.run_id).fork("tool:1:1")


def test_fork_beside_an_open_tool_call_is_refused(scenario: Scenario) -> None:
    replies = ScriptedReplies(ADD, Turn(text="one"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[add]))
    step = scenario.submit("a")
    first, _ = execute_step(engine, step).sends
    execute_step(engine, first)
    with pytest.raises(InvalidInput, match="still open"):
        scenario.handle(step.run_id).fork("tool:1:0", arguments={"a": 1, "b": 1})
