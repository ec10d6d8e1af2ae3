"""Declared workflows: every element, what follows a failure, and a deploy between two turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import pytest
from msgspec import structs

from agno_workers.core.agent import Agent
from agno_workers.core.flow import quorum
from agno_workers.core.messages import Image
from agno_workers.core.policy import Retry
from agno_workers.core.run import Run, RunStatus
from agno_workers.errors import InvalidInput
from agno_workers.models.scripted import Turn
from agno_workers.workflows import (
    Approval,
    Condition,
    Loop,
    Map,
    Parallel,
    Router,
    Step,
    StepInput,
    StepOutput,
    Steps,
    Wait,
    WaitForSignal,
)
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step

called: list[str] = []
faults: dict[str, int] = {}
"""How often a function raises before it returns."""


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()
    faults.clear()


class Order(TypedDict):
    id: int
    euros: float


def note(name: str, value: Any = "") -> None:
    called.append(f"{name} {value}".strip())
    if faults.get(name, 0) > 0:
        faults[name] -= 1
        raise ValueError(f"no {name}")


def upper(text: str) -> str:
    note("upper", text)
    return text.upper()


def twice(text: str) -> str:
    note("twice", text)
    return text + text


def count(text: str) -> int:
    return len(text)


def given_back(step_input: StepInput) -> Any:
    return {"$step": ["given_back"]}


def given_it(value: Any) -> Any:
    return value


def half(number: int) -> int:
    return number // 2


def words(text: str) -> list[str]:
    return text.split()


def seen(step_input: StepInput) -> dict[str, Any]:
    return {
        "input": step_input.input,
        "before": step_input.previous_step_content,
        "upper": step_input.get_step_content("upper"),
        "all": step_input.get_all_previous_content(),
        "who": [step_input.session_id, step_input.user_id, step_input.metadata],
        "names": sorted(step_input.previous_step_outputs),
    }


def stop(step_input: StepInput) -> StepOutput:
    return StepOutput(content=f"stopped after {step_input.previous_step_content}", stop=True)


def refuse(step_input: StepInput):  # type: ignore[no-untyped-def]
    return StepOutput(success=False, error="the order is empty")


def total(step_input: StepInput[Order]) -> float:
    return step_input.input["euros"] * 2


def reserve(text: str) -> str:
    note("reserve", text)
    return f"seat {text}"


def charge(text: str) -> str:
    note("charge", text)
    return f"paid {text}"


def release(seat: str) -> None:
    note("release", seat)


def refund(step_input: StepInput) -> str:
    note("refund", f"{step_input.previous_step_content} of {step_input.input}")
    return "back"


def ship(step_input: StepInput) -> str:
    note("ship")
    return "shipped"


def of(*steps: Any, **options: Any) -> Workflow:
    return Workflow(name="flow", steps=list(steps), **options)


@pytest.fixture
def execute(scenario: Scenario) -> Callable[..., Run]:
    """Execute a workflow of functions and the agents beside it to the point where it waits or has ended."""

    def execute(workflow: Workflow, *input: Any, more: tuple[Any, ...] = (), **options: Any) -> Run:
        step = scenario.submit("flow", *(input or ("ab",)), **options)
        return scenario.execute_all(scenario.engine(workflow, *more), step)

    return execute


Execute = Callable[..., Run]


def keys(scenario: Scenario, run: Run) -> list[str]:
    return [each.key for each in scenario.queries.steps(run.id) if not each.key.startswith("turn:")]


def answer_approval(scenario: Scenario, run: Run, verdict: str) -> None:
    (step,) = [each for each in scenario.queries.steps(run.id) if each.key == "approval"]
    answer = {"verdict": verdict, "by": "ann", "note": "as discussed"}
    ends = json.dumps([{"step_id": step.id, "value": answer, "answer": answer}])
    scenario.pool.run("SELECT agno.end_waits(%(run)s, %(ends)s)", {"run": run.id, "ends": ends})


def test_functions_get_the_content_of_the_step_before_or_a_step_input(execute: Execute) -> None:
    run = execute(
        of(upper, twice, seen), "ab", session_id="s-1", user_id="ann", metadata={"shop": 7}
    )  # fmt: skip
    assert run.content == {
        "input": "ab",
        "before": "ABAB",
        "upper": "AB",
        "all": "=== upper ===\nAB\n\n=== twice ===\nABAB",
        "who": ["s-1", "ann", {"shop": 7}],
        "names": ["twice", "upper"],
    }


def test_arguments_refer_to_results_and_do_not_repeat_them(scenario: Scenario, execute: Execute) -> None:
    run = execute(of(upper, twice, seen), "ab" * 500)
    (row,) = scenario.db.sql(
        f"SELECT call->>'arguments' AS arguments FROM agno.step WHERE run_id = '{run.id}' AND key = 'seen'"
    )
    assert "ABAB" not in str(row)
    assert run.content["before"] == "AB" * 1000


def test_values_that_look_like_references_are_not_replaced(scenario: Scenario, execute: Execute) -> None:
    looks_so = {"$step": ["upper"], "step": "upper", "results": [[["input"], {"step": "upper"}]]}
    run = execute(of(given_back, seen), "x", metadata=looks_so)
    assert run.content["who"][2] == looks_so
    assert run.content["before"] == {"$step": ["given_back"]}
    run = scenario.run(
        Workflow(
            name="flow",
            function=lambda flow, text: [flow.step("a", count, text), flow.step("b", given_it, looks_so)],
        ),
        "x",
    )
    assert run.content == [1, looks_so]


def test_agent_gets_the_content_before_or_the_input_and_its_images(execute: Execute) -> None:
    replies = ScriptedReplies(Turn(text="Draft"), Turn(text="Done"))
    writer = Agent(name="writer", model=replies.model)
    editor = Agent(name="editor", model=replies.model)
    picture = Image(data="iVBORw0KGgo=", media_type="image/png")
    run = execute(of(writer, Step("edit", agent=editor), seen), "Write.", picture, more=(writer, editor))
    assert run.content["all"] == "=== writer ===\nDraft\n\n=== edit ===\nDone"
    first, second = (request.messages[-1] for request in replies.asked)
    assert (first.text, second.text) == ("Write.", "Draft")
    assert picture in first.parts
    assert picture in second.parts


def test_input_of_a_step_is_made_by_code(execute: Execute) -> None:
    replies = ScriptedReplies(Turn(text="Draft"))
    writer = Agent(name="writer", model=replies.model)
    ask = Step(agent=writer, input=lambda given: f"{given.input} in {given.previous_step_content} letters")
    execute(of(count, ask), "Write.", more=(writer,))
    assert replies.asked[0].messages[-1].text == "Write. in 6 letters"


def test_parallel_is_side_by_side_and_an_agent_after_it_reads_all(
    scenario: Scenario, execute: Execute
) -> None:
    replies = ScriptedReplies(Turn(text="Done"))
    editor = Agent(name="editor", model=replies.model)
    run = execute(of(Parallel(upper, [twice, count], name="both"), editor, seen), more=(editor,))
    assert replies.asked[0].messages[-1].text == "=== upper ===\nAB\n\n=== count ===\n4"
    assert keys(scenario, run) == ["both/upper", "both/twice", "both/count", "editor", "seen"]
    assert run.content["upper"] == "AB"
    assert run.content["names"] == ["both", "editor"]


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (quorum(1), {"upper": "AB"}),
        ("first", {"upper": "AB"}),
        ("best_effort", {"upper": "AB", "twice": "abab"}),
    ],
)  # fmt: skip
def test_parallel_joins_on_enough(scenario: Scenario, execute: Execute, join: Any, expected: Any) -> None:
    slow = WaitForSignal("never")
    branches = (upper, slow) if join != "best_effort" else (upper, twice, slow)
    workflow = of(Parallel(*branches, join=join, deadline_s=60))
    run = execute(workflow)
    if join == "best_effort":
        assert run.status is RunStatus.WAITING
        scenario.let_time_pass()
        scenario.end_waits(scenario.engine(workflow))
        run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert (run.status, run.content) == (RunStatus.DONE, expected)


def test_parallel_that_needs_all_fails_at_its_deadline(scenario: Scenario, execute: Execute) -> None:
    workflow = of(Parallel(upper, WaitForSignal("never"), name="both", deadline_s=60))
    run = execute(workflow)
    scenario.let_time_pass()
    scenario.end_waits(scenario.engine(workflow))
    run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.error is not None
    assert "within 60 s" in run.error["message"]


def test_condition_chooses_between_steps(execute: Execute) -> None:
    workflow = of(
        count, Condition(lambda given: given.previous_step_content > 3, [Step("long", function=half)], [seen])
    )
    assert execute(workflow, "abcd").content == 2
    assert execute(workflow, "abc").content["before"] == 3


def test_condition_without_else_lets_the_content_pass(execute: Execute) -> None:
    assert execute(of(upper, Condition(False, [count]))).content == "AB"


def test_loop_ends_by_its_condition_and_ids_have_the_iteration(scenario: Scenario, execute: Execute) -> None:
    loop = Loop(
        [twice], name="grow", max_iterations=9, end_condition=lambda outputs: len(outputs[-1].content) > 6
    )
    run = execute(of(structs.replace(loop, forward_iteration_output=True), upper), "ab")
    assert run.content == "ABABABAB"
    assert keys(scenario, run) == ["grow/1/twice", "grow/2/twice", "upper"]


def test_loop_begins_each_iteration_with_the_content_before_it(execute: Execute) -> None:
    assert execute(of(Loop([twice], max_iterations=2)), "ab").content == "abab"
    assert called == ["twice ab", "twice ab"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("upper", "AB"), (twice, "abab"), (["upper", twice], "ABAB"), ([], None)],
)  # fmt: skip
def test_router_executes_what_the_selector_returns(execute: Execute, answer: Any, expected: Any) -> None:
    assert execute(of(Router(lambda _: answer, [upper, twice]))).content == expected


def test_router_with_an_unknown_choice_fails(execute: Execute) -> None:
    run = execute(of(Router(lambda _: "lower", [upper, twice], name="case")))
    assert run.error is not None
    assert (
        "Router 'case': the selector returned 'lower', which is not one of its choices (upper, twice)"
        in run.error["message"]
    )


@pytest.mark.parametrize("items", ["words", lambda given: given.previous_step_content, ["ab", "cd"]])
def test_map_does_the_same_for_each_item(execute: Execute, items: Any) -> None:
    assert execute(of(words, Map(items, upper)), "ab cd").content == ["AB", "CD"]


def test_waits_let_the_content_pass(scenario: Scenario, execute: Execute) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    workflow = of(upper, Wait(hours=2), Wait(until=lambda _: tomorrow, name="until"), twice)
    run = execute(workflow)
    for _ in range(2):
        assert run.status is RunStatus.WAITING
        scenario.let_time_pass()
        scenario.end_waits(scenario.engine(workflow))
        run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.content == "ABAB"


def test_approval_shows_the_content_and_lets_it_pass(scenario: Scenario, execute: Execute) -> None:
    workflow = of(upper, Approval("Publish it?"), seen)
    run = execute(workflow)
    (shown,) = scenario.db.sql(
        f"SELECT call->'shown' FROM agno.step WHERE run_id = '{run.id}' AND key = 'approval'"
    )
    assert "AB" in str(shown)
    answer_approval(scenario, run, "approved")
    run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.content["before"] == "AB"
    assert run.content["names"] == ["approval", "upper"]


def test_signal_is_the_content(scenario: Scenario, execute: Execute) -> None:
    workflow = of(WaitForSignal("paid"), seen)
    run = execute(workflow)
    scenario.pool.run(
        "SELECT agno.send_signal(%(run)s, 'paid', %(value)s)", {"run": run.id, "value": '{"eur": 5}'}
    )
    assert scenario.execute_pending(scenario.engine(workflow), run.id).content["before"] == {"eur": 5}


def test_signal_that_does_not_come_can_be_skipped(scenario: Scenario, execute: Execute) -> None:
    workflow = of(upper, WaitForSignal("paid", timeout_s=60, on_error="skip"), twice)
    run = execute(workflow)
    scenario.let_time_pass()
    scenario.end_waits(scenario.engine(workflow))
    assert scenario.execute_pending(scenario.engine(workflow), run.id).content == "ABAB"


def test_elements_nest_in_each_other(scenario: Scenario, execute: Execute) -> None:
    inner = Parallel(
        Condition(lambda given: "b" in given.input, [Step("short", function=twice)]),
        Steps(steps=[upper, Router(lambda _: "count", [count, seen])], name="sized"),
        name="each",
    )
    run = execute(of(Loop([inner], name="research", max_iterations=2), seen, output="research"))
    assert run.content == {"short": "abab", "sized": 2}
    assert sorted(keys(scenario, run)) == sorted([
        f"research/{number}/each/{step}" for number in (1, 2) for step in ("short", "sized/upper", "sized/count")
    ] + ["seen"])  # fmt: skip


def test_stop_ends_the_workflow_from_within_elements(execute: Execute) -> None:
    run = execute(of(upper, Loop([Parallel(stop, twice)]), twice, output="upper"))
    assert run.content == {"stop": "stopped after AB", "twice": "ABAB"}
    assert called == ["upper ab", "twice AB"]


def test_workflow_is_a_step_and_a_tool_of_an_agent(scenario: Scenario, execute: Execute) -> None:
    inner = Workflow(name="inner", steps=[upper])
    assert execute(of(twice, inner), more=(inner,)).content == "ABAB"
    replies = ScriptedReplies(Turn(calls=(("inner", {"task": "xy"}),)), Turn(text="Done"))
    boss = Agent(name="boss", model=replies.model, tools=[inner])
    run = execute(of(boss), more=(boss, inner))
    assert run.content == "Done"
    assert "XY" in str(replies.asked[-1].messages[-1])


def test_input_is_typed(execute: Execute) -> None:
    workflow = of(Condition(lambda given: given.input["euros"] > 10, [total]), input_schema=Order)
    assert execute(workflow, '{"id": 1, "euros": 20}').content == 40
    run = execute(workflow, '{"id": 1}')
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert (
        "workflow 'flow': the input does not fit its input_schema: euros: Field required"
        in run.error["message"]
    )
    with pytest.raises(InvalidInput, match="euros: Field required"):
        workflow.check_input({"id": 1})


# What follows a failure.


def test_failure_ends_the_run(execute: Execute) -> None:
    faults["upper"] = 1
    run = execute(of(upper, twice))
    assert (run.status, run.reason) == (RunStatus.FAILED, "step_failed")
    assert run.error is not None
    assert run.error["type"] == "StepFailed"
    assert run.error["message"] == "step 'upper' failed: ValueError: no upper."
    assert called == ["upper ab"]


def test_output_without_success_is_a_failure(execute: Execute) -> None:
    run = execute(of(refuse))
    assert run.error is not None
    assert run.error["message"] == "step 'refuse' failed: the order is empty."


def test_skipped_step_lets_the_content_pass(execute: Execute) -> None:
    faults["twice"] = 1
    run = execute(of(upper, Step(function=twice, on_error="skip"), seen))
    assert run.content["before"] == "AB"
    assert run.content["names"] == ["twice", "upper"]


def test_retry_waits_and_calls_again(scenario: Scenario, execute: Execute) -> None:
    faults["upper"] = 2
    workflow = of(Step(function=upper, retry=Retry(attempts=3)), on_error="retry")
    run = execute(workflow)
    while run.status is RunStatus.WAITING:
        scenario.let_time_pass()
        scenario.end_waits(scenario.engine(workflow))
        run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.content == "AB"
    assert keys(scenario, run) == ["upper", "upper/wait-2", "upper/try-2", "upper/wait-3", "upper/try-3"]


def test_retry_follows_the_workflow_after_its_last_attempt(execute: Execute) -> None:
    faults["charge"] = 9
    run = execute(
        of(Step(function=reserve, compensate=release), Step(function=charge, on_error="retry", retry=Retry(attempts=1)), on_error="compensate")
    )  # fmt: skip
    assert run.error is not None
    assert "Undone: reserve" in run.error["message"]


SAGA = of(
    Step(function=reserve, compensate=release),
    Parallel(Step(function=charge, compensate=refund), upper),
    ship,
    on_error="compensate",
)


def test_compensations_follow_in_reverse_order(scenario: Scenario, execute: Execute) -> None:
    faults["ship"] = 1
    run = execute(SAGA)
    assert (run.status, run.reason) == (RunStatus.FAILED, "step_failed")
    assert run.error is not None
    assert run.error["message"] == "step 'ship' failed: ValueError: no ship. Undone: charge, reserve."
    assert called[-3:] == ["ship", "refund paid seat ab of ab", "release seat ab"]
    assert keys(scenario, run)[-2:] == ["charge/undo", "reserve/undo"]


def test_compensation_that_fails_is_named(execute: Execute) -> None:
    faults.update(ship=1, refund=1)
    run = execute(SAGA)
    assert (run.status, run.reason) == (RunStatus.FAILED, "not_undone")
    assert run.error is not None
    assert run.error["message"].startswith(
        "step 'ship' failed: ValueError: no ship. Undone: reserve. Not undone: charge (step 'charge/undo' failed: ValueError: no refund)."
    )


def test_rejection_undoes_what_was_done(scenario: Scenario, execute: Execute) -> None:
    workflow = of(Step(function=reserve, compensate=release), Approval("Go on?"), ship, on_error="compensate")
    run = execute(workflow)
    answer_approval(scenario, run, "rejected")
    run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.error is not None
    assert "ann rejected 'Go on?': as discussed. Undone: reserve." in run.error["message"]


def test_compensations_go_on_after_a_crash_in_their_middle(scenario: Scenario) -> None:
    """Each step is executed by another worker, and twice: a message is sent again after a crash."""
    faults["ship"] = 1
    todo = [scenario.submit("flow", "ab")]
    while todo:
        engine = scenario.engine(SAGA)
        scenario.db.journal.forget_progress(todo[0].run_id)
        committed = execute_step(engine, todo[0])
        assert not execute_step(engine, todo.pop(0)).recorded
        todo += committed.sends
    assert called[-3:] == ["ship", "refund paid seat ab of ab", "release seat ab"]


def test_evaluator_that_raises_is_a_failure_of_its_element(execute: Execute) -> None:
    run = execute(of(upper, Condition(lambda given: given.input["no"], [twice], name="rich")))
    assert run.error is not None
    assert (
        run.error["message"]
        == "Condition 'rich': its code raised TypeError: string indices must be integers, not 'str'."
    )
    assert (
        execute(of(upper, Condition(lambda given: given.input["no"], [twice]), on_error="skip")).content
        == "AB"
    )


def test_steps_may_be_added_and_removed_while_a_run_waits(scenario: Scenario, execute: Execute) -> None:
    before = of(upper, Step("old", function=twice), WaitForSignal("go"), Loop([twice], max_iterations=1))
    after = of(Step("new", function=count), upper, WaitForSignal("go"), seen, Loop([twice], max_iterations=1))
    run = execute(before)
    scenario.pool.run("SELECT agno.send_signal(%(run)s, 'go', %(value)s)", {"run": run.id, "value": '"on"'})
    run = scenario.execute_pending(scenario.engine(after), run.id)
    assert run.status is RunStatus.FAILED  # twice takes text, and `seen` before it returns a dict
    assert keys(scenario, run) == ["upper", "old", "go", "new", "seen", "loop/1/twice"]
    assert called == ["upper ab", "twice AB"]


def test_run_that_does_not_end_in_time_is_a_failure(scenario: Scenario, execute: Execute) -> None:
    inner = Workflow(name="inner", steps=[WaitForSignal("never")])
    workflow = of(upper, Step(workflow=inner, timeout_s=60, on_error="skip"), twice)
    run = execute(workflow, more=(inner,))
    assert run.status is RunStatus.WAITING
    scenario.let_time_pass()
    scenario.end_waits(scenario.engine(workflow, inner))
    assert scenario.execute_pending(scenario.engine(workflow, inner), run.id).content == "ABAB"


def test_step_that_can_not_be_called_is_a_failure(execute: Execute) -> None:
    writer = Agent(name="writer", model="scripted:echo")
    ask = Step(agent=writer, input=lambda given: given.previous_step_content[:0])
    run = execute(of(Step(function=reserve, compensate=release), ask, on_error="compensate"), more=(writer,))
    assert run.error is not None
    assert run.error["message"].startswith(
        "step 'writer' could not be called: the input of agent 'writer' is empty"
    )
    assert called[-1] == "release seat ab"


def test_branch_that_undoes_counts_when_too_few_succeed(execute: Execute) -> None:
    faults["charge"] = 1
    pay = Step(function=charge, on_error="compensate")
    run = execute(of(Step(function=reserve, compensate=release), Parallel(pay, upper, join=quorum(2))))
    assert run.error is not None
    assert "Undone: reserve" in run.error["message"]
