"""The time to build an Agent and the memory to keep it, beside agno's Agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.peers import instances
from benchmarks.report import Report, Row, Unit
from benchmarks.stage import ROOT, Options
from benchmarks.timing import alternate


class Cost(msgspec.Struct, frozen=True):
    """The output of the child process for one way to build an agent."""

    build_s: float
    bytes: float


def run(options: Options) -> Report:
    rounds, count = options.pick(7, 1), options.pick(20_000, 1000)
    has_peer = options.agno_python.exists()
    programs = [lambda: _measured(Path(sys.executable), "ours", count)]
    if has_peer:
        programs.append(lambda: _measured(options.agno_python, "agno", count))
    ours, *agno = alternate(rounds, *programs)
    sides = [ours, *agno]
    rows = []
    for kind, what in instances.KINDS.items():
        built = [tuple(found[kind].build_s for found in side) for side in sides]
        held = [tuple(found[kind].bytes for found in side) for side in sides]
        rows.append(_row(f"time to build {what}", "s", built, "< 5 us"))
        rows.append(_row(f"memory of {what}", "B", held, "< 1 KiB"))
    return Report(
        name="agent",
        title="an Agent as a value",
        setting=f"{count} built in a row, each round in a fresh process; size by tracemalloc, averaged over 1000 kept",
        rows=tuple(rows),
        notes=options.lacks_agno(),
    )


def _row(measure: str, unit: Unit, sides: list[tuple[float, ...]], aim: str) -> Row:
    ours, *agno = sides
    return Row(
        measure=measure, unit=unit, ours=ours, peer=agno[0] if agno else (), against="agno's Agent", aim=aim,
    )  # fmt: skip


def _measured(python: Path, whose: str, count: int) -> dict[str, Cost]:
    done = subprocess.run(
        [python, ROOT / "benchmarks" / "peers" / "instances.py", whose, str(count)],
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT) if whose == "ours" else ""},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, Cost])
