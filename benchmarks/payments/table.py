"""Show the findings on the terminal and as Markdown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.payments.settings import SETTINGS
from benchmarks.report import Report


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant in one setting; a value for each trial. All but `end_s` are alike on any machine."""

    setting: str
    contestant: str
    paid: tuple[int, ...]
    """How often `pay` was executed: lines in the ledger."""
    ended: tuple[str, ...]
    """Status of the run, and of steps that a person should look at."""
    reason: tuple[str, ...]
    """The reason, in the words of the product."""
    answer: tuple[str, ...]
    """The last text of the model, which repeats the results that it was given."""
    end_s: tuple[float, ...]
    """Seconds from the kill to the end of the run, the new start included."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """How a contestant was set up; code in backticks."""

    contestant: str
    options: str


class Payments(Report, frozen=True, kw_only=True):
    """A report whose findings are no ratios of numbers."""

    cells: tuple[Cell, ...]
    chosen: tuple[Chosen, ...]


def show(report: Payments, console: Console) -> None:
    table = Table(
        title=f"[bold]{report.name}[/]: {report.title}", title_justify="left", box=None, pad_edge=False
    )
    for column in ("setting", "contestant"):
        table.add_column(column)
    table.add_column("pay ran", justify="right")
    table.add_column("run ended")
    table.add_column("after the kill", justify="right", no_wrap=True)
    for setting in SETTINGS:
        title = setting.title.replace("`", "")
        for cell in [each for each in report.cells if each.setting == setting.name]:
            table.add_row(title, cell.contestant, times(cell), ended(cell), f"{median(cell.end_s):.1f} s")
            title = ""
    console.print(table)
    for note in (
        report.setting,
        *(f"{each.contestant}: {each.options}".replace("`", "") for each in report.chosen),
        *report.notes,
    ):
        console.print(f"  {note}", style="dim", highlight=False, markup=False)
    console.print()


def markdown(path: Path) -> str:
    """Return the table of the last full run, with a row and the set-up of each contestant."""
    if not path.exists():
        return f"There is no {path.name} yet: run `python -m benchmarks payments` first.\n"
    report = msgspec.json.decode(path.read_bytes(), type=Payments)
    found = {(cell.contestant, cell.setting): cell for cell in report.cells}
    lines = [f"| | {' | '.join(setting.title for setting in SETTINGS)} |", "|---" * (len(SETTINGS) + 1) + "|"]
    for each in report.chosen:
        cells = [_in_words(found[each.contestant, setting.name]) for setting in SETTINGS]
        lines.append(f"| {each.contestant} | {' | '.join(cells)} |")
    lines += ["", *(f"* {each.contestant}: {each.options}" for each in report.chosen)]
    if report.machine:
        when = f"Measured {report.machine.at[:10]}, {len(report.cells[0].paid)} times each; {report.setting}."
        how = "Seconds count from the kill to the end of the run, including the restart of the processes."
        before, after = report.machine.load
        how += f" The machine's load was {before} to {after} on {report.machine.cores} cores."
        lines += ["", f"{when} {how} `python -m benchmarks payments` repeats the measurement."]
    return "\n".join(lines) + "\n"


def times(cell: Cell) -> str:
    """`1`, or `1-2` where the trials differ."""
    fewest, most = min(cell.paid), max(cell.paid)
    return str(most) if fewest == most else f"{fewest}-{most}"


def ended(cell: Cell) -> str:
    """The status, with how often it came where the trials differ."""
    counted = Counter(cell.ended)
    if len(counted) == 1:
        return cell.ended[0]
    return ", ".join(f"{status} ({count} of {len(cell.ended)})" for status, count in counted.items())


def _in_words(cell: Cell) -> str:
    paid = {"0": "not paid", "1": "paid once", "2": "**paid twice**"}.get(
        times(cell), f"**paid {times(cell)} times**"
    )
    return f"{paid}, {ended(cell)}, {median(cell.end_s):.0f} s"
