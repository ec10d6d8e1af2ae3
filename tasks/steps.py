"""The tasks that execute steps, `agno.turn`, `agno.tool` and so on: one body for every kind.

The task of the last tool of a turn also executes the next turn, where its worker takes the turn's queue and turns have no rate limit: the
turn needs no message then. Until its claim it is as a turn whose message was sent: the keeper sends it again if this worker dies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from agno_workers import wiring
from agno_workers.broker.outage import Outage
from agno_workers.broker.run_log import failure, log_end
from agno_workers.core.run import RunStatus, StepKind
from agno_workers.errors import Unavailable, UnusableDatabase, error_to_json

log = logging.getLogger(__name__)

_PAUSE_S = 2.0
_outage = Outage(log, "the database")


def body(kind: StepKind) -> Callable[[str, str, int], str]:
    """Return the body of the task that executes steps of this kind.

    It returns what Celery's log and events show of the step, and raises the error of the run that it has failed.
    """

    def execute(run_id: str, step_id: str, generation: int) -> str:
        services = wiring.services()
        try:
            result = services.handlers[kind].run(run_id, step_id, generation)
        except UnusableDatabase as error:
            _outage.failed("step %s is executed later: %s", step_id, error)
            time.sleep(_PAUSE_S)  # the queue is not read to its end meanwhile
            return f"run {run_id}: the database can't be used"
        except Unavailable:  # an outage, which is not this worker's fault
            raise
        except (
            Exception
        ) as error:  # before the step began: a package or a setting that this worker lacks, a bug
            services.database.journal.return_step(step_id, raised_before(error, services.worker))
            raise
        _outage.worked()
        turn = result.sends[0] if kind is StepKind.TOOL and result.sends else None
        here = turn if turn is not None and services.active.takes(turn) else None
        services.dispatch.publish(result, here=here)
        if result.ended is not None and result.ended.status is RunStatus.FAILED:
            raise failure(result.ended) from result.cause
        if result.ended is not None:
            log_end(result.ended)
        if here is not None:
            with services.active.step(here.step_id):
                return body(here.kind)(here.run_id, here.step_id, here.generation)
        return f"run {run_id} of agent {result.agent}" if result.agent else f"run {run_id}: nothing to do"

    return execute


def raised_before(error: Exception, worker: str) -> dict[str, Any]:
    """Describe an exception that kept a worker from beginning a step."""
    described = error_to_json(error)
    return described | {"message": f"raised on {worker} before the step began: {described['message']}"}
