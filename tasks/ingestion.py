"""`agno.scan`, `agno.ingest` and `agno.finalize`: the beginning of an ingestion, its batches of documents, and its end."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.broker.names import FINALIZE, INGEST, SCAN
from agno_workers.knowledge.steps import take_finalize, take_ingest, take_scan
from agno_workers.tasks.app import app


@app.task(name=SCAN, ignore_result=True)
def scan(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_scan(services.intake, run_id, step_id, generation))


@app.task(name=INGEST, ignore_result=True)
def ingest(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_ingest(services.intake, run_id, step_id, generation))


@app.task(name=FINALIZE, ignore_result=True)
def finalize(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_finalize(services.intake, run_id, step_id, generation))
