"""What Postgres and Valkey have in common as servers in our care: start, stop, kill, restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Self

from agno_workers.errors import EmbeddedError
from agno_workers.local import places
from agno_workers.local import supervisor as keeper

READY_TIMEOUT_S = 120.0  # Postgres may have a crash to recover from
LOOK_EVERY_S = 0.004


class Supervised:
    """A process and its keeper, which ends it when this process ends (see supervisor.py)."""

    def __init__(self, order: keeper.Order, log: Path, *, pass_fd: int | None = None) -> None:
        with log.open("ab") as log_file:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, json.dumps(asdict(order))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                pass_fds=[] if pass_fd is None else [pass_fd],
                start_new_session=True,  # Ctrl-C is for us: our workers still need their servers while they finish
                cwd="/",
            )
        first_line = self.read_line()
        if not first_line:
            self.wait()
            raise EmbeddedError(f"A server could not be started: {last_line(log)} The log is {str(log)!r}.")
        self.pid = int(first_line)

    def read_line(self) -> str:
        """The next line of the server's output (`Order.talks`), empty at its end."""
        assert self._keeper.stdout
        return self._keeper.stdout.readline().decode().strip()

    def is_running(self) -> bool:
        return self._keeper.poll() is None

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until nothing of it is left; gives its exit status. It is stopped if that takes longer than `timeout_s`."""
        try:
            status = self._keeper.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._keeper.send_signal(signal.SIGTERM)
            status = self._keeper.wait() or 1
        assert self._keeper.stdout
        self._keeper.stdout.close()
        return status

    def stop(self) -> None:
        """Ask it to stop, make it after its patience, and wait."""
        if self.is_running():
            self._keeper.send_signal(signal.SIGTERM)
        self.wait()

    def kill(self) -> None:
        """SIGKILL, no goodbyes, and wait until its children are gone as well."""
        if self.is_running():
            os.kill(self.pid, signal.SIGKILL)
        self.wait()


class Server(ABC):
    """One server on one state folder. Start, stop and restart as often as you like: its data and address stay.

    Not for use by two threads at once.
    """

    name: str

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.absolute()
        self.data_dir = self.state_dir / self.name
        self.log = self.state_dir / f"{self.name}.log"
        self.socket_dir = places.socket_dir(self.state_dir, self.name)
        self._kept: Supervised | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._kept is None:
            raise EmbeddedError(
                f"The {self.name} in {str(self.state_dir)!r} is not running: call start() first."
            )
        return self._kept.pid

    def start(self, *, fresh: bool = False) -> Self:
        """Start it and wait until it answers. `fresh` deletes its data first. Does nothing if it runs.

        Raises EmbeddedError if it can't: no write access, in use by another process, not installed, or what its log says.
        """
        if self._kept and self._kept.is_running():
            return self
        places.make_state_dir(self.state_dir)
        lock = places.claim(self.state_dir, self.name)
        try:
            if fresh and self.data_dir.exists():
                shutil.rmtree(self.data_dir)
            self._prepare()
            self._kept = Supervised(self._order(), self.log, pass_fd=lock)
        except PermissionError as error:
            raise EmbeddedError(
                f"{error.filename!r} belongs to another user: run as that user, or set AGNO_STATE_DIR to another folder."
            ) from error
        finally:
            os.close(lock)  # the keeper and the server have it now, and with them it ends
        try:
            self._wait_until_ready()
            self._on_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop it in its own orderly way. Does nothing if it does not run."""
        if self._kept:
            self._kept.stop()
            self._kept = None

    def kill(self) -> None:
        """End it as a power cut would, with all its children. `start()` brings it back."""
        if self._kept:
            self._kept.kill()
            self._kept = None

    def restart(self) -> Self:
        """Stop and start; data and address stay."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folders and data a start needs. We hold the lock."""

    @abstractmethod
    def _order(self) -> keeper.Order:
        """The command that is the server."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers by now."""

    def _on_ready(self) -> None:  # noqa: B027 - most servers need nothing more
        """What is left to do once it answers."""

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            if not (self._kept and self._kept.is_running()) or time.monotonic() > give_up:
                raise EmbeddedError(
                    f"The embedded {self.name} did not start: {last_line(self.log)} The log is {str(self.log)!r}."
                )
            time.sleep(LOOK_EVERY_S)


def last_line(log: Path) -> str:
    """The last line of a log file, as the likely reason of an end."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing.")
