"""Lets each contestant meet each setting a few times, with real processes and real SIGKILL."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.payments import ours, theirs
from benchmarks.payments.contestant import Contestant, End, World
from benchmarks.payments.settings import KILLED_AFTER_S, SETTINGS, Setting
from benchmarks.payments.table import Cell, Chosen, Payments
from benchmarks.peers import ledger
from benchmarks.stage import Options, Stage, stage
from tests.fakes import provider

PATIENCE_S = 60.0
"""A run that has not ended so long after everything runs again, counts as one that never ends."""
OURS: tuple[type[ours.Ours], ...] = (ours.OursHook, ours.OursOnce)
THEIRS: tuple[type[theirs.Agno], ...] = (
    theirs.AgnoDefault,
    theirs.AgnoTwice,
    theirs.AgnoCheckpoint,
    theirs.AgnoByHand,
)

Make = Callable[[World], Contestant]


@dataclass(frozen=True)
class Trial:
    """The outcome of one payment."""

    paid: int
    end: End
    took_s: float
    """From the kill to the end of the run, the new start of the killed processes included."""


def run(options: Options) -> Payments:
    has_peer = options.agno_python.exists()
    with stage() as on_stage, provider.running("--no-record") as fake:
        kinds: list[tuple[type[Contestant], Make]] = [(kind, kind) for kind in OURS]
        if has_peer:
            kinds += [(kind, lambda world, kind=kind: kind(world, options.agno_python)) for kind in THEIRS]  # type: ignore[misc]  # mypy takes the default for an argument
        cells = [
            _cell(setting, kind, make, on_stage, fake.openai_url, options.pick(3, 1))
            for setting in SETTINGS
            for kind, make in kinds
        ]
        where = on_stage.setting()
    return Payments(
        name="payments",
        title="how often a payment is made when its process is killed",
        setting="; ".join(
            [
                *([f"agno {theirs.version(options.agno_python)}"] if has_peer else []),
                "leases of 3 s on both sides (their defaults: 15 s here, 60 s there)",
                where,
            ]
        ),
        cells=tuple(cells),
        chosen=tuple(Chosen(contestant=kind.name, options=kind.options) for kind, _ in kinds),
        rows=(),
        notes=options.lacks_agno(),
    )


def _cell(
    setting: Setting, kind: type[Contestant], make: Make, on_stage: Stage, model_url: str, rounds: int
) -> Cell:
    trials = [_trial(setting, make, on_stage, model_url) for _ in range(rounds)]
    return Cell(
        setting=setting.name,
        contestant=kind.name,
        paid=tuple(each.paid for each in trials),
        ended=tuple(each.end.status for each in trials),
        reason=tuple(each.end.reason for each in trials),
        answer=tuple(each.end.answer for each in trials),
        end_s=tuple(round(each.took_s, 2) for each in trials),
    )


def _trial(setting: Setting, make: Make, on_stage: Stage, model_url: str) -> Trial:
    folder = Path(tempfile.mkdtemp(dir=on_stage.folder))
    book = folder / "ledger"
    contestant = make(World(on_stage, model_url, book))
    try:
        contestant.start(dies=setting.killed == "at once")
        contestant.submit(setting)
        _until(lambda: ledger.lines(str(book)), f"{contestant.name} never paid in {setting.name!r}")
        _kill(setting, contestant, on_stage)
        began = time.monotonic()
        if setting.killed == "everything":
            on_stage.servers.valkey.start()
            on_stage.servers.postgres.start()
        contestant.start()
        end = _end(contestant)
        return Trial(len(ledger.lines(str(book))), end, time.monotonic() - began)
    except Exception as error:
        error.add_note(f"the last words of {contestant.name}: {contestant.last_words()}")
        raise
    finally:
        contestant.close()


def _kill(setting: Setting, contestant: Contestant, on_stage: Stage) -> None:
    """Kill what the setting names, and wait until it is dead."""
    if setting.killed != "at once":
        time.sleep(KILLED_AFTER_S)
        everything = setting.killed == "everything"
        servers = on_stage.servers.postgres, on_stage.servers.valkey
        doomed = contestant.pids(submitter=everything) + [each.pid for each in servers if everything]
        for pid in doomed:  # first all, then wait: nobody gets to see the others die
            os.kill(pid, signal.SIGKILL)
        if everything:
            for each in servers:
                each.stop()  # it is dead; this waits until all its children are
    contestant.wait_until_dead()


def _end(contestant: Contestant) -> End:
    deadline = time.monotonic() + PATIENCE_S
    while (end := contestant.end()) is None:
        if time.monotonic() > deadline:
            return End("never", f"no end within {PATIENCE_S:g} s")
        time.sleep(0.05)
    return end


def _until(condition: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.02)
