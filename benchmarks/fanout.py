"""Agent runs of many steps beside three peers on stock Celery: raw tasks, a chord, and an agent loop made of chords."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median

import msgspec
import psycopg

from agno_workers.database import migrate
from benchmarks.peers import stock
from benchmarks.report import Report, Row, rates
from benchmarks.stage import ROOT, WARM_S, Options, Stage, Workers, stage
from benchmarks.timing import Cost, alternate, cost, latencies_s
from benchmarks.workload import fan_out, simple

RAW, CHORD, LOOP = "20 stock tasks, nothing after them", "stock chord of 19 + body", "stock loop of 5 chords"
TEN = "stock chord of 10 + body"
SIDES = {"one process": ("one",), "two processes": ("one", "two")}
_PREFORK = 4
"""Processes of the prefork worker, two for each core: a step waits for Postgres half of its time."""
_FLUSH_S = 11.0
"""An idle session of Postgres hands in its counters within 10 s."""
_COUNTERS = """SELECT
    (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())::float8,
    (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal')::float8"""
_OPEN = "SELECT count(*) FROM agno.run WHERE ended_at IS NULL"


def run(options: Options) -> Report:
    at_once, one_by_one, rounds = options.pick(100, 10), options.pick(20, 3), options.pick(5, 1)
    told: list[str] = []
    with (
        stage() as on_stage,
        on_stage.stock_worker(options) as stock_pid,
        _workers(on_stage, options) as workers,
    ):
        servers = on_stage.servers.postgres.pid, on_stage.servers.valkey.pid

        def ours(what: str, *names: str) -> Callable[[], Cost]:
            def side() -> Cost:
                pids = workers.only(*names)
                return cost(lambda: fan_out.delay(what), at_once, *servers, *pids)

            return side

        def theirs(submit: Callable[[], object]) -> Callable[[], Cost]:
            return lambda: cost(submit, at_once, stock_pid, servers[1])

        runs = (
            ours("5x3", "one"), theirs(lambda: stock.raw(20)), theirs(lambda: stock.fan_out(19)), theirs(lambda: stock.loop(5, 3)),
            ours("5x3", "one", "two"), ours("5x3", "prefork"), lambda: _engine(on_stage, options, at_once),
        )  # fmt: skip
        alternate(options.pick(1, 0), *runs, told=told)  # warms up
        one, raw, chord, loop, two, prefork, engine = alternate(rounds, *runs, told=told)
        workers.only("one")
        tens, ten_chords = alternate(rounds, ours("10", "one"), theirs(lambda: stock.fan_out(10)), told=told)
        waits, chord_waits, simple_waits, task_waits = alternate(
            rounds,
            lambda: median(latencies_s(lambda: fan_out.delay("10"), one_by_one)),
            lambda: median(latencies_s(lambda: stock.fan_out(10), one_by_one)),
            lambda: median(latencies_s(lambda: simple.delay("Say hello."), 2 * one_by_one)),
            lambda: median(latencies_s(stock.send_noop, 2 * one_by_one)),
            told=told,
        )
        counted = _counters(on_stage, workers, options.pick(200, 5), 1 if options.quick else _FLUSH_S)
        setting = on_stage.setting(options)
    what = "runs of 6 turns and 5 x 3 tools"
    return Report(
        name="fanout",
        title="agent runs whose model and tools do no work",
        setting=f"{setting}; stock Celery's: -c {options.peer_concurrency}; {at_once} at once",
        rows=(
            rates(what, one, raw, RAW, ">=1.9x, <=34 ms CPU", readme=True),
            rates(what, one, chord, CHORD, ">=2x"),
            rates(what, one, loop, LOOP, ">=3.1x", readme=True),
            rates(f"{what}, two worker processes", two, raw, RAW, ">=2.4x"),
            rates(f"{what}, two worker processes", two, loop, LOOP, ">=4x"),
            rates(f"{what}, -P prefork -c {_PREFORK}", prefork, one, "ours with threads", ">=0.7x"),
            rates("engine and SQL without a broker", engine, one, "the whole of ours", ">=80/s, <=18 ms CPU"),
            *(
                Row(measure=f"{name} of Postgres per run, {side}", unit="", ours=(value,), aim="<=12" if name == "commits" else "")
                for side, values in counted.items()
                for name, value in zip(("commits", "fsyncs"), values, strict=True)
            ),
            rates("10 tools and the turn after them", tens, ten_chords, TEN, ">=2.3x"),
            Row(measure="10 tools and the turn after them, alone: p50", unit="s", ours=waits, peer=chord_waits, against=TEN, aim="<=0.75x", readme=True),
            Row(measure="a run of one turn, alone: p50", unit="s", ours=simple_waits, peer=task_waits, against="a stock task and its result", aim="<=4.5 ms", readme=True),
        ),
        notes=("CPU: of the worker, Postgres and Valkey; not of the process that submits and waits.", *told),
    )  # fmt: skip


@contextmanager
def _workers(on_stage: Stage, options: Options) -> Iterator[Workers]:
    prefork = replace(options, pool="prefork", concurrency=_PREFORK)
    with ExitStack() as stack:
        yield Workers(
            {
                name: stack.enter_context(on_stage.worker(each, name=name))
                for name, each in {"one": options, "two": options, "prefork": prefork}.items()
            }
        )


def _engine(on_stage: Stage, options: Options, count: int) -> Cost:
    """The floor, in a process and a database of its own."""
    url = on_stage.servers.postgres.url_of("engine")
    with psycopg.connect(on_stage.servers.database_url, autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'engine'").rowcount:
            connection.execute("CREATE DATABASE engine")
            migrate.upgrade(url)
    numbers = options.concurrency, count, on_stage.servers.postgres.pid
    command = [sys.executable, "-m", "benchmarks.peers.engine", *map(str, numbers)]
    environment = {**os.environ, "AGNO_DATABASE_URL": url, "AGNO_BROKER_URL": on_stage.broker_url(2)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=WARM_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the engine without a broker ended with {done.returncode}: {done.stderr[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Cost)


def _counters(on_stage: Stage, workers: Workers, count: int, flush_s: float) -> dict[str, tuple[float, ...]]:
    """Commits and fsyncs of Postgres for one run of each side, without what rests and looks cost."""
    found: dict[str, tuple[float, ...]] = {}
    with psycopg.connect(on_stage.servers.database_url, autocommit=True) as watcher:

        def look() -> tuple[float, ...]:
            time.sleep(flush_s)
            return watcher.execute(_COUNTERS).fetchone() or ()

        first, before = look(), look()
        at_rest = [now - then for now, then in zip(before, first, strict=True)]
        for side, names in SIDES.items():
            workers.only(*names)
            for _ in range(count):
                fan_out.delay("5x3")
            looks = 1
            while watcher.execute(_OPEN).fetchone() != (0,):
                time.sleep(0.1)
                looks += 1
            after = look()
            commits, fsyncs = (
                (now - then - rest) / count for now, then, rest in zip(after, before, at_rest, strict=True)
            )
            found[side], before = (commits - looks / count, fsyncs), after
    return found
