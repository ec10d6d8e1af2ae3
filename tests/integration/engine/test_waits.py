"""Waits of programs: signals, approvals, timers, functions that need a person; and the end of calls that nobody needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from uuid6 import uuid7

from agno_workers.core.agent import Agent
from agno_workers.core.flow import Flow, quorum
from agno_workers.core.run import Run, RunStatus
from agno_workers.core.tool import ToolContext
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, NotWaiting, RunNotFound, StepFailed
from agno_workers.models.scripted import Turn
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.handles import RunHandle
from agno_workers.tools import tool
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import Scenario, ScriptedReplies

called: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()


def note(text: str) -> str:
    called.append(text)
    return text


@tool(requires_confirmation=True, answer_within_s=60)
def pay(euros: int) -> str:
    """Pay."""
    called.append(f"pay {euros}")
    return f"paid {euros}"


@tool(requires_confirmation=True, answer_within_s=60, on_timeout="approve")
def pay_unless(euros: int) -> str:
    """Pay."""
    called.append(f"pay {euros}")
    return f"paid {euros}"


@tool(requires_user_input=True, user_input_fields=["iban"])
def wire(euros: int, iban: str) -> str:
    """Wire money."""
    return f"{euros} to {iban}"


@tool(external_execution=True)
def sign(page: int) -> dict[str, str]:
    """Have a page signed."""
    raise AssertionError("somebody outside does this")


@tool(effect="once", on_unknown="ask", answer_within_s=60)
def ship(crate: int) -> str:
    """Ship."""
    raise AssertionError("its worker dies")


@tool(effect="once", on_unknown="ask")
def send(letter: int):  # type: ignore[no-untyped-def]
    """Send."""
    raise AssertionError("its worker dies")


class Begun:
    """A run of a workflow that waits."""

    def __init__(self, scenario: Scenario, body: Callable[..., Any], *agents: Any) -> None:
        self.scenario = scenario
        self.engine: Engine = scenario.engine(Workflow(name="flow", function=body), *agents)
        self.id = scenario.submit("flow", "go").run_id

    def go_on(self) -> Run:
        return self.scenario.execute_pending(self.engine, self.id)

    @property
    def handle(self) -> RunHandle:
        return self.scenario.handle(self.id)

    @property
    def requirement(self) -> Requirement:
        (found,) = self.handle.requirements
        return found

    def time_passes(self) -> Run:
        self.scenario.let_time_pass()
        self.scenario.end_waits(self.engine)
        return self.go_on()


# Signals.


def two_payments(flow: Flow, _: str) -> Any:
    first, second = flow.wait_for_signal("paid"), flow.wait_for_signal("paid", id="second")
    return [first, second, flow.wait_for_signal("other")]


def test_signals_are_kept_and_taken_once_in_their_order(scenario: Scenario) -> None:
    run = Begun(scenario, two_payments)
    assert run.handle.signal("paid", 1)  # before it has begun
    run.go_on()
    run.handle.pause()
    assert run.handle.signal("paid", {"euros": 2})
    assert run.handle.signal("paid", 3)
    assert run.go_on().status is RunStatus.WAITING  # it is paused
    run.handle.resume()
    assert run.go_on().status is RunStatus.WAITING
    run.handle.signal("other")
    assert run.go_on().content == [1, {"euros": 2}, None]
    kept = scenario.db.sql("SELECT payload FROM agno.signal WHERE step_id IS NULL")
    assert [row["payload"] for row in kept] == [3]


def test_waits_for_the_same_name_take_signals_in_their_order(scenario: Scenario) -> None:
    def body(flow: Flow, _: str) -> Any:
        return flow.parallel(
            lambda: flow.wait_for_signal("paid", id="a"), lambda: flow.wait_for_signal("paid", id="b")
        )

    run = Begun(scenario, body)
    run.go_on()
    run.handle.signal("paid", "first")
    run.handle.signal("paid", "second")
    assert run.go_on().content == ["first", "second"]


def test_key_is_sent_once_also_to_a_run_that_has_ended(scenario: Scenario) -> None:
    run = Begun(scenario, lambda flow, _: flow.wait_for_signal("paid"))
    assert run.handle.signal("paid", 1, key="event-1")
    assert not run.handle.signal("paid", 2, key="event-1")
    assert run.go_on().content == 1
    assert not run.handle.signal("paid", 2, key="event-1")
    with pytest.raises(NotWaiting, match=f"run {run.id} is done and takes no signal: 'paid' was not sent"):
        run.handle.signal("paid", 2, key="event-2")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((" ",), "name of a signal must be text of 1 to 200 characters, got ' '"),
        (("x" * 201,), "name of a signal must be text"),
        ((5,), "the name and the key of a signal are text, got 5"),
        (("paid", 1, ""), "key of signal 'paid' must be text of 1 to 500 characters"),
        (("paid", "x" * 300_000), "payload of signal 'paid' takes 300002 bytes as JSON, and the most is 262,144"),
        (("paid", [{"$blob": "x"}]), "has the key .* which is reserved"),
        (("paid", object()), "payload of signal 'paid' can't be stored as JSON"),
    ],
)  # fmt: skip
def test_signal_that_cannot_be_sent_is_refused(
    scenario: Scenario, arguments: tuple[Any, ...], told: str
) -> None:
    run = Begun(scenario, two_payments)
    with pytest.raises(InvalidInput, match=told):
        run.handle.signal(*arguments)


def test_signal_to_an_unknown_run_is_refused(scenario: Scenario) -> None:
    with pytest.raises(RunNotFound, match="check the id"):
        scenario.handle(str(uuid7())).signal("paid")


def test_signal_that_comes_too_late_is_kept_for_the_next_wait(scenario: Scenario) -> None:
    def body(flow: Flow, _: str) -> Any:
        try:
            flow.wait_for_signal("paid", timeout_s=60)
        except StepFailed as error:
            return [error.error["type"] if error.error else "", flow.wait_for_signal("paid", id="again")]

    run = Begun(scenario, body)
    run.go_on()
    scenario.let_time_pass()
    scenario.end_waits(run.engine)
    run.handle.signal("paid", "late")
    assert run.go_on().content == ["StepExpired", "late"]


def test_signal_that_is_waited_for_without_a_limit_is_reported_as_stuck(scenario: Scenario) -> None:
    run = Begun(scenario, two_payments)
    run.go_on()
    now = timedelta(0)
    (found,) = scenario.queries.stuck(unclaimed=timedelta(days=1), overdue=timedelta(days=1), person=now)
    assert (found.what, found.count, found.sample) == ("signal", 1, run.id)


# Approvals.


def checked(flow: Flow, _: str) -> Any:
    answer = flow.approve("manual check", score=4, within_s=60)
    return [answer["by"], answer["note"]]


def test_approval_is_a_requirement_and_ends_the_step(scenario: Scenario) -> None:
    run = Begun(scenario, checked)
    run.go_on()
    asked = run.requirement
    assert (asked.tool, asked.needs, asked.arguments) == ("manual check", "confirmation", {"score": 4})
    asked.approve(by="ann", note="fine")
    with pytest.raises(NotWaiting):
        asked.reject("no")
    assert run.go_on().content == ["ann", "fine"]
    step = next(step for step in run.handle.steps if step.kind == "wait")
    assert step.answer is not None
    assert step.answer.items() >= {"verdict": "approved", "by": "ann", "note": "fine"}.items()
    events = [event.event for event in scenario.queries.events(run.id) if event.subject == step.id]
    assert events == ["ToolCallWaiting", "ToolCallAnswered", "ToolCallCompleted"]


@pytest.mark.parametrize("how", ["python", "sql", "nobody"])
def test_rejected_approval_fails_the_step(scenario: Scenario, how: str) -> None:
    run = Begun(scenario, checked)
    run.go_on()
    if how == "python":
        run.requirement.reject("too much", by="ann")
    elif how == "sql":
        answer = "SELECT agno.answer_approval(%(id)s, 'rejected', 'ann', 'too much')"
        assert scenario.db.value(answer, id=run.requirement.id)
        assert not scenario.db.value(answer, id=run.handle.steps[0].id)
    ended = run.time_passes()
    assert (ended.status, ended.reason) == (RunStatus.FAILED, "rejected")
    assert ended.error is not None
    assert ("nobody answered within 60 s" if how == "nobody" else "ann rejected 'manual check': too much") in ended.error["message"]  # fmt: skip


def test_unanswered_approval_fails_the_run_by_its_policy(scenario: Scenario) -> None:
    def body(flow: Flow, _: str) -> Any:
        return flow.approve("manual check", within_s=60, on_timeout="fail")

    run = Begun(scenario, body)
    run.go_on()
    assert run.time_passes().reason == "nobody_answered"


def test_wait_is_never_sent_to_a_worker(scenario: Scenario) -> None:
    """Earlier code answers every confirmation as that of a call."""
    run = Begun(scenario, checked)
    run.go_on()
    with pytest.raises(psycopg.errors.CheckViolation, match="step_wait"):
        scenario.db.journal.answer(run.requirement.id, ["confirmation"], {"verdict": "approved"})


# Functions that need a person.


@pytest.mark.parametrize(
    ("function", "arguments", "answer", "value"),
    [
        (pay, (5,), lambda asked: asked.approve(), "paid 5"),
        (wire, (5,), lambda asked: asked.answer({"iban": "DE1"}), "5 to DE1"),
        (sign, (1,), lambda asked: asked.complete({"by": "bob"}), {"by": "bob"}),
        (pay_unless, (5,), None, "paid 5"),
        (ship, (1,), lambda asked: asked.resolve(True, "crate 1"), "crate 1"),
        (send, (1,), lambda asked: asked.resolve(True), None),
    ],
    ids=["approve", "answer", "complete", "expire", "resolve", "resolve without a result"],
)
def test_function_of_a_step_waits_for_a_person(
    scenario: Scenario, function: Any, arguments: tuple[Any, ...], answer: Any, value: Any
) -> None:
    def body(flow: Flow, _: str) -> Any:
        return {"value": flow.step("ask", function, *arguments)}

    run = Begun(scenario, body)
    prepare(run, function)
    if answer is not None:
        answer(run.requirement)
    else:
        scenario.let_time_pass()
        scenario.end_waits(run.engine)
    assert run.go_on().content == {"value": value}


@pytest.mark.parametrize(
    ("function", "answer", "told"),
    [
        (pay, lambda asked: asked.reject("too much"), "pay was not called: a person rejected it. too much"),
        (pay, None, "Nobody answered within 60 s"),
        (sign, lambda asked: asked.complete("no ink", is_error=True), "no ink"),
        (ship, lambda asked: asked.resolve(False), "ship did not take effect"),
        (ship, None, "Nobody answered within 60 s"),
    ],
    ids=["reject", "expire", "complete", "resolve", "unresolved"],
)
def test_function_of_a_step_fails_by_the_answer(
    scenario: Scenario, function: Any, answer: Any, told: str
) -> None:
    def body(flow: Flow, _: str) -> Any:
        return flow.step("ask", function, 1)

    run = Begun(scenario, body)
    prepare(run, function)
    if answer is not None:
        answer(run.requirement)
    ended = run.time_passes()
    assert ended.status is RunStatus.FAILED
    assert ended.error is not None
    assert ended.error["type"] == "StepFailed"
    assert told in ended.error["message"]
    assert not called
    assert [message.role for message in run.handle.messages] == ["user"]


def prepare(run: Begun, function: Any) -> None:
    """Let the step wait for a person; a `once` call is interrupted first."""
    if function not in (ship, send):
        run.go_on()
        return
    db = run.scenario.db
    run.scenario.execute_step_of(run.engine, run.id)
    (call,) = db.journal.pending(run.id)
    claim = db.journal.claim_tool(call.run_id, call.step_id, call.generation)
    assert db.journal.ask_person(claim, {"type": "LeaseExpired", "message": "it died", "ids": {}})


# Timers.


def test_timers_that_are_due_at_once_end_together(scenario: Scenario) -> None:
    runs = [Begun(scenario, lambda flow, _: [flow.sleep(hours=24 * 21), "woke"][1]) for _ in range(3)]
    for run in runs:
        run.go_on()
    assert scenario.db.journal.end_due_timers(100) == 0
    scenario.let_time_pass()
    with holding(scenario, runs[0].id):
        assert scenario.db.journal.end_due_timers(100) == 2
    assert scenario.db.journal.end_due_timers(100) == 1
    assert scenario.db.value("SELECT count(*) FROM agno.outbox WHERE due_at <= clock_timestamp()") == 3
    assert [run.go_on().content for run in runs] == ["woke"] * 3


@contextmanager
def holding(scenario: Scenario, run_id: str) -> Iterator[None]:
    """Lock a run, as a commit does."""
    with scenario.db.transaction() as transaction:
        transaction.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE", {"id": run_id})
        yield
        transaction.rollback()


# Calls that nobody needs.


def statuses(scenario: Scenario) -> dict[str, str]:
    return {row["agent"]: row["status"] for row in scenario.db.sql("SELECT agent, status FROM agno.run")}


def test_cancel_reaches_all_runs_below(scenario: Scenario) -> None:
    def middle(flow: Flow, _: str) -> Any:
        return flow.gather(flow.step("one", leaf, "x"), flow.step("two", other, "y"))

    replies = ScriptedReplies(Turn(text="never"))
    leaf, other = (Agent(name=name, model=replies.model) for name in ("leaf", "other"))
    inner = Workflow(name="inner", function=middle)
    run = Begun(scenario, lambda flow, text: flow.step("inner", inner, text), inner, leaf, other)
    run.go_on()
    (child,) = scenario.db.journal.open_children(run.id)
    scenario.execute_pending(run.engine, child)
    assert statuses(scenario) == {"flow": "waiting", "inner": "waiting", "leaf": "queued", "other": "queued"}
    assert run.handle.cancel()
    assert set(statuses(scenario).values()) == {"cancelled"}


@pytest.mark.parametrize("how", ["quorum", "code fails", "fail", "time", "deadline"])
def test_child_run_that_nobody_needs_is_cancelled_at_once(scenario: Scenario, how: str) -> None:
    """Without the keeper's rule for orphans; its model is never asked."""
    replies = ScriptedReplies(Turn(text="never"))
    slow = Agent(name="slow", model=replies.model)

    def body(flow: Flow, text: str) -> Any:
        if how == "time":
            return flow.step("slow", slow, text, timeout_s=60)
        started = [flow.start("slow", slow, text), flow.start("fast", note, text)]
        found = flow.gather(*started, join=quorum(1))
        if how == "quorum":
            return [each.value for each in found if each.is_used]
        if how == "fail":
            raise StepFailed("enough")
        raise ValueError("a bug")

    run = Begun(scenario, body, slow)
    if how == "deadline":
        scenario.execute_step_of(run.engine, run.id)
        scenario.db.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE agent = 'flow'")
        run.scenario.db.journal.end_overdue(run.id)
    elif how == "time":
        run.go_on()
        run.time_passes()
    else:
        run.go_on()
    assert statuses(scenario) == {"flow": "done" if how == "quorum" else "failed", "slow": "cancelled"}
    assert not [step for step in run.handle.steps if step.status.is_open]
    assert not replies.asked


seen: list[bool] = []


def patient(text: str, ctx: ToolContext) -> str:
    seen.append(ctx.cancelled())
    winners.pop()()
    seen.append(ctx.cancelled())
    return text


winners: list[Callable[[], object]] = []


def test_function_that_is_needed_no_more_notices(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        found = flow.gather(
            flow.start("patient", patient, text), flow.start("fast", note, text), join=quorum(1)
        )
        return [each.value for each in found if each.is_used]

    run = Begun(scenario, body)
    seen.clear()
    scenario.execute_step_of(run.engine, run.id)
    journal, active = scenario.db.journal, run.engine.active

    def win() -> None:
        """While it runs, the other one wins, and the lease renewer asks."""
        run.go_on()
        active.lose(journal.renew(active.ids()))

    winners.append(win)
    assert run.go_on().content == ["go"]
    assert seen == [False, True]
