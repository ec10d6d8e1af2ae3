"""`agno.scan` starts an ingestion, `agno.ingest` reads a batch of its documents, `agno.tidy` ends it."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.knowledge.steps import take_ingest, take_scan, take_tidy


def scan(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_scan(services.intake, run_id, step_id, generation))


def ingest(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_ingest(services.intake, run_id, step_id, generation))


def tidy(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_tidy(services.intake, run_id, step_id, generation))
