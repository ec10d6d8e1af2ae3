"""`agno.run` (somebody else's Celery submits) and `agno.turn` (one turn of a run)."""

from __future__ import annotations

from typing import Any

from celery import signals
from celery.app.task import Context
from celery.exceptions import Ignore, NotRegistered
from celery.worker.request import Request

from agno_workers import wiring
from agno_workers.broker.canvas import keep
from agno_workers.broker.names import RUN, TURN
from agno_workers.broker.submit import request_from_call
from agno_workers.database.pool import retry_while_unavailable
from agno_workers.engine.turn import run_turn
from agno_workers.tasks.app import app


class Submission(Request):
    """A message that submits a run. It is taken at once: its time is kept with the run, and not in this worker's memory."""

    @property
    def eta(self) -> None:
        return None


@app.task(name=RUN, bind=True, Request=Submission)
def run(self: Any, *input: Any, **asked: Any) -> None:
    """Submit a run whose message came from an app that is not ours; the task's id becomes the run's.

    The run, not this task, completes the canvas that it is part of: so Celery is told to leave it alone.
    """
    services, request = wiring.services(), self.request
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
        kinds=app.request_kinds,
        queue=delivery.get("routing_key"),
        run_id=request.id,
        eta=request.eta,
        priority=delivery.get("priority"),
        canvas=keep(app, canvas),
    )
    # Until the run is in Postgres, it exists in this message only.
    submitted = retry_while_unavailable(services.database.submissions.submit, wanted)
    if submitted.send is not None:
        services.dispatch.send([submitted.send])
    raise Ignore


@signals.task_unknown.connect
def fail_unknown(message: Any, name: str, id: str, **_: Any) -> None:
    """Tell the chord and the chain of a task that no worker here knows: Celery fails it alone, and they would wait for ever."""
    _, _, embedded = message.payload
    request = Context({**message.headers, **embedded, "delivery_info": {}})
    app.backend.mark_as_failure(id, NotRegistered(name), request=request)


@app.task(name=TURN, ignore_result=True)
def turn(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(run_turn(services.engine, run_id, step_id, generation))
