"""Written workflows: the function of a workflow is called again from the top at each turn, see `core.flow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agno_workers.core.flow import Flow


def call(function: Callable[..., Any], flow: Flow) -> Any:
    """Call the function of a workflow with the input of the run."""
    return function(flow, flow.input.text)
