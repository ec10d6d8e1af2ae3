"""Runs of one session at once, each of which changes the session's state: how many of the changes are there afterwards, and what they cost."""

from __future__ import annotations

import os
import subprocess
from itertools import count
from pathlib import Path

import msgspec

from agno_workers import wiring
from benchmarks.report import Report, Row, rates
from benchmarks.stage import ROOT, Options, stage
from benchmarks.timing import WAIT_S, alternate, cost
from benchmarks.workload import ANSWERS_AFTER_S, fan_out, tallying

RUNS = 8
_PEER = f"agno, {RUNS} threads"
_sessions = count()


class Kept(msgspec.Struct, frozen=True):
    """Counts and keys in the state of a session after all its runs."""

    count: float
    keys: float


def run(options: Options) -> Report:
    rounds, calls = options.pick(5, 1), options.pick(200, 20)
    with stage() as on_stage, on_stage.worker(options) as pid:
        sides = [
            ours,
            *(
                [lambda: theirs(options.agno_python, on_stage.servers.database_url)]
                if options.agno_python.exists()
                else []
            ),
        ]
        kept = alternate(rounds, *sides)
        postgres = on_stage.servers.postgres.pid
        state, plain = alternate(
            rounds,
            lambda: cost(tally_once, calls, pid, postgres),
            lambda: cost(lambda: fan_out.delay("1"), calls, pid, postgres),
        )
        setting = on_stage.setting(options)
    rows = tuple(_row(name, kept) for name in ("count", "keys"))
    return Report(
        name="state",
        title=f"{RUNS} runs of one session at once, each of which counts itself in the session's state and adds a key",
        setting=setting,
        rows=(
            *rows,
            rates("runs of one session with a call that changes two keys", state, plain, "runs of ours with a call without state"),
        ),
        notes=(
            f"both models answer after {ANSWERS_AFTER_S * 1000:g} ms, so that the runs overlap; agno writes the whole session at the end of each run",
            *options.lacks_agno(),
        ),
    )  # fmt: skip


def _row(name: str, kept: list[tuple[Kept, ...]]) -> Row:
    measure = {"count": f"counts kept of {RUNS}", "keys": f"keys kept of {RUNS}"}[name]
    mine, *peer = ([getattr(each, name) for each in side] for side in kept)
    return Row(
        measure=measure, unit="", ours=tuple(mine), peer=tuple(peer[0]) if peer else (), against=_PEER if peer else "", aim=f">={RUNS}",
    )  # fmt: skip


def ours() -> Kept:
    session = f"race {next(_sessions)}"
    for each in [tallying.delay("slowly", session_id=session, if_busy="parallel") for _ in range(RUNS)]:
        each.get(timeout=WAIT_S)
    state = wiring.services().database.states.all("session", session)
    return Kept(state["count"], sum(name.startswith("run ") for name in state))


def theirs(python: Path, database_url: str) -> Kept:
    program = ROOT / "benchmarks" / "peers" / "agno_state.py"
    done = subprocess.run(
        [python, program, database_url, f"race {next(_sessions)}", str(RUNS), str(ANSWERS_AFTER_S)],
        env=dict(os.environ), capture_output=True, check=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Kept)


def tally_once() -> object:
    return tallying.delay("at once", session_id="rate", if_busy="parallel")
