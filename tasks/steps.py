"""The tasks that execute steps, `agno.turn`, `agno.tool` and so on: one body for every kind."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agno_workers import wiring
from agno_workers.broker.outage import Outage
from agno_workers.core.run import StepKind
from agno_workers.errors import UnusableDatabase

log = logging.getLogger(__name__)

_PAUSE_S = 2.0
_outage = Outage(log, "the database")


def body(kind: StepKind) -> Callable[[str, str, int], None]:
    """Return the body of the task that executes steps of this kind."""

    def execute(run_id: str, step_id: str, generation: int) -> None:
        services = wiring.services()
        try:
            services.dispatch.publish(services.handlers[kind].run(run_id, step_id, generation))
        except UnusableDatabase as error:
            _outage.failed("step %s is executed later: %s", step_id, error)
            time.sleep(_PAUSE_S)  # the queue is not read to its end meanwhile
        else:
            _outage.worked()

    return execute
