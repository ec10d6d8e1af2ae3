"""The turns of a program: none is lost and none is doubled, whatever happens between the reading of its progress and its commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.flow import Flow, quorum
from agno_workers.core.run import Run, RunStatus, StepKind
from agno_workers.core.step import StepMessage
from agno_workers.engine.turn import Engine
from agno_workers.models.scripted import Turn
from agno_workers.runs.progress import ProgressReader
from agno_workers.workflows.workflow import Workflow
from tests.database import result
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step

called: list[str] = []


def note(text: str) -> str:
    called.append(text)
    return text


class Between:
    """A run of a workflow. `does` happens once, in its code, between the reading of its progress and its commit."""

    def __init__(self, scenario: Scenario, body: Callable[[Flow], Any], *agents: Agent) -> None:
        called.clear()
        self.scenario = scenario
        self.does: Callable[[], object] | None = None

        def function(flow: Flow, text: str) -> Any:
            does, self.does = self.does, None
            if does:
                does()
            return body(flow)

        self.engine: Engine = scenario.engine(Workflow(name="flow", function=function), *agents)
        self.first: StepMessage = scenario.submit("flow", "x")
        self.run_id = self.first.run_id

    def open(self, key: str) -> StepMessage:
        """Return the message of a step that is ready."""
        (step,) = [
            each
            for each in self.scenario.queries.steps(self.run_id)
            if each.key == key and each.ended_at is None
        ]
        return StepMessage(None, self.run_id, step.id, 0, step.kind, step.queue)

    def execute(self, key: str) -> None:
        execute_step(self.engine, self.open(key))

    def ended(self) -> Run:
        """Execute what is left, and check that each turn was made once."""
        run = self.scenario.execute_pending(self.engine, self.run_id)
        turns = [each.key for each in self.scenario.queries.steps(self.run_id) if each.kind is StepKind.TURN]
        assert turns == [f"turn:{number}" for number in range(1, len(turns) + 1)]
        open_steps = [each.key for each in self.scenario.queries.steps(self.run_id) if each.ended_at is None]
        assert open_steps == []
        return run


def pair(flow: Flow) -> Any:
    one, two = flow.start("one", note, "one"), flow.start("two", note, "two")
    quick = flow.step("quick", note, "quick")
    return [quick, one.result(), two.result()]


def test_call_that_ends_between_reading_and_commit_is_not_lost(scenario: Scenario) -> None:
    run = Between(scenario, pair)
    execute_step(run.engine, run.first)
    run.execute("quick")

    def both_end() -> None:
        run.execute("one")
        run.execute("two")

    run.does = both_end
    run.execute("turn:2")
    assert [each.key for each in scenario.queries.steps(run.run_id) if each.ended_at is None] == ["turn:3"]
    assert run.ended().content == ["quick", "one", "two"]
    assert sorted(called) == ["one", "quick", "two"]


def test_calls_that_end_after_the_turn_began_do_not_double_it(scenario: Scenario) -> None:
    run = Between(scenario, pair)
    execute_step(run.engine, run.first)
    for key in ("quick", "one", "two"):  # the first end wakes it
        run.execute(key)
    assert run.ended().content == ["quick", "one", "two"]
    assert len([each for each in scenario.queries.steps(run.run_id) if each.kind is StepKind.TURN]) == 2


def first_of_two(flow: Flow) -> Any:
    found = flow.gather(flow.start("one", note, "one"), flow.start("two", note, "two"), join=quorum(1))
    return [[each.id for each in found if each.is_used], flow.step("after", note, "after")]


def test_loser_that_ends_before_it_is_cancelled_counts_once(scenario: Scenario) -> None:
    run = Between(scenario, first_of_two)
    execute_step(run.engine, run.first)
    run.execute("two")
    run.does = lambda: run.execute("one")
    run.execute("turn:2")
    assert run.ended().content == [["two"], "after"]
    assert sorted(called) == ["after", "one", "two"]


def test_loser_that_ends_after_it_was_cancelled_changes_nothing(scenario: Scenario) -> None:
    run = Between(scenario, first_of_two)
    execute_step(run.engine, run.first)
    loser = run.open("one")
    claim = scenario.db.journal.claim_tool(loser.run_id, loser.step_id, 0)
    assert claim is not None
    run.execute("two")
    run.execute("turn:2")
    assert not scenario.db.journal.finish_tool(claim, result(claim, '"late"')).recorded
    assert run.ended().content == [["two"], "after"]


def test_signal_and_timer_that_come_between_reading_and_commit_are_not_lost(scenario: Scenario) -> None:
    def body(flow: Flow) -> Any:
        flow.step("quick", note, "quick")
        paid = flow.wait_for_signal("paid")
        flow.sleep(seconds=-1)
        return paid

    run = Between(scenario, body)
    execute_step(run.engine, run.first)
    run.execute("quick")
    run.does = lambda: scenario.pool.run("SELECT agno.send_signal(%(run)s, 'paid', '7')", {"run": run.run_id})
    run.execute("turn:2")
    scenario.execute_pending(run.engine, run.run_id)
    scenario.end_waits(run.engine)
    assert run.ended().content == 7


def test_turn_that_two_workers_execute_is_recorded_once(scenario: Scenario) -> None:
    run = Between(scenario, pair)
    other = run.engine

    def taken_over() -> None:
        scenario.db.expire(run.first.step_id)
        execute_step(other, run.first)

    run.does = taken_over
    assert not execute_step(run.engine, run.first).recorded
    keys = sorted(each.key for each in scenario.queries.steps(run.run_id))
    assert keys == ["one", "quick", "turn:1", "two"]
    assert run.ended().content == ["quick", "one", "two"]


@pytest.mark.parametrize("how", ["cancel", "pause"])
def test_run_that_is_stopped_between_reading_and_commit(scenario: Scenario, how: str) -> None:
    run = Between(scenario, pair)
    handle = scenario.handle(run.run_id)
    run.does = getattr(handle, how)
    committed = execute_step(run.engine, run.first)
    assert committed.recorded is (how == "pause")
    if how == "pause":
        scenario.execute_pending(run.engine, run.run_id)
        assert called == []
        handle.resume()
        assert run.ended().content == ["quick", "one", "two"]
    else:
        assert run.ended().status is RunStatus.CANCELLED
        assert called == []


def test_child_run_that_ends_between_reading_and_commit_is_not_lost(scenario: Scenario) -> None:
    helper = Agent(name="helper", model=ScriptedReplies(Turn(text="yes")).model)

    def body(flow: Flow) -> Any:
        child = flow.start("child", helper, "?")
        flow.step("quick", note, "quick")
        return child.result()

    run = Between(scenario, body, helper)
    (child,) = execute_step(run.engine, run.first).children
    run.execute("quick")
    run.does = lambda: execute_step(run.engine, child)
    run.execute("turn:2")
    assert run.ended().content == "yes"


def test_failure_of_the_code_ends_the_open_calls(scenario: Scenario) -> None:
    def body(flow: Flow) -> Any:
        flow.start("one", note, "one")
        flow.step("quick", note, "quick")
        raise ValueError("a bug")

    run = Between(scenario, body)
    execute_step(run.engine, run.first)
    run.execute("quick")
    run.execute("turn:2")
    assert run.ended().status is RunStatus.FAILED
    assert called == ["quick"]


# What a process knows of the progress.


def many(flow: Flow) -> Any:
    return sum(flow.step(f"s{number}", size, number) for number in range(300))


def size(number: int) -> int:
    return number


def test_wake_number_300_costs_what_the_tenth_does(scenario: Scenario) -> None:
    engine = scenario.engine(Workflow(name="flow", function=lambda flow, text: many(flow)))
    step = scenario.submit("flow", "x")
    read: list[int] = []
    original = scenario.pool.run

    def run(statement: str, params: Any = None) -> Any:
        rows = original(statement, params)
        if rows and "progress" in rows[0]:
            read.append(len(rows[0]["progress"]))
        return rows

    scenario.pool.run = run  # type: ignore[method-assign]
    try:
        statements: list[int] = []
        todo = [step]
        while todo:
            before = len(scenario.pool.ran)
            (one,) = todo
            todo = list(execute_step(engine, one).sends)
            if one.kind is StepKind.TURN:
                statements.append(len(scenario.pool.ran) - before)
    finally:
        scenario.pool.run = original  # type: ignore[method-assign]
    assert scenario.queries.run(step.run_id).content == sum(range(300))
    assert len(statements) == 301
    assert statements[9] == statements[299] <= 3
    assert read[299] <= 1.2 * read[9]


def test_known_progress_is_bounded_and_read_again_where_it_does_not_hold(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Between(scenario, lambda flow: [flow.step(each, note, each) for each in "abcd"])
    reader = run.engine.journal
    assert isinstance(reader, ProgressReader)
    execute_step(run.engine, run.first)
    run.execute("a")
    run.execute("turn:2")
    assert reader._ended[run.run_id].arrived == 1
    run.execute("b")
    # Another history of the database: a ended at another time, with another result.
    scenario.db.sql(
        "UPDATE agno.step SET ended_at = ended_at - interval '1 s', result = '\"other\"' WHERE key = 'a'"
    )
    run.execute("turn:3")
    assert reader._ended[run.run_id].calls["a"].outcome.value == "other"  # type: ignore[union-attr]
    monkeypatch.setattr(ProgressReader, "most_known", 10)
    run.execute("c")
    run.execute("turn:4")
    assert reader._ended == {}
    assert reader._size == 0
    assert run.ended().content == ["other", "b", "c", "d"]
