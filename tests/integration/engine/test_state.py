"""State of tools: it commits with the result of the call, merges under concurrent calls, and is refused where a value that was read has changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, get_args

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.messages import ModelRequest
from agno_workers.core.policy import Retry
from agno_workers.core.run import Run, RunStatus, StepStatus
from agno_workers.core.state import Scope
from agno_workers.core.tool import Effect, ToolContext
from agno_workers.errors import InvalidInput, StateConflict
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.sdk.states import StateHandle
from agno_workers.sessions.state import StateStore, Versioned
from agno_workers.tools import tool
from tests.integration.engine.conftest import CountedPool, Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step

PARALLEL: dict[str, Any] = {"if_busy": "parallel"}
Body = Callable[[ToolContext], object]


def calling(*bodies: Body, effect: Effect | str = Effect.PURE, times: int = 1, **options: Any) -> Agent:
    """Return an agent whose only turn with tools calls each of these bodies."""

    def named(number: int, body: Body) -> Any:
        def call(ctx: ToolContext) -> str:
            """Call."""
            return str(body(ctx) or "ok")

        return tool(name=f"call_{number}", effect=effect, **options)(call)

    calls: tuple[tuple[str, dict[str, Any]], ...] = tuple(
        (f"call_{number}", {}) for number in range(len(bodies)) for _ in range(times)
    )

    def replies(request: ModelRequest) -> Turn:
        return Turn(calls=calls) if request.messages[-1].role == "user" else Turn(text="ok")

    model = Scripted(f"state_{id(bodies)}", replies)
    return Agent(name="a", model=model, tools=[named(*each) for each in enumerate(bodies)])


def run(
    scenario: Scenario,
    *bodies: Body,
    session_id: str | None = "s",
    effect: Effect | str = Effect.PURE,
    **more: Any,
) -> Run:
    """Run an agent that calls these bodies, one after another."""
    agent = calling(*bodies, effect=effect)
    if session_id:
        more |= {"session_id": session_id, **PARALLEL}
    done = scenario.run(agent, **more)
    assert done.status is RunStatus.DONE
    return done


def state(scenario: Scenario, scope: Any = "session", owner: str = "s") -> StateHandle:
    return StateHandle(StateStore(scenario.pool), scope, owner, "test")


# A call.


def test_state_of_a_session_is_read_by_a_later_run(scenario: Scenario) -> None:
    def write(ctx: ToolContext) -> None:
        ctx.state["city"] = "Bonn"
        ctx.state.increment("visits")
        ctx.state.append("log", {"at": 1})
        ctx.state.union("tags", ["a", "b"])
        ctx.state.max("best", 3)
        ctx.state.update("profile", {"name": "Ann"})

    run(scenario, write)
    seen: dict[str, Any] = {}
    run(scenario, lambda ctx: seen.update(ctx.state))
    wanted = {"city": "Bonn", "visits": 1, "log": [{"at": 1}], "tags": ["a", "b"], "best": 3, "profile": {"name": "Ann"}}  # fmt: skip
    assert (seen, state(scenario).all()) == (wanted, wanted)


def test_state_that_is_read_costs_one_statement(scenario: Scenario) -> None:
    for number in range(50):
        state(scenario).set(f"k{number}", number)
    (send,) = execute_step(
        engine := scenario.engine(agent := calling(lambda ctx: sum(ctx.state.values()))),
        scenario.submit("a", session_id="s"),
    ).sends
    scenario.pool.ran.clear()
    execute_step(engine, send)
    assert agent.name == "a"
    assert sum("agno.state" in each for each in scenario.pool.ran) == 1
    assert scenario.results(send.run_id) == ["1225"]


def test_own_changes_are_visible_to_the_call(scenario: Scenario) -> None:
    state(scenario).set("n", 1)

    def call(ctx: ToolContext) -> object:
        ctx.state.increment("n", 2)
        ctx.state["new"] = [1]
        del ctx.state["new"]
        return [ctx.state["n"], "new" in ctx.state, sorted(ctx.state)]

    done = run(scenario, call)
    assert scenario.results(done.id) == ["[3, False, ['n']]"]


def test_failed_call_writes_no_state(scenario: Scenario) -> None:
    def call(ctx: ToolContext) -> None:
        ctx.state["n"] = 1
        raise ValueError("no")

    run(scenario, call)
    assert state(scenario).all() == {}


def test_value_that_is_changed_in_place_is_written(scenario: Scenario) -> None:
    state(scenario).set("items", ["a"])
    run(scenario, lambda ctx: ctx.state["items"].append("b"))
    assert state(scenario).get("items") == ["a", "b"]


def test_each_scope_has_its_owner(scenario: Scenario) -> None:
    def call(ctx: ToolContext) -> None:
        ctx.state["in"] = "session"
        for scope in get_args(Scope):
            if scope != "team":
                ctx.state_of(scope)["in"] = scope

    done = run(scenario, call, user_id="ann")
    owners = {"session": "s", "user": "ann", "agent": "a", "run": done.id, "global": ""}
    assert {scope: state(scenario, scope, owner).get("in") for scope, owner in owners.items()} == {each: each for each in owners}  # fmt: skip


def test_run_without_a_session_has_the_state_of_the_run(scenario: Scenario) -> None:
    done = run(
        scenario, lambda ctx: ctx.state.increment("n"), lambda ctx: ctx.state.increment("n"), session_id=None
    )
    assert state(scenario, "run", done.id).all() == {"n": 2}


@pytest.mark.parametrize(
    ("scope", "says"),
    [("user", "has no user"), ("team", "has no team"), ("sesion", "Did you mean 'session'")],
)
def test_scope_without_an_owner_is_told(scenario: Scenario, scope: Any, says: str) -> None:
    done = run(scenario, lambda ctx: ctx.state_of(scope).get("n"))
    assert says in scenario.results(done.id)[0]


def test_state_of_another_user_cannot_be_written_by_a_run(scenario: Scenario) -> None:
    def call(ctx: ToolContext) -> None:
        ctx._states.of("user", "bob")["n"] = 1

    done = run(scenario, call, user_id="ann")
    assert "another user" in scenario.results(done.id)[0]
    assert state(scenario, "user", "bob").all() == {}


def test_scratch_is_shared_by_the_calls_of_a_run_and_dropped_at_its_end(scenario: Scenario) -> None:
    seen = []

    def call(ctx: ToolContext) -> None:
        seen.append(dict(ctx.scratch))
        ctx.scratch["socket"] = object

    agent = calling(call, call)
    engine = scenario.engine(agent)
    step = scenario.submit("a")
    execute_run(engine, step)
    assert seen == [{}, {"socket": object}]
    assert engine.scratch.of(step.run_id) == {}


# Concurrent calls.


def meanwhile(change: Callable[[], object], times: int = 1) -> Callable[[], None]:
    """Return a function that makes this change at its first calls."""
    left = [None] * times

    def call() -> None:
        if left:
            left.pop()
            change()

    return call


def read_modify_write(between: Callable[[], None], ran: list[int]) -> Body:
    def call(ctx: ToolContext) -> None:
        value = ctx.state.get("n", 0)
        ran.append(value)
        between()
        ctx.state["n"] = value + 1

    return call


@pytest.mark.parametrize("effect", ["pure", "idempotent", "transactional"])
def test_call_whose_state_has_changed_is_made_again_on_the_new_value(scenario: Scenario, effect: str) -> None:
    ran: list[int] = []
    change = meanwhile(lambda: state(scenario).increment("n", 10), times=2)
    done = run(scenario, read_modify_write(change, ran), effect=effect)
    assert (ran, state(scenario).get("n"), scenario.results(done.id)) == ([0, 10, 20], 21, ["ok"])
    assert [step.attempt for step in scenario.queries.steps(done.id) if step.name] == [1]


@pytest.mark.parametrize("effect", ["once", "at_least_once"])
def test_call_that_may_repeat_an_effect_is_told_that_its_state_was_not_written(
    scenario: Scenario, effect: str
) -> None:
    ran: list[int] = []
    change = meanwhile(lambda: state(scenario).increment("n", 10))
    done = run(scenario, read_modify_write(change, ran), effect=effect)
    (told,) = scenario.results(done.id)
    assert (ran, state(scenario).get("n")) == ([0], 10)
    assert told.startswith("ok\n\nThe state was not written: state 'n' of session 's' has changed")
    (step,) = (each for each in scenario.queries.steps(done.id) if each.name)
    assert (step.status, step.error and step.error["type"]) == (StepStatus.DONE, "StateConflict")


def test_writes_of_a_transactional_tool_and_its_state_are_one_transaction(scenario: Scenario) -> None:
    scenario.db.sql("CREATE TABLE public.ledger_of_state (n int)")
    change = meanwhile(lambda: state(scenario).increment("n", 10), times=2)

    def call(ctx: ToolContext) -> None:
        ctx.connection.execute("INSERT INTO public.ledger_of_state VALUES (1)")
        read_modify_write(change, [])(ctx)

    run(scenario, call, effect="transactional")
    assert (scenario.db.value("SELECT count(*) FROM public.ledger_of_state"), state(scenario).get("n")) == (
        1,
        21,
    )
    scenario.db.sql("DROP TABLE public.ledger_of_state")


@pytest.mark.parametrize("effect", ["pure", "once", "transactional"])
def test_operation_that_does_not_fit_the_value_is_told(scenario: Scenario, effect: str) -> None:
    state(scenario).set("n", "text")
    done = run(scenario, lambda ctx: ctx.state.increment("n"), effect=effect)
    assert "is of type string, and increment" in scenario.results(done.id)[0]
    assert state(scenario).get("n") == "text"


def test_call_that_conflicts_each_time_is_retried_later(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agno_workers.engine.tool.STATE_TRIES", 2)
    ran: list[int] = []
    change = meanwhile(lambda: state(scenario).increment("n", 10), times=3)
    agent = calling(read_modify_write(change, ran), retry=Retry(attempts=3, first_delay_s=0.0))
    engine = scenario.engine(agent)
    step = scenario.submit("a", session_id="s", **PARALLEL)
    execute_run(engine, step)
    scenario.let_time_pass()
    scenario.db.journal.take_due(10)
    assert scenario.execute_pending(engine, step.run_id).status is RunStatus.DONE
    assert (ran, state(scenario).get("n")) == ([0, 10, 20, 30], 31)


@pytest.mark.parametrize("runs", [8, 50, 200])
def test_calls_of_many_runs_of_a_session_lose_nothing(scenario: Scenario, runs: int) -> None:
    """The second call of each run is of the kind that conflicts."""

    def merge(ctx: ToolContext) -> None:
        ctx.state.increment("count")
        ctx.state[ctx.run_id] = ctx.call_id
        ctx.state.append("items", ctx.run_id)
        ctx.state.union("set", [len(ctx.run_id)])
        ctx.state.max("max", ctx.run_id)

    def swap(ctx: ToolContext) -> None:
        ctx.state["swapped"] = ctx.state.get("swapped", 0) + 1

    engine = scenario.engine(calling(merge, *[swap][: runs <= 50]))
    steps = [scenario.submit("a", session_id="s", **PARALLEL) for _ in range(runs)]
    sends = [send for step in steps for send in execute_step(engine, step).sends]
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(partial(execute_step, engine), sends))
    found, ids = state(scenario).all(), {step.run_id for step in steps}
    assert all(each.recorded for each in results)
    assert (found["count"], sorted(found["items"]), found["set"], found["max"]) == (
        runs,
        sorted(ids),
        [36],
        max(ids),
    )
    assert ids <= found.keys()
    assert found.get("swapped", runs) == runs


def test_change_of_an_execution_that_was_superseded_is_not_written(scenario: Scenario) -> None:
    agent = calling(lambda ctx: ctx.state.increment("n"))
    engine = scenario.engine(agent)
    (send,) = execute_step(engine, scenario.submit("a", session_id="s")).sends
    dead = scenario.db.journal_of("dead")
    assert dead.claim_tool(send.run_id, send.step_id, 0)
    dead.end_lease(send.step_id)
    assert [execute_step(engine, send).recorded for _ in range(2)] == [True, False]
    assert state(scenario).get("n") == 1


# Outside.


def test_client_and_tools_see_each_other(scenario: Scenario) -> None:
    handle = state(scenario)
    first = handle.set("n", 1)
    run(scenario, lambda ctx: ctx.state.increment("n"))
    with pytest.raises(StateConflict) as caught:
        handle.set("n", 5, expected_version=first.version)
    assert (caught.value.key, caught.value.version) == ("n", 2)
    assert handle.set("n", 5, expected_version=2).version == 3
    changes = handle.history("n")
    assert [(each.version, each.operation, each.value, each.actor, bool(each.run_id)) for each in changes] == [
        (3, "set", 5, "test", False), (2, "increment", 1, None, True), (1, "set", 1, "test", False),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [{1}, {1: 2}, float("nan"), object(), b"x", [[{"a": {2}}]]])
def test_value_that_is_not_json_is_refused_with_its_key(scenario: Scenario, value: Any) -> None:
    with pytest.raises(InvalidInput, match="state 'odd'"):
        state(scenario).set("odd", value)
    done = run(scenario, lambda ctx: ctx.state.set("odd", value))
    assert "state 'odd'" in scenario.results(done.id)[0]


def test_large_value_is_a_blob_and_a_very_large_one_is_refused(scenario: Scenario) -> None:
    handle = state(scenario)
    large = ["x" * 100] * 1000
    assert handle.set("large", large).value == large
    assert handle.append("large", {"$blob": "0" * 64}).value == [*large, {"$blob": "0" * 64}]
    assert scenario.db.value("SELECT pg_column_size(value) FROM agno.state") < 200
    done = run(scenario, lambda ctx: len(ctx.state["large"]))
    assert scenario.results(done.id) == ["1001"]
    with pytest.raises(InvalidInput, match="may take 8"):
        handle.set("large", "x" * 9_000_000)
    handle.set("text", ["x" * 5_000_000])
    with pytest.raises(InvalidInput, match="8 MiB"):
        handle.append("text", "x" * 5_000_000)


def test_fork_begins_with_the_state_that_the_run_had_there(scenario: Scenario) -> None:
    replies = ScriptedReplies(
        *(Turn(calls=(("call", {}),)) for _ in range(2)),
        Turn(text="ok"),
        Turn(calls=(("call", {}),)),
        Turn(text="ok"),
    )

    @tool(effect="pure")
    def call(ctx: ToolContext) -> int:
        """Count."""
        ctx.state.increment("n")
        ctx.state.append("ids", ctx.run_id[:8])
        return int(ctx.state["n"])

    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[call]))
    step = scenario.submit("a")
    execute_run(engine, step)
    fork = scenario.handle(step.run_id).fork("turn:2")
    scenario.execute_pending(engine, fork.id)
    assert scenario.results(fork.id) == ["1", "2"]
    assert [state(scenario, "run", each).get("n") for each in (step.run_id, fork.id)] == [2, 2]


# Many keys, large values, few connections.


def test_owner_with_many_keys_is_read_by_key(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_workers.sessions.state.FEW_KEYS", 3)
    handle = state(scenario)
    for number in range(5):
        handle.set(f"k{number}", number)

    def call(ctx: ToolContext) -> object:
        found = ctx.state["k1"], ctx.state.get("none"), "k4" in ctx.state
        ctx.state["k2"] = ctx.state["k2"] + 10
        return [*found, len(ctx.state), sorted(ctx.state.values())]

    done = run(scenario, call)
    assert scenario.results(done.id) == ["[1, None, True, 5, [0, 1, 3, 4, 12]]"]
    assert handle.versioned("k2") == Versioned(12, 2)


def test_large_value_is_read_when_it_is_used(scenario: Scenario) -> None:
    handle = state(scenario)
    handle.set("small", 1)
    handle.set("middle", "x" * 5000)
    handle.set("large", "x" * 100_000)
    done = run(
        scenario, lambda ctx: [ctx.state["small"], *(len(ctx.state[key]) for key in ("middle", "large"))]
    )
    assert scenario.results(done.id) == ["[1, 5000, 100000]"]


def test_transactional_tool_reads_state_on_its_own_connection(scenario: Scenario, db_url: str) -> None:
    """A second connection may never come when all of the pool are in use by such tools."""
    with closing(CountedPool(db_url, size=1, timeout_s=1, statement_timeout_s=30)) as pool:
        pool.ran = []
        alone = Scenario(scenario.db, pool, scenario._streams)
        agent = calling(lambda ctx: ctx.state.get("n", 7), effect="transactional")
        done = alone.run(agent, session_id="s", **PARALLEL)
        assert alone.results(done.id) == ["7"]
