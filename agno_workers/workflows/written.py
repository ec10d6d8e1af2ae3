"""Written workflows: the function of a workflow is called again from the top at each turn, see `core.flow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agno_workers.core.flow import Flow
from agno_workers.core.inputs import inputs_of


def call(function: Callable[..., Any], flow: Flow) -> Any:
    """Call the function of a workflow with the arguments in the input of the run. Raises InvalidInput for input that does not fit."""
    return function(flow, *inputs_of(function.__name__, function).values(flow.input.text))
