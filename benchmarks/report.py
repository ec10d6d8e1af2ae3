"""What a benchmark found: rows of ours beside a peer's, as a table, as JSON, and as a line for the README."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from statistics import median
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

Unit = Literal["s", "B", "/s", ""]


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing measured: a value for each round of ours and of the peer's."""

    measure: str
    unit: Unit
    """s: seconds, B: bytes, /s: a rate (more is better), empty: a count."""
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    against: str = ""
    """What the peer is; empty where there is none."""
    quoted: str = ""
    """The peer's figure where it was measured elsewhere and not in this run."""
    aim: str = ""
    """What we want: of the ratio with `x` at its end, else of our own value."""
    readme: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's, of the medians."""
        return median(self.ours) / median(self.peer) if self.peer else None


class Machine(msgspec.Struct, frozen=True):
    """Where and when; `load` is that of the last minute, before and after."""

    at: str
    cores: int
    python: str
    load: tuple[float, float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that one benchmark has to tell."""

    name: str
    title: str
    setting: str
    """How it was measured, in a line."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    machine: Machine | None = None
    quick: bool = False


def machine(load_before: float) -> Machine:
    return Machine(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        load=(round(load_before, 1), round(os.getloadavg()[0], 1)),
    )


def show(report: Report, console: Console) -> None:
    """Print the table."""
    table = Table(
        title=f"[bold]{report.name}[/]: {report.title}", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("measure")
    for name in ("agno-workers", "peer"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("peer is")
    for name in ("ratio", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(row.measure, ours(row), peer(row), row.against, ratio(row), row.aim)
    console.print(table)
    for note in (report.setting, *report.notes):
        console.print(f"  {note}", style="dim", highlight=False, markup=False)
    if report.machine:
        before, after = report.machine.load
        console.print(
            f"  {report.machine.cores} cores, Python {report.machine.python}, load {before} to {after}, {report.machine.at}",
            style="dim", highlight=False,
        )  # fmt: skip
    console.print()


def ours(row: Row) -> str:
    return spelt(median(row.ours), row.unit)


def peer(row: Row) -> str:
    return spelt(median(row.peer), row.unit) if row.peer else f"{row.quoted} (quoted)" if row.quoted else "-"


def ratio(row: Row) -> str:
    return "-" if row.ratio is None else f"{row.ratio:.2g}x" if row.ratio < 10 else f"{row.ratio:.0f}x"


def spelt(value: float, unit: Unit) -> str:
    """With three digits or so, in the unit that a person would choose."""
    match unit:
        case "s":
            size, name = next((each for each in _TIMES if value >= each[0]), _TIMES[-1])
            return f"{value / size:.3g} {name}"
        case "B":
            size, name = next((each for each in _SIZES if abs(value) >= each[0]), _SIZES[-1])
            return f"{value / size:.{3 if value / size < 1000 else 4}g} {name}"
        case "/s":
            return f"{value:.1f}/s" if value < 100 else f"{value:.0f}/s"
        case "":
            return f"{value:.1f}".removesuffix(".0")


_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_SIZES = ((1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B"))
