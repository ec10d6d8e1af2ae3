"""Write the figures of reliability.md from the last results: ./run python docs/reliability_figures.py

    benchmarks/results/payments.json   ./run bench payments --agno-python PATH
    benchmarks/results/chaos.json      ./run chaos --minutes N --seed S --stock --json benchmarks/results/chaos.json
    benchmarks/results/chaos_ingest.json   ./run chaos-ingest FOLDER --json benchmarks/results/chaos_ingest.json

A test fails when the page is behind them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.payments.table import markdown  # noqa: E402 - benchmarks are not installed

PAGE = Path(__file__).parent / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"
_CHAOS = {
    "faults": "faults",
    "acknowledged": "accepted submits",
    "lost": "lost",
    "duplicated": "duplicated",
    "ended well": "ended as promised",
    "recovered": "repeated steps that completed",
    "unknown": "`unknown` steps",
    "dead": "`dead` steps",
    "answers lost": "answers that the proxy dropped",
    "from a fault's end to the next step, s": "seconds from the end of a fault to the next step",
    "calm until all had ended, s": "seconds after the last fault until all had ended",
}
_INGEST = {
    "seconds in peace": "seconds without faults",
    "seconds under faults": "seconds with faults",
    "seconds of the same again": "seconds to ingest the same again",
    "unchanged the second time": "unchanged documents then",
    "missing or different": "missing or different rows",
    "vectors twice or missing": "duplicate or missing vectors",
}
"""Labels of the counters; others are shown as they are."""


def written(page: str) -> str:
    """Return the page with the current figures."""
    for name, text in (
        ("payments", markdown(RESULTS / "payments.json")),
        ("chaos", chaos(RESULTS / "chaos.json")),
        ("chaos-ingest", chaos_ingest(RESULTS / "chaos_ingest.json")),
    ):
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        page = f"{before}<!-- {name} -->\n{text}<!-- /{name} -->{after}"
    return page


def chaos(path: Path) -> str:
    """Return a row for each counter, with stock Celery beside us."""
    report = json.loads(path.read_bytes())
    verdicts = report["verdicts"]
    lines = [f"| {report['seconds']:.0f} s of faults, seed {report['seed']} | {' | '.join(verdicts)} |", "|---" * (len(verdicts) + 1) + "|"]  # fmt: skip
    for name, label in _CHAOS.items():
        values = [_value(verdict["counters"].get(name)) for verdict in verdicts.values()]
        lines.append(f"| {label} | {' | '.join(values)} |")
    kinds = verdicts["agno-workers"]["counters"]["faults by kind"]
    met = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    lines += ["", f"Faults: {met}. Stock Celery needs no Postgres, so it was exposed to the faults of workers and Redis. Its runs are"]  # fmt: skip
    lines += ["chords of three parts and a body, with `acks_late`, `reject_on_worker_lost` and a visibility timeout of 5 s; ours are submitted in every way."]  # fmt: skip
    return "\n".join(lines) + "\n"


def chaos_ingest(path: Path) -> str:
    """Return a row for each counter."""
    report = json.loads(path.read_bytes())
    lines = [f"| {report['what']}, seed {report['seed']} | |", "|---|---|"]
    lines += [
        f"| {_INGEST.get(name, name)} | {_value(value)} |" for name, value in report["counters"].items()
    ]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return "-" if value is None else str(value)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
