"""`agno-workers` as a process of its own: its lines as they come, and the family of processes that it starts."""

from __future__ import annotations

import json
import os
import pty
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.forking import inherited

ROOT = Path(__file__).parents[2]
GONE_WITHIN_S = 20
SILENT_FOR_S = 60


class Family:
    """Processes that are to be gone some day, by handles that survive the reuse of an id."""

    def __init__(self, pid: int) -> None:
        self.pids = list(_family(pid))
        self._handles = [handle for handle in (_handle(each) for each in self.pids) if handle is not None]

    def __len__(self) -> int:
        return len(self.pids)

    def are_gone(self) -> bool:
        """Wait until all have ended; False when some have not in time."""
        give_up = time.monotonic() + GONE_WITHIN_S
        try:
            return all(
                select.select([handle], [], [], max(0, give_up - time.monotonic()))[0]
                for handle in self._handles
            )
        finally:
            for handle in self._handles:
                os.close(handle)


class Program:
    """One `agno-workers ...`; `lines` is all that it has printed so far. With COLUMNS it prints to a terminal without colours."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.environment = environment
        ours, theirs = pty.openpty() if "COLUMNS" in environment else os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agno_workers.cli.main", *arguments],
            cwd=ROOT,
            env=inherited() | {"LINES": "25", "TERM": "dumb"} | environment,
            stdout=theirs,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs)
        self._output = os.fdopen(ours, encoding="utf-8")
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, text: str) -> str:
        """The first line from now on that holds `text`; fails with all that was printed."""
        while (line := self._next(f"it never said {text!r}")) is not None:
            if text in line:
                return line
        pytest.fail(f"it ended without saying {text!r}:\n{''.join(self.lines)}")

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def end(self) -> int:
        """Wait for the end of its output and of itself; gives its exit status."""
        while self._next("it never ended") is not None:
            pass
        return self._process.wait(timeout=30)

    def family(self) -> Family:
        """It and all processes below it."""
        return Family(self._process.pid)

    def kill(self) -> None:
        """With it goes its family: that is what its keepers are for."""
        if self._process.poll() is None:
            family = self.family()
            self._process.kill()
            self._process.wait(timeout=30)
            family.are_gone()

    def _next(self, otherwise: str) -> str | None:
        """The next line, None at the end."""
        try:
            return self._news.get(timeout=SILENT_FOR_S)
        except queue.Empty:
            pytest.fail(f"{otherwise}:\n{''.join(self.lines)}")

    def _read(self) -> None:
        with self._output, suppress(OSError):  # a terminal without a program
            for line in self._output:
                self.lines.append(line)
                self._news.put(line)
        self._news.put(None)


StartProgram = Callable[..., Program]


class Typed:
    """What one command printed, and how it ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Typed]


def programs(environment: dict[str, str]) -> Iterator[StartProgram]:
    """For a fixture: `start_program("demo", "docs", AGNO_RUNS__LEASE_S="1")`."""
    started: list[Program] = []

    def start(*arguments: str, **changed: str) -> Program:
        wanted = {name: value for name, value in (environment | changed).items() if value}
        started.append(Program(arguments, wanted))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list((Path("/proc") / str(pid) / "task").iterdir())
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from _family(int(child))


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
