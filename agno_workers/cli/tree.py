"""Draw a run and all runs below it: as a tree, or as bars over time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from agno_workers.cli import screen
from agno_workers.cli.bars import Bar, draw
from agno_workers.cli.ids import short_ids
from agno_workers.cli.screen import count
from agno_workers.core.run import Run, RunKind, Step, StepKind, StepStatus, WaitsFor
from agno_workers.runs.tree import RunTree

_MOST_LINES = 60
_MOST_NAME_CHARS = 38
_LEAST_NAME_CHARS = 16


class Row(NamedTuple):
    """A line: a run, or a step that started none."""

    lines: str
    """The lines of the tree before the name."""
    name: str
    kind: StepKind
    status: str
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    tree: RunTree | None = None

    @property
    def label(self) -> str:
        return self.lines + screen.one_line(self.name, _MOST_NAME_CHARS - len(self.lines))


def is_tree(tree: RunTree) -> bool:
    """Return True for a run that a tree shows better than its steps alone."""
    return bool(tree.children) or tree.run.kind in (RunKind.TEAM, RunKind.WORKFLOW)


def show_tree(console: Console, tree: RunTree, now: datetime, *, full: bool) -> None:
    """Print the run, its steps, and the runs below: how long each waited and ran, its tokens and its cost."""
    rows = list(_rows(tree))
    shown = rows if full else rows[:_MOST_LINES]
    ids = short_ids(row.tree.run.id for row in shown if row.tree)
    cells: list[tuple[str | Text, ...]] = [
        (
            ids[row.tree.run.id] if row.tree else "", screen.status(row.status), screen.took(row.created_at, row.started_at or row.ended_at or now),
            screen.took(row.started_at, row.ended_at or now), *_spent(row),
        )
        for row in shown
    ]  # fmt: skip
    columns = ["id", "status", "waited", "ran", "tokens", "cost"]
    if not any(cell[-1] for cell in cells):
        columns, cells = columns[:-1], [cell[:-1] for cell in cells]
    widest = (max(len(name), *(len(cell[place]) for cell in cells)) for place, name in enumerate(columns))
    left = max(_LEAST_NAME_CHARS, console.width - sum(wide + 2 for wide in widest))
    lines = [(screen.cut(row.label, left), *cell) for row, cell in zip(shown, cells, strict=True)]
    console.print()
    console.print(screen.table(console.width, ["run and steps", *columns], lines, right=columns[2:]))
    _show_rest(console, tree, len(rows) - len(shown))


def show_bars(console: Console, tree: RunTree, now: datetime, *, full: bool) -> None:
    """Print a bar for each line of the tree, on one scale from the submit of the run."""
    rows = list(_rows(tree))
    shown = rows if full else rows[:_MOST_LINES]
    origin = min(row.created_at for row in rows if row.created_at)
    drawn = []
    for row in shown:
        created, ended = row.created_at or origin, row.ended_at or now
        created_s, started_s, ended_s = (
            (at - origin).total_seconds() for at in (created, row.started_at or ended, ended)
        )
        drawn.append(Bar(row.label, row.kind, created_s, started_s, ended_s))
    console.print()
    console.print(
        Text.assemble(
            "  ", ("░", "yellow"), " waiting   ", ("█", "bright_black"), " a run   ", ("█", "cyan"), " a model   ", ("█", "green"),
            " a tool or a function",
        )
    )  # fmt: skip
    draw(console, drawn, _MOST_NAME_CHARS)
    _show_rest(console, tree, len(rows) - len(shown))


def _show_rest(console: Console, tree: RunTree, hidden: int) -> None:
    if hidden:
        console.print(f"{count(hidden, 'more line')}; --full shows all", style="dim")
    if not tree.is_whole:
        text = "The lowest runs are missing here, and in the sums beside the others: `runs show` of one above them shows them."
        console.print(text, style="dim")


def _spent(row: Row) -> tuple[str, str]:
    if row.tree is None:
        return "", ""
    runs = [each.run for each in row.tree.walk()]
    tokens, cost_usd = (
        sum(run.usage.input_tokens + run.usage.output_tokens for run in runs),
        sum(run.cost_usd for run in runs),
    )
    return f"{tokens:,}" if tokens else "", screen.dollars(cost_usd) if cost_usd else ""


def _rows(tree: RunTree, lines: str = "", below: str = "", asked_as: str = "") -> Iterator[Row]:
    """Yield the line of a run, and those below it. `asked_as` is the id of its step."""
    run = tree.run
    named = (
        asked_as
        if asked_as.partition(":")[0] == run.agent
        else f"{asked_as}: {run.agent}"
        if asked_as
        else run.agent
    )
    yield Row(
        lines, named, StepKind.DELEGATE,
        f"{run.status} paused" if run.paused_at else run.status, run.created_at, run.started_at, run.ended_at, tree,
    )  # fmt: skip
    steps = [step for step in tree.steps if _is_shown(run, step)]
    for place, step in enumerate(steps):
        is_last = place == len(steps) - 1
        branch, deeper = below + ("└ " if is_last else "├ "), below + ("  " if is_last else "│ ")
        child = tree.child(step)
        if child is not None:
            yield from _rows(child, branch, deeper, "" if step.key.startswith("tool:") else step.key)
            continue
        begins_waiting = step.waits_for is not None and step.status.is_open
        waits_for = "person" if step.waits_for is WaitsFor.CONFIRMATION else step.waits_for
        status = f"waiting ({waits_for})" if begins_waiting else step.status
        yield Row(branch, _name(step), step.kind, status, step.created_at, step.started_at, step.ended_at)


def _is_shown(run: Run, step: Step) -> bool:
    """Return False for the turns of a program that are done: they cost nothing."""
    if run.kind is RunKind.AGENT or step.kind is not StepKind.TURN or step.name:
        return True
    is_agent = run.usage.output_tokens > 0  # a team that is led by a model
    return is_agent or step.status is not StepStatus.DONE


def _name(step: Step) -> str:
    """Return the name of a step: its id and what it calls."""
    number = step.key.partition(":")[2]
    if step.kind is StepKind.TURN:
        return f"{step.name}, turn {number}" if step.name else f"turn {number}"
    if step.kind is StepKind.COMPACT:
        return "compaction"
    name = step.name.rpartition(":")[2].rpartition(".")[2] if step.kind is StepKind.TOOL else step.name
    if step.key.startswith("tool:"):
        return name
    return step.key if name in ("", step.key) else f"{step.key}: {name}"
