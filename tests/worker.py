"""A real worker process."""

from __future__ import annotations

import os
import queue
import signal
import threading
import uuid
from pathlib import Path
from typing import TextIO

import pytest

from tests.forking import Forked, Forker, inherited

ROOT = Path(__file__).parent.parent


class Worker:
    """A real worker process, ready when this returns. Its output is kept in `lines`."""

    def __init__(
        self, environment: dict[str, str], queues: str, pool: str, concurrency: int, *more: str
    ) -> None:
        command = ["celery", "-A", "agno_workers", "worker", "-Q", queues, "-P", pool, "-c", str(concurrency)]
        command += ["-l", "INFO", "-n", f"{uuid.uuid4().hex[:6]}@test", *more]
        self.process, self._output = start_forked(command, inherited() | environment)
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for("ready.")

    def wait_for(self, text: str, timeout_s: float = 60) -> str:
        """The first line from now on that holds `text`; fails with all that the worker said."""
        while True:
            try:
                line = self._news.get(timeout=timeout_s)
            except queue.Empty:
                line = None
            if line is None:
                pytest.fail(f"the worker never said {text!r}:\n{''.join(self.lines)}")
            if text in line:
                return line

    def forget_lines(self) -> None:
        """What it has printed so far is an earlier test's."""
        self.lines.clear()
        while not self._news.empty():
            self._news.get_nowait()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill the worker with all its children, as a machine that dies does."""
        try:
            os.killpg(self.process.pid, how)
        except ProcessLookupError:
            return
        if how is signal.SIGKILL:
            self.process.wait(timeout=30)

    def stop(self) -> int:
        """Ask it to end, as a deploy does; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        finally:
            self.kill()

    def _read(self) -> None:
        with self._output:
            for line in self._output:
                self.lines.append(line)
                self._news.put(line)
        self._news.put(None)


_forker: list[Forker] = []


def start_forked(command: list[str], environment: dict[str, str]) -> tuple[Forked, TextIO]:
    """Start `python -m COMMAND` in the root folder; return its process and its output."""
    if not _forker:
        _forker.append(Forker())
    read, write = os.pipe()
    try:
        process = _forker[0].start(command, environment, write)
    finally:
        os.close(write)
    return process, os.fdopen(read, encoding="utf-8", errors="replace")
