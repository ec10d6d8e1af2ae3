"""What follows a crash in the middle of a `once` tool: its hook tells, or a person, or nobody; and tries of other tools."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.policy import Retry
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import NOT_RECORDED, StepMessage
from agno_workers.core.tool import NOT_DONE, Effect, ToolContext
from agno_workers.engine.tool import DEPLOY, fail_exhausted
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidTool, NotWaiting, ToolError, TryAgain
from agno_workers.models.scripted import Turn
from agno_workers.tools import tool
from tests.integration.engine.conftest import Cue, Play
from tests.steps import take

AT_ONCE = Retry(attempts=3, first_delay_s=0.0)


class Bank:
    """The outside world: what was paid, and how often anybody asked."""

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


def cut_short(play: Play, paying: Any) -> tuple[Engine, StepMessage]:
    """A run whose tool call was claimed by a worker that died, and the keeper has seen it."""
    cue = Cue(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[paying]))
    (send,) = take(engine, play.submit("a")).sends
    dead = play.world.journal_of("dead")
    assert dead.claim_tool(send.run_id, send.step_id, 0)
    dead.give_up(send.step_id)
    return engine, send


def keeper(play: Play, engine: Engine) -> None:
    """Rule 3."""
    play.world.journal.release_expired(10)
    for step in play.world.journal.exhausted(10):
        fail_exhausted(engine, step)


@pytest.mark.parametrize(
    ("answer", "results", "paid"),
    [("receipt 7", ["receipt 7"], 0), ({"receipt": 7}, ['{"receipt":7}'], 0), (NOT_DONE, ["paid 5"], 1)],
    ids=["it happened", "it happened, as JSON", "it did not"],
)
def test_the_reconcile_hook_tells_what_happened_and_the_run_goes_on(
    play: Play, answer: Any, results: list[str], paid: int
) -> None:
    bank = Bank(answer)
    engine, send = cut_short(play, bank.tool(reconcile=bank.look))
    keeper(play, engine)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert play.results(send.run_id) == results
    assert bank.asked == [(5, send.step_id)]
    assert bank.paid == [send.step_id] * paid


def test_a_hook_that_does_not_know_leaves_it_unknown_and_the_model_is_told(play: Play) -> None:
    bank = Bank(None)
    engine, send = cut_short(play, bank.tool(reconcile=bank.look))
    keeper(play, engine)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert play.look.steps(send.run_id)[1].status is StepStatus.UNKNOWN
    assert "not known whether pay took effect" in play.results(send.run_id)[0]
    assert bank.paid == []


def test_a_hook_that_fails_is_tried_again(play: Play) -> None:
    bank = Bank(OSError("the bank is closed"), "receipt 7")
    engine, send = cut_short(play, bank.tool(reconcile=bank.look))
    keeper(play, engine)
    play.carry_owed(engine, send.run_id)
    play.let_time_pass()
    play.world.journal.take_due(10)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert (play.results(send.run_id), bank.paid) == (["receipt 7"], [])


def test_a_hook_that_fails_each_time_leaves_it_unknown(play: Play) -> None:
    bank = Bank(OSError("the bank is closed"))
    engine, send = cut_short(play, bank.tool(reconcile=bank.look))
    keeper(play, engine)
    for _ in range(3):
        play.carry_owed(engine, send.run_id)
        play.let_time_pass()
        play.world.journal.take_due(10)
    assert play.look.steps(send.run_id)[1].status is StepStatus.UNKNOWN
    assert (len(bank.asked), bank.paid) == (3, [])


def test_an_async_hook_without_a_context_will_do(play: Play) -> None:
    async def look(euros: int) -> str:
        return f"receipt of {euros}"

    engine, send = cut_short(play, Bank().tool(reconcile=look))
    keeper(play, engine)
    play.carry_owed(engine, send.run_id)
    assert play.results(send.run_id) == ["receipt of 5"]


@pytest.mark.parametrize(
    ("said", "results", "paid"),
    [
        ((True, "receipt 7"), ["receipt 7"], 0),
        ((True,), ["It took effect."], 0),
        ((False,), ["pay did not take effect."], 0),
    ],
)
def test_where_a_person_is_to_find_out_the_run_waits_for_the_resolution(
    play: Play, said: tuple[Any, ...], results: list[str], paid: int
) -> None:
    bank = Bank()
    engine, send = cut_short(play, bank.tool(on_unknown="ask"))
    keeper(play, engine)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.WAITING
    (requirement,) = play.handle(send.run_id).requirements
    assert requirement.needs == "resolution"
    requirement.resolve(*said)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert (play.results(send.run_id), len(bank.paid)) == (results, paid)


def test_a_person_who_knows_that_it_did_not_happen_may_have_it_done_now(play: Play) -> None:
    bank = Bank()
    engine, send = cut_short(play, bank.tool(on_unknown="ask"))
    keeper(play, engine)
    (requirement,) = play.handle(send.run_id).requirements
    requirement.resolve(False, again=True)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert (play.results(send.run_id), bank.paid) == (["paid 5"], [send.step_id])


def test_the_result_of_a_worker_that_was_thought_dead_is_taken_before_a_person_has_spoken(play: Play) -> None:
    bank = Bank()
    cue = Cue(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[bank.tool(on_unknown="ask")]))
    (send,) = take(engine, play.submit("a")).sends

    def seen_dead() -> None:
        play.world.sql("UPDATE agno.step SET lease_until = clock_timestamp() WHERE status = 'running'")
        keeper(play, engine)

    bank.while_paying = seen_dead
    assert take(engine, send).recorded
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert play.results(send.run_id) == ["paid 5"]


def test_a_step_that_a_living_worker_holds_is_not_buried(play: Play) -> None:
    engine, _ = cut_short(play, Bank().tool())
    (late,) = play.world.journal.exhausted(10)
    play.world.sql(
        "UPDATE agno.step SET lease_until = clock_timestamp() + interval '1 min' WHERE status = 'running'"
    )
    with play.world.unchanged():
        assert not fail_exhausted(engine, late).recorded


def test_what_a_person_says_of_an_earlier_attempt_comes_too_late(play: Play) -> None:
    engine, send = cut_short(play, Bank().tool(on_unknown="ask"))
    keeper(play, engine)
    (first,) = play.handle(send.run_id).requirements
    first.resolve(False, again=True)
    dead = play.world.journal_of("dead")
    assert dead.claim_tool(send.run_id, send.step_id, 0)
    dead.give_up(send.step_id)
    keeper(play, engine)
    with pytest.raises(NotWaiting, match="does not wait any more"):
        first.resolve(True, "receipt 7")
    with pytest.raises(NotWaiting, match="does not wait any more"):
        first.resolve(False, again=True)
    (second,) = play.handle(send.run_id).requirements
    second.resolve(True, "receipt 8")
    play.carry_owed(engine, send.run_id)
    assert play.results(send.run_id) == ["receipt 8"]


def test_nobody_resolves_what_was_told_already(play: Play) -> None:
    engine, send = cut_short(play, Bank().tool(on_unknown="ask"))
    keeper(play, engine)
    (one,) = play.handle(send.run_id).requirements
    one.resolve(True)
    with pytest.raises(NotWaiting):
        one.resolve(False)


@pytest.mark.parametrize(
    "options",
    [{"effect": "pure", "reconcile": print}, {"effect": "idempotent", "on_unknown": "ask"}, {"effect": "once", "on_unknown": "guess"}],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_at_import(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTool):
        tool(description="x", **options)(lambda_free)


def lambda_free(x: int) -> int:
    return x


def test_a_once_tool_that_takes_too_long_is_unknown_since_its_thread_goes_on(play: Play) -> None:
    go_on = threading.Event()

    @tool(effect="once", timeout_s=0.05, on_unknown="ask")
    def pay(euros: int) -> str:
        """Pay."""
        go_on.wait(20)
        return "paid"

    cue = Cue(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[pay]))
    (send,) = take(engine, play.submit("a")).sends
    assert take(engine, send) == NOT_RECORDED
    go_on.set()
    (requirement,) = play.handle(send.run_id).requirements
    assert requirement.needs == "resolution"


def test_after_an_error_that_is_to_be_retried_the_hook_of_a_once_tool_comes_first(play: Play) -> None:
    bank = Bank("receipt 7")

    def reset() -> None:
        raise ConnectionError("reset")

    bank.while_paying = reset
    cue = Cue(Turn(calls=(("pay", {"euros": 5}),)), Turn(text="ok"))
    paying = bank.tool(reconcile=bank.look, retry_on=(ConnectionError,))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[paying]))
    (send,) = take(engine, play.submit("a")).sends
    assert take(engine, send) == NOT_RECORDED
    play.let_time_pass()
    assert take(engine, send).recorded
    assert (play.results(send.run_id), len(bank.paid), len(bank.asked)) == (["receipt 7"], 1, 1)


def test_a_once_tool_is_not_retried_blindly() -> None:
    with pytest.raises(InvalidTool, match="reconcile hook, or raise TryAgain"):
        Bank().tool(retry_on=(ConnectionError,))


def test_the_call_that_a_person_wants_made_is_made_whatever_the_hook_does_not_know(play: Play) -> None:
    bank = Bank(None)
    engine, send = cut_short(play, bank.tool(reconcile=bank.look, on_unknown="ask"))
    keeper(play, engine)
    play.carry_owed(engine, send.run_id)
    (requirement,) = play.handle(send.run_id).requirements
    requirement.resolve(False, again=True)
    assert play.carry_owed(engine, send.run_id).status is RunStatus.DONE
    assert play.results(send.run_id) == ["paid 5"]


def test_a_payment_that_no_worker_has_the_code_to_look_up_is_unknown(play: Play) -> None:
    bank = Bank("receipt 7")
    engine, send = cut_short(play, bank.tool(reconcile=bank.look))
    keeper(play, engine)
    for _ in range(DEPLOY.attempts):
        take(play.engine(), send)
        play.let_time_pass()
    assert play.look.steps(send.run_id)[1].status is StepStatus.UNKNOWN


# Other tries.


def test_a_tool_that_says_try_again_is_tried_again_after_a_while_and_then_the_model_is_told(
    play: Play,
) -> None:
    tries: list[int] = []

    @tool(retry=AT_ONCE, retry_on=(ConnectionError,))
    def fetch(ctx: ToolContext) -> str:
        """Fetch."""
        tries.append(ctx.attempt)
        raise (ConnectionError("reset") if len(tries) == 1 else TryAgain("busy", after_s=3600))

    cue = Cue(Turn(calls=(("fetch", {}),)), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[fetch]))
    (send,) = take(engine, play.submit("a")).sends
    assert take(engine, send) == NOT_RECORDED
    play.let_time_pass()
    assert take(engine, send) == NOT_RECORDED
    assert play.world.value("SELECT not_before > clock_timestamp() + interval '50 min' FROM agno.step WHERE name = 'fetch'")  # fmt: skip
    play.let_time_pass()
    assert take(engine, send).recorded
    assert (tries, play.results(send.run_id)) == ([1, 2, 3], ["busy"])
    assert play.look.steps(send.run_id)[1].status is StepStatus.DEAD


def test_an_error_that_is_not_named_is_told_at_once(play: Play) -> None:
    @tool(retry_on=(ConnectionError,))
    def fetch() -> str:
        """Fetch."""
        raise ToolError("there is no such page")

    cue = Cue(Turn(calls=(("fetch", {}),)), Turn(text="ok"))
    engine = play.engine(Agent(name="a", model=cue.model, tools=[fetch]))
    (send,) = take(engine, play.submit("a")).sends
    assert take(engine, send).recorded
    assert play.look.steps(send.run_id)[1].status is StepStatus.DONE
