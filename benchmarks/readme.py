"""Write the table of the README, between its two comments, from the last results."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks.report import Report, Row, ours, peer, ratio

BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def write(results: Iterable[Path], page: Path) -> int:
    """Write the table into `page`, and return the exit status. Without the comments or results nothing is written."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    new = written(results, text)
    if new is None:
        print(
            f"nothing was written: {page} needs {BEGIN} and {END}, and there must be results.",
            file=sys.stderr,
        )
        return 1
    page.write_text(new, encoding="utf-8")
    return 0


def written(results: Iterable[Path], page: str) -> str | None:
    """Return the page with the table of the existing results, or None without results or comments."""
    reports = [
        msgspec.json.decode(path.read_bytes(), type=Report) for path in sorted(results) if path.exists()
    ]
    place = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    if not reports or not place.search(page):
        return None
    return place.sub(lambda _: table(reports), page, count=1)


def table(reports: list[Report]) -> str:
    """Return the table, and a line with its place and time."""
    lines = ["| measure | agno-workers | peer | ratio |", "|---|---|---|---|"]
    lines += [_line(report, row) for report in reports for row in report.rows if row.readme]
    machines = [report.machine for report in reports if report.machine]
    cores = sorted({each.cores for each in machines})
    dates = sorted({each.at[:10] for each in machines})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    where = f"Measured {when} on a machine with {' or '.join(map(str, cores))} cores that also ran Postgres and Valkey, fsync on."
    lines += [
        "",
        f"{where} Each row was interleaved with its peer in one run; `./run bench` repeats the measurement.",
    ]
    return "\n".join(lines) + "\n"


def _line(report: Report, row: Row) -> str:
    beside = f"{peer(row)}, {row.against}" if row.against else peer(row)
    return f"| {report.name}: {row.measure} | {ours(row)} | {beside} | {ratio(row)} |"
