"""Workflows: steps in an order that code decides."""

from agno_workers.core.flow import quorum
from agno_workers.workflows.declared import (
    Approval,
    Condition,
    Loop,
    Map,
    Parallel,
    Router,
    Step,
    Steps,
    Wait,
    WaitForSignal,
)
from agno_workers.workflows.declared_values import StepInput, StepOutput

__all__ = [
    "Approval", "Condition", "Loop", "Map", "Parallel", "Router", "Step", "StepInput", "StepOutput", "Steps", "Wait",
    "WaitForSignal", "quorum",
]  # fmt: skip
