"""`agno.embed` makes the vectors of a batch of chunks."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.knowledge.steps import take_embed


def embed(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(take_embed(services.intake, run_id, step_id, generation))
