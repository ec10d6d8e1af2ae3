"""`python -m tests.chaos --minutes 5 --seed 7 [--stock] [--json FILE]`; see `./run`."""

from __future__ import annotations

import argparse
import logging
import random
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from tests.chaos import ours, stock
from tests.chaos.history import Verdict
from tests.chaos.plan import Fault, plan


def main() -> int:
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    logging.getLogger("agno_workers").setLevel(logging.ERROR)  # the callers' warnings of what is done to them
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    seconds = arguments.seconds or arguments.minutes * 60
    options = ours.Options(
        seed=arguments.seed,
        seconds=seconds,
        settle_s=arguments.settle,
        fsync=not arguments.no_fsync,
        folder=arguments.keep,
    )
    faults = plan(options.seed, seconds)

    def say(line: str) -> None:
        console.print(line, markup=False)

    say(f"seed {options.seed}: {len(faults)} faults in {seconds:.0f} s")
    for fault in faults:
        say(f"  {fault}")
    verdicts = {"agno-workers": ours.run(options, faults, say)}
    if arguments.stock:
        faults_of_stock = plan(options.seed, seconds, stock.KINDS)
        say(f"stock Celery, with those faults that it can meet: {len(faults_of_stock)} in {seconds:.0f} s")
        verdicts["stock Celery"] = stock.run(options, faults_of_stock, say)
    console.print(_table(verdicts))
    for line in verdicts["agno-workers"].broken:
        say(f"BROKEN: {line}")
    _write(arguments.json, options, faults, verdicts)
    say(f"written to {arguments.json.resolve()}")
    broken = bool(verdicts["agno-workers"].broken)
    say(
        f"seed {options.seed}: "
        + ("a promise was BROKEN, see above" if broken else "nothing lost, nothing doubled")
    )
    return int(broken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run chaos",
        description="Kills, pauses and cuts off workers, Redis and Postgres at random while runs are submitted, and then "
        "checks that nothing accepted was lost and nothing was doubled. On servers of its own. Exit 1: a promise was broken.",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, default=1.0, metavar="N", help="how long there are faults (1)"
    )
    parser.add_argument("--seconds", type=float, metavar="N", help="the same, in seconds")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(100_000),
        metavar="S",
        help="of the plan of faults (default: any)",
    )
    parser.add_argument(
        "--settle",
        type=float,
        default=120.0,
        metavar="N",
        help="seconds of calm after which all must have ended (120)",
    )
    parser.add_argument(
        "--json", type=Path, default=Path("chaos.json"), metavar="FILE", help="plan and counters (chaos.json)"
    )
    parser.add_argument(
        "--stock", action="store_true", help="the same for a chord of stock Celery, beside ours in the table"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs, ledger and data there")
    parser.add_argument("--no-fsync", action="store_true", help="Postgres without fsync: enough for SIGKILL")
    arguments = parser.parse_args()
    if arguments.keep and Path(arguments.keep).exists() and any(Path(arguments.keep).iterdir()):
        parser.error(
            f"{arguments.keep!r} is not empty, and what is in there would count: name another folder"
        )
    return arguments


def _table(verdicts: dict[str, Verdict]) -> Table:
    table = Table("", *verdicts, title="chaos")
    names = dict.fromkeys(name for verdict in verdicts.values() for name in verdict.counters)
    for name in names:
        table.add_row(name, *(_shown(verdict.counters.get(name, "-")) for verdict in verdicts.values()))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {number}" for key, number in value.items()) or "-"
    return str(value)


def _write(path: Path, options: ours.Options, faults: list[Fault], verdicts: dict[str, Verdict]) -> None:
    report = {"seed": options.seed, "seconds": options.seconds, "plan": faults, "verdicts": verdicts}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; servers and workers are stopped\n")
        sys.exit(130)
