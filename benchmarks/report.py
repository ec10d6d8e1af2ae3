"""The result of a benchmark: rows of our figures beside a peer's, printed as a terminal table, stored as JSON, and as a Markdown table."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Literal

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.timing import Cost, Took

Unit = Literal["s", "B", "/s", ""]


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing measured: a value for each round of ours and of the peer's."""

    measure: str
    unit: Unit
    """s: seconds, B: bytes, /s: a rate (more is better), empty: a count."""
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()
    """CPU seconds for one of what is measured, of the processes that the notes name; empty where nobody looked."""
    peer_cpu: tuple[float, ...] = ()
    against: str = ""
    """The name of the peer; empty where there is none."""
    quoted: str = ""
    """The peer's figure where it was measured elsewhere and not in this run."""
    aim: str = ""
    """The targets, such as `>=1.9x, <=34 ms CPU`: one that ends in `x` is for the ratio, in `CPU` for our CPU time, any other for our own value."""
    readme: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's, of the medians."""
        return median(self.ours) / median(self.peer) if self.peer else None


def rates(
    measure: str, ours: Sequence[Cost], peer: Sequence[Cost], against: str, aim: str = "", *, quoted: str = "", readme: bool = False
) -> Row:  # fmt: skip
    """Return a row of rates, with the CPU beside them."""
    return Row(
        measure=measure, unit="/s", ours=tuple(each.per_s for each in ours), cpu=tuple(each.cpu_s for each in ours),
        peer=tuple(each.per_s for each in peer), peer_cpu=tuple(each.cpu_s for each in peer),
        against=against, quoted=quoted, aim=aim, readme=readme,
    )  # fmt: skip


def times(
    measure: str, ours: Sequence[Took], peer: Sequence[Took], against: str, aim: str = "", *, readme: bool = False
) -> Row:  # fmt: skip
    """Return a row of times, with the CPU of the caller beside them."""
    return Row(
        measure=measure, unit="s", ours=tuple(each.wall_s for each in ours), cpu=tuple(each.cpu_s for each in ours),
        peer=tuple(each.wall_s for each in peer), peer_cpu=tuple(each.cpu_s for each in peer),
        against=against, aim=aim, readme=readme,
    )  # fmt: skip


class Machine(msgspec.Struct, frozen=True):
    """Where and when; `load` is that of the last minute, before and after."""

    at: str
    cores: int
    python: str
    load: tuple[float, float]

    def __str__(self) -> str:
        before, after = self.load
        return f"{self.cores} cores, Python {self.python}, load {before} to {after}, {self.at}"


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


def show(reports: Sequence[Report], console: Console) -> None:
    """Print the rows of all benchmarks as one table, and how each was measured."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("measure")
    for name in ("agno-workers", "peer"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("peer is", overflow="fold")
    for name in ("ratio", "aim"):
        table.add_column(name, justify="right", no_wrap=True)
    for report in reports:
        table.add_row(f"[bold]{report.name}[/]")
        for row in report.rows:
            aims = "\n".join(judged(row))
            table.add_row(escape(row.measure), *_with_cpu(row, "\n"), escape(row.against), ratio(row), aims)
    console.print(table)
    for report in reports:
        console.print(f"\n[bold]{report.name}[/]: {escape(report.title)}", highlight=False)
        for note in (report.setting, *report.notes, *([str(report.machine)] if report.machine else [])):
            console.print(f"  {note}", style="dim", highlight=False, markup=False)


def markdown(rows: Iterable[tuple[str, Row]], *, aims: bool = False) -> list[str]:
    """Return the lines of a table for a page, of rows with what each is called there."""
    heads = ["measure", "agno-workers", "peer", "ratio", *(["aim"] if aims else [])]
    lines = [f"| {' | '.join(heads)} |", f"{'|---' * len(heads)}|"]
    for name, row in rows:
        mine, beside = _with_cpu(row, ", ")
        cells = [name, mine, f"{beside}; {row.against}" if row.against else beside, ratio(row)]
        cells += [", ".join(judged(row))] if aims else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _with_cpu(row: Row, between: str) -> tuple[str, str]:
    """Our value and the peer's, each with its CPU."""
    mine = spelt(median(row.ours), row.unit)
    beside = (
        spelt(median(row.peer), row.unit) if row.peer else f"{row.quoted} (quoted)" if row.quoted else "-"
    )
    return (
        mine + (f"{between}{spelt(median(row.cpu), 's')} CPU" if row.cpu else ""),
        beside + (f"{between}{spelt(median(row.peer_cpu), 's')} CPU" if row.peer_cpu else ""),
    )


def judged(row: Row) -> list[str]:
    """Return the aims of a row, each with whether it is reached."""
    return [f"{aim} {'✓' if is_met(row, aim) else '✗'}" for aim in row.aim.split(", ") if aim]


def is_met(row: Row, aim: str) -> bool:
    """Tell whether a row reaches one of its aims."""
    found = _AIM.fullmatch(aim)
    if found is None:
        raise ValueError(
            f"row {row.measure!r}: the aim {aim!r} is not like '>=1.9x', '<=4.5 ms' or '<=34 ms CPU'"
        )
    is_least, bound, unit, of_cpu = found.groups()
    value = row.ratio if unit == "x" else median(row.cpu if of_cpu else row.ours)
    if value is None:
        return False
    limit = float(bound) * _UNITS.get(unit, 1.0)
    return value >= limit if is_least == ">" else value <= limit


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
            return f"{value:.1f}".removesuffix(".0") if abs(value) >= 1 else f"{value:.2g}"


_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_SIZES = ((1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B"))
_UNITS = {name: size for size, name in (*_TIMES, *_SIZES)}
_AIM = re.compile(r"([<>])=? *([\d.]+) *(x|[a-zA-Z/]*)?( CPU)?")
