"""Maps: one call for each item of a list, a few at once, however many items there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.flow import Flow
from agno_workers.core.mapping import MAP_RUN, MapResult
from agno_workers.core.run import Run, RunStatus
from agno_workers.core.step import StepMessage
from agno_workers.engine.turn import Engine
from agno_workers.errors import ModelRejected, RunFailed, StepFailed
from agno_workers.models.scripted import Turn
from agno_workers.tools.decorate import tool
from agno_workers.workflows.workflow import Workflow
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_step

called: Counter[Any] = Counter()
broken: set[Any] = set()


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    called.clear()
    broken.clear()


@pytest.fixture(autouse=True)
def _each_item_is_called_once(scenario: Scenario) -> Iterator[None]:
    yield
    assert not scenario.db.violations("a map is done")


@dataclass
class Pair:
    number: int
    double: int


def double(number: int) -> Pair:
    called[number] += 1
    if number in broken:
        raise ValueError(f"no {number}")
    return Pair(number, number * 2)


def total(rows: list[list[int]], more: Any) -> Any:
    return [rows, more]


def add(left: int, right: int) -> int:
    return left + right


def numbers() -> list[int]:
    return list(range(30))


def of(function: Any) -> Workflow:
    return Workflow(name="flow", function=function)


def maps(items: Any, what: Any = double, read: Any = lambda found: found, **options: Any) -> Workflow:
    return of(lambda flow, text: read(flow.map("all", items, what, **options)))


def execute(scenario: Scenario, engine: Engine, run_id: str, most: int = 10**9) -> Run:
    """Execute steps of all runs, at most so many, until there are no more."""
    while pending := pending_steps(scenario):
        for step in pending:
            if most == 0:
                return scenario.queries.run(run_id)
            most -= 1
            assert step.outbox_id is not None
            scenario.db.journal.published([step.outbox_id])
            execute_step(engine, step)
    return scenario.queries.run(run_id)


def pending_steps(scenario: Scenario) -> list[StepMessage]:
    runs = scenario.db.sql(
        "SELECT DISTINCT s.run_id::text AS id FROM agno.outbox o JOIN agno.step s ON s.id = o.step_id WHERE s.status = 'ready'"
    )
    return [step for run in runs for step in scenario.db.journal.pending(run["id"])]


def run_of(scenario: Scenario, workflow: Workflow, *agents: Agent) -> Run:
    engine = scenario.engine(workflow, *agents)
    return execute(scenario, engine, scenario.submit("flow", "x").run_id)


def items_of(scenario: Scenario) -> Sequence[Any]:
    return scenario.db.sql("SELECT key, status FROM agno.step WHERE key LIKE 'item:%%' ORDER BY seq")


def test_results_are_in_the_order_of_the_items_and_typed(scenario: Scenario) -> None:
    run = run_of(scenario, maps(numbers(), read=lambda found: [each.double for each in found], window=4))
    assert run.content == [2 * number for number in numbers()]
    assert set(called.values()) == {1}


def test_at_most_window_items_are_open_and_a_turn_reads_only_the_next_ones(scenario: Scenario) -> None:
    engine = scenario.engine(maps(numbers(), read=len, window=4))
    run_id = scenario.submit("flow", "x").run_id
    for _ in range(500):
        run = execute(scenario, engine, run_id, most=1)
        open_items = sum(item["status"] in ("ready", "running") for item in items_of(scenario))
        assert open_items <= 4
        if run.ended_at:
            break
    assert run.content == 30
    turns = scenario.db.value(
        "SELECT count(*) FROM agno.step JOIN agno.run r ON r.id = run_id WHERE r.agent = 'agno:map' AND step.kind = 'turn'"
    )
    assert turns <= 30 + 3


def test_agent_is_called_for_each_item(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="fine"))
    judge = Agent(name="judge", model=replies.model)
    run = run_of(scenario, maps([{"id": 1}, {"id": 2}, "three"], judge), judge)
    assert run.content == ["fine"] * 3
    asked = sorted(request.messages[0].text for request in replies.asked)
    assert asked == ["three", '{"id":1}', '{"id":2}']


def test_items_may_be_the_result_of_an_earlier_step_by_its_id(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        flow.step("numbers", numbers)
        return len(flow.map("all", "numbers", double))

    assert run_of(scenario, of(body)).content == 30
    run = run_of(scenario, of(lambda flow, text: flow.map("all", "nowhere", double)))
    assert run.error is not None
    assert "no earlier step 'nowhere' has a result" in run.error["message"]


def test_maps_run_side_by_side(scenario: Scenario) -> None:
    def body(flow: Flow, text: str) -> Any:
        one, two = flow.gather(flow.map("one", [1, 2], double), flow.map("two", [3], double))
        return [each.double for each in [*one, *two]]

    assert run_of(scenario, of(body)).content == [2, 4, 6]


def test_maps_in_a_map_and_their_results_in_later_steps(scenario: Scenario) -> None:
    def inner(flow: Flow, size: int) -> list[int]:
        return [each.double for each in flow.map("all", list(range(size)), double)]

    def body(flow: Flow, text: str) -> Any:
        rows, more = flow.gather(flow.map("rows", [1, 2, 3], below), flow.step("numbers", numbers))
        return flow.step("total", total, rows, [flow.map("again", more[:2], double), rows])

    below = Workflow(name="below", function=inner)
    engine = scenario.engine(of(body), below)
    run = execute(scenario, engine, scenario.submit("flow", "x").run_id)
    assert run.content == [[[0], [0, 2], [0, 2, 4]], [[{"number": 0, "double": 0}, {"number": 1, "double": 2}], [[0], [0, 2], [0, 2, 4]]]]  # fmt: skip


def test_items_that_fail_are_errors_among_the_results(scenario: Scenario) -> None:
    broken.add(1)

    def read(found: list[Any]) -> Any:
        assert isinstance(found[1], StepFailed)
        return [found[0].double, str(found[1]), found[2].double]

    run = run_of(scenario, maps([0, 1, 2], read=read))
    assert run.content == [0, "item 1 failed: ValueError: no 1", 4]


def test_map_that_fails_with_its_first_item_starts_no_more_of_them(scenario: Scenario) -> None:
    broken.add(3)
    run = run_of(scenario, maps(numbers(), window=2, on_error="fail"))
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "step 'all' failed: item 3 failed: " in run.error["message"]
    assert len(called) <= 5


def rejected() -> Turn:
    raise ModelRejected("no", provider="scripted", model="m", code="bad_request")


def test_failure_of_a_map_cancels_the_runs_of_its_items_at_once(scenario: Scenario) -> None:
    judge = Agent(name="judge", model=ScriptedReplies(Turn(text="fine"), rejected).model)
    engine = scenario.engine(maps(["a", "b", "c"], judge, on_error="fail"), judge)
    scenario.submit("flow", "x")
    for _ in range(20):
        steps = pending_steps(scenario)
        items = [step for step in steps if scenario.queries.run(step.run_id).agent == "judge"]
        for step in items[:2] if len(items) == 3 else [step for step in steps if step not in items]:
            execute_step(engine, step)
    ends = scenario.db.sql("SELECT agent, status FROM agno.run ORDER BY status, agent")
    assert [(run["agent"], run["status"]) for run in ends] == [
        ("judge", "cancelled"), ("judge", "done"), ("agno:map", "failed"), ("flow", "failed"), ("judge", "failed"),
    ]  # fmt: skip


def test_map_that_is_needed_no_more_is_cancelled_with_its_items(scenario: Scenario) -> None:
    judge = Agent(name="judge", model=ScriptedReplies(Turn(text="fine")).model)

    def body(flow: Flow, text: str) -> Any:
        flow.gather(flow.map("all", ["a", "b"], judge), flow.step("quick", double, 1), join="first")
        return flow.approve("Go on?")

    engine = scenario.engine(of(body), judge)
    step = scenario.submit("flow", "x")
    (map_turn,) = execute_step(engine, step).children
    execute_step(engine, map_turn)
    scenario.execute_pending(engine, step.run_id)
    ends = scenario.db.sql("SELECT agent, status FROM agno.run ORDER BY agent")
    assert [(run["agent"], run["status"]) for run in ends] == [
        ("agno:map", "cancelled"), ("flow", "waiting"), ("judge", "cancelled"), ("judge", "cancelled"),
    ]  # fmt: skip


def test_results_so_far_end_where_an_item_is_open(scenario: Scenario) -> None:
    engine = scenario.engine(maps([1, 2, 3], window=3))
    step = scenario.submit("flow", "x")
    execute(scenario, engine, step.run_id, most=2)
    map_id = scenario.db.value("SELECT id::text FROM agno.run WHERE agent = %(agent)s", agent=MAP_RUN.name)
    first, second, third = sorted(pending_steps(scenario), key=lambda each: each.step_id)
    for item, expected in ((first, 1), (third, 1), (second, 3)):
        execute_step(engine, item)
        assert len(list(scenario.handle(map_id).map_results(page=2))) == expected


def test_retry_executes_only_items_without_a_result(scenario: Scenario) -> None:
    broken.add(3)
    engine = scenario.engine(maps(numbers(), window=2, on_error="fail", read=lambda found: found[29].double))
    run_id = scenario.submit("flow", "x").run_id
    assert execute(scenario, engine, run_id).status is RunStatus.FAILED
    broken.clear()
    assert scenario.db.journal.store.retry_run(run_id)
    assert execute(scenario, engine, run_id).content == 58
    assert {number for number, times in called.items() if times > 1} == {3}


@tool(effect="once")
def pay(number: int) -> int:
    """Pay."""
    called[number] += 1
    if number in broken:
        raise ValueError(f"no {number}")
    return number


def test_retry_never_makes_a_once_call_again(scenario: Scenario) -> None:
    broken.add(3)
    engine = scenario.engine(maps(numbers(), pay, window=2, on_error="fail", read=len))
    run_id = scenario.submit("flow", "x").run_id
    execute(scenario, engine, run_id, most=5)
    held = next(step for step in pending_steps(scenario) if step.kind == "tool")
    assert scenario.db.journal.claim_tool(
        held.run_id, held.step_id, 0
    )  # its worker dies before it says what it did
    assert execute(scenario, engine, run_id).status is RunStatus.FAILED
    before = called.copy()
    broken.clear()
    for _ in range(2):
        assert scenario.db.journal.store.retry_run(run_id)
        run = execute(scenario, engine, run_id)
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert "it is not known whether" in run.error["message"]
    assert before <= called
    assert set(called.values()) == {1}


def test_retry_keeps_the_results_of_a_map_that_another_retry_did_not_begin(scenario: Scenario) -> None:
    broken.add(20)
    engine = scenario.engine(maps(numbers(), window=2, on_error="fail", read=len))
    run_id = scenario.submit("flow", "x").run_id
    execute(scenario, engine, run_id)
    assert scenario.db.journal.store.retry_run(run_id)
    execute(scenario, engine, run_id, most=1)  # the run of the map is made, and never begins
    (map_run,) = scenario.db.sql(
        "SELECT id::text FROM agno.run WHERE agent = 'agno:map' AND ended_at IS NULL"
    )
    scenario.db.journal.store.cancel(map_run["id"])
    assert execute(scenario, engine, run_id).status is RunStatus.FAILED
    broken.clear()
    assert scenario.db.journal.store.retry_run(run_id)
    assert execute(scenario, engine, run_id).content == 30
    assert {number for number, times in called.items() if times > 1} == {20}


def test_tree_of_a_retried_map_has_each_run_once(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="fine"))
    judge = Agent(name="judge", model=replies.model)
    engine = scenario.engine(maps(["a", "b", "c"], judge, window=1, on_error="fail"), judge)
    run_id = scenario.submit("flow", "x").run_id
    execute(scenario, engine, run_id, most=6)
    (open_item,) = scenario.db.sql("SELECT id::text FROM agno.run WHERE agent = 'judge' AND ended_at IS NULL")
    scenario.db.journal.store.cancel(open_item["id"])
    assert execute(scenario, engine, run_id).status is RunStatus.FAILED
    assert scenario.db.journal.store.retry_run(run_id)
    assert execute(scenario, engine, run_id).status is RunStatus.DONE
    ids = [each.run.id for each in scenario.queries.tree(run_id).walk()]
    assert len(ids) == len(set(ids)) == scenario.db.count("run")
    assert scenario.db.journal.store.tree_usage(run_id).runs == len(ids)


def test_turn_that_is_executed_twice_starts_each_item_once(scenario: Scenario) -> None:
    engine = scenario.engine(maps(numbers(), read=len, window=8))
    run_id = scenario.submit("flow", "x").run_id
    claimed: set[str] = set()
    for _ in range(200):
        for step in pending_steps(scenario):
            if step.kind == "turn" and step.step_id not in claimed:  # another worker has claimed it, and died
                claimed.add(step.step_id)
                assert scenario.db.journal.claim_turn(step.run_id, step.step_id, step.generation)
                scenario.db.expire(step.step_id)
        scenario.db.journal.release_expired(100)
        if execute(scenario, engine, run_id, most=3).ended_at:
            break
    assert scenario.queries.run(run_id).content == 30
    assert set(called.values()) == {1}
    assert len(items_of(scenario)) == 30


def test_items_of_a_turn_that_died_after_it_stored_them_are_not_used(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = [["old", "old", "old"], ["a", "b"]]
    replies = ScriptedReplies(Turn(text="fine"))
    judge = Agent(name="judge", model=replies.model)
    engine = scenario.engine(of(lambda flow, text: flow.map("all", tries[0], judge)), judge)
    step = scenario.submit("flow", "x")

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scenario.db.journal.store.__class__, "make_calls", die)
        with pytest.raises(KeyboardInterrupt):
            execute_step(engine, step)
    tries.pop(0)
    scenario.db.expire(step.step_id)
    execute_step(engine, step)
    assert execute(scenario, engine, step.run_id).content == ["fine", "fine"]
    assert sorted(request.messages[0].text for request in replies.asked) == ["a", "b"]


def test_many_results_are_read_in_pages(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_workers.engine.mapping.MOST_LISTED", 10)
    broken.add(7)
    seen: list[Any] = []

    def read(found: Any) -> Any:
        assert isinstance(found, MapResult)
        seen[:] = found.results(page=8)
        return found

    run = run_of(scenario, maps(numbers(), read=read))
    assert [each.number for each in seen if isinstance(each, Pair)] == [n for n in range(30) if n != 7]
    assert isinstance(seen[7], StepFailed)
    map_id = scenario.db.value("SELECT id::text FROM agno.run WHERE agent = %(agent)s", agent=MAP_RUN.name)
    assert run.content == {"run_id": map_id, "count": 30, "failed": 1}
    whole = MapResult(map_id, 31, 1).reading(scenario.db.journal.store.map_results)
    with pytest.raises(RunFailed, match="were deleted, from item 30 on"):
        list(whole.results(page=8))
    stored = list(scenario.handle(map_id).map_results(page=8))
    assert stored[2] == {"number": 2, "double": 4}
    assert isinstance(stored[7], StepFailed)


def test_cancel_of_the_workflow_ends_the_map_and_its_items(scenario: Scenario) -> None:
    engine = scenario.engine(maps(numbers(), window=4))
    run_id = scenario.submit("flow", "x").run_id
    execute(scenario, engine, run_id, most=4)
    assert scenario.db.journal.store.cancel(run_id)
    execute(scenario, engine, run_id)
    assert not scenario.db.sql("SELECT FROM agno.run WHERE ended_at IS NULL")
    assert not scenario.db.sql("SELECT FROM agno.step WHERE status IN ('ready', 'running', 'waiting')")
    assert len(called) <= 4


@pytest.mark.parametrize(
    ("items", "what", "options", "message"),
    [
        (iter([1]), double, {}, r"flow.map\('all'\) takes a list, or the id of an earlier step .*: write list\(...\) around it"),
        ([1], add, {}, "missing a required argument: 'right'"),
        ([1], double, {"window": 0}, "window must be a whole number from 1 to 1,000, got 0"),
        ([1], double, {"on_error": "skip"}, "on_error must be 'collect' or 'fail', got 'skip'"),
        ([1, object()], double, {}, "item 1, a object, can't be stored as JSON"),
        ([" "], Agent(name="judge", model="local:m"), {}, "item 0: the input of agent 'judge' is empty"),
    ],
)  # fmt: skip
def test_map_that_cannot_work_is_refused(
    scenario: Scenario, items: Any, what: Any, options: Any, message: str
) -> None:
    run = run_of(scenario, maps(items, what, **options), *([what] if isinstance(what, Agent) else []))
    assert run.error is not None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(run.error["message"])


def test_map_of_no_items_is_an_empty_list(scenario: Scenario) -> None:
    assert run_of(scenario, maps([])).content == []
