"""Written workflows: arguments, typed values, questions to a model, state, and runs that are retried, forked and paused."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import msgspec
import pydantic
import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.flow import Flow
from agno_workers.core.run import RunStatus
from agno_workers.core.tool import NOT_DONE, ToolContext
from agno_workers.engine.calls import StepCalls
from agno_workers.engine.tool import fail_exhausted
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, StepFailed
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step

called: list[str] = []
fails: set[str] = set()


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()
    fails.clear()


def note(text: str) -> str:
    called.append(text)
    if text in fails:
        raise ValueError(f"no {text}")
    return text


def of(function: Any, **options: Any) -> Workflow:
    return Workflow(name="flow", function=function, **options)


# Values.


class Color(Enum):
    RED = "red"


class Score(pydantic.BaseModel):
    points: int
    on: date


@dataclass
class Pair:
    left: str
    right: Color


def typed(score: Score, pair: Pair, when: datetime, color: Color = Color.RED, more: Any = None) -> Pair:
    assert isinstance(score, Score)
    assert isinstance(score.on, date)
    assert isinstance(when, datetime)
    return Pair(pair.left * score.points, color)


def bare(anything):  # type: ignore[no-untyped-def]  # a function without annotations works too
    return anything


def half(known: date, anything=None):  # type: ignore[no-untyped-def]
    return [type(known).__name__, anything]


async def slow(text: str, ctx: ToolContext) -> str:
    return f"{text} {ctx.session_id} {ctx.agent}"


class Kit:
    def method(self, text: str) -> str:
        return text


def any_number(*items: str) -> str:
    return "".join(items)


def test_arguments_and_results_keep_their_types(scenario: Scenario) -> None:
    seen: list[Any] = []

    def body(flow: Flow, text: str) -> Any:
        when = datetime(2026, 1, 2, tzinfo=UTC)
        pair = flow.step(
            "typed", typed, Score(points=2, on=date(2026, 1, 1)), Pair("ab", Color.RED), when=when
        )
        seen[:] = [
            pair,
            flow.step("half", half, date(2026, 1, 3), anything={"a": [1]}),
            flow.step("none", bare, None),
        ]
        return [*seen, flow.step("text", bare, "ü\x00\ud800"), len(flow.step("large", bare, "x" * 200_000))]

    run = scenario.run(of(body), "hi")
    assert run.status is RunStatus.DONE, run.error
    assert seen == [Pair("abab", Color.RED), ["date", {"a": [1]}], None]
    assert run.content[1:] == [["date", {"a": [1]}], None, "ü��", 200_000]


def test_value_that_the_code_changes_is_read_again_as_it_was(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        items = flow.step("items", bare, [1])
        items.append(2)
        flow.step("after", bare, 0)
        return items

    assert scenario.run(of(body), "hi").content == [1, 2]


def test_async_function_with_ctx_is_a_step(scenario: Scenario) -> None:
    run = scenario.run(of(lambda flow, text: flow.step("slow", slow, text)), "hi", session_id="s1")
    assert run.content == "hi s1 flow"


@pytest.mark.parametrize(
    ("what", "input", "text"),
    [
        (
            lambda text: text,
            ["x"],
            "workers find functions by their names: define it with def at the top of a module",
        ),
        (Kit().method, ["x"], "define it with def at the top of a module"),
        (Score, ["x"], "a step calls an agent, a team, a workflow or a function"),
        (bare, [], "missing a required argument: 'anything'"),
        (any_number, ["x"], "takes any number of arguments: name each parameter"),
        ("gpt-5", ["x"], "step 'one': model='gpt-5' names no provider"),
        ("opnai:gpt-5", ["x"], "unknown provider"),
        ("openai:gpt-5", [" "], "is empty"),
    ],
)
def test_step_that_can_not_be_called_fails_the_run_with_a_clear_error(
    scenario: Scenario, what: Any, input: list[Any], text: str
) -> None:
    run = scenario.run(of(lambda flow, _text: flow.step("one", what, *input)), "hi")
    assert run.error is not None
    assert text in run.error["message"]


def test_function_outside_the_imports_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"not in a package of AGNO_IMPORTS \(shop\)"):
        StepCalls({"shop"}).identify(note)


def test_question_to_a_model_is_a_step(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="A title"))
    workflow = of(lambda flow, text: flow.step("title", "openai:gpt-5-mini", "Find a title for", text))
    engine = replace(scenario.engine(workflow), resolve=lambda _model: replies.model)
    run = scenario.execute_all(engine, scenario.submit("flow", "this"))
    assert run.content == "A title"
    assert replies.asked[0].messages[0].text == "Find a title for\n\nthis"
    (step,) = [each for each in scenario.queries.steps(run.id) if each.key == "title"]
    assert step.name == "model:openai:gpt-5-mini"


def test_workflow_is_a_step_with_several_typed_arguments(scenario: Scenario) -> None:
    def inner(flow: Flow, score: Score, n: int = 1) -> Pair:
        return Pair(str(score.points * n), Color.RED)

    below = Workflow(name="below", function=inner)

    def body(flow: Flow, text: str) -> Any:
        found = flow.step("sub", below, Score(points=4, on=date(2026, 1, 1)), 3)
        assert isinstance(found, Pair)
        return found.left

    engine = scenario.engine(of(body), below)
    assert scenario.execute_all(engine, scenario.submit("flow", "x")).content == "12"


def test_input_that_does_not_fit_fails_the_run(scenario: Scenario) -> None:
    run = scenario.run(of(lambda flow, number: number), "no number")
    assert run.content == "no number"

    def body(flow: Flow, number: int) -> int:
        return number

    run = scenario.run(of(body), "no number")
    assert run.error is not None
    assert (
        "workflow 'flow': the input does not fit: number: Input should be a valid integer"
        in run.error["message"]
    )
    assert scenario.run(of(body), "7").content == 7


def test_content_that_is_no_json_fails_the_run(scenario: Scenario) -> None:
    run = scenario.run(of(lambda flow, text: object()), "x")
    assert run.error is not None
    assert "the workflow 'flow' returned <object object" in run.error["message"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda flow, text: "x" * (10 * 1024 * 1024), "the workflow 'flow' returned 10,485,762 bytes of JSON"),
        (lambda flow, text: flow.step("a", note, "x" * (10 * 1024 * 1024)), "step 'a': its arguments take 10,4"),
        (lambda flow, text: flow.step("a", note, object()), "step 'a': the arguments of .*note can't be sent as JSON"),
        (lambda flow, text: flow.step("a", note, [flow.start("b", note, "b")]), "Pending cannot be converted to JSON"),
    ],
)  # fmt: skip
def test_values_that_can_not_be_stored_fail_the_run(scenario: Scenario, body: Any, text: str) -> None:
    run = scenario.run(of(body), "x")
    assert run.error is not None
    assert re.search(text, run.error["message"]), run.error["message"]


def test_code_that_exits_fails_the_run(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> None:
        raise SystemExit(3)

    run = scenario.run(of(body), "x")
    assert run.error is not None
    assert "sys.exit(3)" in run.error["message"]


def test_slow_code_between_steps_is_reported(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    workflow = of(lambda flow, text: text)
    engine = scenario.engine(workflow)
    engine._compiled["flow"] = msgspec.structs.replace(workflow.compiled(), slow_s=0.0)
    scenario.execute_all(engine, scenario.submit("flow", "x"))
    assert "is executed again at each turn: move slow work into a step" in caplog.text


def test_code_that_never_ends_fails_the_run(scenario: Scenario) -> None:
    end = threading.Event()
    workflow = of(lambda flow, text: end.wait(60))
    engine = scenario.engine(workflow)
    engine._compiled["flow"] = msgspec.structs.replace(workflow.compiled(), most_s=0.01)
    run = scenario.execute_all(engine, scenario.submit("flow", "x"))
    end.set()
    assert (run.status, run.reason) == (RunStatus.FAILED, "slow_code")
    assert run.error is not None
    assert "did not end within 0.01 s: correct its loop" in run.error["message"]


# State and facts of the run.


def count(ctx: ToolContext) -> None:
    ctx.state.increment("n")


def test_state_is_read_in_the_code_and_written_in_steps(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        before = flow.state.get("n", 0)
        flow.step("count", count)
        return [before, flow.state["n"], flow.session_id, flow.user_id, flow.metadata]

    run = scenario.run(of(body), "x", session_id="s", user_id="u", metadata={"a": 1})
    assert run.content == [1, 1, "s", "u", {"a": 1}]


# Failures: retry and fork.


def chain(flow: Flow, text: str) -> Any:
    a = flow.step("a", note, "a")
    b, c = flow.gather(flow.step("b", note, "b"), flow.step("c", note, "c"))
    d = flow.step("d", note, "d")
    return [a, b, c, d, flow.step("e", note, "e")]


def test_retry_keeps_what_is_done_and_makes_the_rest_again(scenario: Scenario) -> None:
    fails.update("d")
    workflow = of(chain)
    run = scenario.run(workflow, "x")
    assert (run.status, run.reason) == (RunStatus.FAILED, "step_failed")
    assert run.error is not None
    assert run.error["type"] == "StepFailed"
    assert run.error["ids"]["step"] == "d"
    fails.clear()
    engine = scenario.engine(workflow)
    assert scenario.db.journal.retry_run(run.id)
    assert scenario.execute_pending(engine, run.id).content == ["a", "b", "c", "d", "e"]
    assert called == ["a", "b", "c", "d", "d", "e"]


def test_retry_makes_calls_again_that_failed_or_were_open(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        first, second = flow.start("a", note, "a"), flow.start("b", note, "b")
        return [first.result(), second.result()]

    fails.update("a")
    engine = scenario.engine(of(body))
    a, _b = execute_step(engine, scenario.submit("flow", "x")).sends
    (turn,) = execute_step(engine, a).sends
    execute_step(engine, turn)  # while b is open
    run = scenario.queries.run(turn.run_id)
    assert run.status is RunStatus.FAILED
    assert {each.key: each.status for each in scenario.queries.steps(run.id)}["b"] == "cancelled"
    fails.clear()
    called.clear()
    scenario.db.journal.retry_run(run.id)
    assert scenario.execute_pending(engine, run.id).content == ["a", "b"]
    assert called == ["a", "b"]


def test_retry_after_the_deadline_keeps_what_is_done(scenario: Scenario) -> None:
    workflow = of(chain)
    engine, step = scenario.engine(workflow), scenario.submit("flow", "x", deadline_s=60)
    (a,) = execute_step(engine, step).sends
    execute_step(engine, a)
    scenario.db.sql("UPDATE agno.run SET deadline_at = clock_timestamp()")
    assert scenario.db.journal.end_overdue(step.run_id)
    scenario.db.journal.retry_run(step.run_id)
    assert scenario.execute_pending(engine, step.run_id).content == ["a", "b", "c", "d", "e"]
    assert called == ["a", "b", "c", "d", "e"]


def test_retry_after_a_change_of_the_code_takes_its_new_steps(scenario: Scenario) -> None:
    def broken(flow: Flow, text: str) -> Any:
        flow.step("a", note, "a")
        raise ValueError("a bug")

    run = scenario.run(of(broken), "x")
    assert run.error is not None
    assert run.error["message"] == "a bug"

    def fixed(flow: Flow, text: str) -> Any:
        return [flow.step("new", note, "new"), flow.step("a", note, "a")]

    engine = scenario.engine(of(fixed))
    scenario.db.journal.retry_run(run.id)
    assert scenario.execute_pending(engine, run.id).content == ["new", "a"]
    assert called == ["a", "new"]


def test_rejected_approval_that_failed_the_run_is_asked_again(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        flow.step("a", note, "a")
        return flow.approve("Go?", id="ok")["by"]

    engine, step = scenario.engine(of(body)), scenario.submit("flow", "x")

    def answer(verdict: str) -> Any:
        (wait,) = [
            each
            for each in scenario.queries.steps(step.run_id)
            if each.key == "ok" and each.status == "waiting"
        ]
        answered = {"verdict": verdict, "by": "ann"}
        scenario.pool.run(
            "SELECT agno.end_waits(%(run)s, %(ends)s)",
            {
                "run": step.run_id,
                "ends": __import__("json").dumps(
                    [{"step_id": wait.id, "value": answered, "answer": answered}]
                ),
            },
        )
        return scenario.execute_pending(engine, step.run_id)

    assert scenario.execute_pending(engine, step.run_id).status is RunStatus.WAITING
    assert answer("rejected").reason == "rejected"
    scenario.db.journal.retry_run(step.run_id)
    assert scenario.execute_pending(engine, step.run_id).status is RunStatus.WAITING
    assert answer("approved").content == "ann"
    assert called == ["a"]


def test_fork_makes_a_step_and_all_later_ones_again(scenario: Scenario) -> None:
    workflow = of(chain)
    run = scenario.run(workflow, "x")
    called.clear()
    engine = scenario.engine(workflow)
    forked = scenario.handle(run.id).fork("b").id
    assert scenario.execute_pending(engine, forked).content == ["a", "b", "c", "d", "e"]
    assert called == ["b", "d", "e"]  # c was made beside b
    called.clear()
    again = scenario.handle(forked).fork("d").id
    assert scenario.execute_pending(engine, again).content == ["a", "b", "c", "d", "e"]
    assert called == ["d", "e"]
    called.clear()
    whole = scenario.handle(run.id).fork(None, "other input").id
    assert scenario.execute_pending(engine, whole).content == ["a", "b", "c", "d", "e"]
    assert called == ["a", "b", "c", "d", "e"]
    assert scenario.queries.transcript(whole)[0].text == "other input"


def test_fork_of_a_failed_run_keeps_failures_that_were_caught(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        try:
            first = flow.step("a", note, "a")
        except StepFailed:
            first = flow.step("b", note, "b")
        return [first, flow.step("c", note, "c")]

    fails.update("ac")
    workflow = of(body)
    run = scenario.run(workflow, "x")
    fails.clear()
    called.clear()
    forked = scenario.handle(run.id).fork("c").id
    assert scenario.execute_pending(scenario.engine(workflow), forked).content == ["b", "c"]
    assert called == ["c"]


def test_fork_at_an_unknown_step_lists_the_steps(scenario: Scenario) -> None:
    run = scenario.run(of(chain), "x")
    with pytest.raises(InvalidInput, match="has no step 'risk': it has turn:1, a, turn:2, b, c"):
        scenario.handle(run.id).fork("risk")
    with pytest.raises(InvalidInput, match="whose code makes the arguments of step b"):
        scenario.handle(run.id).fork("b", arguments={"text": "z"})


# Effects.


@tool(effect="once")
def pay(amount: int) -> str:
    """Pay."""
    called.append("pay")
    raise ValueError("the bank is closed")


def look(amount: int) -> Any:
    called.append("reconcile")
    return NOT_DONE


@tool(effect="once", reconcile=look)
def pay_checked(amount: int) -> str:
    """Pay."""
    called.append("pay")
    return "paid"


def test_once_step_that_failed_is_not_made_again_by_a_retry_but_by_a_fork(scenario: Scenario) -> None:
    workflow = of(lambda flow, text: flow.step("pay", pay, 5))
    run = scenario.run(workflow, "x")
    assert run.status is RunStatus.FAILED
    engine = scenario.engine(workflow)
    scenario.db.journal.retry_run(run.id)
    assert scenario.execute_pending(engine, run.id).status is RunStatus.FAILED
    assert called == ["pay"]
    scenario.execute_pending(engine, scenario.handle(run.id).fork("pay").id)
    assert called == ["pay", "pay"]


def _interrupted(scenario: Scenario, paying: Any) -> tuple[Engine, str]:
    """Return a run whose payment was claimed by a worker that died, after the keeper's round."""
    engine = scenario.engine(of(lambda flow, text: flow.step("pay", paying, 5)))
    (call,) = execute_step(engine, scenario.submit("flow", "x")).sends
    dead = scenario.db.journal_of("dead")
    assert dead.claim_tool(call.run_id, call.step_id, 0)
    dead.end_lease(call.step_id)
    scenario.db.journal.release_expired(10)
    for step in scenario.db.journal.exhausted(10):
        fail_exhausted(engine, step)
    return engine, call.run_id


def test_once_step_that_was_interrupted_is_asked_for_by_its_hook(scenario: Scenario) -> None:
    assert scenario.execute_pending(*_interrupted(scenario, pay_checked)).content == "paid"
    assert called == ["reconcile", "pay"]


def test_once_step_that_was_interrupted_without_a_hook_is_unknown_and_stays_it(scenario: Scenario) -> None:
    engine, run_id = _interrupted(scenario, pay)
    assert scenario.execute_pending(engine, run_id).status is RunStatus.FAILED
    scenario.db.journal.retry_run(run_id)
    run = scenario.execute_pending(engine, run_id)
    assert (run.status, called) == (RunStatus.FAILED, [])
    assert "ended without a result" in str(run.error)


# Pauses.


def test_nothing_of_a_paused_run_is_claimed_and_its_timers_wait(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="yes"))
    helper = Agent(name="helper", model=replies.model)

    def body(flow: Flow, text: str) -> Any:
        slow = flow.start("helper", helper, "?")
        flow.sleep(hours=1)
        return [slow.result(), flow.step("a", note, "a")]

    engine = scenario.engine(of(body), helper)
    step = scenario.submit("flow", "x")
    (child,) = execute_step(engine, step).children
    handle = scenario.handle(step.run_id)
    assert handle.pause()
    execute_step(engine, child)
    scenario.let_time_pass()
    scenario.end_waits(engine)
    assert scenario.execute_pending(engine, step.run_id).status is RunStatus.WAITING
    assert (called, replies.asked) == ([], [])
    assert handle.resume()
    scenario.execute_pending(engine, child.run_id)
    assert scenario.execute_pending(engine, step.run_id).content == ["yes", "a"]
