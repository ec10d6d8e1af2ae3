"""`agno.scan`, `agno.ingest` and `agno.finalize`: the beginning of an ingestion, its batches of documents, and its end."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.broker.names import TASK_OF
from agno_workers.core.run import StepKind
from agno_workers.knowledge.steps import take_finalize, take_ingest, take_scan
from agno_workers.tasks.app import app


@app.task(name=TASK_OF[StepKind.SCAN], ignore_result=True)
def scan(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_scan(services.ingest_context, run_id, step_id, generation))


@app.task(name=TASK_OF[StepKind.INGEST], ignore_result=True)
def ingest(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_ingest(services.ingest_context, run_id, step_id, generation))


@app.task(name=TASK_OF[StepKind.FINALIZE], ignore_result=True)
def finalize(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_finalize(services.ingest_context, run_id, step_id, generation))
