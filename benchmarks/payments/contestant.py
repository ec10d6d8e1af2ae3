"""The parts that all contestants share: processes that can be killed, and an end that can be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from agno_workers.local.supervised import Supervised
from agno_workers.local.supervisor import ProcessSpec
from benchmarks.payments.settings import Setting
from benchmarks.stage import ROOT, Stage


@dataclass(frozen=True)
class End:
    """The end of a run, as the product shows it."""

    status: str
    reason: str = ""
    """The reason, in the words of the product."""
    answer: str = ""
    """The last text of the model, which repeats the results that it was given."""


@dataclass(frozen=True)
class World:
    """The servers and files that every contestant uses."""

    stage: Stage
    model_url: str
    ledger: Path
    """A fresh one for each trial."""


class Contestant(ABC):
    """One product in one configuration, for one trial: a worker and a submitter, both processes of their own."""

    name: str
    options: str
    """In words for the table: what was chosen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.run_id = ""
        self._worker: Supervised | None = None
        self._submitter: subprocess.Popen[str] | None = None
        self._log = world.stage.folder / f"{type(self).__name__}.log"

    @abstractmethod
    def start(self, *, dies: bool = False) -> None:
        """Start the worker; `dies`: it will kill itself as soon as `pay` has returned."""

    @abstractmethod
    def end(self) -> End | None:
        """How the run ended; None as long as it has not."""

    @abstractmethod
    def _submitter_says(self, setting: Setting) -> list[str]:
        """The arguments of `submitter.py`."""

    def submit(self, setting: Setting) -> None:
        """Start the process that submits the run and waits for its end."""
        command = [sys.executable, "-m", "benchmarks.payments.submitter", *self._submitter_says(setting)]
        self._submitter = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._submitter.stdout is not None
        self.run_id = self._submitter.stdout.readline().strip()
        if not self.run_id:
            raise RuntimeError(f"{self.name}: the run was not accepted")

    def pids(self, *, submitter: bool) -> list[int]:
        found = [self._worker.pid] if self._worker else []
        return found + ([self._submitter.pid] if submitter and self._submitter else [])

    def wait_until_dead(self) -> None:
        """Until nothing of the worker is left."""
        if self._worker:
            self._worker.wait(30)
            self._worker = None

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "it said nothing"

    def close(self) -> None:
        if self._submitter:
            self._submitter.kill()
            self._submitter.wait()
        if self._worker:
            self._worker.kill()

    def _keep(self, command: list[str], **environment: str) -> None:
        """Start the worker; it ends with us, whatever ends us."""
        plain = ("HOME", "LANG", "PATH", "TMPDIR")
        inherited = {key: value for key, value in os.environ.items() if key in plain}
        spec = ProcessSpec(command, str(ROOT), inherited | environment, orphan_signal=signal.SIGKILL)
        self._worker = Supervised(spec, self._log)
