"""Limits of a team or a workflow hold for the whole tree of runs below it, also when many calls are made at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import msgspec
import pytest

from agno_workers.core.agent import Agent, Limits, Prices
from agno_workers.core.budget import ANSWER_TOKENS
from agno_workers.core.flow import Flow
from agno_workers.core.messages import (
    Emit,
    Message,
    ModelRequest,
    ModelSettings,
    Reply,
    Text,
    ToolCall,
    Usage,
)
from agno_workers.core.run import RunStatus
from agno_workers.core.step import StepMessage
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, StepFailed
from agno_workers.teams.team import Team
from agno_workers.workflows.workflow import Workflow
from tests.database import claimed
from tests.integration.engine.conftest import Scenario
from tests.steps import execute_step

_numbers = count()
USED = Usage(input_tokens=300, output_tokens=200)


class Died(BaseException):
    """The worker's process died."""


class Counted:
    """A model that uses 500 tokens a call. `before` is called in each."""

    def __init__(self, *calls: tuple[ToolCall, ...], before: Callable[[], object] = lambda: None) -> None:
        self.name = f"counted:{next(_numbers)}"
        self.asked = 0
        self._calls = calls
        self._before = before

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        self.asked += 1
        self._before()
        place = sum(message.role == "assistant" for message in request.messages)
        calls = self._calls[place] if place < len(self._calls) else ()
        return Reply(Message("assistant", (Text("answer"), *calls)), usage=USED)


@pytest.fixture(autouse=True)
def _everything_is_counted(scenario: Scenario) -> Iterator[None]:
    yield
    assert not scenario.db.violations("a limit of a tree")


def agent(model: Any, name: str = "member", **options: Any) -> Agent:
    return Agent(name=name, model=model, **options)


def asks(member: Agent, times: int, name: str = "flow", **limits: Any) -> Workflow:
    """Return a workflow that asks an agent several times at once, and returns the answers and the errors in their order."""

    def body(flow: Flow, text: str) -> Any:
        def ask(place: int) -> Any:
            try:
                return flow.step(f"ask-{place}", member, "?")[:6]
            except StepFailed as error:
                return (error.error or {})["ids"]["reason"]

        return flow.parallel(*(lambda place=place: ask(place) for place in range(times)))

    return Workflow(name=name, function=body, limits=Limits(**limits))


def budgets(scenario: Scenario) -> list[tuple[int, int]]:
    """Return for each limit what is used and what is held, the oldest first."""
    rows = scenario.db.sql("""SELECT b.used_tokens, (SELECT count(*) FROM agno.budget_hold h WHERE h.run_id = b.run_id) AS holds
        FROM agno.budget b JOIN agno.run r ON r.id = b.run_id ORDER BY r.created_at""")
    return [(row["used_tokens"], row["holds"]) for row in rows]


def test_calls_that_no_longer_fit_are_not_made_and_the_others_keep_their_results(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model)
    workflow = asks(member, 4, tokens=2_200)
    run = scenario.execute_all(scenario.engine(workflow, member), scenario.submit("flow", "x"))
    assert run.content == ["answer"] * 3 + ["limit:tree_tokens"]
    assert model.asked == 3
    assert budgets(scenario) == [(1_500, 0)]
    usage = scenario.db.journal.store.tree_usage(run.id)
    assert (usage.runs, usage.open, usage.usage) == (5, 0, Usage(900, 600))


def open_runs(scenario: Scenario) -> list[Any]:
    """Return the runs with steps to execute."""
    return scenario.db.sql(
        """SELECT DISTINCT s.run_id::text AS id FROM agno.outbox o JOIN agno.step s ON s.id = o.step_id WHERE s.status = 'ready'"""
    )


def started(scenario: Scenario, engine: Engine) -> list[StepMessage]:
    """Start a workflow, and return the first turns of the runs that it starts."""
    return list(execute_step(engine, scenario.submit("flow", "x")).children)


def test_twenty_calls_at_once_stay_within_the_limit(scenario: Scenario) -> None:
    most = 5
    go, lock, inside, most_inside = threading.Event(), threading.Lock(), [0], [0]

    def enter() -> None:
        with lock:
            inside[0] += 1
            most_inside[0] = max(most_inside[0], inside[0])
            arrived.release()
        assert go.wait(20)
        with lock:
            inside[0] -= 1

    arrived = threading.Semaphore(0)
    model = Counted(before=enter)
    member = agent(model, settings=ModelSettings(max_output_tokens=490))
    workflow = asks(member, 20, tokens=500 * most + 100)
    engine = scenario.engine(workflow, member)
    todo = started(scenario, engine)
    root = todo[0].run_id
    with ThreadPoolExecutor(20) as threads:
        futures = [threads.submit(execute_step, engine, step) for step in todo]
        for future in futures:
            future.add_done_callback(lambda _: arrived.release())
        for _ in todo:
            assert arrived.acquire(timeout=20)
        assert model.asked == most, "each call holds 499 tokens, and the others wait"
        go.set()
    assert all(future.exception() is None for future in futures)
    assert budgets(scenario) == [(500 * most, 0)]
    parent = scenario.queries.run(root).parent_run_id
    assert parent is not None
    scenario.let_time_pass()
    scenario.db.sql(
        "UPDATE agno.step SET not_before = NULL, sent_at = clock_timestamp() WHERE status = 'ready'"
    )
    for step in todo:
        execute_step(engine, step)
    run = scenario.execute_pending(engine, parent)
    assert sorted(run.content) == ["answer"] * most + ["limit:tree_tokens"] * (20 - most)
    assert budgets(scenario) == [(500 * most, 0)]


def test_two_calls_that_are_about_to_be_made_see_each_other(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model)
    workflow = asks(member, 2, tokens=1_000)
    db = scenario.db
    steps = started(scenario, scenario.engine(workflow, member))
    claims = [claimed(db.journal.claim_turn(each.run_id, each.step_id, 0)) for each in steps]
    first, second = (msgspec.structs.replace(each, counted_by=each.lineage.limits) for each in claims)
    assert db.journal.store.hold(first, 1, 0) is None
    with db.transaction() as begun, db.transaction() as later:
        assert db.journal_of("w1", begun).store.hold(first, 600, 0) is None
        waiting = later.begin(lambda: db.journal_of("w1", later).store.hold(second, 600, 0))
        assert db.waits(waiting, later)
        begun.commit()
        met = waiting.result(timeout=10)
    assert met is not None
    assert (met.what, met.held, met.is_final(600)) == ("tokens", 600, False)


def test_call_whose_worker_died_holds_nothing_and_its_repetition_holds_once(scenario: Scenario) -> None:
    deaths = [True]

    def die() -> None:
        if deaths:
            deaths.pop()
            raise Died

    model = Counted(before=die)
    member = agent(model)
    workflow = asks(member, 1, tokens=ANSWER_TOKENS + 100)
    engine = scenario.engine(workflow, member)
    (child,) = started(scenario, engine)
    with pytest.raises(Died):
        execute_step(engine, child)
    assert budgets(scenario) == [(0, 1)]
    scenario.db.expire(child.step_id)
    execute_step(engine, child)
    assert budgets(scenario) == [(500, 0)]


def test_cancelled_call_holds_nothing(scenario: Scenario) -> None:
    children: list[StepMessage] = []

    def cancel() -> None:
        if children:
            scenario.db.journal.store.cancel(children.pop().run_id)

    model = Counted(before=cancel)
    member = agent(model)
    workflow = asks(member, 2, tokens=ANSWER_TOKENS + 100)
    engine = scenario.engine(workflow, member)
    first, second = started(scenario, engine)
    children.append(first)
    execute_step(engine, first)
    execute_step(engine, second)
    assert model.asked == 2
    assert budgets(scenario) == [(500, 0)]


def test_every_limit_above_a_call_counts(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model)
    inner = asks(member, 3, name="inner", tokens=1_600)
    outer = Workflow(
        name="outer",
        function=lambda flow, text: [flow.step("a", inner, "x"), flow.step("b", inner, "x")],
        limits=Limits(tokens=2_600),
    )
    engine = scenario.engine(outer, inner, member)
    step = scenario.submit("outer", "x")
    while any(scenario.execute_pending(engine, run["id"]) for run in open_runs(scenario)):
        pass
    run = scenario.queries.run(step.run_id)
    no = "limit:tree_tokens"
    assert list(map(sorted, run.content)) == [["answer", "answer", no], ["answer", "answer", no]]
    assert budgets(scenario) == [(2_000, 0), (1_000, 0), (1_000, 0)]


def test_items_of_a_map_count(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model)
    workflow = Workflow(
        name="flow",
        function=lambda flow, text: [
            isinstance(each, str) for each in flow.map("all", ["a", "b", "c"], member)
        ],
        limits=Limits(tokens=1_600),
    )
    engine = scenario.engine(workflow, member)
    step = scenario.submit("flow", "x")
    while any(scenario.execute_pending(engine, run["id"]) for run in open_runs(scenario)):
        pass
    assert sorted(scenario.queries.run(step.run_id).content) == [False, True, True]
    assert budgets(scenario) == [(1_000, 0)]


def test_cost_counts_by_the_prices_of_each_agent(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model, prices=Prices(input_usd=0, output_usd=1_000))  # 0.20 a call, of which it may cost 1
    workflow = asks(member, 3, cost_usd=1.3)
    run = scenario.execute_all(scenario.engine(workflow, member), scenario.submit("flow", "x"))
    assert run.content == ["answer", "answer", "limit:tree_cost"]


def test_limit_of_cost_needs_the_prices_of_all_agents_that_are_known(scenario: Scenario) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"team 'team': limits.cost_usd needs the prices of all its agents: .* to b, team\.",
    ):
        Team(
            name="team",
            members=[agent("local:m", "a", prices=Prices(input_usd=0, output_usd=0)), agent("local:m", "b")],
            leader="local:m",
            limits=Limits(cost_usd=1),
        )


def test_leader_of_a_team_ends_with_its_last_text_when_the_limit_is_met(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model)
    led = Counted((ToolCall("1", "member", '{"task": "?"}'),))
    team = Team(name="team", members=[member], leader=led, limits=Limits(tokens=1_900, on_limit="return"))
    run = scenario.execute_all(scenario.engine(team, member), scenario.submit("team", "x"))
    assert (run.status, run.reason, run.content) == (RunStatus.DONE, "limit:tree_tokens", "answer")
    assert (led.asked, model.asked) == (1, 1)


def test_fork_at_a_delegation_counts_for_itself(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model)
    led = Counted((ToolCall("1", "member", '{"task": "?"}'),))
    team = Team(name="team", members=[member], leader=led, limits=Limits(tokens=9_000))
    engine = scenario.engine(team, member)
    run = scenario.execute_all(engine, scenario.submit("team", "x"))
    fork = scenario.handle(run.id).fork("tool:1:0")
    while any(scenario.execute_pending(engine, each["id"]) for each in open_runs(scenario)):
        pass
    assert fork.status is RunStatus.DONE
    assert budgets(scenario) == [(1_500, 0), (1_000, 0)]


def test_runs_without_a_limit_of_a_tree_pay_nothing(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model, limits=Limits(tokens=10_000))
    workflow = asks(member, 2)
    scenario.execute_all(scenario.engine(workflow, member), scenario.submit("flow", "x"))
    assert not any("budget" in statement for statement in scenario.pool.ran)
    assert budgets(scenario) == []


def test_deadline_of_the_root_holds_for_the_tree(scenario: Scenario) -> None:
    model = Counted()
    member = agent(model, limits=Limits(deadline_s=3_600))

    def body(flow: Flow, text: str) -> Any:
        return flow.gather(flow.step("ask", member, "?"), flow.step("more", inner, "x"))

    inner = Workflow(name="inner", function=lambda flow, text: flow.sleep(hours=24))
    workflow = Workflow(name="flow", function=body, limits=Limits(deadline_s=60))
    engine = scenario.engine(workflow, inner, member)
    step = scenario.submit("flow", "x")
    for child in execute_step(engine, step).children:
        execute_step(engine, child)
    deadlines = {run["deadline_at"] for run in scenario.db.sql("SELECT deadline_at FROM agno.run")}
    assert len(deadlines) == 1
    assert None not in deadlines
    scenario.db.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE ended_at IS NULL")
    for run_id in scenario.db.journal.overdue_runs(10):
        scenario.db.journal.store.end_overdue(run_id)
    ended = scenario.db.sql("SELECT agent, reason, status FROM agno.run ORDER BY agent")
    assert [(run["agent"], run["status"], run["reason"]) for run in ended] == [
        ("flow", "failed", "limit:deadline"),
        ("inner", "cancelled", "cancelled"),  # with the run above it
        ("member", "done", "end"),
    ]
    assert not scenario.db.sql("SELECT FROM agno.step WHERE status = 'waiting'"), (
        "the timer has ended with its run"
    )
