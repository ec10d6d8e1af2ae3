"""Print the demo's timeline."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agno_workers.cli import screen
from agno_workers.cli.bars import Bar, bars, draw, overlap, shown_length
from agno_workers.core.run import StepKind
from agno_workers.local.demo.pipeline import Recorded


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


def _show_overlap(console: Console, tools: Sequence[Bar]) -> None:
    if not tools:
        return
    group = overlap(tools)
    took = f"The {group.steps} tools ran for {shown_length(group.sum_s)} in total, within {shown_length(group.wall_s)} from the first start"
    once = f"to the last end; at most {group.most} ran at the same time."
    console.print()
    console.print(screen.indented(f"{took} {once} (A tool runs from its claim to its recorded result.)"))
