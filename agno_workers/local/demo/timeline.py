"""Runs and steps as bars over time: how long each waited, and how long it was worked on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agno_workers.core.run import Run, Step, StepKind


@dataclass(frozen=True)
class Bar:
    """One step. Times are seconds since the beginning of the timeline."""

    label: str
    kind: StepKind
    written_s: float
    """When it was written down, so when it began to wait for a worker."""
    begun_s: float
    ended_s: float
    attempts: int = 1

    @property
    def waited_s(self) -> float:
        return self.begun_s - self.written_s

    @property
    def worked_s(self) -> float:
        return self.ended_s - self.begun_s


def bars(runs: Sequence[tuple[Run, Sequence[Step]]]) -> list[Bar]:
    """A bar for each step that has ended, in the order in which they were written."""
    ended = [(run, step) for run, steps in runs for step in steps if step.created_at and step.ended_at]
    if not ended:
        return []
    origin = min(step.created_at for _, step in ended if step.created_at)
    return [_bar(run, step, origin) for run, step in ended]


def _bar(run: Run, step: Step, origin: datetime) -> Bar:
    assert step.created_at
    assert step.ended_at
    begun = step.started_at or step.ended_at
    written_s, begun_s, ended_s = (
        (at - origin).total_seconds() for at in (step.created_at, begun, step.ended_at)
    )
    return Bar(_label(run, step), step.kind, written_s, begun_s, ended_s, step.attempt)


def _label(run: Run, step: Step) -> str:
    if step.kind is StepKind.TOOL:
        return f"  {step.name}"
    if document := run.metadata.get("document"):
        return str(document)
    return run.agent if run.tool_calls == 0 else f"{run.agent}, turn {step.key.split(':')[1]}"


def cells(bar: Bar, span_s: float, width: int) -> tuple[int, int, int]:
    """A bar in `width` cells for `span_s` seconds: empty, waiting and working ones. Work shows in a cell at least."""
    per_cell = span_s / width or 1.0
    empty = min(width - 1, int(bar.written_s / per_cell))
    begun = min(width - 1, max(empty, int(bar.begun_s / per_cell)))
    ended = min(width, max(begun + 1, round(bar.ended_s / per_cell)))
    return empty, begun - empty, ended - begun


@dataclass(frozen=True)
class SideBySide:
    """How much a group of steps overlapped."""

    steps: int
    wall_s: float
    """From the first one's begin to the last one's end."""
    sum_s: float
    """What they took together."""
    at_once: int
    """How many were being worked on at the same moment, at the most."""


def side_by_side(group: Sequence[Bar]) -> SideBySide:
    """Of at least one bar."""
    edges = sorted([(bar.begun_s, 1) for bar in group] + [(bar.ended_s, -1) for bar in group])
    at_once = most = 0
    for _, change in edges:
        at_once += change
        most = max(most, at_once)
    wall_s = max(bar.ended_s for bar in group) - min(bar.begun_s for bar in group)
    return SideBySide(len(group), wall_s, sum(bar.worked_s for bar in group), most)
