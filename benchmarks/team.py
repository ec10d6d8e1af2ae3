"""A team whose members answer after half a second: what its leader and its record cost, beside agno's Team in one process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import msgspec

from agno_workers import Team
from benchmarks.processes import cpu_s, forget_peak, peak_rss_bytes
from benchmarks.programs import fifty, ten
from benchmarks.report import Report, Row, Unit
from benchmarks.stage import ROOT, Options, Stage, stage
from benchmarks.timing import WAIT_S, alternate

AGNO = "agno's Team in one process, nothing stored"


class Used(msgspec.Struct, frozen=True):
    """The cost of one run of a team."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: float


def run(options: Options) -> Report:
    roomy = replace(options, concurrency=max(60, options.concurrency))
    has_peer = options.agno_python.exists()
    with stage() as on_stage, on_stage.worker(roomy) as pid:
        sides: list[Callable[[], Used]] = [lambda: _ours(on_stage, pid, ten)]
        if has_peer:
            sides.append(lambda: _theirs(options, 10, 0.5))
        alternate(1, sides[0])  # warms up
        ours, *agno = alternate(options.pick(7, 1), *sides)
        (large,) = alternate(options.pick(5, 1), lambda: _ours(on_stage, pid, fifty))
        setting = on_stage.setting(roomy)
    measures: tuple[tuple[str, Unit, str, str], ...] = (
        ("wall time", "s", "wall_s", "<=600 ms"),
        ("CPU", "s", "cpu_s", ""),
        ("peak memory (RSS)", "B", "peak_rss_bytes", ""),
    )
    rows = [
        Row(
            measure=f"{what} of a team of 10 members of 500 ms", unit=unit, ours=_of(ours, field), peer=_of(agno[0], field) if agno else (),
            against=AGNO if agno else "", aim=aim, readme=field == "wall_s",
        )
        for what, unit, field, aim in measures
    ]  # fmt: skip
    whole = "wall time of a team of 50 members of 1 s"
    rows.append(Row(measure=whole, unit="s", ours=_of(large, "wall_s"), aim="<=1.2 s"))
    return Report(
        name="team",
        title="a leader that delegates to all members in one reply",
        setting=setting,
        rows=tuple(rows),
        notes=(
            "CPU and memory: of our worker, with the CPU of Postgres and Valkey; of agno's process, which also submits.",
            *options.lacks_agno(),
        ),
    )


def _of(side: tuple[Used, ...], field: str) -> tuple[float, ...]:
    return tuple(getattr(each, field) for each in side)


def _ours(on_stage: Stage, pid: int, team: Team) -> Used:
    watched = pid, on_stage.servers.postgres.pid, on_stage.servers.valkey.pid
    forget_peak(pid)
    before, began = cpu_s(*watched), perf_counter()
    content = team.delay("go").get(timeout=WAIT_S)
    took_s = perf_counter() - began
    if content != str(len(team.members)):
        raise RuntimeError(f"the team answered {content!r}")
    return Used(took_s, cpu_s(*watched) - before, peak_rss_bytes(pid))


def _theirs(options: Options, members: int, seconds: float) -> Used:
    program = ROOT / "benchmarks" / "peers" / "agno_team.py"
    done = subprocess.run(
        [options.agno_python, program, str(members), str(seconds)],
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Used)
