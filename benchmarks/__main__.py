"""`python -m benchmarks [NAME ...] [--quick] [--json FILE]`, `… readme`, and `… payments --markdown`."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec
from msgspec.structs import replace
from rich.console import Console

from benchmarks import (
    agent,
    bulk,
    embed,
    fanout,
    growth,
    ingest,
    models,
    parallel,
    readme,
    runs,
    search,
    sessions,
    state,
    submit,
    talk,
    team,
    workflow,
)
from benchmarks.payments import bench as payments
from benchmarks.payments import table
from benchmarks.readme import RESULTS
from benchmarks.report import Report, machine, show
from benchmarks.stage import Options

BENCHMARKS: dict[str, Callable[[Options], Report]] = {
    "agent": agent.run,
    "bulk": bulk.run,
    "embed": embed.run,
    "fanout": fanout.run,
    "growth": growth.run,
    "parallel": parallel.run,
    "models": models.run,
    "runs": runs.run,
    "search": search.run,
    "sessions": sessions.run,
    "state": state.run,
    "submit": submit.run,
    "talk": talk.run,
    "team": team.run,
    "workflow": workflow.run,
    "ingest": ingest.run,
    "payments": payments.run,
}


def main() -> None:
    arguments = _arguments()
    if arguments.name == ["readme"]:
        sys.exit(readme.write())
    if arguments.markdown:
        print(table.markdown(RESULTS / "payments.json"), end="")
        return
    options = Options(
        quick=arguments.quick,
        pool=arguments.pool,
        concurrency=arguments.concurrency,
        agno_python=arguments.agno_python,
    )
    reports, failed = [], False
    # Each in a process of its own: none inherits another's connections and caches.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for name in arguments.name or BENCHMARKS:
            load, began = os.getloadavg()[0], time.monotonic()
            try:
                report = fresh.submit(BENCHMARKS[name], options).result()
            except Exception:  # the others are worth as much without it
                failed = True
                print(f"{name} failed:\n{traceback.format_exc()}", file=sys.stderr)
                continue
            reports.append(replace(report, machine=machine(load), quick=options.quick))
            if not options.quick:
                _write(RESULTS / f"{name}.json", reports[-1])
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    if arguments.json:
        _write(arguments.json, reports)
    _show(reports, Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140))
    sys.exit(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Each benchmark measures its peer in the same run, on servers of its own with fsync on. Full runs write "
        "benchmarks/results/NAME.json; `readme` writes those into README.md and docs/performance.md.",
    )  # fmt: skip
    parser.add_argument(
        "name",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)} (default: all of them), or readme",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few repetitions: whether it works, not how fast it is"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the reports of this run there as well"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="of payments: print the last full run as a table for a page"
    )
    parser.add_argument(
        "--pool", default="threads", choices=("threads", "prefork"), help="of both workers (threads)"
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        default=Options.concurrency,
        metavar="N",
        help="of our worker, where it is not the benchmark's own choice (64); stock Celery has 16",
    )
    parser.add_argument(
        "--agno-python",
        type=Path,
        default=Options.agno_python,
        metavar="PATH",
        help="the Python of an environment with agno (benchmarks/.venv)",
    )
    arguments = parser.parse_args()
    if arguments.markdown and arguments.name != ["payments"]:
        parser.error("--markdown is for `payments` alone")
    if arguments.concurrency < 1:
        parser.error(f"--concurrency {arguments.concurrency}: a worker needs at least 1 thread or process")
    unknown = [name for name in arguments.name if name not in BENCHMARKS and arguments.name != ["readme"]]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}: there are {', '.join(BENCHMARKS)}")
    return arguments


def _show(reports: list[Report], console: Console) -> None:
    """All that are ratios in one table; payments are none."""
    show([report for report in reports if report.rows], console)
    for report in reports:
        if isinstance(report, table.Payments):
            table.show(report, console)


def _write(path: Path, value: Report | list[Report]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")


if __name__ == "__main__":
    main()
