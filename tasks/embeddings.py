"""`agno.embed`: the vectors of a batch of chunks."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.broker.names import TASK_OF
from agno_workers.core.run import StepKind
from agno_workers.knowledge.steps import take_embed
from agno_workers.tasks.app import app


@app.task(name=TASK_OF[StepKind.EMBED], ignore_result=True)
def embed(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_embed(services.ingest_context, run_id, step_id, generation))
