"""Declared workflows: every element, what follows a failure, and a deploy between two turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import pydantic
import pytest
from msgspec import structs

from agno_workers.core.agent import Agent
from agno_workers.core.flow import quorum
from agno_workers.core.messages import Image, ToolResult
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


class Model(pydantic.BaseModel):
    id: int


@dataclass
class Point:
    x: int


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


def points(text: str) -> list[Point]:
    return [Point(x) for x in range(4)]


def even(point: Point) -> Point:
    if point.x % 2:
        raise ValueError("odd")
    return Point(point.x * 10)


def kind(step_input: StepInput[Any]) -> str:
    return str(step_input.input)


def kind_of_model(step_input: StepInput[Model]) -> str:
    return type(step_input.input).__name__


def kind_of_point(step_input: StepInput[Point]) -> str:
    return type(step_input.input).__name__


def ready(step_input: StepInput) -> StepOutput:
    note("ready")
    return StepOutput("ready", success=faults.get("not ready", 0) == 0)


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


def message(run: Run) -> str:
    assert run.error is not None
    text: str = run.error["message"]
    return text


def time_passes(scenario: Scenario, workflow: Workflow, run: Run) -> Run:
    """Let all waits of a run end, until it has none."""
    engine = scenario.engine(workflow)
    while run.status is RunStatus.WAITING:
        scenario.let_time_pass()
        scenario.end_waits(engine)
        run = scenario.execute_pending(engine, run.id)
    return run


def retried(scenario: Scenario, workflow: Workflow, run: Run) -> Run:
    assert scenario.db.journal.retry_run(run.id)
    return scenario.execute_pending(scenario.engine(workflow), run.id)


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
    workflow = of(Parallel(*branches, join=join, deadline_s=60, name="all"))
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


@pytest.mark.parametrize(
    ("answer", "error"),
    [("lower", "'lower', which is not one of its choices (upper, twice)"), (["upper", "upper"], "'upper', twice")],
)  # fmt: skip
def test_router_with_a_wrong_choice_fails(execute: Execute, answer: Any, error: str) -> None:
    run = execute(of(Router(lambda _: answer, [upper, twice], name="case")))
    assert message(run) == f"Router 'case': the selector returned {error}."
    assert called == []


@pytest.mark.parametrize("items", ["words", lambda given: given.previous_step_content, ["ab", "cd"]])
def test_map_does_the_same_for_each_item(execute: Execute, items: Any) -> None:
    assert execute(of(words, Map(items, upper)), "ab cd").content == ["AB", "CD"]


def test_map_that_skips_has_none_for_items_that_failed(execute: Execute) -> None:
    by_name, by_code = (
        Map("points", even, on_error="skip"),
        Map(lambda given: given.previous_step_content, even),
    )
    expected = [{"x": 0}, None, {"x": 20}, None]
    assert execute(of(points, by_name)).content == expected
    assert "item 1 failed: ValueError: odd" in message(execute(of(points, by_code)))
    beside = Parallel(by_name, kind, name="both")
    assert execute(of(points, beside, seen)).content["before"] == {"even": expected, "kind": "ab"}


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        (Condition(False, [count], [twice]), {"twice": "abab"}),
        (Router(lambda _: "twice", [count, twice]), {"twice": "abab"}),
        ([twice, Condition(False, [count])], {"twice": "abab"}),
        (Parallel(twice, count), {"twice": "abab", "count": 2}),
    ],
)
def test_content_of_a_branch_has_the_name_of_the_step_that_returned_it(
    execute: Execute, branch: Any, expected: dict[str, Any]
) -> None:
    assert execute(of(Parallel(branch, upper))).content == {"upper": "AB", **expected}


def test_join_that_fails_tells_why(execute: Execute) -> None:
    faults.update(upper=1, twice=1)
    assert message(execute(of(Parallel(upper, twice, join="first", name="both")))) == (
        "0 of 2 branches of 'both' succeeded, and 1 are needed: step 'both/twice' failed: ValueError: no twice."
    )


def test_time_that_is_over_is_not_waited_for(scenario: Scenario, execute: Execute) -> None:
    workflow = of(
        upper,
        Wait(until=datetime(2020, 1, 1)),  # noqa: DTZ001
        Wait(until=lambda _: datetime(2020, 1, 1, tzinfo=UTC), name="two"),
    )
    run = execute(workflow)
    for _ in range(2):
        scenario.end_waits(scenario.engine(workflow))
        run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.content == "AB"


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


@pytest.mark.parametrize(
    ("on_timeout", "own", "expected"),
    [("reject", None, "rejected"), ("reject", "skip", "end"), ("approve", None, "end"), ("fail", "skip", "nobody_answered")],
)  # fmt: skip
def test_approval_that_nobody_answers_ends_by_its_policy(
    scenario: Scenario, execute: Execute, on_timeout: Any, own: Any, expected: str
) -> None:
    workflow = of(Approval("Go on?", within_s=60, on_timeout=on_timeout, on_error=own), ship)
    run = time_passes(scenario, workflow, execute(workflow))
    assert (run.reason, called) == (expected, ["ship"] if expected == "end" else [])


def test_approval_and_signal_are_not_skipped_by_the_policy_for_all_steps(
    scenario: Scenario, execute: Execute
) -> None:
    workflow = of(upper, Approval("Go on?"), ship, on_error="skip")
    run = execute(workflow)
    answer_approval(scenario, run, "rejected")
    run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert (run.reason, called) == ("rejected", ["upper ab"])
    workflow = of(WaitForSignal("paid", timeout_s=60), ship, on_error="skip")
    run = time_passes(scenario, workflow, execute(workflow))
    assert (run.reason, called) == ("step_expired", ["upper ab"])


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
    inner = Workflow(name="inner", steps=[upper], input_schema=str)
    assert execute(of(twice, inner), more=(inner,)).content == "ABAB"
    replies = ScriptedReplies(Turn(calls=(("inner", {"task": "xy"}),)), Turn(text="Done"))
    boss = Agent(name="boss", model=replies.model, tools=[inner])
    run = execute(of(boss), more=(boss, inner))
    assert run.content == "Done"
    assert "XY" in str(replies.asked[-1].messages[-1])


def test_model_sees_the_type_of_a_workflows_input(execute: Execute) -> None:
    inner = Workflow(name="inner", steps=[kind_of_model], input_schema=Model)
    written = Workflow(name="written", function=lambda flow, a, b=1: [a, b])
    replies = ScriptedReplies(
        Turn(calls=(("inner", {"task": '{"id": 1}'}), ("written", {"task": '{"a": 2}'}))), Turn(text="Done")
    )
    boss = Agent(name="boss", model=replies.model, tools=[inner, written])
    assert execute(of(boss), more=(boss, inner, written)).content == "Done"
    assert [
        tool.parameters["properties"]["task"]["description"].partition(": ")[2]
        for tool in replies.asked[0].tools
    ] == [
        '{"properties":{"id":{"title":"Id","type":"integer"}},"required":["id"],"title":"Model","type":"object"}',
        '{"type":"object","properties":{"a":{},"b":{}},"required":["a"]}',
    ]
    parts = [part for message in replies.asked[-1].messages for part in message.parts]
    assert [part.content for part in parts if isinstance(part, ToolResult)] == ["Model", "[2, 1]"]


def test_input_is_typed(execute: Execute) -> None:
    workflow = of(Condition(lambda given: given.input["euros"] > 10, [total]), input_schema=Order)
    assert execute(workflow, '{"id": 1, "euros": 20}').content == 40
    run = execute(workflow, '{"id": 1}')
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "workflow 'flow': the input does not fit: input.euros: Field required" in run.error["message"]
    with pytest.raises(InvalidInput, match=r"input\.euros: Field required"):
        workflow.encoded([{"id": 1}])


@pytest.mark.parametrize(
    ("schema", "step", "input", "text", "content"),
    [
        (Model, kind_of_model, Model(id=1), '{"id":1}', "Model"),
        (Point, kind_of_point, Point(1), '{"x":1}', "Point"),
        (list[str], kind, ["a", "b"], '["a","b"]', "['a', 'b']"),
        (str, kind, "no JSON", "no JSON", "no JSON"),
    ],
)
def test_input_may_have_any_type_of_json(
    execute: Execute, schema: Any, step: Any, input: Any, text: str, content: str
) -> None:
    workflow = of(step, input_schema=schema)
    assert workflow.encoded([input]) == [text]
    assert execute(workflow, text).content == content


@pytest.mark.parametrize("text", ["no JSON", "null", "[1]", '{"id": "x"}'])
def test_input_that_does_not_fit_is_refused_before_the_submit_and_at_the_first_turn(
    execute: Execute, text: str
) -> None:
    workflow = of(upper, input_schema=Model)
    with pytest.raises(InvalidInput, match="workflow 'flow': the input does not fit: input") as refused:
        workflow.encoded([text])
    assert message(execute(workflow, text)) == str(refused.value)


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


def test_steps_are_undone_in_each_iteration_and_skipped_ones_are_not(
    scenario: Scenario, execute: Execute
) -> None:
    faults.update(charge=1, ship=1)
    pay = Parallel(
        Step(function=reserve, compensate=release),
        Step(function=charge, compensate=refund, on_error="skip"),
        name="pay",
    )
    run = execute(
        of(Condition(True, [Loop([pay], max_iterations=2, name="laps")]), ship, on_error="compensate")
    )
    assert message(run) == (
        "step 'ship' failed: ValueError: no ship. Undone: laps/2/pay/charge, laps/2/pay/reserve, laps/1/pay/reserve."
    )


def test_step_beside_the_one_that_failed_is_undone(execute: Execute) -> None:
    faults["charge"] = 1
    run = execute(of(Parallel(Step(function=reserve, compensate=release), charge), on_error="compensate"))
    assert message(run) == "step 'charge' failed: ValueError: no charge. Undone: reserve."


# Retry and fork.


@pytest.mark.parametrize("on_error", ["fail", "retry"])
def test_retry_calls_a_step_again_that_reported_no_success(
    scenario: Scenario, execute: Execute, on_error: Any
) -> None:
    faults["not ready"] = 1
    workflow = of(upper, Step(function=ready, on_error=on_error, retry=Retry(attempts=2)))
    run = time_passes(scenario, workflow, execute(workflow))
    assert message(run) == "step 'ready' failed: it reported no success."
    faults.clear()
    called.clear()
    assert retried(scenario, workflow, run).content == "ready"
    assert called == ["ready"]


def test_retry_waits_again_for_a_deadline_that_was_over(scenario: Scenario, execute: Execute) -> None:
    workflow = of(upper, Parallel(twice, WaitForSignal("go"), name="both", deadline_s=60))
    run = time_passes(scenario, workflow, execute(workflow))
    assert run.reason == "deadline"
    run = retried(scenario, workflow, run)
    assert run.status is RunStatus.WAITING
    scenario.handle(run.id).signal("go", 1)
    run = scenario.execute_pending(scenario.engine(workflow), run.id)
    assert run.content == {"twice": "ABAB", "go": 1}


def test_retry_of_a_run_that_was_undone_in_part_does_not_call_the_failed_step_again(
    scenario: Scenario, execute: Execute
) -> None:
    faults.update(ship=2, refund=1)
    last = Step(function=ship, on_error="retry", retry=Retry(attempts=2))
    workflow = of(*SAGA.steps[:2], last, on_error="compensate")
    run = time_passes(scenario, workflow, execute(workflow))
    assert run.reason == "not_undone"
    called.clear()
    run = retried(scenario, workflow, run)
    assert message(run).endswith("submit the workflow again. Undone: charge, reserve.")
    assert called == ["refund paid seat ab of ab"]


def test_fork_in_a_loop_makes_a_step_and_all_later_ones_again(scenario: Scenario, execute: Execute) -> None:
    workflow = of(Loop([upper, twice], name="laps", max_iterations=2), count)
    run = execute(workflow)
    called.clear()
    forked = scenario.handle(run.id).fork("laps/2/upper").id
    assert scenario.execute_pending(scenario.engine(workflow), forked).content == 4
    assert called == ["upper ab", "twice AB"]


@pytest.mark.parametrize(
    ("steps", "new"),
    [
        ([twice, upper], []),
        ([Step("big", function=upper), twice], ["big"]),
        ([Condition(True, [upper]), [twice]], []),
        ([Steps(name="in", steps=[upper]), twice], ["in/upper"]),
    ],
    ids=["moved", "renamed", "moved into elements without a name", "moved into an element with a name"],
)
def test_steps_may_be_moved_and_renamed_while_a_run_waits(
    scenario: Scenario, execute: Execute, steps: list[Any], new: list[str]
) -> None:
    go = WaitForSignal("go")
    run = execute(of(upper, twice, go))
    calls = list(called)
    scenario.handle(run.id).signal("go", "on")
    run = scenario.execute_pending(scenario.engine(of(*steps, go, count)), run.id)
    assert (run.content, keys(scenario, run)) == (2, ["upper", "twice", "go", *new, "count"])
    assert called[len(calls) :] == ["upper ab"] * len(new)


def test_step_under_way_that_a_deploy_removes_is_not_waited_for(scenario: Scenario, execute: Execute) -> None:
    run = execute(of(Parallel(WaitForSignal("old"), WaitForSignal("go"))))
    scenario.handle(run.id).signal("go", 4)
    run = scenario.execute_pending(scenario.engine(of(WaitForSignal("go"), half)), run.id)
    assert run.content == 2
    assert {each.key: each.status for each in scenario.queries.steps(run.id)}["old"] == "cancelled"
