"""Workflows of 20 empty steps, one after another and side by side, beside DBOS and Celery's chain and group; and what the n-th wake costs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.peers import stock
from benchmarks.programs import marked, sequential, side_by_side
from benchmarks.report import Report, Row, rates
from benchmarks.stage import ROOT, WARM_S, Options, Stage, stage
from benchmarks.timing import WAIT_S, Cost, alternate, cost, latencies_s

STEPS = 20
_LACKS_DBOS = (
    "DBOS is not measured: --agno-python names no Python that has it. "
    "./run uv venv benchmarks/.venv && ./run uv pip install --python benchmarks/.venv 'dbos==3.4.0'"
)


class Found(msgspec.Struct, frozen=True):
    """The measurements of one round of one side."""

    alone_s: tuple[float, ...]
    per_s: float
    cpu_s: float


def run(options: Options) -> Report:
    told: list[str] = []
    has_dbos = _has_dbos(options.agno_python)
    rows: list[Row] = []
    with stage() as on_stage:
        os.environ |= {
            "BENCH_MARKS": str(on_stage.folder / "marks"),
            "BENCH_POSTGRES_PID": str(on_stage.servers.postgres.pid),
        }
        with on_stage.stock_worker(options) as stock_pid, on_stage.worker(options) as pid:
            kinds = (
                ("one after another", "sequential", lambda: sequential.delay(str(STEPS)), lambda: stock.chained(STEPS), "Celery chain"),
                ("side by side", "parallel", lambda: side_by_side.delay(str(STEPS)), lambda: stock.raw(STEPS), "Celery group"),
            )  # fmt: skip
            for what, kind, ours, theirs, against in kinds:
                watched = pid, on_stage.servers.postgres.pid, on_stage.servers.valkey.pid
                sides = [
                    _side(options, ours, *watched),
                    _side(options, theirs, stock_pid, on_stage.servers.valkey.pid),
                ]
                if has_dbos:
                    sides.append(_dbos(on_stage, options, kind))
                alternate(options.pick(1, 0), *sides, told=told)  # warms up
                mine, *peers = alternate(options.pick(5, 1), *sides, told=told)
                for peer, name in zip(peers, (against, "DBOS, in one process"), strict=False):
                    rows += _rows(f"{STEPS} empty steps, {what}", mine, peer, name)
            rows += _wakes(on_stage, options)
            setting = on_stage.setting(options)
    return Report(
        name="workflow",
        title="written workflows of empty steps",
        setting=f"{setting}; stock Celery's: -c {options.peer_concurrency}, Redis as result backend; {_at_once(options)} at once",
        rows=tuple(rows),
        notes=(
            "CPU: of the worker, Postgres and Valkey; of DBOS's process, which also submits, and Postgres.",
            "a chain and a group are kept in Redis; ours and DBOS's steps are on the disk of Postgres.",
            "a wake: one more step of a workflow, the mean of the wakes from n/2 to n.",
            *told,
            *(() if has_dbos else (_LACKS_DBOS,)),
        ),
    )


def _rows(measure: str, ours: tuple[Found, ...], peer: tuple[Found, ...], name: str) -> list[Row]:
    def alone(side: tuple[Found, ...]) -> tuple[float, ...]:
        return tuple(median(each.alone_s) for each in side)

    def at_once(side: tuple[Found, ...]) -> list[Cost]:
        return [Cost(each.per_s, each.cpu_s) for each in side]

    return [
        Row(
            measure=f"{measure}, alone: p50",
            unit="s",
            ours=alone(ours),
            peer=alone(peer),
            against=name,
            readme="one after another" in measure and "DBOS" in name,
        ),
        rates(measure, at_once(ours), at_once(peer), name),
    ]


def _alone(options: Options) -> int:
    return options.pick(10, 2)


def _at_once(options: Options) -> int:
    return options.pick(50, 5)


def _side(options: Options, submit: Callable[[], object], *pids: int) -> Callable[[], Found]:
    def side() -> Found:
        alone = latencies_s(submit, _alone(options))
        return Found(tuple(alone), *cost(submit, _at_once(options), *pids))

    return side


def _dbos(on_stage: Stage, options: Options, kind: str) -> Callable[[], Found]:
    """Return a side that runs in a process and a database of its own."""
    url = on_stage.servers.postgres.url_of("dbos_peer")
    program = ROOT / "benchmarks" / "peers" / "dbos_steps.py"
    numbers = STEPS, _alone(options), _at_once(options), on_stage.servers.postgres.pid

    def side() -> Found:
        done = subprocess.run(
            [options.agno_python, program, url, kind, *map(str, numbers)],
            env=dict(os.environ) | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=WARM_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the workflows of DBOS ended with {done.returncode}: {done.stderr[-2000:]}")
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Found)

    return side


def _has_dbos(python: Path) -> bool:
    """Tell whether an environment has DBOS."""
    if not python.exists():
        return False
    asked = subprocess.run([python, "-c", "import dbos"], capture_output=True, timeout=WARM_S, check=False)
    return asked.returncode == 0


def _wakes(on_stage: Stage, options: Options) -> list[Row]:
    """Measure the CPU of a wake at several places of one workflow."""
    sizes = (4, 8) if options.quick else (10, 100, 300)
    marks = sorted({place for size in sizes for place in (size // 2, size)})
    noted = on_stage.folder / "marks"
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(options.pick(5, 1)):
        noted.write_text("")
        marked.delay(",".join(map(str, marks))).get(timeout=WAIT_S)
        used = {int(step): float(cpu) for step, cpu in map(str.split, noted.read_text().splitlines())}
        for size in sizes:
            found[size].append(max((used[size] - used[size // 2]) / (size - size // 2), 1e-6))
    first = sizes[0]
    return [
        Row(
            measure=f"CPU of a wake of a workflow, n = {size}", unit="s", ours=tuple(found[size]), peer=() if size == first else tuple(found[first]),
            against="" if size == first else f"n = {first}", aim="<=1.3x" if size == 300 else "",
        )
        for size in sizes
    ]  # fmt: skip
