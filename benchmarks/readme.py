"""Write the tables of the pages from the last results: some rows of all benchmarks into the README, all rows into docs/performance.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

from benchmarks.report import Report, markdown
from benchmarks.stage import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
BLOCK = re.compile(r"(<!-- bench (\w+) -->\n).*?(?=<!-- /bench -->)", re.DOTALL)
"""`<!-- bench NAME -->` and what stands below it: the rows of that benchmark, or of all for the README."""


def write() -> int:
    """Write the tables into the pages, and return the exit status."""
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        if not BLOCK.search(page):
            print(
                f"{path} has no <!-- bench NAME --> … <!-- /bench -->: nothing was written.", file=sys.stderr
            )
            return 1
        path.write_text(written(page, RESULTS), encoding="utf-8")
    return 0


def written(page: str, results: Path) -> str:
    """Return the page with the tables of the results in this folder."""
    reports = {path.stem: msgspec.json.decode(path.read_bytes(), type=Report) for path in sorted(results.glob("*.json")) if not path.stem.startswith("chaos")}  # fmt: skip
    tables = {"all": _summary(list(reports.values()))}
    return BLOCK.sub(lambda block: block[1] + (tables.get(block[2]) or _whole(block[2], reports)), page)


def _summary(reports: list[Report]) -> str:
    """A table of the rows that are meant for the README, and a line with its place and time."""
    rows = [(f"{report.name}: {row.measure}", row) for report in reports for row in report.rows if row.readme]
    machines = [report.machine for report in reports if report.machine]
    cores = " or ".join(map(str, sorted({each.cores for each in machines})))
    dates = sorted({each.at[:10] for each in machines})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    where = f"Measured {when} on a machine with {cores} cores that also ran Postgres and Valkey, fsync on."
    how = "Each row was interleaved with its peer in one run; `./run bench` repeats the measurement."
    return "\n".join([*markdown(rows), "", f"{where} {how}"]) + "\n"


def _whole(name: str, reports: dict[str, Report]) -> str:
    """All rows of a benchmark, with the aim that each has, and how it was measured."""
    if (report := reports.get(name)) is None:
        return f"Not measured yet: `./run bench {name}`.\n"
    lines = markdown([(row.measure, row) for row in report.rows], aims=True)
    lines += ["", f"{report.setting}. {report.machine}."]
    return (
        "\n".join([*lines, *([""] if report.notes else []), *(f"* {note}" for note in report.notes)]) + "\n"
    )
