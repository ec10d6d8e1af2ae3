"""Programs: runs whose next move is chosen by code."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.flow import Flow, quorum
from agno_workers.core.run import RunStatus
from agno_workers.errors import StepFailed
from agno_workers.models.scripted import Turn
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import Scenario, ScriptedReplies

called: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()


def double(number: int) -> int:
    called.append(f"double {number}")
    return number * 2


def broken(text: str) -> str:
    called.append("broken")
    raise ValueError(f"no {text}")


class Score(pydantic.BaseModel):
    points: int


def score(text) -> Score:  # type: ignore[no-untyped-def]  # a function without annotations works too
    return Score(points=len(text))


def of(function: Any, **options: Any) -> Workflow:
    return Workflow(name="flow", function=function, **options)


def test_steps_follow_each_other_and_run_side_by_side(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        first = flow.step("first", double, 1)
        two, three = flow.gather(flow.step("two", double, first), flow.step("three", double, first + 1))
        points = flow.step("score", score, text)
        return {"sum": first + two + three, "points": points.points}

    run = scenario.run(of(body), "abc")
    assert (run.status, run.content) == (RunStatus.DONE, {"sum": 12, "points": 3})
    assert called == ["double 1", "double 2", "double 3"]


def test_agent_is_a_step_and_its_typed_answer_is_the_value(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text='{"points": 7}'))
    judge = Agent(name="judge", model=replies.model, output_schema=Score)

    def body(flow: Flow, text: str) -> Any:
        found = flow.step("judge", judge, "Judge", text)
        assert isinstance(found, Score)
        return found.points

    workflow = of(body)
    step = scenario.submit("flow", "it")
    run = scenario.execute_all(scenario.engine(workflow, judge), step)
    assert run.content == 7
    assert replies.asked[0].messages[0].text == "Judge\n\nit"


def test_failed_step_is_an_exception(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        try:
            return flow.step("first", broken, text)
        except StepFailed as error:
            return f"{error.step}: {flow.step('instead', double, 4)}"

    assert scenario.run(of(body), "x").content == "first: 8"
    run = scenario.run(of(lambda flow, text: flow.step("only", broken, text)), "x")
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "ValueError: no x" in run.error["message"]


def test_timer_ends_when_it_is_due(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        flow.sleep(hours=24)
        return flow.step("after", double, 2)

    engine, step = scenario.engine(of(body)), scenario.submit("flow", "it")
    assert scenario.execute_pending(engine, step.run_id).status is RunStatus.WAITING
    scenario.let_time_pass()
    scenario.end_waits(engine)
    assert scenario.execute_pending(engine, step.run_id).content == 4


def test_quorum_cancels_the_others(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="yes"))
    slow = Agent(name="slow", model=replies.model)

    def body(flow: Flow, text: str) -> Any:
        found = flow.gather(
            flow.start("one", double, 1),
            flow.start("two", double, 2),
            flow.start("slow", slow, "?"),
            join=quorum(2),
        )
        return [each.value for each in found if each.is_used]

    engine, step = scenario.engine(of(body), slow), scenario.submit("flow", "it")
    run = scenario.execute_pending(engine, step.run_id)
    assert run.content == [2, 4]
    (open_step,) = [each for each in scenario.queries.steps(step.run_id) if each.key == "slow"]
    assert open_step.status == "cancelled"
    assert not replies.asked


def test_signal_is_kept_until_a_step_waits_for_it(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        number = flow.step("first", double, 1)
        return [number, flow.wait_for_signal("paid")]

    engine, step = scenario.engine(of(body)), scenario.submit("flow", "it")
    scenario.pool.run(
        "SELECT agno.send_signal(%(run)s, 'paid', %(payload)s)", {"run": step.run_id, "payload": '{"eur": 5}'}
    )
    run = scenario.execute_pending(engine, step.run_id)
    assert run.content == [2, {"eur": 5}]


def test_id_that_is_used_twice_and_one_that_changed_are_refused(scenario: Scenario) -> None:
    run = scenario.run(of(lambda flow, text: [flow.step("a", double, 1), flow.step("a", double, 2)]), "x")
    assert run.error is not None
    assert "two steps have the id 'a'" in run.error["message"]
