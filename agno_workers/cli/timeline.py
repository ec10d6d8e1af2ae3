"""Print bars over time: of the demo, and of a run and those below it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agno_workers.cli import screen
from agno_workers.core.run import StepKind
from agno_workers.local.demo.pipeline import Recorded
from agno_workers.local.demo.timeline import Bar, bars, cells, overlap

_COLOURS = {StepKind.TOOL: "green", StepKind.WAIT: "blue", StepKind.DELEGATE: "bright_black"}


def show_timeline(console: Console, rows: Sequence[Recorded]) -> None:
    """Print two scales: seconds for the chord, milliseconds for the researcher."""
    console.print()
    console.print(Rule("Timeline, from the database", align="left"))
    console.print(
        Text.assemble(
            "  ",
            ("░", "yellow"),
            " waiting for a worker   ",
            ("█", "cyan"),
            " a model running   ",
            ("█", "green"),
            " a tool running",
        )
    )
    for research in (False, True):
        chosen = [each for each in rows if (each.run.agent == "researcher") == research]
        drawn = bars([(each.run, each.steps) for each in chosen])
        if drawn:
            console.print()
            draw(console, drawn)
    _show_overlap(console, [bar for bar in drawn if bar.kind is StepKind.TOOL])


def draw(console: Console, drawn: Sequence[Bar], most_name_chars: int = 24) -> None:
    """Print a bar a line, with the times that it waited and ran."""
    names = min(most_name_chars, max(len(bar.label) for bar in drawn))
    width = screen.drawing_width(console) - names - 2 - 2 - 20
    span_s = max(bar.ended_s for bar in drawn)
    console.print(f"  {'':<{names}}  {'0':<{width - 8}}{_length(span_s):>8}  waited      ran", style="dim")
    for bar in drawn:
        empty, waiting, working = cells(bar, span_s, width)
        line = Text.assemble(
            f"  {bar.label if len(bar.label) <= names else bar.label[: names - 1] + '…':<{names}}  ",
            " " * empty, ("░" * waiting, "yellow"), ("█" * working, _COLOURS.get(bar.kind, "cyan")),
            " " * (width - empty - waiting - working), (f"{_length(bar.waited_s):>8} {_length(bar.ran_s):>8}", "dim"),
        )  # fmt: skip
        console.print(line, no_wrap=True, overflow="crop")


def _show_overlap(console: Console, tools: Sequence[Bar]) -> None:
    if not tools:
        return
    group = overlap(tools)
    took = f"The {group.steps} tools ran for {_length(group.sum_s)} in total, within {_length(group.wall_s)} from the first start"
    once = f"to the last end; at most {group.most} ran at the same time."
    console.print()
    console.print(screen.indented(f"{took} {once} (A tool runs from its claim to its recorded result.)"))


def _length(seconds: float) -> str:
    return screen.length(timedelta(seconds=seconds))
