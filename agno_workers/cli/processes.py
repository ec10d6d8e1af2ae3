"""The processes that `up` and `demo` keep running: their output is read line by line, and dead ones are restarted."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agno_workers.errors import AgnoError, EmbeddedError
from agno_workers.local.supervised import Supervised
from agno_workers.local.supervisor import ProcessSpec

_STEADY_S = 10.0  # a process that lived this long is restarted at once
_MAX_PAUSE_S = 30.0
_CHECK_EVERY_S = 0.1


class StoppedBySignal(BaseException):
    """A signal asked us to stop. Not an Exception, so that no handler on the way takes it for a failure."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass(frozen=True)
class Program:
    """One process to keep running."""

    name: str
    """Short: it prefixes each line of output."""
    arguments: tuple[str, ...]
    """For our own Python: `-m celery ...`."""
    ready: str
    """Text in the line that reports that the process is working."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to our own."""
    stop_timeout_s: float = 10.0
    """From SIGTERM to SIGKILL. Interrupted steps are executed again: nothing is lost."""


class Child:
    """One process of a program."""

    def __init__(self, program: Program, on_line: Callable[[Program, str], None]) -> None:
        self.program = program
        self.is_ready = threading.Event()
        self.last_lines: deque[str] = deque(maxlen=20)
        self.started_at = time.monotonic()
        self._on_line = on_line
        spec = ProcessSpec(
            command=[sys.executable, *program.arguments],
            cwd=str(Path.cwd()),
            environment={**os.environ, **program.environment},
            orphan_signal=signal.SIGKILL,
            stop_timeout_s=program.stop_timeout_s,
        )
        self.process = Supervised(spec, on_line=self._read)

    @property
    def has_refused(self) -> bool:
        """The process failed before it was ready: a restart would not help."""
        process = self.process
        return not process.is_running() and 0 < process.wait() < 128 and not self.is_ready.is_set()

    def _read(self, line: str) -> None:
        if not line.strip():  # Celery prints one before its last words
            return
        self.last_lines.append(line)
        if self.program.ready in line:
            self.is_ready.set()
        with suppress(OSError):  # a closed terminal must not block a worker
            self._on_line(self.program, line)


class ProcessManager:
    """Keeps programs running until `stop`. `on_line` gets each line of output, `on_event` a sentence on each start and end."""

    def __init__(
        self,
        programs: list[Program],
        on_line: Callable[[Program, str], None],
        on_event: Callable[[str], None],
    ) -> None:
        self._programs = programs
        self._on_line = on_line
        self._on_event = on_event
        self._children: dict[str, Child] = {}
        self._worked: set[str] = set()  # programs that were ready once: they are restarted
        self._deaths: dict[str, int] = {}
        self._restart_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._watch_all, name="process-manager", daemon=True)

    def start(self) -> ProcessManager:
        for program in self._programs:
            self._start(program)
        self._watch.start()
        return self

    def wait_until_ready(self) -> None:
        """Wait until every program is ready. Raises as `check`."""
        while not all(child.is_ready.wait(_CHECK_EVERY_S) for child in self._all()):
            self.check()

    def check(self) -> None:
        """Raise AgnoError, with the reason from its output, for a program that could not start."""
        for child in self._all():
            if child.has_refused:
                self._stopping.set()
                reason = child.last_lines[-1] if child.last_lines else "it printed nothing"
                reason = reason.removeprefix("agno-workers: ").removeprefix("the worker does not start: ")
                raise AgnoError(f"the {child.program.name} worker could not start: {reason}")

    def stop(self, hurry: threading.Event) -> None:
        """Ask all processes to stop, and wait until they are gone; they are killed once `hurry` is set."""
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        for child in self._children.values():
            child.process.terminate()
        for child in self._children.values():
            while child.process.is_running() and not hurry.wait(_CHECK_EVERY_S / 5):
                pass
            child.process.kill()

    def _all(self) -> list[Child]:
        return [self._children[program.name] for program in self._programs]

    def _start(self, program: Program) -> None:
        child = self._children[program.name] = Child(program, self._on_line)
        self._report(f"{program.name}: process {child.process.pid}")

    def _report(self, sentence: str) -> None:
        with suppress(OSError):  # a closed terminal must not stop the work
            self._on_event(sentence)

    def _watch_all(self) -> None:
        while not self._stopping.wait(_CHECK_EVERY_S):
            for child in self._all():
                self._restart(child)

    def _restart(self, child: Child) -> None:
        """Start a program again if its process died and its pause is over."""
        program, process = child.program, child.process
        if process.is_running() or (child.has_refused and program.name not in self._worked):
            return  # `check` reports the latter
        self._worked.add(program.name)
        if program.name not in self._restart_at:
            pause_s = self._pause_s(child)
            self._restart_at[program.name] = time.monotonic() + pause_s
            when = f"in {pause_s:.0f} s" if pause_s else "now"
            self._report(
                f"{program.name}: process {process.pid} ended ({_status(process.wait())}), starting it again {when}"
            )
        if time.monotonic() < self._restart_at[program.name]:
            return
        try:
            self._start(program)
        except (OSError, EmbeddedError) as error:  # no memory for another process, say
            self._restart_at[program.name] = time.monotonic() + _MAX_PAUSE_S
            self._report(f"{program.name}: {error}")
        else:
            del self._restart_at[program.name]

    def _pause_s(self, child: Child) -> float:
        """Return 0 for a process that worked until it was killed, and twice the last pause for one that keeps dying."""
        name, lived_s = child.program.name, time.monotonic() - child.started_at
        killed_at_work = child.is_ready.is_set() and child.process.wait() == 128 + signal.SIGKILL
        steady = lived_s > _STEADY_S or killed_at_work
        deaths = self._deaths[name] = 0 if steady else self._deaths.get(name, 0) + 1
        return 0.0 if steady else min(_MAX_PAUSE_S, 2.0 ** (deaths - 1))


@contextmanager
def stopping_by_signal() -> Iterator[threading.Event]:
    """End the block with StoppedBySignal on Ctrl-C, SIGTERM or a closed terminal; a second signal sets the event."""
    hurry = threading.Event()

    def second(_signum: int, _frame: Any) -> None:
        hurry.set()

    def first(signum: int, _frame: Any) -> None:
        for each in signals:
            signal.signal(each, second)  # the clean-up must not be interrupted
        raise StoppedBySignal(signum)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, first) for each in signals}
    try:
        yield hurry
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _status(status: int) -> str:
    return signal.Signals(status - 128).name if status > 128 else f"exit status {status}"
