"""`agno.run` (somebody else's Celery submits) and `agno.turn` (one turn of a run)."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore

from agno_workers import wiring
from agno_workers.broker.canvas import keep
from agno_workers.broker.names import RUN, TURN
from agno_workers.broker.submit import submit
from agno_workers.engine.loop import take_turn
from agno_workers.tasks.app import app


@app.task(name=RUN, bind=True)
def run(self: Any, *input: Any, **asked: Any) -> None:
    """Submit a run whose message came from an app that is not ours; the task's id becomes the run's.

    The run, not this task, completes the canvas that it is part of: so Celery is told to leave it alone.
    """
    services, request = wiring.services(), self.request
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
    submitted = submit(
        services.journal,
        input,
        asked,
        queue=(request.delivery_info or {}).get("routing_key") or services.settings.agent_queue,
        task_id=request.id,
        canvas=keep(app, canvas),
    )
    if submitted.send is not None:
        services.dispatch.send([submitted.send])
    raise Ignore


@app.task(name=TURN, ignore_result=True)
def turn(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_turn(services.engine, run_id, step_id, generation))
