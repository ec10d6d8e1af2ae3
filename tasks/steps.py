"""The tasks that execute steps, `agno.turn`, `agno.tool` and so on: one body for every kind."""

from __future__ import annotations

from collections.abc import Callable

from agno_workers import wiring
from agno_workers.core.run import StepKind


def body(kind: StepKind) -> Callable[[str, str, int], None]:
    """Return the body of the task that executes steps of this kind."""

    def execute(run_id: str, step_id: str, generation: int) -> None:
        services = wiring.services()
        services.dispatch.publish(services.handlers[kind].run(run_id, step_id, generation))

    return execute
