"""A process that ends when we end, even if we are killed: a server, a worker, the local model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from agno_workers.errors import EmbeddedError
from agno_workers.local import supervisor
from agno_workers.local.supervisor import ProcessSpec


class Supervised:
    """A running process and its supervisor (see supervisor.py). Raises EmbeddedError when the supervisor can't start it.

    log: gets the output. on_line: gets each line of output, in a thread of its own. lock: an open file to inherit.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        log: Path | None = None,
        *,
        on_line: Callable[[str], None] | None = None,
        lock: int | None = None,
    ) -> None:
        self._reader: threading.Thread | None = None
        with ExitStack() as opened:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=opened.enter_context(log.open("ab")) if log else subprocess.STDOUT,
                pass_fds=[] if lock is None else [lock],
                start_new_session=True,  # Ctrl-C is for us: we stop our processes in order
                cwd="/",
            )
        assert self._supervisor.stdin
        with suppress(BrokenPipeError), self._supervisor.stdin as stdin:
            stdin.write(json.dumps([os.getpid(), asdict(spec)]).encode())
        first_line = self.read_line()
        if not first_line.isdecimal():
            self.stop()
            reason = first_line or (last_line(log) if log else "no output")
            raise EmbeddedError(f"{spec.command[0]!r} could not be started: {reason}")
        self.pid = int(first_line)
        if on_line:
            self._reader = threading.Thread(target=self._read, args=[on_line], daemon=True)
            self._reader.start()

    def read_line(self) -> str:
        """Return the next line of stdout (`ProcessSpec.pipe_stdout`), empty at its end."""
        assert self._supervisor.stdout
        return self._supervisor.stdout.readline().decode(errors="replace").rstrip()

    def is_running(self) -> bool:
        return self._supervisor.poll() is None

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the process and its descendants have ended; return its exit status, as a shell counts.

        A process that takes longer than `timeout_s` is stopped.
        """
        try:
            status = self._supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.terminate()
            status = self._supervisor.wait() or 1
        if self._reader:
            self._reader.join(timeout=5)
        else:
            assert self._supervisor.stdout
            self._supervisor.stdout.close()
        return status

    def terminate(self) -> None:
        """Ask the process to stop; it is killed after `ProcessSpec.stop_timeout_s`."""
        self._supervisor.terminate()

    def stop(self) -> None:
        self.terminate()
        self.wait()

    def kill(self) -> None:
        """SIGKILL the process and its descendants, and wait until they are gone."""
        if self.is_running():
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._supervisor.stdout
        with self._supervisor.stdout as output:
            for line in output:
                on_line(line.decode(errors="replace").rstrip())


def last_line(log: Path) -> str:
    """Return the last line of a log file: the likely reason of an end."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "the log is empty.")
