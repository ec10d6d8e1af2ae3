"""The cost of a history as its session grows: what the first turn of a run reads, decides, stores and composes."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import count
from statistics import median
from time import perf_counter

from agno_workers import wiring
from agno_workers.core.agent import History
from agno_workers.core.messages import user
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import Pool
from agno_workers.sessions.history import HistoryStore
from benchmarks import plots
from benchmarks.growth import IMAGES
from benchmarks.plots import Growth, Line
from benchmarks.processes import cpu_s
from benchmarks.report import Row
from benchmarks.stage import Options, stage

AIM = 1.2
_MADE = """
WITH runs AS (
    INSERT INTO agno.run (id, agent, status, queue, session_id, session_position, user_id, created_at, ended_at)
    SELECT uuidv7(), 'clerk', CASE WHEN place > %(size)s THEN 'queued' ELSE 'done' END, 'agents', %(session)s,
           least(place, %(size)s + 1), 'ann', clock_timestamp(), CASE WHEN place <= %(size)s THEN clock_timestamp() END
    FROM generate_series(1, %(size)s + %(turns)s) place RETURNING id, status)
INSERT INTO agno.message (run_id, seq, content)
SELECT id, seq, jsonb_build_object('role', role, 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', repeat(md5(id::text) || ' ', times))))
FROM runs, (VALUES (0, 'user', 8), (1, 'assistant', 88)) AS parts (seq, role, times) WHERE runs.status = 'done'"""
"""Exchanges of 800 tokens, so that ten of them fill the default budget, and runs whose first turn comes after them."""


def run(options: Options) -> Growth:
    plots.load()
    sizes = (10, 100) if options.quick else (10, 100, 1_000, 10_000)
    turns, rounds = options.pick(50, 3), options.pick(10, 2)
    walls: dict[int, list[float]] = {size: [] for size in sizes}
    cpus: dict[int, list[float]] = {size: [] for size in sizes}
    with stage() as on_stage:
        pool = wiring.services().database.pool
        for size in sizes:
            pool.run(_MADE, {"size": size, "session": f"of {size}", "turns": turns * (rounds + 1)})
        pool.run("VACUUM ANALYZE agno.run, agno.message")
        runs = {size: count() for size in sizes}
        for number in range(rounds + 1):
            for size in sizes if number % 2 else reversed(sizes):
                wall, cpu = _prepared(
                    pool, size, [next(runs[size]) for _ in range(turns)], on_stage.servers.postgres.pid
                )
                if number:  # the first round warms up
                    walls[size].append(1000 * wall)
                    cpus[size].append(1000 * cpu)
        setting = on_stage.setting()
        lines = (
            _line("time of the history of a first turn", walls),
            _line("CPU of the same, with Postgres", cpus),
        )
        plots.draw(lines, on_stage.folder if options.quick else IMAGES)
    first, last = walls[sizes[0]], walls[sizes[-1]]
    ratio = Row(
        measure=f"the history of a first turn, after {sizes[-1]:,} exchanges", unit="s",
        ours=tuple(each / 1000 for each in last), peer=tuple(each / 1000 for each in first),
        against=f"after {sizes[0]:,} exchanges", aim=f"<={AIM}x",
    )  # fmt: skip
    return Growth(
        name="sessions",
        title="what a history costs as its session grows",
        setting=f"{setting}; one process, one at a time, {turns} runs a round",
        rows=(ratio, *(row for line in lines for row in line.rows())),
        lines=lines,
        notes=(
            "exchanges of 800 tokens, so ten of them fill the budget of History(), and all sessions send as much.",
            "a history: one statement that reads the session and stores the recipe, and the text that is composed. Later turns have it in memory.",
        ),
    )


def _prepared(pool: Pool, size: int, places: list[int], postgres: int) -> tuple[float, float]:
    """Return the median wall time and the mean CPU time of the histories of so many runs."""
    store, options, took = HistoryStore(pool), History(), []
    rows = pool.run(
        "SELECT id::text FROM agno.run WHERE session_id = %(session)s AND status = 'queued' ORDER BY id OFFSET %(first)s LIMIT %(many)s",
        {"session": f"of {size}", "first": places[0], "many": len(places)},
    )
    claims = [_claim(row["id"], f"of {size}") for row in rows]
    before = cpu_s(postgres, os.getpid())
    for claim in claims:
        began = perf_counter()
        history = store.at_turn(claim, options, lambda: ())
        took.append(perf_counter() - began)
        assert len(history) >= 18, f"the history of a session of {size} has {len(history)} messages"
    return median(took), (cpu_s(postgres, os.getpid()) - before) / len(claims)


def _claim(run_id: str, session_id: str) -> ClaimedStep:
    return ClaimedStep(
        "", run_id, 0, StepKind.TURN, "turn:1", 1, 1, 0, "clerk", datetime.now(UTC), session_id=session_id, user_id="ann",
        transcript=(user("And now?"),),
    )  # fmt: skip


def _line(label: str, found: dict[int, list[float]]) -> Line:
    y = tuple(map(tuple, found.values()))
    return Line(image="sessions", label=label, by="exchanges in the session", unit="ms", x=tuple(found), y=y)
