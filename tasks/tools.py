"""`agno.tool` executes one tool call."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.engine.tool import run_tool


def tool(run_id: str, step_id: str, generation: int) -> None:
    services = wiring.services()
    services.dispatch.publish(run_tool(services.engine, run_id, step_id, generation))
