"""Handlers bind each kind of step, a row of `core.step.STEP_TYPES`, to its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agno_workers.core.step import CommitResult, ExhaustedStep

RunStep = Callable[[str, str, int], CommitResult]
"""Execute the step with these ids (run, step, generation); return the messages to publish."""


class Handler(NamedTuple):
    """The code for one kind of step."""

    run: RunStep
    on_exhausted: Callable[[ExhaustedStep], CommitResult]
    """End a step that has no attempt left; the keeper calls it."""
