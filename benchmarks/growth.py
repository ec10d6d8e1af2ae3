"""The cost of a run as the work grows: more tools in a turn, more turns, more workers, and more queued runs."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from functools import partial
from statistics import median

import psycopg

from agno_workers import Agent
from benchmarks import plots
from benchmarks.plots import Growth, Line
from benchmarks.processes import cpu_s
from benchmarks.stage import ROOT, Options, Stage, stage
from benchmarks.timing import cost, latencies_s
from benchmarks.workload import fan_out, later, long, long_in_window, simple

IMAGES = ROOT / "docs" / "img"
_RUN_S = 600.0
"""The longest that a run of a thousand turns may take."""
_COLUMNS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
)
_COPIES = """CREATE TEMP TABLE copies AS
SELECT uuidv7() AS new_run, uuidv7() AS new_step, clock_timestamp() + interval '1 hour' AS soon FROM generate_series(1, %s)"""
_NEW = {
    "run": {"id": "new_run"},
    "step": {"id": "new_step", "run_id": "new_run", "sent_at": "soon", "resend_at": "soon"},
    "message": {"run_id": "new_run"},
}
"""The columns in which a copy of a queued run differs. It is to stay one that was just sent, however long the looks take."""


def run(options: Options) -> Growth:
    plots.load()  # a missing library is found now, and not after a quarter of an hour
    lines: list[Line] = []
    with stage() as on_stage:
        os.environ |= {
            "BENCH_MARKS": str(on_stage.folder / "marks"),
            "BENCH_POSTGRES_PID": str(on_stage.servers.postgres.pid),
        }
        images = on_stage.folder if options.quick else IMAGES
        with on_stage.worker(options) as pid:
            for measure in (_by_tools, _by_turns, _by_workers, _by_backlog):
                lines += measure(on_stage, options, pid)
                plots.draw(lines, images)
        setting = on_stage.setting(options)
    return Growth(
        name="growth",
        title="what a run costs as the work grows",
        setting=setting,
        rows=tuple(row for line in lines for row in line.rows()),
        lines=tuple(lines),
        notes=(
            "a power of 0: the cost does not grow; of 1: it doubles with the work.",
            "tools: one run at a time. Workers: runs of 6 turns and 5 x 3 tools, 100 at once, on all cores of the machine.",
            "turns: each calls a tool that gives 2 kB; the cost at n is the mean of the turns from n/2 to n, with the compactions among them.",
            "backlog: runs that were just sent and wait in a queue without a worker; autovacuum is off, vacuumed before each look.",
        ),
    )


def _by_tools(on_stage: Stage, options: Options, pid: int) -> list[Line]:
    repeats = {1: 2, 5: 1} if options.quick else {1: 50, 10: 30, 100: 5, 1000: 1}
    pids = pid, on_stage.servers.postgres.pid, on_stage.servers.valkey.pid
    walls: dict[int, list[float]] = {size: [] for size in repeats}
    cpus: dict[int, list[float]] = {size: [] for size in repeats}
    for _ in range(options.pick(4, 1)):
        for size, times in repeats.items():
            before = cpu_s(*pids)
            took = latencies_s(partial(fan_out.delay, str(size)), times)
            walls[size].append(1000 * median(took) / size)
            cpus[size].append(1000 * (cpu_s(*pids) - before) / times / size)
    return [
        _line("growth-tools", "time of a tool, with its turns", "tools in a group", "ms", walls),
        _line("growth-tools", "CPU of a tool, with its turns", "tools in a group", "ms", cpus),
    ]


def _by_turns(on_stage: Stage, options: Options, _: int) -> list[Line]:
    whole = _turns_of(long, on_stage, options, *(((4, 8), 10) if options.quick else ((10, 100, 300), 1000)))
    compacted = _turns_of(
        long_in_window, on_stage, options, *(((4,), 20) if options.quick else ((10, 100), 300))
    )
    return [
        _line("growth-turns", "CPU of turn n and its tool", "turns of one run", "ms", whole),
        _line("growth-turns", "the same, in a window of 8,000 tokens", "turns of one run", "ms", compacted),
    ]


def _turns_of(
    agent: Agent, on_stage: Stage, options: Options, shorter: tuple[int, ...], longest: int
) -> dict[int, list[float]]:
    sizes = (*shorter, longest)
    noted = on_stage.folder / "marks"
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for some in [*[shorter] * options.pick(3, 1), sizes]:
        noted.write_text("")
        marks = sorted({mark for size in some for mark in (size // 2, size)})
        agent.delay(",".join(map(str, marks))).get(timeout=_RUN_S)
        used = {int(turn): float(cpu) for turn, cpu in map(str.split, noted.read_text().splitlines())}
        for size in some:
            found[size].append(1000 * (used[size] - used[size // 2]) / (size - size // 2))
    return found


def _by_workers(on_stage: Stage, options: Options, pid: int) -> list[Line]:
    count = options.pick(100, 5)
    rates: dict[int, list[float]] = {}
    cpus: dict[int, list[float]] = {}
    pids = [pid]
    with ExitStack() as more:
        for size in (1, 2) if options.quick else (1, 2, 4, 8):
            while len(pids) < size:
                pids.append(more.enter_context(on_stage.worker(options, name=f"more{len(pids)}")))
            watched = *pids, on_stage.servers.postgres.pid, on_stage.servers.valkey.pid
            costs = [cost(lambda: fan_out.delay("5x3"), count, *watched) for _ in range(options.pick(4, 1))]
            rates[size] = [each.per_s for each in costs]
            cpus[size] = [1000 * each.cpu_s for each in costs]
    return [
        _line("growth-workers", "runs of 21 steps", "worker processes", "runs per second", rates),
        _line("growth-workers", "CPU of a run", "worker processes", "ms", cpus),
    ]


def _by_backlog(on_stage: Stage, options: Options, pid: int) -> list[Line]:
    pids = pid, on_stage.servers.postgres.pid
    rest: dict[int, list[float]] = {}
    runs: dict[int, list[float]] = {}
    with psycopg.connect(on_stage.servers.database_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum = off")  # or it would come in the middle of a look
        connection.execute("SELECT pg_reload_conf()")
        one, queued = later.delay("Say hello.").id, 1
        for size in (100, 1000) if options.quick else (1_000, 100_000, 1_000_000):
            _copy(connection, one, size - queued)
            queued = size
            rest[size] = [1000 * _idle_s(options.pick(8, 1), *pids) for _ in range(options.pick(2, 1))]
            costs = [cost(_simple, options.pick(200, 10), *pids) for _ in range(options.pick(4, 1))]
            # Without the keeper's part, which the other line has. A noisy machine may leave nothing, which has no logarithm.
            runs[size] = [max(1000 * each.cpu_s - median(rest[size]) / each.per_s, 0.01) for each in costs]
    return [
        _line("growth-backlog", "CPU of one more run of one turn", "queued runs", "ms", runs),
        _line("growth-backlog", "CPU of a second without work (keeper)", "queued runs", "ms", rest, warm=0),
    ]


def _line(
    image: str, label: str, by: str, unit: str, found: dict[int, list[float]], warm: int = 1
) -> Line:  # fmt: skip
    """A line without the first rounds of each point, which only warm up; of a single round, that one."""
    y = tuple(tuple(values[warm:] or values) for values in found.values())
    return Line(image=image, label=label, by=by, unit=unit, x=tuple(found), y=y)


def _copy(connection: psycopg.Connection, run_id: str, count: int) -> None:
    """Store so many copies of a queued run, with all that belongs to it, in a few statements."""
    connection.execute("SET session_replication_role = replica")  # what the copies refer to is there
    connection.execute("DROP TABLE IF EXISTS copies")
    connection.execute(_COPIES, [count])
    for table, new in _NEW.items():
        columns = [name for (name,) in connection.execute(_COLUMNS, [f"agno.{table}"])]
        values = ", ".join(new.get(name, f"old.{name}") for name in columns)
        key = "id" if table == "run" else "run_id"
        insert = f"INSERT INTO agno.{table} ({', '.join(columns)}) SELECT {values} FROM agno.{table} old, copies WHERE old.{key} = %s"
        connection.execute(insert.encode(), [run_id])
    connection.execute("VACUUM ANALYZE agno.run, agno.step, agno.message")
    connection.execute("CHECKPOINT")


def _simple() -> object:
    return simple.delay("Say hello.")


def _idle_s(seconds: float, *pids: int) -> float:
    """CPU seconds of a second in which there is nothing to do."""
    before = cpu_s(*pids)
    time.sleep(seconds)
    return (cpu_s(*pids) - before) / seconds
