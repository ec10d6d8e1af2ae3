"""Simple runs, one turn each, in one worker process: how many a second and what each costs, beside agno's durable queue."""

from __future__ import annotations

import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from urllib.parse import urlencode

import psycopg

from benchmarks.processes import cpu_s
from benchmarks.report import Report, Row, rates
from benchmarks.stage import ROOT, WARM_S, Options, Stage, stage
from benchmarks.timing import WAIT_S, Cost, alternate
from benchmarks.workload import simple

AGNO = "agno durable queue"
SUBMITTERS = 8
_POLL = "/* benchmark */"  # tells our own looks from the statements that are counted


class Found(NamedTuple):
    """The measurements of one side."""

    costs: tuple[Cost, ...]
    stored_bytes: float
    """The growth of the database, for one run."""
    statements: float


@dataclass(frozen=True)
class Side:
    """One of the two: its worker process, its database, and how to have runs done."""

    pid: int
    database_url: str
    submit: Callable[[int], float]
    """Submits so many runs, and gives the CPU seconds of ours that it took."""
    open_runs: str
    """SQL that counts the runs that have not ended."""


def run(options: Options) -> Report:
    has_peer = options.agno_python.exists()
    with stage() as on_stage, on_stage.worker(options) as pid:
        sides = [
            Side(
                pid,
                on_stage.servers.database_url,
                _submit_ours,
                "SELECT count(*) FROM agno.run WHERE ended_at IS NULL",
            )
        ]
        if has_peer:
            with _agno(on_stage, options) as theirs:
                found = _measure(on_stage, options, [*sides, theirs])
        else:
            found = _measure(on_stage, options, sides)
        setting = on_stage.setting(options)
    return Report(
        name="runs",
        title="runs of one turn, in one worker process",
        setting=setting,
        rows=_rows(*found),
        notes=(
            "CPU: of the worker and Postgres, and of `delay` in our caller; agno's server takes its submits over HTTP, whose caller is not counted.",
            *options.lacks_agno(),
        ),
    )


def _rows(ours: Found, *agno: Found) -> tuple[Row, ...]:
    return (
        rates(
            "runs per second", ours.costs, [each for of in agno for each in of.costs], AGNO,
            quoted="13-20/s, 48-60 ms CPU", readme=True,
        ),
        Row(
            measure="SQL statements, per run", unit="", ours=(ours.statements,), peer=tuple(of.statements for of in agno),
            against=AGNO, quoted="60",
        ),
        Row(
            measure="bytes stored in Postgres, per run", unit="B", ours=(ours.stored_bytes,),
            peer=tuple(of.stored_bytes for of in agno), against=AGNO,
        ),
    )  # fmt: skip


def _measure(on_stage: Stage, options: Options, sides: list[Side]) -> list[Found]:
    count, rounds = options.pick(100, 10), options.pick(5, 1)
    looks = [partial(_round, on_stage, side, count) for side in sides]
    alternate(options.pick(1, 0), *looks)  # warms up
    sizes = [_size(side) for side in sides]
    costs = alternate(rounds, *looks)
    return [
        Found(of, (_size(side) - before) / (count * rounds), _statements(on_stage, side, count) / count)
        for of, side, before in zip(costs, sides, sizes, strict=True)
    ]


def _round(on_stage: Stage, side: Side, count: int) -> Cost:
    pids = side.pid, on_stage.servers.postgres.pid
    before, began = cpu_s(*pids), time.perf_counter()
    own_s = side.submit(count)
    _wait(side)
    return Cost(count / (time.perf_counter() - began), (cpu_s(*pids) - before + own_s) / count)


def _wait(side: Side) -> None:
    deadline = time.monotonic() + WAIT_S
    with psycopg.connect(side.database_url, autocommit=True) as connection:
        while (left := connection.execute(f"{_POLL} {side.open_runs}").fetchone()) != (0,):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} runs have not ended within {WAIT_S:g} s")
            time.sleep(0.02)


def _statements(on_stage: Stage, side: Side, count: int) -> int:
    """How many statements Postgres is asked while so many runs are done, by its log; BEGIN and COMMIT count too."""
    log = on_stage.servers.postgres.log
    with psycopg.connect(side.database_url, autocommit=True) as connection:
        before = log.stat().st_size
        for value in ("all", "none"):
            connection.execute(f"ALTER SYSTEM SET log_statement = '{value}'")
            connection.execute("SELECT pg_reload_conf()")
            time.sleep(0.5)  # each session hears of it with its next statement
            if value == "all":
                side.submit(count)
                _wait(side)
    written = log.read_bytes()[before:].decode(errors="replace")
    said = re.findall(r"LOG:  (?:statement|execute [^:]+): (.*)", written)
    return sum(_POLL not in statement for statement in said)


def _size(side: Side) -> int:
    with psycopg.connect(side.database_url, autocommit=True) as connection:
        connection.execute("VACUUM")
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def _submit_ours(count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        simple.delay("Say hello.")
    return time.process_time() - began


@contextmanager
def _agno(on_stage: Stage, options: Options) -> Iterator[Side]:
    """An AgentOS with its queue on the same Postgres, in a database of its own."""
    with psycopg.connect(on_stage.servers.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE agno_peer")
    url, port = on_stage.servers.postgres.url_of("agno_peer"), _free_port()
    script = ROOT / "benchmarks" / "peers" / "agno_queue.py"
    command = [str(options.agno_python.absolute()), str(script), url, str(port)]
    with on_stage.process(command, "agno_queue") as pid, ThreadPoolExecutor(SUBMITTERS) as threads:
        address = f"http://127.0.0.1:{port}"
        _wait_until_served(address)

        def submit(count: int) -> float:
            list(threads.map(_post, [f"{address}/agents/echo/runs"] * count))
            return 0.0

        side = Side(
            pid,
            url,
            submit,
            "SELECT count(*) FROM ai.agno_jobs WHERE status NOT IN ('completed', 'failed', 'cancelled')",
        )
        side.submit(2)
        _wait(side)
        yield side


def _post(url: str) -> None:
    form = urlencode({"message": "Say hello.", "background": "true", "stream": "false"}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=form), timeout=60) as answer:
        answer.read()


def _wait_until_served(address: str) -> None:
    deadline = time.monotonic() + WARM_S
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
