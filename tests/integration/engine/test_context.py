"""The context of a run: resolved once, within time and budget, shared where it may be, and not asked for where a user denied it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agno_workers import Client, Computed, Context, External, Fact, History, Private, Retry, RunContext
from agno_workers.core.agent import Agent
from agno_workers.core.messages import Message
from agno_workers.core.run import RunStatus
from agno_workers.engine.run_turn import run_claimed_turn
from agno_workers.models.scripted import Turn
from agno_workers.sessions.state import StateStore
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step


class Counted:
    """A function whose calls are counted; `then` makes its value, or raises."""

    def __init__(self, then: Callable[[], Any] = lambda: "sunny") -> None:
        self.calls = 0
        self._then = then
        self._called = threading.Condition()

    def __call__(self) -> Any:
        with self._called:
            self.calls += 1
            self._called.notify_all()
        return self._then()

    def wait_for_call(self, number: int) -> None:
        with self._called:
            assert self._called.wait_for(lambda: self.calls >= number, timeout=10)


def raised() -> Any:
    raise ValueError("no network")


@tool(effect="pure")
def look() -> str:
    """Look."""
    return "seen"


def told(replies: ScriptedReplies, turn: int = -1) -> str:
    return replies.asked[turn].system


def agent(replies: ScriptedReplies, context: Context, **fields: Any) -> Agent:
    return Agent(name="a", model=replies.model, context=context, **fields)


def access(scenario: Scenario, run_id: str) -> dict[str, tuple[str, bool]]:
    return {each.key: (each.outcome, each.from_cache) for each in scenario.handle(run_id).context_accesses}


def test_context_is_resolved_once_a_run_and_kept(scenario: Scenario) -> None:
    """Also when the turn is executed again, by another worker."""
    hours, asked = Counted(lambda: {"open": 9}), []

    def greeting(ctx: RunContext) -> str:
        asked.append(ctx)
        return f"Hello {ctx.user_id}"

    async def later() -> int:
        return 17

    replies = ScriptedReplies(Turn(calls=(("look", {}),)), Turn(text="ok"))
    one = agent(
        replies,
        Context({"plan": "free", "hours": hours, "greeting": greeting, "later": later}),
        tools=(look,),
    )
    step = scenario.submit("a", "Good day", user_id="ann", metadata={"shop": 1})
    assert scenario.db.journal_of("dead").claim_turn(step.run_id, step.step_id, 0)
    scenario.db.expire(step.step_id)
    execute_step(scenario.engine(one), step)  # a worker that then dies: its process forgets what it resolved
    scenario.execute_pending(scenario.engine(one), step.run_id)
    for text in ('"plan":"free"', '"hours":{"open":9}', '"greeting":"Hello ann"', '"later":17'):
        assert text in told(replies)
    assert [request.system for request in replies.asked] == [told(replies)] * 2
    assert (hours.calls, len(asked)) == (1, 1)
    assert (asked[0].input, asked[0].metadata, asked[0].agent) == ("Good day", {"shop": 1}, "a")
    handle = scenario.handle(step.run_id)
    assert handle.context == {"plan": "free", "hours": {"open": 9}, "greeting": "Hello ann", "later": 17}
    assert {each.key: each.source for each in handle.context_accesses}["hours"] == "dynamic"
    assert all(each.bytes > 0 and each.outcome == "used" for each in handle.context_accesses)


def test_first_of_two_executions_decides_the_context(scenario: Scenario) -> None:
    """Two workers execute the first turn at once: both send the values of the one that stored them first."""
    both, numbers = threading.Barrier(2), iter(range(2))

    def number() -> int:
        both.wait(10)
        return next(numbers)

    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"number": number}))
    step = scenario.submit("a")
    engines = [scenario.engine(one), scenario.engine(one)]
    claims = []
    for engine in engines:
        claims.append(engine.journal.claim(step.kind, step.run_id, step.step_id, 0))
        scenario.db.expire(step.step_id)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run_claimed_turn, engines, claims))
    assert len({request.system for request in replies.asked}) == 1
    assert len(scenario.handle(step.run_id).context_accesses) == 1


def test_functions_run_side_by_side_within_their_time(scenario: Scenario) -> None:
    both = threading.Barrier(2)
    never = threading.Event()

    def meet() -> int:
        both.wait(10)
        return 1

    replies = ScriptedReplies(Turn(text="ok"))
    late = Fact(lambda: never.wait(60), timeout_s=0.05, on_error="omit")
    run = scenario.run(agent(replies, Context({"one": meet, "two": meet, "late": late})))
    never.set()
    assert scenario.handle(run.id).context == {"one": 1, "two": 1}
    assert access(scenario, run.id)["late"] == ("omitted", False)


def test_function_that_must_not_fail_fails_the_turn_which_is_tried_again(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    run = scenario.run(agent(replies, Context({"hours": raised}), retry=Retry(attempts=1)))
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error["type"] == "ContextFailed"
    assert "context 'hours' of agent 'a' raised ValueError: no network" in run.error["message"]
    assert replies.asked == []
    hours = Counted(lambda: "9 to 5" if hours.calls > 1 else raised())
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"hours": hours}), retry=Retry(attempts=2))
    step = scenario.submit("a")
    execute_step(scenario.engine(one), step)
    scenario.let_time_pass()
    execute_step(scenario.engine(one), step)
    assert '"hours":"9 to 5"' in told(replies)


def test_value_that_is_too_large_is_refused_with_its_bytes(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"page": lambda: "é" * 600_000}), retry=Retry(attempts=1))
    error = scenario.run(one).error
    assert error is not None
    assert "returned 1,200,002 bytes of JSON, and the most is 1,048,576" in error["message"]


def test_computed_value_gets_what_it_needs(scenario: Scenario) -> None:
    def mood(history: tuple[Message, ...], input: str) -> str:
        return f"{len(history)} before {input!r}"

    def summary(mood: str, plan: str, state: dict[str, Any]) -> str:
        return f"{mood}, {plan}, {state}"

    facts = {
        "summary": Computed(summary, needs=("mood", "plan", "state")),
        "mood": Computed(mood, needs=("history", "input")),
        "plan": "free",
    }
    StateStore(scenario.pool).change("session", "s", "cart", "set", ["tea"], actor="test")
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context(facts, state=True), history=History(runs=3))
    scenario.run(one, "first", session_id="s")
    run = scenario.run(one, "second", session_id="s")
    assert scenario.handle(run.id).context["summary"] == "2 before 'second', free, {'cart': ['tea']}"
    assert 'State of the session, when this run began:\n{"cart":["tea"]}' in told(replies)


def test_value_from_outside_is_shared_by_its_scope_until_it_is_old(scenario: Scenario) -> None:
    fetch, global_fetch = Counted(), Counted()
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(
        replies,
        Context({"weather": External(fetch, scope="user"), "news": External(global_fetch, scope="global")}),
    )
    for user in ("ann", "ann", "bob", None, None):
        run = scenario.run(one, user_id=user)
    assert (fetch.calls, global_fetch.calls) == (4, 1)  # a run without a user shares nothing
    assert access(scenario, run.id) == {"weather": ("used", False), "news": ("used", True)}
    scenario.db.sql("UPDATE agno.context_value SET expires_at = clock_timestamp() - interval '1 s'")
    run = scenario.run(one, user_id="ann")
    assert (fetch.calls, access(scenario, run.id)["weather"]) == (5, ("used", False))


def test_runs_with_an_empty_session_id_share_no_value(scenario: Scenario) -> None:
    fetch = Counted()
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"weather": External(fetch, scope="session")}))
    for user in ("ann", "bob"):
        scenario.run(one, user_id=user, session_id="")
    assert fetch.calls == 2


def test_one_worker_fetches_and_others_wait_or_take_the_old_value(scenario: Scenario) -> None:
    release = threading.Event()
    fetch = Counted(lambda: release.wait(10) and "sunny")
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"weather": External(fetch, timeout_s=10)}))

    def run() -> str:
        return scenario.run(one).id

    with ThreadPoolExecutor(3) as threads:
        first = [threads.submit(run) for _ in range(3)]
        fetch.wait_for_call(1)
        release.set()
        assert {scenario.handle(each.result()).context["weather"] for each in first} == {"sunny"}
        assert fetch.calls == 1
        scenario.db.sql("UPDATE agno.context_value SET expires_at = clock_timestamp() - interval '1 s'")
        release.clear()
        slow = threads.submit(run)
        fetch.wait_for_call(2)
        assert access(scenario, run()) == {"weather": ("stale", True)}
        release.set()
        assert access(scenario, slow.result()) == {"weather": ("used", False)}


def test_fetch_of_a_dead_worker_is_taken_over(scenario: Scenario) -> None:
    fetch = Counted()
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"weather": External(fetch, timeout_s=0.2)}))
    scenario.db.sql(
        "INSERT INTO agno.context_value (scope, owner, agent, key, fetching_until) VALUES ('agent', 'a', 'a', 'weather', clock_timestamp() + interval '1 h')"
    )
    assert scenario.handle(scenario.run(one).id).context == {"weather": "sunny"}


def test_failed_fetch_leaves_the_old_value(scenario: Scenario) -> None:
    fetch = Counted()
    replies = ScriptedReplies(Turn(text="ok"))
    scenario.run(agent(replies, Context({"weather": External(fetch)})))
    scenario.db.sql("UPDATE agno.context_value SET expires_at = clock_timestamp() - interval '1 s'")
    failing = Counted(raised)
    one = agent(replies, Context({"weather": External(failing)}))
    assert access(scenario, scenario.run(one).id) == {"weather": ("stale", True)}
    assert access(scenario, scenario.run(one).id) == {"weather": ("stale", True)}
    assert failing.calls == 1  # nobody asks again at once
    scenario.db.sql("DELETE FROM agno.context_value")
    assert access(scenario, scenario.run(one).id) == {"weather": ("omitted", False)}


def test_denied_category_is_not_asked_for(scenario: Scenario, db_url: str) -> None:
    where = Counted(lambda: "Oslo")
    replies = ScriptedReplies(Turn(text="ok"))
    one = agent(replies, Context({"place": Private(where, category="location"), "plan": "free"}))
    with Client(db_url) as client:
        consent = client.consent("ann")
        consent.deny("location")
        consent.deny("location")
        run = scenario.run(one, user_id="ann")
        assert (where.calls, scenario.handle(run.id).context) == (0, {"plan": "free"})
        assert access(scenario, run.id)["place"] == ("denied", False)
        scenario.run(one, user_id="bob")
        assert where.calls == 1
        assert consent.categories() == {"location": False}
        assert [each.outcome for each in consent.accesses()] == ["used", "denied"]
        consent.allow("location")
        scenario.run(one, user_id="ann")
        assert where.calls == 2


def test_budget_leaves_out_the_lowest_priority(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    facts = {"long": "x" * 100, "first": Fact("y" * 100, priority=1), "small": "z"}
    run = scenario.run(agent(replies, Context(facts, tokens=40)))
    assert sorted(scenario.handle(run.id).context) == ["first", "small"]
    assert access(scenario, run.id)["long"] == ("left_out", False)


def test_unresolved_context_shows_only_plain_values(scenario: Scenario) -> None:
    fetch = Counted()
    replies = ScriptedReplies(Turn(text="ok"))
    run = scenario.run(agent(replies, Context({"plan": "free", "weather": External(fetch)}, resolve=False)))
    assert (fetch.calls, scenario.handle(run.id).context) == (0, {"plan": "free"})


def test_plain_values_cost_no_statement(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    scenario.run(agent(replies, Context({"plan": "free"})))
    with_facts, scenario.pool.ran = scenario.pool.ran, []
    scenario.run(agent(replies, Context()))
    assert with_facts == scenario.pool.ran
    assert 'Facts:\n{"plan":"free"}' in told(replies, 0)
