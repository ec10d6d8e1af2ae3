"""A `once` tool after a crash: a hook or a person decides the outcome, or it is unknown. And retries of other tools."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.policy import Retry
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import StepMessage
from agno_workers.core.tool import NOT_DONE, Effect, ToolContext
from agno_workers.engine.tool import DEPLOY, fail_exhausted
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidTool, NotWaiting, ToolError, TryAgain
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step

AT_ONCE = Retry(attempts=3, first_delay_s=0.0)


class Bank:
    """The outside world: payments, and the number of lookups."""

    def __init__(self, *answers: Any) -> None:
        self.paid: list[str] = []
        self.asked: list[tuple[int, str]] = []
        self._answers = list(answers)
        self.while_paying: Callable[[], None] = lambda: None

    def pay(self, euros: int, ctx: ToolContext) -> str:
        """Pay."""
        self.paid.append(ctx.idempotency_key)
        self.while_paying()
        return f"paid {euros}"

    def look(self, euros: int, ctx: ToolContext) -> Any:
        self.asked.append((euros, ctx.idempotency_key))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tool(self, **options: Any) -> Any:
        return tool(name="pay", effect=Effect.ONCE, retry=AT_ONCE, **options)(self.pay)


def cut_short(scenario: Scenario, paying: Any) -> tuple[Engine, StepMessage]:
    """Return a run whose tool call was claimed by a dead worker, after the keeper's round."""
    replies = ScriptedReplies(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[paying]))
    (send,) = execute_step(engine, scenario.submit("a")).sends
    dead = scenario.db.journal_of("dead")
    assert dead.claim_tool(send.run_id, send.step_id, 0)
    dead.end_lease(send.step_id)
    return engine, send


def keeper(scenario: Scenario, engine: Engine) -> None:
    """Rule 3."""
    scenario.db.journal.release_expired(10)
    for step in scenario.db.journal.exhausted(10):
        fail_exhausted(engine, step)


@pytest.mark.parametrize(
    ("answer", "results", "paid"),
    [("receipt 7", ["receipt 7"], 0), ({"receipt": 7}, ['{"receipt":7}'], 0), (NOT_DONE, ["paid 5"], 1)],
    ids=["it happened", "it happened, as JSON", "it did not"],
)
def test_reconcile_hook_decides_the_outcome(
    scenario: Scenario, answer: Any, results: list[str], paid: int
) -> None:
    bank = Bank(answer)
    engine, send = cut_short(scenario, bank.tool(reconcile=bank.look))
    keeper(scenario, engine)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert scenario.results(send.run_id) == results
    assert bank.asked == [(5, send.step_id)]
    assert bank.paid == [send.step_id] * paid


def test_hook_that_does_not_know_leaves_the_outcome_unknown(scenario: Scenario) -> None:
    bank = Bank(None)
    engine, send = cut_short(scenario, bank.tool(reconcile=bank.look))
    keeper(scenario, engine)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert scenario.queries.steps(send.run_id)[1].status is StepStatus.UNKNOWN
    assert "not known whether pay took effect" in scenario.results(send.run_id)[0]
    assert bank.paid == []


def test_failed_hook_is_retried(scenario: Scenario) -> None:
    bank = Bank(OSError("the bank is closed"), "receipt 7")
    engine, send = cut_short(scenario, bank.tool(reconcile=bank.look))
    keeper(scenario, engine)
    scenario.execute_pending(engine, send.run_id)
    scenario.let_time_pass()
    scenario.db.journal.take_due(10)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert (scenario.results(send.run_id), bank.paid) == (["receipt 7"], [])


def test_hook_that_fails_each_time_leaves_the_outcome_unknown(scenario: Scenario) -> None:
    bank = Bank(OSError("the bank is closed"))
    engine, send = cut_short(scenario, bank.tool(reconcile=bank.look))
    keeper(scenario, engine)
    for _ in range(3):
        scenario.execute_pending(engine, send.run_id)
        scenario.let_time_pass()
        scenario.db.journal.take_due(10)
    assert scenario.queries.steps(send.run_id)[1].status is StepStatus.UNKNOWN
    assert (len(bank.asked), bank.paid) == (3, [])


def test_hook_may_be_async_and_without_a_context(scenario: Scenario) -> None:
    async def look(euros: int) -> str:
        return f"receipt of {euros}"

    engine, send = cut_short(scenario, Bank().tool(reconcile=look))
    keeper(scenario, engine)
    scenario.execute_pending(engine, send.run_id)
    assert scenario.results(send.run_id) == ["receipt of 5"]


@pytest.mark.parametrize(
    ("said", "results", "paid"),
    [
        ((True, "receipt 7"), ["receipt 7"], 0),
        ((True,), ["It took effect."], 0),
        ((False,), ["pay did not take effect."], 0),
    ],
)
def test_run_waits_for_a_resolution_when_the_policy_asks_a_person(
    scenario: Scenario, said: tuple[Any, ...], results: list[str], paid: int
) -> None:
    bank = Bank()
    engine, send = cut_short(scenario, bank.tool(on_unknown="ask"))
    keeper(scenario, engine)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.WAITING
    (requirement,) = scenario.handle(send.run_id).requirements
    assert requirement.needs == "resolution"
    requirement.resolve(*said)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert (scenario.results(send.run_id), len(bank.paid)) == (results, paid)


def test_resolution_may_execute_the_call_again(scenario: Scenario) -> None:
    bank = Bank()
    engine, send = cut_short(scenario, bank.tool(on_unknown="ask"))
    keeper(scenario, engine)
    (requirement,) = scenario.handle(send.run_id).requirements
    requirement.resolve(False, again=True)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert (scenario.results(send.run_id), bank.paid) == (["paid 5"], [send.step_id])


def test_late_result_is_recorded_before_a_resolution(
    scenario: Scenario,
) -> None:
    bank = Bank()
    replies = ScriptedReplies(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[bank.tool(on_unknown="ask")]))
    (send,) = execute_step(engine, scenario.submit("a")).sends

    def seen_dead() -> None:
        scenario.db.sql("UPDATE agno.step SET lease_until = clock_timestamp() WHERE status = 'running'")
        keeper(scenario, engine)

    bank.while_paying = seen_dead
    assert execute_step(engine, send).recorded
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert scenario.results(send.run_id) == ["paid 5"]


def test_step_of_a_living_worker_is_not_ended(scenario: Scenario) -> None:
    engine, _ = cut_short(scenario, Bank().tool())
    (late,) = scenario.db.journal.exhausted(10)
    scenario.db.sql(
        "UPDATE agno.step SET lease_until = clock_timestamp() + interval '1 min' WHERE status = 'running'"
    )
    with scenario.db.unchanged():
        assert not fail_exhausted(engine, late).recorded


def test_resolution_of_an_earlier_attempt_is_refused(scenario: Scenario) -> None:
    engine, send = cut_short(scenario, Bank().tool(on_unknown="ask"))
    keeper(scenario, engine)
    (first,) = scenario.handle(send.run_id).requirements
    first.resolve(False, again=True)
    dead = scenario.db.journal_of("dead")
    assert dead.claim_tool(send.run_id, send.step_id, 0)
    dead.end_lease(send.step_id)
    keeper(scenario, engine)
    with pytest.raises(NotWaiting, match="does not wait any more"):
        first.resolve(True, "receipt 7")
    with pytest.raises(NotWaiting, match="does not wait any more"):
        first.resolve(False, again=True)
    (second,) = scenario.handle(send.run_id).requirements
    second.resolve(True, "receipt 8")
    scenario.execute_pending(engine, send.run_id)
    assert scenario.results(send.run_id) == ["receipt 8"]


def test_reported_outcome_cannot_be_resolved(scenario: Scenario) -> None:
    engine, send = cut_short(scenario, Bank().tool(on_unknown="ask"))
    keeper(scenario, engine)
    (one,) = scenario.handle(send.run_id).requirements
    one.resolve(True)
    with pytest.raises(NotWaiting):
        one.resolve(False)


@pytest.mark.parametrize(
    "options",
    [{"effect": "pure", "reconcile": print}, {"effect": "idempotent", "on_unknown": "ask"}, {"effect": "once", "on_unknown": "guess"}],
)  # fmt: skip
def test_invalid_policy_is_refused_at_import(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTool):
        tool(description="x", **options)(lambda_free)


def lambda_free(x: int) -> int:
    return x


def test_once_tool_after_its_timeout_is_unknown(scenario: Scenario) -> None:
    go_on = threading.Event()

    @tool(effect="once", timeout_s=0.05, on_unknown="ask")
    def pay(euros: int) -> str:
        """Pay."""
        go_on.wait(20)
        return "paid"

    replies = ScriptedReplies(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[pay]))
    (send,) = execute_step(engine, scenario.submit("a")).sends
    assert not execute_step(engine, send).recorded
    go_on.set()
    (requirement,) = scenario.handle(send.run_id).requirements
    assert requirement.needs == "resolution"


def test_retry_of_a_once_tool_calls_its_hook_first(scenario: Scenario) -> None:
    bank = Bank("receipt 7")

    def reset() -> None:
        raise ConnectionError("reset")

    bank.while_paying = reset
    replies = ScriptedReplies(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    paying = bank.tool(reconcile=bank.look, retry_on=(ConnectionError,))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[paying]))
    (send,) = execute_step(engine, scenario.submit("a")).sends
    assert not execute_step(engine, send).recorded
    scenario.let_time_pass()
    assert execute_step(engine, send).recorded
    assert (scenario.results(send.run_id), len(bank.paid), len(bank.asked)) == (["receipt 7"], 1, 1)


def test_once_tool_without_a_hook_is_not_retried() -> None:
    with pytest.raises(InvalidTool, match="reconcile hook, or raise TryAgain"):
        Bank().tool(retry_on=(ConnectionError,))


def test_resolution_executes_the_call_without_the_hook(
    scenario: Scenario,
) -> None:
    bank = Bank(None)
    engine, send = cut_short(scenario, bank.tool(reconcile=bank.look, on_unknown="ask"))
    keeper(scenario, engine)
    scenario.execute_pending(engine, send.run_id)
    (requirement,) = scenario.handle(send.run_id).requirements
    requirement.resolve(False, again=True)
    assert scenario.execute_pending(engine, send.run_id).status is RunStatus.DONE
    assert scenario.results(send.run_id) == ["paid 5"]


def test_outcome_is_unknown_without_the_code_of_the_hook(scenario: Scenario) -> None:
    bank = Bank("receipt 7")
    engine, send = cut_short(scenario, bank.tool(reconcile=bank.look))
    keeper(scenario, engine)
    without = scenario.engine(Agent(name="a", model="scripted:echo"))
    for _ in range(DEPLOY.attempts):
        execute_step(without, send)
        scenario.let_time_pass()
    assert scenario.queries.steps(send.run_id)[1].status is StepStatus.UNKNOWN


# Other tries.


def test_tool_that_raises_try_again_is_retried(
    scenario: Scenario,
) -> None:
    tries: list[int] = []

    @tool(retry=AT_ONCE, retry_on=(ConnectionError,))
    def fetch(ctx: ToolContext) -> str:
        """Fetch."""
        tries.append(ctx.attempt)
        raise (ConnectionError("reset") if len(tries) == 1 else TryAgain("busy", after_s=3600))

    replies = ScriptedReplies(Turn(calls=(("fetch", {}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[fetch]))
    (send,) = execute_step(engine, scenario.submit("a")).sends
    assert not execute_step(engine, send).recorded
    scenario.let_time_pass()
    assert not execute_step(engine, send).recorded
    assert scenario.db.value("SELECT not_before > clock_timestamp() + interval '50 min' FROM agno.step WHERE name = 'fetch'")  # fmt: skip
    scenario.let_time_pass()
    assert execute_step(engine, send).recorded
    assert (tries, scenario.results(send.run_id)) == ([1, 2, 3], ["busy"])
    assert scenario.queries.steps(send.run_id)[1].status is StepStatus.DEAD


def test_other_error_of_a_tool_is_not_retried(scenario: Scenario) -> None:
    @tool(retry_on=(ConnectionError,))
    def fetch() -> str:
        """Fetch."""
        raise ToolError("there is no such page")

    replies = ScriptedReplies(Turn(calls=(("fetch", {}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[fetch]))
    (send,) = execute_step(engine, scenario.submit("a")).sends
    assert execute_step(engine, send).recorded
    assert scenario.queries.steps(send.run_id)[1].status is StepStatus.DONE
