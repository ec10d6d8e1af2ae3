"""Runs and steps as bars over time: how long each step waited for a worker, and how long it ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console
from rich.text import Text

from agno_workers.cli import screen
from agno_workers.core.run import Run, Step, StepKind

_COLOURS = {StepKind.TOOL: "green", StepKind.WAIT: "blue", StepKind.DELEGATE: "bright_black"}


@dataclass(frozen=True)
class Bar:
    """One step. Times are seconds since the beginning of the timeline."""

    label: str
    kind: StepKind
    created_s: float
    """When the step was recorded, and began to wait for a worker."""
    started_s: float
    ended_s: float
    attempts: int = 1

    @property
    def waited_s(self) -> float:
        return self.started_s - self.created_s

    @property
    def ran_s(self) -> float:
        return self.ended_s - self.started_s


def bars(runs: Sequence[tuple[Run, Sequence[Step]]]) -> list[Bar]:
    """Return a bar for each step that has ended, in the order of their creation."""
    ended = [(run, step) for run, steps in runs for step in steps if step.created_at and step.ended_at]
    if not ended:
        return []
    origin = min(step.created_at for _, step in ended if step.created_at)
    return [_bar(run, step, origin) for run, step in ended]


def _bar(run: Run, step: Step, origin: datetime) -> Bar:
    assert step.created_at
    assert step.ended_at
    started = step.started_at or step.ended_at
    created_s, started_s, ended_s = (
        (at - origin).total_seconds() for at in (step.created_at, started, step.ended_at)
    )
    return Bar(_label(run, step), step.kind, created_s, started_s, ended_s, step.attempt)


def _label(run: Run, step: Step) -> str:
    if step.kind is StepKind.TOOL:
        return f"  {step.name}"
    if document := run.metadata.get("document"):
        return str(document)
    return run.agent if run.tool_calls == 0 else f"{run.agent}, turn {step.key.split(':')[1]}"


def cells(bar: Bar, span_s: float, width: int) -> tuple[int, int, int]:
    """Divide `width` cells for `span_s` seconds into empty, waiting and running ones; at least one is running."""
    per_cell = span_s / width or 1.0
    empty = min(width - 1, int(bar.created_s / per_cell))
    started = min(width - 1, max(empty, int(bar.started_s / per_cell)))
    ended = min(width, max(started + 1, round(bar.ended_s / per_cell)))
    return empty, started - empty, ended - started


@dataclass(frozen=True)
class Overlap:
    """How much a group of steps overlapped."""

    steps: int
    wall_s: float
    """From the first start to the last end."""
    sum_s: float
    """The sum of their times."""
    most: int
    """The largest number of steps that ran at the same time."""


def overlap(group: Sequence[Bar]) -> Overlap:
    """Measure the overlap of at least one bar."""
    edges = sorted([(bar.started_s, 1) for bar in group] + [(bar.ended_s, -1) for bar in group])
    running = most = 0
    for _, change in edges:
        running += change
        most = max(most, running)
    wall_s = max(bar.ended_s for bar in group) - min(bar.started_s for bar in group)
    return Overlap(len(group), wall_s, sum(bar.ran_s for bar in group), most)


def draw(console: Console, drawn: Sequence[Bar], most_name_chars: int = 24) -> None:
    """Print a bar a line, with the times that it waited and ran."""
    names = min(most_name_chars, max(len(bar.label) for bar in drawn))
    width = screen.drawing_width(console) - names - 2 - 2 - 20
    span_s = max(bar.ended_s for bar in drawn)
    console.print(
        f"  {'':<{names}}  {'0':<{width - 8}}{shown_length(span_s):>8}  waited      ran", style="dim"
    )
    for bar in drawn:
        empty, waiting, working = cells(bar, span_s, width)
        line = Text.assemble(
            f"  {bar.label if len(bar.label) <= names else bar.label[: names - 1] + '…':<{names}}  ",
            " " * empty, ("░" * waiting, "yellow"), ("█" * working, _COLOURS.get(bar.kind, "cyan")),
            " " * (width - empty - waiting - working), (f"{shown_length(bar.waited_s):>8} {shown_length(bar.ran_s):>8}", "dim"),
        )  # fmt: skip
        console.print(line, no_wrap=True, overflow="crop")


def shown_length(seconds: float) -> str:
    return screen.length(timedelta(seconds=seconds))
