"""Calls that wait for a person: they hold no worker, other calls continue, and the first answer wins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.run import RunStatus, StepStatus, WaitsFor
from agno_workers.core.tool import ToolContext
from agno_workers.engine.tool import expire
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, NotWaiting
from agno_workers.models.scripted import Turn
from agno_workers.sdk.approvals import Requirement
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step


@tool(requires_confirmation=True, answer_within_s=60)
def pay(euros: int, ctx: ToolContext) -> str:
    """Pay."""
    return f"paid {euros}, {ctx.answer['verdict']} by {ctx.answer['by']}"


@tool(requires_user_input=True, user_input_fields=["iban"])
def wire(euros: int, iban: str) -> str:
    """Wire money."""
    return f"{euros} to {iban}"


@tool(external_execution=True)
def sign(page: int) -> str:
    """Have a page signed."""
    raise AssertionError("somebody outside does this")


@tool
def look_up(what: str) -> str:
    """Look something up."""
    return f"found {what}"


TOOLS = [pay, wire, sign, look_up]
PAY, WIRE, SIGN = ("pay", {"euros": 5}), ("wire", {"euros": 5}), ("sign", {"page": 1})


def asking(
    scenario: Scenario, *calls: tuple[str, dict[str, Any]], tools: list[Any] = TOOLS
) -> tuple[Engine, str, ScriptedReplies]:
    """Submit a run whose first turn makes these calls and whose second one ends it."""
    replies = ScriptedReplies(Turn(calls=calls), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=tools))
    step = scenario.submit("a")
    execute_step(engine, step)
    return engine, step.run_id, replies


def the_one(scenario: Scenario, run_id: str) -> Requirement:
    (requirement,) = scenario.handle(run_id).requirements
    return requirement


def test_call_that_needs_a_confirmation_waits(scenario: Scenario) -> None:
    engine, run_id, _ = asking(scenario, PAY, ("look_up", {"what": "x"}))
    assert scenario.execute_pending(engine, run_id).status is RunStatus.WAITING
    assert [step.status for step in scenario.queries.steps(run_id)] == ["done", "waiting", "done"]
    requirement = the_one(scenario, run_id)
    assert (requirement.tool, requirement.needs, requirement.arguments) == (
        "pay",
        WaitsFor.CONFIRMATION,
        {"euros": 5},
    )
    requirement.approve(by="ann")
    assert scenario.execute_pending(engine, run_id).status is RunStatus.DONE
    assert scenario.results(run_id) == ["paid 5, approved by ann", "found x"]


def test_rejected_call_is_not_made_and_the_model_reads_the_note(scenario: Scenario) -> None:
    engine, run_id, _ = asking(scenario, PAY)
    the_one(scenario, run_id).reject("too much", by="ann")
    assert scenario.execute_pending(engine, run_id).status is RunStatus.DONE
    assert scenario.results(run_id) == ["pay was not called: a person rejected it. too much"]
    step = scenario.queries.steps(run_id)[1]
    assert (step.status, step.attempt) == (StepStatus.DONE, 0)
    assert step.answer is not None
    assert step.answer.items() >= {"verdict": "rejected", "by": "ann", "note": "too much"}.items()
    events = [event.event for event in scenario.queries.events(run_id) if event.subject == step.id]
    assert events == ["ToolCallWaiting", "ToolCallAnswered", "ToolCallError"]


def test_fields_of_a_person_are_hidden_from_the_model(scenario: Scenario) -> None:
    engine, run_id, replies = asking(scenario, ("wire", {"euros": 5, "iban": "the model's"}))
    assert "iban" not in str(replies.asked[0].tools[1].parameters)
    the_one(scenario, run_id).answer({"iban": "DE1"})
    scenario.execute_pending(engine, run_id)
    assert scenario.results(run_id) == ["5 to DE1"]


def test_answer_must_have_exactly_the_fields(scenario: Scenario) -> None:
    _, run_id, _ = asking(scenario, WIRE)
    for values in ({}, {"bic": "X"}, {"iban": "X", "euros": 1}):
        with pytest.raises(InvalidInput, match="asks for iban"):
            the_one(scenario, run_id).answer(values)


@pytest.mark.parametrize(
    ("kind", "wrong", "right", "told"),
    [
        (int, "many", 3, "a whole number"),
        (float, [], 0.5, "a number"),
        (bool, "perhaps", True, "true or false"),
        (str, 12, "012", "text"),
        (list[int], "1", [1], "a list"),
        (dict[str, int], 1, {"a": 1}, "a JSON object"),
        (int | None, "many", 3, ""),  # more than one type: the tool checks it
    ],
)
def test_answer_of_another_type_is_refused_and_can_be_given_again(
    scenario: Scenario, kind: Any, wrong: Any, right: Any, told: str
) -> None:
    def order(amount: Any) -> str:
        """Order."""
        return repr(amount)

    order.__annotations__["amount"] = kind
    asks = tool(requires_user_input=True, user_input_fields=["amount"])(order)
    engine, run_id, _ = asking(scenario, ("order", {}), tools=[asks])
    if told:
        with pytest.raises(InvalidInput, match=f"order: amount must be {told}"):
            the_one(scenario, run_id).answer({"amount": wrong})
    the_one(scenario, run_id).answer({"amount": right})
    scenario.execute_pending(engine, run_id)
    assert scenario.results(run_id) == [repr(right)]


@pytest.mark.parametrize(("result", "read"), [("signed", "signed"), ({"by": 3}, '{"by":3}'), (None, "null")])
def test_external_call_ends_with_its_delivered_result(scenario: Scenario, result: Any, read: str) -> None:
    engine, run_id, _ = asking(scenario, SIGN)
    the_one(scenario, run_id).complete(result)
    assert scenario.execute_pending(engine, run_id).status is RunStatus.DONE
    assert scenario.results(run_id) == [read]


def test_delivered_result_without_json_is_refused(scenario: Scenario) -> None:
    _, run_id, _ = asking(scenario, SIGN)
    with pytest.raises(InvalidInput, match="can't be kept as JSON"):
        the_one(scenario, run_id).complete(object())
    the_one(scenario, run_id)  # there still is one


WRONG: list[tuple[tuple[str, dict[str, Any]], Callable[[Requirement], None], str]] = [
    (PAY, lambda it: it.answer({}), "approve or reject"),
    (PAY, lambda it: it.complete("x"), "approve or reject"),
    (PAY, lambda it: it.resolve(True), "approve or reject"),
    (WIRE, lambda it: it.approve(), "answer or reject"),
    (SIGN, lambda it: it.approve(), "complete or reject"),
    (SIGN, lambda it: it.answer({"x": 1}), "complete or reject"),
]


@pytest.mark.parametrize(("call", "say", "move"), WRONG)
def test_answer_of_the_wrong_kind_is_refused(
    scenario: Scenario, call: tuple[str, dict[str, Any]], say: Callable[[Requirement], None], move: str
) -> None:
    _, run_id, _ = asking(scenario, call)
    with pytest.raises(NotWaiting, match=move):
        say(the_one(scenario, run_id))
    the_one(scenario, run_id)  # there still is one


SAY: dict[str, tuple[tuple[str, dict[str, Any]], Callable[[Requirement], None]]] = {
    "approve": (PAY, lambda it: it.approve()),
    "reject": (PAY, lambda it: it.reject()),
    "answer": (WIRE, lambda it: it.answer({"iban": "X"})),
    "complete": (SIGN, lambda it: it.complete("x")),
}


@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a in SAY for b in SAY if SAY[a][0] == SAY[b][0] or b == "reject"]
)
def test_first_of_two_answers_wins(scenario: Scenario, first: str, second: str) -> None:
    (call, say), (_, say_again) = SAY[first], SAY[second]
    _, run_id, _ = asking(scenario, call)
    one, two = the_one(scenario, run_id), the_one(scenario, run_id)
    say(one)
    before = scenario.db.everything()
    with pytest.raises(NotWaiting, match="does not wait any more"):
        say_again(two)
    assert scenario.db.everything() == before


@pytest.mark.parametrize("say", SAY.values(), ids=SAY)
def test_answer_to_an_ended_run_is_refused(
    scenario: Scenario, say: tuple[tuple[str, dict[str, Any]], Callable[[Requirement], None]]
) -> None:
    _, run_id, _ = asking(scenario, say[0])
    requirement = the_one(scenario, run_id)
    assert scenario.db.journal.cancel(run_id)
    with scenario.db.unchanged(), pytest.raises(NotWaiting):
        say[1](requirement)


def time_is_up(scenario: Scenario) -> None:
    scenario.db.sql(
        "UPDATE agno.step SET expires_at = clock_timestamp() - interval '1 s' WHERE expires_at IS NOT NULL"
    )


def expiring(on_timeout: Any) -> Any:
    @tool(name="pay", requires_confirmation=True, answer_within_s=60, on_timeout=on_timeout)
    def pay_soon(euros: int) -> str:
        """Pay."""
        return f"paid {euros}"

    return pay_soon


@pytest.mark.parametrize(
    ("on_timeout", "status", "results"),
    [
        ("reject", RunStatus.DONE, ["pay was not called. Nobody answered within 60 s."]),
        ("approve", RunStatus.DONE, ["paid 5"]),
        ("fail", RunStatus.FAILED, ["pay did not end: the run was stopped (nobody_answered)."]),
    ],
)
def test_unanswered_call_expires_by_its_policy(
    scenario: Scenario, on_timeout: Any, status: RunStatus, results: list[str]
) -> None:
    engine, run_id, _ = asking(scenario, PAY, tools=[expiring(on_timeout)])
    assert scenario.db.journal.expired_waits(10) == []
    time_is_up(scenario)
    (step,) = scenario.db.journal.expired_waits(10)
    expire(engine, step)
    assert scenario.execute_pending(engine, run_id).status is status
    assert scenario.results(run_id) == results
    assert scenario.db.journal.expired_waits(10) == []


def test_answered_call_does_not_expire(scenario: Scenario) -> None:
    engine, run_id, _ = asking(scenario, PAY, tools=[expiring("fail")])
    time_is_up(scenario)
    (step,) = scenario.db.journal.expired_waits(10)
    the_one(scenario, run_id).approve()
    expire(engine, step)
    assert scenario.execute_pending(engine, run_id).status is RunStatus.DONE
    assert scenario.results(run_id) == ["paid 5"]
