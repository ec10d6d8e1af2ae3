"""The demo's timeline on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agno_workers.cli import screen
from agno_workers.core.run import StepKind
from agno_workers.local.demo.pipeline import Told
from agno_workers.local.demo.timeline import Bar, bars, cells, side_by_side


def show_timeline(console: Console, tellings: Sequence[Told]) -> None:
    """Two scales: the pipeline's seconds, and the researcher's milliseconds."""
    console.print()
    console.print(Rule("Timeline, from the rows", align="left"))
    console.print(
        Text.assemble(
            "  ",
            ("░", "yellow"),
            " waiting for a worker   ",
            ("█", "cyan"),
            " a model at work   ",
            ("█", "green"),
            " a tool at work",
        )
    )
    for research in (False, True):
        chosen = [telling for telling in tellings if (telling.run.agent == "researcher") == research]
        drawn = bars([(telling.run, telling.steps) for telling in chosen])
        if drawn:
            console.print()
            _draw(console, drawn)
    _say_overlap(console, [bar for bar in drawn if bar.kind is StepKind.TOOL])


def _draw(console: Console, drawn: Sequence[Bar]) -> None:
    names = min(24, max(len(bar.label) for bar in drawn))
    width = console.width - names - 2 - 2 - 20
    span_s = max(bar.ended_s for bar in drawn)
    console.print(f"  {'':<{names}}  {'0':<{width - 8}}{_said(span_s):>8}  waited   worked", style="dim")
    for bar in drawn:
        empty, waiting, working = cells(bar, span_s, width)
        line = Text.assemble(
            f"  {screen.one_line(bar.label, names) if bar.kind is StepKind.TURN else bar.label[:names]:<{names}}  ",
            " " * empty, ("░" * waiting, "yellow"), ("█" * working, "green" if bar.kind is StepKind.TOOL else "cyan"),
            " " * (width - empty - waiting - working), (f"{_said(bar.waited_s):>8} {_said(bar.worked_s):>8}", "dim"),
        )  # fmt: skip
        console.print(line, no_wrap=True, overflow="crop")


def _say_overlap(console: Console, tools: Sequence[Bar]) -> None:
    if not tools:
        return
    group = side_by_side(tools)
    took = f"{group.steps} tools took {_said(group.sum_s)} together, and {_said(group.wall_s)} from the first one's begin"
    once = f"to the last one's end: at most {group.at_once} were at work at the same moment."
    console.print()
    console.print(
        screen.indented(f"{took} {once} (A tool's time is that from its claim to its recorded result.)")
    )


def _said(seconds: float) -> str:
    return screen.length(timedelta(seconds=seconds))
