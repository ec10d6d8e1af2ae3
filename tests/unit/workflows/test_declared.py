"""The checks of declared workflows, and the values between their steps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agno_workers import InvalidInput, StepFailed, Team, Workflow, quorum
from agno_workers.core.agent import Agent, Limits
from agno_workers.core.delegate import Delegate
from agno_workers.core.flow import Flow
from agno_workers.core.messages import user
from agno_workers.core.moves import Fail
from agno_workers.core.program import CallKind, Do, MadeCall, Outcome, Progress
from agno_workers.core.runnable import Program
from agno_workers.engine.calls import StepCalls
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

writer = Agent(name="writer", model="scripted:echo")


def draft(text: str) -> str:
    return text


def review(step_input: StepInput) -> str:
    return str(step_input.input)


def both(one: str, two: str) -> str:
    return one + two


def bare(step_input):  # type: ignore[no-untyped-def]
    return step_input


async def decide(given: StepInput) -> bool:
    return bool(given)


def of(*steps: Any, **fields: Any) -> Workflow:
    return Workflow(name="w", steps=list(steps), **fields)


REFUSED: list[tuple[Any, str]] = [
    (of, "it has no steps: write Workflow"),
    (lambda: of(5), "5 is not a step: write an agent, a team"),
    (lambda: of(draft, function=draft), "it has steps and a function"),
    (lambda: of(draft, draft), "two steps have the id 'draft': give one of them, or an element around it"),
    (lambda: of(Parallel(draft, name="x"), Step("x", function=draft)), "two steps have the id 'x'"),
    (lambda: of(Condition(True, [draft], [draft])), "two steps have the id 'draft'"),
    (lambda: of(Step("a/b", function=draft)), "Step 'a/b': the name of a step has no '/'"),
    (lambda: of(Step("turn:1", function=draft)), "does not begin with 'turn:'"),
    (lambda: of(Map(["a"], draft, on_error="retry")), "on_error must be one of 'fail', 'skip', 'compensate', got 'retry'"),  # type: ignore[arg-type]
    (lambda: of(Step("undo", function=draft)), "Step 'undo': the name of a step .* is not 'undo'"),
    (lambda: of(WaitForSignal(" ")), "WaitForSignal has no name"),
    (lambda: of(draft, Map("drat", draft, name="each")), "Map 'each': items must be .* the name of a step, got 'drat'. Did you mean 'draft'[?]"),
    (lambda: of(Step("a" * 190, function=draft)), "too long"),
    (lambda: of(lambda text: text), "define it with def at the top of a module"),
    (lambda: of(both), r"takes one, two: the function of a step takes one value"),
    (lambda: of(bare), "annotate its parameter, step_input: StepInput"),
    (lambda: of(Step()), "takes one of agent, team, workflow and function, got none"),
    (lambda: of(Step("x", agent=writer, function=draft)), "got agent and function"),
    (lambda: of(Step("x", team=writer)), "has the agent 'writer' in team=...: write agent=..."),
    (lambda: of(Step("x", agent=draft)), "Step 'x' has no agent in agent=<function draft"),
    (lambda: of(Step("x", function=draft, timeout_s=5)), "write @tool.timeout_s=...."),
    (lambda: of(Step("x", agent=writer, timeout_s=-1)), "timeout_s must be"),
    (lambda: of(Step("x", function=review, input=lambda given: given)), "takes a StepInput: leave one of them"),
    (lambda: of(Step(executor=draft)), r"Step has no field 'executor', which is a word of agno: use function=..."),  # type: ignore[call-arg]
    (lambda: of(Step(function=draft, on_error="ignore")), "on_error must be"),  # type: ignore[arg-type]
    (lambda: of(draft, on_error="ignore"), "on_error must be one of 'fail', 'skip', 'retry', 'compensate', got 'ignore'"),
    (lambda: of(draft, on_error="compensate"), "on_error='compensate' needs a step with compensate=..."),
    (lambda: of(Step(function=draft, compensate=draft)), "step 'draft' has compensate=..., and nothing uses it"),
    (lambda: of(Parallel()), "Parallel has no steps"),
    (lambda: of(Parallel(draft, join=quorum(2))), "Parallel can.t be joined: 2 of 1 branches can.t succeed"),
    (lambda: of(Parallel(draft, join="most")), "Parallel join must be"),  # type: ignore[arg-type]
    (lambda: of(Parallel(draft, deadline_s=0)), "deadline_s must be"),
    (lambda: of(Parallel(draft, deadline_s=5)), "Parallel has a deadline_s and no name: set name=..."),
    (lambda: of(draft, limits=Limits(turns=3)), "limits.turns is for agents: set it on those that the steps run"),
    (lambda: of(Condition("input == 1", [draft])), "agno's expressions don't work here, write a function"),
    (lambda: of(Condition(decide, [draft])), "evaluator .*decide is async"),
    (lambda: of(Condition(lambda: True, [draft])), "evaluator .* must take one argument"),
    (lambda: of(Condition(True, [], description="x")), "Condition has no field 'description', which is a word of agno"),  # type: ignore[call-arg]
    (lambda: of(Step(function=draft, retry=3)), r"Step 'draft' retry must be Retry\(...\), got 3[.]$"),  # type: ignore[arg-type]
    (lambda: of(draft, limits=5), r"limits must be Limits\(...\), got 5[.]$"),
    (lambda: of(draft, output=5), r"output must be text or None, got 5[.]$"),
    (lambda: of(Condition(True, [])), "Condition has no steps"),
    (lambda: of(Loop([draft], max_iterations=0)), "max_iterations must be"),
    (lambda: of(Loop([draft], end_condition=3)), "end_condition must be a function, got 3"),
    (lambda: of(Router("draft", [draft])), "has text as its selector"),
    (lambda: of(Router(draft, [])), "Router has no steps"),
    (lambda: of(Map(5, draft)), "items must be a function, got 5"),
    (lambda: of(Map(["a"], draft, window=0)), "window must be"),
    (lambda: of(Map(["a"], 7)), "got 7"),
    (lambda: of(Wait()), "Wait 'wait' takes seconds, hours or days, or until"),
    (lambda: of(Wait(hours=1, until=datetime.now(UTC))), "or until"),
    (lambda: of(Approval("ok?", on_timeout="ask")), "on_timeout must be"),  # type: ignore[arg-type]
    (lambda: of(WaitForSignal("paid"), WaitForSignal("paid")), "two steps have the id 'paid'"),
    (lambda: of(draft, output="drat"), "output must be the name of a step, got 'drat'. Did you mean 'draft'[?]"),
    (lambda: of(draft, input_schema=len), "input_schema=<built-in function len> is not a type of JSON"),
    (lambda: of(draft, db=1), "Workflow has no field 'db', which is a word of agno"),
    (lambda: of(draft, stepz=1), "Workflow has no field 'stepz'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_mistake_is_refused_where_it_is_written(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_names_the_agents_that_workers_need() -> None:
    other = Agent(name="other", model="scripted:echo")
    inner = Workflow(name="inner", steps=[other])
    found = of(Loop([Parallel(writer, [inner])]), Map("writer", other, name="all")).parts
    assert [each.name for each in found] == ["writer", "inner", "other"]


def test_leader_of_a_team_sees_the_type_of_a_workflows_input() -> None:
    member = Workflow(name="member", steps=[draft], input_schema=list[str])
    leader = Team(name="team", members=[member], leader="scripted:echo").compiled()
    (delegate,) = [each for each in leader.tools if isinstance(each, Delegate)]
    assert delegate.spec.parameters["properties"] == {
        "task": {
            "type": "string",
            "description": 'The input, as JSON text of this schema: {"items":{"type":"string"},"type":"array"}',
        }
    }
    assert delegate.task('{"task": "[]"}') == "[]"


def test_ids_are_paths_of_names() -> None:
    workflow = of(
        draft, Parallel(writer, Steps(name="deep", steps=[review])), Loop([Step("again", function=draft)], name="research")
    )  # fmt: skip
    program = workflow.compiled()
    assert isinstance(program, Program)
    assert program.declared == {
        "steps": ["draft", "writer", "deep", "deep/review", "research", "research/*/again"]
    }


def test_step_input_finds_outputs_by_name() -> None:
    inner = StepOutput("second", step_name="draft")
    outputs = {
        "ask": StepOutput("first", step_name="ask"),
        "research": StepOutput("second", step_name="research", steps=[inner]),
        "wait": StepOutput(step_name="wait"),
    }
    given = StepInput({"id": 1}, "second", outputs)
    assert given.get_input_as_string() == '{"id":1}'
    assert given.get_step_output("draft") is inner
    assert given.get_step_content("ask") == "first"
    assert given.get_step_content("other") is None
    assert given.get_last_step_content() == "second"
    assert given.get_all_previous_content() == "=== ask ===\nfirst\n\n=== research ===\nsecond"


def flow_of(*done: str) -> Flow:
    """Return the flow of a run whose calls of `draft` with these ids are done, as a retry keeps them: those that failed are made again."""
    name = f"{__name__}:draft"
    calls = {
        key: MadeCall(CallKind.FUNCTION, name, Outcome(place, value=key)) for place, key in enumerate(done, 1)
    }
    return Flow(Progress("r", user("x"), datetime.now(UTC), calls), StepCalls())


def next_calls(workflow: Workflow, *done: str) -> list[str]:
    """Return the ids of the next calls. Raises as the workflow does."""
    program, flow = workflow.compiled(), flow_of(*done)
    assert isinstance(program, Program)
    ended: list[Any] = []
    move = flow.move(lambda: ended.append(program.body(flow)))
    if isinstance(move, Fail):
        raise StepFailed(move.message)
    return [call.key for call in move.calls] if isinstance(move, Do) else ended


SAGA = of(
    Step("reserve", function=draft, compensate=draft),
    Step("lost", function=draft, on_error="skip"),
    Step("hold", function=draft, compensate=draft, on_error="retry"),
    review,
    on_error="compensate",
)


def test_retry_after_compensations_undoes_the_rest_and_does_not_go_on() -> None:
    done = "reserve", "hold/try-2", "hold/undo"
    assert next_calls(SAGA, *done) == ["reserve/undo"]
    with pytest.raises(
        StepFailed,
        match=r"step 'review' failed before, and the steps before it were undone: .* Undone: hold, reserve\.",
    ):
        next_calls(SAGA, *done, "reserve/undo")


def test_retry_keeps_the_attempt_that_succeeded() -> None:
    assert next_calls(SAGA, "reserve", "lost", "hold/try-2") == ["review"]


def test_deploy_that_removes_the_failed_step_goes_on_with_undoing() -> None:
    shorter = of(*SAGA.steps[:3], on_error="compensate")
    done = "reserve", "lost", "hold", "hold/undo"
    assert next_calls(shorter, *done) == ["reserve/undo"]
    with pytest.raises(StepFailed, match=r"the steps of the workflow were undone\. Undone: hold, reserve\."):
        next_calls(shorter, *done, "reserve/undo")


def test_new_step_in_front_of_the_failed_one_does_not_stop_undoing() -> None:
    reserve = Step("reserve", function=draft, compensate=draft)
    workflow = of(
        reserve,
        Step("hold", function=draft, compensate=draft),
        draft,
        Step("pay", function=draft, on_error="compensate"),
    )
    assert next_calls(workflow, "reserve", "hold", "hold/undo") == ["reserve/undo"]
