"""A chaos run of agno-workers: servers, proxies, workers, callers, faults, a calm period, and the verdict."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from agno_workers import local, wiring
from agno_workers.database import migrate
from agno_workers.local import LocalServers
from tests import invariants
from tests.chaos import history as histories
from tests.chaos.agents import BOOKINGS
from tests.chaos.clients import Callers
from tests.chaos.cluster import ROOT, Faults, Fleet, Lines, celery_command
from tests.chaos.history import History, Verdict
from tests.chaos.plan import CLIENTS, DEATHS, WORKERS, Fault
from tests.chaos.proxy import Network

Say = Callable[[str], None]
_LOOK_EVERY_S = 0.25
_CROWDED = 60
"""The number of open runs from which on callers pause."""


class Options(msgspec.Struct, frozen=True):
    seed: int
    seconds: float
    """The duration of faults and callers."""
    settle_s: float = 120.0
    """The most time after it until all runs have ended."""
    callers: int = 6
    fsync: bool = True
    tell_every_s: float = 5.0
    folder: str | None = None
    """The folder for logs and data, which stay; default: a folder that is removed at the end."""


def run(options: Options, faults: list[Fault], say: Say) -> Verdict:
    """Execute a chaos run. The verdict's `broken` is empty when every promise was kept."""
    with ExitStack() as stack:
        folder = Path(options.folder or stack.enter_context(temporary()))
        folder.mkdir(parents=True, exist_ok=True)
        servers = stack.enter_context(local.servers(folder, fsync=options.fsync))
        stack.enter_context(telling(folder, servers))
        lines = Lines(stack.enter_context(Network()), servers)
        migrate.upgrade(servers.database_url)
        with psycopg.connect(servers.database_url) as connection:
            connection.execute(BOOKINGS.encode())
        ledger = folder / "ledger"
        fleet = Fleet(*_workers(lines, ledger), folder)
        stack.callback(fleet.stop)
        stack.enter_context(environment(_settings(lines, CLIENTS)))
        fleet.start()
        return _play(options, Faults(faults, servers, lines, fleet), History(), ledger, say)


def _play(options: Options, faults: Faults, history: History, ledger: Path, say: Say) -> Verdict:
    lines, url = faults.lines, faults.servers.database_url
    callers = Callers(
        history,
        lines.database_url(CLIENTS),
        lines.redis_url(CLIENTS),
        seed=options.seed,
        threads=options.callers,
    )
    watch = _Watch(url, history, faults, say)
    began = time.monotonic()
    try:
        callers.start()
        faults.begin()
        while time.monotonic() < began + options.seconds:
            callers.hold(watch.look(options.tell_every_s) > _CROWDED)
        faults.join(options.settle_s)
    finally:
        callers.stop()
        faults.heal()
    say("the calm: no further fault, nothing new is submitted; what was accepted has to come to its end")
    calm = time.monotonic()
    late = callers.join(options.settle_s)
    while (open_ends := _stuck(url)) and time.monotonic() < calm + options.settle_s:
        watch.look(options.tell_every_s)
    settled = time.monotonic() - calm
    callers.close()
    broken = [f"{name} is still waiting for its submit" for name in late]
    if open_ends:
        broken += [f"after {options.settle_s:.0f} s of calm: {what}" for what in open_ends[:20]]
    else:
        broken += violated(url)
    kills = sum(happened.fault.kind == "postgres killed" for happened in faults.happened)
    state = msgspec.structs.replace(histories.read(url, ledger), postgres_kills=kills)
    found = histories.verdict(history, state)
    return Verdict(
        _counters(found, faults, state) | {"calm until all had ended, s": round(settled, 1)},
        found.broken + broken,
    )


def _counters(found: Verdict, faults: Faults, state: histories.FinalState) -> dict[str, Any]:
    kinds = Counter(happened.fault.kind for happened in faults.happened)
    ended = [step.ended_at for step in state.steps if step.ended_at is not None and step.status == "done"]
    return found.counters | {
        "faults": sum(kinds.values()),
        "faults by kind": dict(sorted(kinds.items())),
        "deaths injected": sum(kinds[kind] for kind in DEATHS),
        "answers lost": faults.lines.answers_lost,
        "workers started": faults.fleet.starts,
        "from a fault's end to the next step, s": histories.recovery(
            [each.ended for each in faults.happened], ended
        ),
    }


def violated(url: str) -> list[str]:
    try:
        invariants.hold(url)
    except pytest.fail.Exception as failed:
        return str(failed).splitlines()
    return []


def _stuck(url: str) -> list[str]:
    try:
        return histories.stuck(url)
    except psycopg.OperationalError as error:
        return [f"Postgres does not answer: {error}"]


class _Watch:
    """Read the rows on a connection of its own, and report the progress now and then."""

    def __init__(self, url: str, history: History, faults: Faults, say: Say) -> None:
        self._url = url
        self._history = history
        self._faults = faults
        self._say = say
        self._began = self._told = time.monotonic()
        self._pause = threading.Event()

    def look(self, tell_every_s: float) -> int:
        """Wait a moment, and return the number of open runs, or 0 when it is unknown."""
        self._pause.wait(_LOOK_EVERY_S)
        try:
            with psycopg.connect(
                self._url, connect_timeout=2, options="-c statement_timeout=2000"
            ) as connection:
                rows = connection.execute(
                    "SELECT count(*) FILTER (WHERE ended_at IS NULL), count(ended_at) FROM agno.run"
                ).fetchall()
                (under_way, ended) = rows[0]
        except psycopg.OperationalError:
            under_way = ended = None
        if time.monotonic() >= self._told + tell_every_s:
            self._told = time.monotonic()
            self._tell(under_way, ended)
        return under_way or 0

    def _tell(self, under_way: int | None, ended: int | None) -> None:
        heard = sum(submission.accepted for submission in list(self._history.submissions))
        runs = "Postgres is away" if under_way is None else f"runs: {ended} ended, {under_way} under way"
        self._say(
            f"{self._told - self._began:6.1f} s  {len(self._history.submissions)} submissions, {heard} acknowledged; "
            f"{runs}; {len(self._faults.happened)} faults, {self._faults.fleet.starts} workers started"
        )


def _workers(lines: Lines, ledger: Path) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    commands = {name: celery_command("agno_workers", name, "-Q", "agents,tools") for name in WORKERS}
    return commands, {name: _settings(lines, name) | {"CHAOS_LEDGER": str(ledger)} for name in WORKERS}


def _settings(lines: Lines, who: str) -> dict[str, str]:
    return {
        "AGNO_DATABASE_URL": lines.database_url(who),
        "AGNO_BROKER_URL": lines.redis_url(who),
        "AGNO_CONFIG": str(ROOT / "config" / "test.toml"),
        "AGNO_IMPORTS": "tests.chaos.agents",
    }


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Configure this process as a caller, without any AGNO_* variable from outside."""
    before = dict(os.environ)
    for variable in [each for each in os.environ if each.startswith("AGNO_")]:
        del os.environ[variable]
    os.environ |= settings
    wiring.forget()
    try:
        yield
    finally:
        wiring.forget()
        os.environ.clear()
        os.environ |= before


@contextmanager
def temporary() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="agno-chaos-", ignore_cleanup_errors=True) as name:
        yield name


@contextmanager
def telling(folder: Path, servers: LocalServers) -> Iterator[None]:
    """Add the last log lines of the workers to an error that ends a run."""
    try:
        yield
    except Exception as error:
        for log in [*sorted(folder.glob("worker-*.log")), servers.postgres.log, servers.valkey.log]:
            if log.exists():
                error.add_note(f"the last words of {log.name}: {log.read_text(errors='replace')[-1500:]}")
        raise
