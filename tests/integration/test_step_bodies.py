"""The tasks of steps: what a worker raises before a step begins is counted, and ends the run after many tries."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from agno_workers.broker.queues import length
from agno_workers.core.run import RunStatus, StepKind
from agno_workers.engine.handlers import Handler
from agno_workers.errors import Unavailable
from agno_workers.tasks.steps import body
from agno_workers.wiring import Services
from tests.agents import caller, handbook


def pending(services: Services, run_id: str) -> tuple[str, str, int]:
    (step,) = [step for step in services.database.queries.steps(run_id) if step.status.is_open]
    return run_id, step.id, 0


def breaks(services: Services, kind: StepKind, error: Exception) -> None:
    """Let this process raise when it begins steps of this kind."""

    def run(*_: object) -> NoReturn:
        raise error

    services.handlers[kind] = Handler(run, services.handlers[kind].on_exhausted)  # type: ignore[index]


def due(services: Services) -> None:
    services.database.pool.run("UPDATE agno.step SET not_before = NULL WHERE status = 'ready'")


@pytest.mark.parametrize("kind", [StepKind.TURN, StepKind.TOOL, StepKind.SCAN])
def test_run_fails_after_many_errors_before_its_step_began(
    services: Services, tmp_path: Path, kind: StepKind
) -> None:
    if kind is StepKind.SCAN:
        run_id = handbook.ingest([str(tmp_path)]).id
    else:
        run_id = caller.delay('add {"a": 1, "b": 2}').id
    if kind is StepKind.TOOL:
        body(StepKind.TURN)(*pending(services, run_id))
    breaks(services, kind, ModuleNotFoundError("No module named 'lxml'"))
    for times in range(12):
        assert [each.count for each in services.database.queries.returned()] == [1] * bool(times)
        with pytest.raises(ModuleNotFoundError):
            body(kind)(*pending(services, run_id))
        due(services)
    services.keeper().round()
    assert services.database.queries.returned() == []
    if kind is StepKind.TOOL:  # the model is told
        body(StepKind.TURN)(*pending(services, run_id))
        assert "!add was not called: no worker could begin it in 12 tries" in str(
            services.database.queries.run(run_id).content
        )
        return
    run = services.database.queries.run(run_id)
    assert run.error is not None
    assert (run.status, run.reason, run.error["type"]) == (
        RunStatus.FAILED,
        "worker_error",
        "ModuleNotFoundError",
    )


def test_outage_of_postgres_is_not_counted(services: Services) -> None:
    ids = pending(services, caller.delay("x").id)
    breaks(services, StepKind.TURN, Unavailable("Postgres did not answer"))
    with pytest.raises(Unavailable):
        body(StepKind.TURN)(*ids)
    assert services.database.queries.returned() == []


@pytest.mark.parametrize("takes", [True, False])
def test_last_tool_begins_the_next_turn_where_its_worker_takes_turns(services: Services, takes: bool) -> None:
    services.active.takes = lambda turn: takes and turn.queue == services.settings.queues.agents
    run_id = caller.delay('add {"a": 1, "b": 2}').id
    body(StepKind.TURN)(*pending(services, run_id))
    queued = length(services.redis, services.settings.queues.agents)
    body(StepKind.TOOL)(*pending(services, run_id))
    turn = services.database.queries.steps(run_id)[-1]
    assert (turn.key, turn.status, turn.attempt) == ("turn:2", "done" if takes else "ready", int(takes))
    assert length(services.redis, services.settings.queues.agents) == queued + (not takes)
    assert services.active.ids() == []
