"""`agno.run`, which submits a run for a foreign Celery app."""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import Ignore
from celery.worker.request import Request
from msgspec.structs import replace

from agno_workers import wiring
from agno_workers.broker.canvas import canvas_of
from agno_workers.broker.submit import RunTask, request_from_call
from agno_workers.database.pool import retry_while_unavailable

log = logging.getLogger(__name__)


class Submission(Request):
    """A message that submits a run. The task runs at once, and the run keeps the `eta`: a worker's memory is not durable."""

    @property
    def eta(self) -> None:
        return None


def run(self: Any, *input: Any, **asked: Any) -> None:
    """Submit a run for a foreign Celery app; the task's id becomes the run's id.

    The run, not this task, completes its canvas: `Ignore` makes Celery leave the canvas alone.
    """
    services, request = wiring.services(), self.request
    if request.called_directly:
        raise RunTask.refused()
    delivery = request.delivery_info or {}
    canvas = {
        "link": request.callbacks,
        "link_error": request.errbacks,
        "chain": request.chain,
        "group_id": request.group,
        "group_index": request.group_index,
        "chord": request.chord,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
    }
    wanted = request_from_call(
        input,
        asked,
        kinds=self.app.request_kinds,
        queue=delivery.get("routing_key"),
        run_id=request.id,
        eta=request.eta,
        priority=delivery.get("priority"),
        canvas=canvas_of(self.app, canvas),
    )
    chord_id = wanted.canvas.group_id if wanted.canvas and wanted.canvas.chord else None
    if chord_id and not retry_while_unavailable(services.database.results.has_chord, chord_id):
        log.warning(
            "run %s is a part of a chord that is not in this database, so its body does not start: call agno_workers.attach(app) in "
            "the app that sends it",
            request.id,
        )
    # Until it is in Postgres, the message is the only copy of the run: also that of an agent that is deployed later.
    wanted = replace(wanted, allow_unknown=True)
    submitted = retry_while_unavailable(services.database.submissions.submit, wanted)
    if submitted.send is not None:
        services.dispatch.send([submitted.send])
    raise Ignore
