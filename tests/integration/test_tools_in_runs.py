"""Tools inside a run, through the real engine and database, without a worker: the tests carry the steps themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agno_workers.core.messages import ToolResult
from agno_workers.core.run import RunStatus, StepKind
from agno_workers.engine.run_turn import run_turn
from agno_workers.engine.tool import run_tool
from agno_workers.wiring import Services
from tests import steps
from tests.agents import caller
from tests.steps import first_step


def run_caller(services: Services, text: str) -> str:
    """Submit a run of `caller` and carry its steps, one after another, until it is over; its id."""
    submitted = caller.delay(text)
    steps.execute_run(services.engine, first_step(services.database.queries, submitted.id))
    run_id: str = submitted.id
    return run_id


def results(services: Services, run_id: str) -> list[tuple[str, bool]]:
    parts = [part for message in services.database.queries.transcript(run_id) for part in message.parts]
    return [(part.content, part.is_error) for part in parts if isinstance(part, ToolResult)]


def ledger(services: Services) -> list[str]:
    exists = services.database.pool.run("SELECT to_regclass('public.ledger') AS name")[0]["name"]
    return (
        [row["text"] for row in services.database.pool.run("SELECT text FROM public.ledger")]
        if exists
        else []
    )


def call(name: str, **arguments: Any) -> str:
    return f"{name} {json.dumps(arguments)}"


@pytest.fixture(autouse=True)
def _connected(services: Services) -> None:
    """Every test here works on this process's services."""


def test_results_stand_in_the_transcript_in_the_order_of_the_calls(services: Services) -> None:
    run_id = run_caller(services, "\n".join(call("add", a=number, b=0) for number in range(12)))
    assert results(services, run_id) == [(str(number), False) for number in range(12)]
    assert services.database.queries.run(run_id).tool_calls == 12


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (call("boom", text="it broke"), "it broke"),
        (call("nobody"), "nobody"),
        (call("add", a="one", b=2), "a"),
        (call("add", a=1), "b"),
    ],
    ids=["raises", "unknown tool", "wrong type", "missing argument"],
)
def test_a_tool_that_can_not_give_a_result_tells_the_model_why(
    services: Services, asked: str, told: str
) -> None:
    run_id = run_caller(services, f"{asked}\n{call('add', a=1, b=1)}")
    (content, is_error), good = results(services, run_id)
    assert is_error
    assert told in content
    assert good == ("2", False)
    assert services.database.queries.run(run_id).status is RunStatus.DONE


def test_a_transactional_tool_writes_with_its_result(services: Services) -> None:
    run_id = run_caller(services, call("write_row", text="kept", fail=False))
    assert results(services, run_id) == [("written", False)]
    assert ledger(services) == ["kept"]


def test_a_transactional_tool_that_raises_has_written_nothing(services: Services) -> None:
    run_id = run_caller(services, call("write_row", text="lost", fail=True))
    assert results(services, run_id) == [("after the write", True)]
    assert ledger(services) == []


def test_a_transactional_tool_that_is_late_has_written_nothing_and_its_connection_is_gone(
    services: Services,
) -> None:
    run_id = run_caller(services, call("write_slowly"))
    ((content, is_error),) = results(services, run_id)
    assert is_error
    assert "0.5" in content
    assert ledger(services) == []


def test_a_transactional_tool_whose_step_was_recorded_by_another_writes_nothing(services: Services) -> None:
    submitted = caller.delay(call("write_row", text="twice", fail=False))
    turn = first_step(services.database.queries, submitted.id)
    (tool,) = run_turn(services.engine, turn.run_id, turn.step_id, 0).sends
    claim = services.database.journal.claim(StepKind.TOOL, tool.run_id, tool.step_id, 0)
    assert claim is not None
    services.database.journal.end_lease(
        tool.step_id
    )  # a pause: the lease is over, and another worker carries the step
    assert run_tool(services.engine, tool.run_id, tool.step_id, 0).recorded
    assert not run_tool(services.engine, tool.run_id, tool.step_id, 0).recorded
    assert ledger(services) == ["twice"]
