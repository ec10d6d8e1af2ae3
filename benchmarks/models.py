"""500 model calls of a second each, then 2,000 of five, in flight in one worker process; beside the least that Python can do:
bare aiohttp.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import msgspec

from agno_workers import wiring
from benchmarks.processes import cpu_s, forget_peak, peak_rss_bytes
from benchmarks.report import Report, Row
from benchmarks.stage import ROOT, Options, Stage, stage
from benchmarks.timing import WAIT_S, alternate
from benchmarks.workload import asker
from tests.fakes import provider

FLOOR = "bare aiohttp client, one process"


class Used(msgspec.Struct, frozen=True):
    """The time, CPU and memory until all answers were there."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: float
    in_flight: float = 0


def run(options: Options) -> Report:
    calls, many, rounds = options.pick(500, 50), options.pick(2000, 100), options.pick(3, 1)
    with stage() as on_stage, provider.running("--no-record") as fake:
        ours, floor = _alternated(on_stage, options, fake, calls, 1.0, rounds)
        ours_of_many, floor_of_many = _alternated(on_stage, options, fake, many, 5.0, rounds)
        setting = on_stage.setting(replace(options, pool="threads", concurrency=calls))
    return Report(
        name="models",
        title=f"{calls} model calls of 1 s each, in flight in one worker process",
        setting=setting,
        rows=(
            Row(
                measure="wall time", unit="s", ours=tuple(u.wall_s for u in ours), peer=tuple(u.wall_s for u in floor),
                against=FLOOR, readme=True,
            ),
            Row(
                measure="CPU", unit="s", ours=tuple(u.cpu_s for u in ours), peer=tuple(u.cpu_s for u in floor), against=FLOOR,
            ),
            Row(
                measure="peak memory (RSS)", unit="B", ours=tuple(u.peak_rss_bytes for u in ours),
                peer=tuple(u.peak_rss_bytes for u in floor), against=FLOOR,
            ),
            Row(measure="calls in flight at once, at most", unit="", ours=tuple(u.in_flight for u in ours)),
            Row(
                measure=f"wall time of {many:,} calls of 5 s", unit="s", ours=tuple(u.wall_s for u in ours_of_many),
                peer=tuple(u.wall_s for u in floor_of_many), against=FLOOR, aim="<= 6.5 s",
            ),
            Row(
                measure=f"peak memory (RSS) of {many:,} calls", unit="B", ours=tuple(u.peak_rss_bytes for u in ours_of_many),
                peer=tuple(u.peak_rss_bytes for u in floor_of_many), against=FLOOR, aim="<= 150 MB",
            ),
        ),
        notes=(
            "ours from the moment that the worker may take the runs, which wait in its queue, to the last end in Postgres",
        ),
    )  # fmt: skip


def _alternated(
    on_stage: Stage, options: Options, fake: provider.Provider, calls: int, delay_s: float, rounds: int
) -> list[tuple[Used, ...]]:
    """Let a worker of its own, and bare aiohttp, make so many calls at once."""
    wide = replace(options, pool="threads", concurrency=calls)
    with on_stage.worker(wide, **fake.env()) as pid:
        _answered(pid, calls, delay_s)  # the first round connects
        return alternate(
            rounds,
            lambda: _answered(pid, calls, delay_s),
            lambda: _floor(fake.openai_url, calls, delay_s),
        )


def _answered(pid: int, calls: int, delay_s: float) -> Used:
    """Let the runs wait in the queue, open it, and look what the worker used until the last one was done."""
    app, services = wiring.celery_app(), wiring.services()
    app.control.cancel_consumer("agents", reply=True, timeout=5)
    results = [asker.delay(f"How are you?\ndelay={delay_s:g}") for _ in range(calls)]
    ids = [result.id for result in results]
    forget_peak(pid)
    cpu_before = cpu_s(pid)
    began = time.time()
    app.control.add_consumer("agents")
    deadline = began + WAIT_S
    while (ended := services.database.pool.run(_ENDED, {"ids": ids})[0])["open"]:
        if time.time() > deadline:
            raise TimeoutError(f"{ended['open']} of {calls} runs have not ended within {WAIT_S:g} s")
        time.sleep(0.1)
    (peak,) = services.database.pool.run(_IN_FLIGHT, {"ids": ids})
    return Used(
        wall_s=ended["last"].timestamp() - began,
        cpu_s=cpu_s(pid) - cpu_before,
        peak_rss_bytes=peak_rss_bytes(pid),
        in_flight=peak["in_flight"],
    )


def _floor(url: str, calls: int, delay_s: float) -> Used:
    command = [sys.executable, "-m", "benchmarks.peers.raw_calls", url, str(calls), str(delay_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return msgspec.json.decode(done.stdout, type=Used)


_ENDED = """
SELECT count(*) FILTER (WHERE ended_at IS NULL) AS open, max(ended_at) AS last,
       count(*) FILTER (WHERE status = 'failed') AS failed
FROM agno.run WHERE id = ANY(%(ids)s::uuid[])
"""
_IN_FLIGHT = """
SELECT max(running)::float AS in_flight FROM (
    SELECT sum(change) OVER (ORDER BY at) AS running FROM (
        SELECT started_at AS at, 1 AS change FROM agno.step WHERE run_id = ANY(%(ids)s::uuid[])
        UNION ALL SELECT ended_at, -1 FROM agno.step WHERE run_id = ANY(%(ids)s::uuid[])
    )
)
"""
