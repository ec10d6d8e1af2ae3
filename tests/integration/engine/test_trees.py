"""A run with all runs below it, and what tests say about the order of its steps."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.agent import Agent, Prices
from agno_workers.core.flow import Flow
from agno_workers.errors import RunNotFound
from agno_workers.models.scripted import Turn
from agno_workers.testing import asked, ran_in_order, ran_side_by_side
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import Scenario, ScriptedReplies


@pytest.fixture
def run_id(scenario: Scenario) -> str:
    """A workflow that asks an agent once, and then twice at once; the agent delegates its first task."""
    helper = Agent(name="helper", model=ScriptedReplies(Turn(text="help")).model)
    turns = Turn(calls=(("helper", {"task": "deeper"}),)), Turn(text="ok")
    clerk = Agent(
        name="clerk",
        model=ScriptedReplies(*turns).model,
        tools=[helper],
        prices=Prices(input_usd=1, output_usd=0),
    )

    def body(flow: Flow, text: str) -> Any:
        flow.step("first", clerk, text)
        return flow.gather(flow.step("left", clerk, "l"), flow.step("right", clerk, "r"))

    step = scenario.submit("flow", "it")
    engine = scenario.engine(Workflow(name="flow", function=body), clerk, helper)
    assert scenario.execute_all(engine, step).content == ["ok", "ok"]
    return step.run_id


def test_tree_has_all_levels_and_sums_them(scenario: Scenario, run_id: str) -> None:
    tree = scenario.handle(run_id).tree
    assert [each.run.agent for each in tree.walk()] == ["flow", "clerk", "helper", "clerk", "clerk"]
    runs = [scenario.queries.run(each.run.id) for each in tree.walk()]
    used = scenario.handle(run_id).tree_usage
    assert (used.runs, used.open) == (5, 0)
    assert used.usage.output_tokens == sum(run.usage.output_tokens for run in runs) >= 4
    assert used.cost_usd == pytest.approx(sum(run.cost_usd for run in runs))
    few = scenario.queries.tree(run_id, limit=3)
    assert (len(list(few.walk())), few.is_whole) == (3, False)
    with pytest.raises(RunNotFound):
        scenario.queries.tree("0198c0de-0000-7000-8000-000000000000")


def test_order_of_steps_is_told_by_their_rows(scenario: Scenario, run_id: str) -> None:
    run = scenario.handle(run_id)
    ran_in_order(run, ["first", "left"])
    ran_side_by_side(run, ["left", "right"])
    assert asked(run, "clerk") == ["it", "l", "r"]
    with pytest.raises(AssertionError, match="'right' was asked for before 'left' had ended"):
        ran_in_order(run, ["left", "right"])
    with pytest.raises(AssertionError, match="'left' was asked for after 'first' had ended"):
        ran_side_by_side(run, ["first", "left"])
    with pytest.raises(AssertionError, match=r"no step 'lef'\. Did you mean 'left'"):
        ran_in_order(run, ["lef", "right"])
