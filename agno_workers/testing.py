"""Servers and workers for the tests of your agents, teams and workflows:

@pytest.fixture(scope="session", autouse=True)
def agno() -> Iterator[None]:
    with running("agents"):
        yield

def test_onboarding() -> None:
    run = onboard.delay("Acme")
    with crash_at("tool.executed"):
        run.get(timeout=60)
    ran_in_order(run, ["profile", "risk"])
    ran_side_by_side(run, ["risk", "docs"])
    assert asked(run, "profiler") == ["Acme"]
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from agno_workers import settings, wiring
from agno_workers.cli import servers
from agno_workers.cli.processes import ProcessManager, Program
from agno_workers.cli.programs import workers
from agno_workers.core.run import Step
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput
from agno_workers.runs.tree import RunTree
from agno_workers.sdk.handles import RunHandle
from agno_workers.sdk.verbs import RunResult
from agno_workers.signals import SIGNALS

log = logging.getLogger(__name__)
_CRASHES = "AGNO_CRASH_AT"


@contextmanager
def running(*imports: str, agents: int = 4, tools: int = 4, knowledge: int = 0) -> Iterator[None]:
    """Run workers that import these modules; agents and a `Client` of this process reach them until the block ends.

    `agents`, `tools` and `knowledge` are the numbers of turns, tool calls and processes at the same time; 0 starts no such
    worker. Postgres and Valkey are started too (extra `embedded`) and deleted at the end, unless AGNO_DATABASE_URL and
    AGNO_BROKER_URL are set: such a database is migrated, and keeps what the tests leave. The workers' output is logged.

    Raises AgnoError when a server or a worker can't start; its message is the reason.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="agno-") as folder:
        os.environ.update({"AGNO_IMPORTS": ",".join(imports), "AGNO_STATE_DIR": folder})
        crashes = Path(folder, "crash")
        crashes.mkdir()
        os.environ[_CRASHES] = f"@{crashes}"
        try:
            loaded = settings.load()
            with servers.running(loaded) as started:
                servers.prepare(started)
                programs = workers(loaded, agents=agents, tools=tools, knowledge=knowledge)
                with _running(ProcessManager(programs, _log_line, log.info)):
                    yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _running(processes: ProcessManager) -> Iterator[None]:
    wiring.forget()  # connections to other servers
    at_once = threading.Event()
    at_once.set()
    try:
        processes.start().wait_until_ready()
        yield
    finally:
        wiring.forget()
        processes.stop(at_once)


def _log_line(program: Program, line: str) -> None:
    log.info("%s: %s", program.name, line)


@contextmanager
def crash_at(moment: str, *, timeout_s: float = 30.0) -> Iterator[None]:
    """Kill one worker of `running` (SIGKILL) at the first such moment after the start of the block; it is started again at once.

    `turn.claimed`, `turn.replied`, `turn.recorded`, `tool.claimed`, `tool.executed` and `tool.recorded` are the moments of turns and calls.
    Raises InvalidInput for an unknown one, and AssertionError when no worker came there until `timeout_s` seconds after the block.
    """
    if moment not in SIGNALS:
        raise InvalidInput(
            f"{moment!r} is not a moment of a run.{did_you_mean(moment, SIGNALS)} Known: {', '.join(SIGNALS)}."
        )
    folder = os.environ.get(_CRASHES, "").removeprefix("@")
    if not Path(folder).is_dir():
        raise InvalidInput("crash_at() kills a worker of running(): use it within `with running(...)`.")
    token = Path(folder, moment)
    token.touch()
    try:
        yield
        until = time.monotonic() + timeout_s
        while token.exists():
            assert time.monotonic() < until, f"no worker came to {moment}: nothing was killed"
            time.sleep(0.01)
    finally:
        token.unlink(missing_ok=True)


AnyRun = RunHandle | RunResult
"""A run as `delay` or a Client returns it."""


def ran_in_order(run: AnyRun, steps: Sequence[str]) -> None:
    """Raise AssertionError unless each of these steps had ended before the next one was asked for.

    A step is the id of a workflow's step, or the name of a member or of a tool; where there are several, all of them count.
    """
    tree = _handle(run).tree
    for before, after in pairwise(steps):
        earlier, later = _steps(tree, before), _steps(tree, after)
        assert _ended(earlier, before) <= min(_asked_for(step) for step in later), (
            f"{after!r} was asked for before {before!r} had ended"
        )


def ran_side_by_side(run: AnyRun, steps: Sequence[str]) -> None:
    """Raise AssertionError unless all of these steps were asked for before the first of them had ended. See `ran_in_order`."""
    tree = _handle(run).tree
    found = [(name, step) for name in steps for step in _steps(tree, name)]
    first_end = min((step.ended_at, name) for name, step in found if step.ended_at) if found else None
    for name, step in found:
        assert first_end is None or _asked_for(step) <= first_end[0], (
            f"{name!r} was asked for after {first_end[1]!r} had ended"
        )


def asked(run: AnyRun, member: str) -> list[str]:
    """Return the texts that an agent, a team or a workflow below this run was asked, in their order."""
    handle = _handle(run)
    return [
        RunHandle(each.run.id, handle._database).messages[0].text
        for each in handle.tree.walk()
        if each.run.agent == member and each.run.parent_run_id is not None
    ]


def _handle(run: AnyRun) -> RunHandle:
    return run.handle if isinstance(run, RunResult) else run


def _steps(tree: RunTree, name: str) -> list[Step]:
    """Return the steps with this id or name, of the run and of those below it."""
    steps = [step for each in tree.walk() for step in each.steps]
    found = [step for step in steps if name in (step.key, step.name, step.name.rpartition(":")[2])]
    known = {
        name
        for step in steps
        for name in (step.name, step.key)
        if name and not name.startswith(("turn:", "tool:"))
    }
    assert found, (
        f"the run has no step {name!r}.{did_you_mean(name, known)} It has {', '.join(sorted(known)) or 'none'}."
    )
    return found


def _ended(steps: Sequence[Step], name: str) -> datetime:
    ends = [step.ended_at for step in steps if step.ended_at]
    assert len(ends) == len(steps), f"{name!r} has not ended"
    return max(ends)


def _asked_for(step: Step) -> datetime:
    assert step.created_at
    return step.created_at
