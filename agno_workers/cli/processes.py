"""The processes that `up` and `demo` start: each with a keeper, its output read line by line, started again when it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agno_workers.errors import AgnoError
from agno_workers.local.supervisor import Order

_STEADY_S = 10.0  # a process that lived so long is started again at once
_MAX_PAUSE_S = 30.0
_LOOK_EVERY_S = 0.1


class Ended(BaseException):
    """A signal asked us to end. No Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass(frozen=True)
class Program:
    """One process to keep running."""

    name: str
    """Short: it stands before each line of its output."""
    arguments: tuple[str, ...]
    """For the Python that runs us: `-m celery ...`."""
    ready: str
    """What it says once it does its work."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside our own."""
    patience_s: float = 10.0
    """From the polite signal to SIGKILL. What is cut short is carried again: nothing is lost."""


@dataclass
class Child:
    """One life of a program."""

    program: Program
    on_line: Callable[[Program, str], None]
    pid: int = 0
    last_words: list[str] = field(default_factory=list)
    """The last lines that it said."""
    is_ready: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Child:
        self.started_at = time.monotonic()
        order = asdict(
            Order(
                command=[sys.executable, *self.program.arguments],
                folder=str(Path.cwd()),
                environment={},  # see child.py
                parent=os.getpid(),
                talks=True,
                orphan_signal=signal.SIGKILL,
                patience_s=self.program.patience_s,
            )
        )
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py")), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(os.environ) | dict(self.program.environment),
            start_new_session=True,  # Ctrl-C is for us: we tell them, in order
        )
        assert self._keeper.stdout
        self.pid = int(self._keeper.stdout.readline() or 0)
        self._reader = threading.Thread(target=self._read, name=f"output of {self.program.name}", daemon=True)
        self._reader.start()
        return self

    def is_running(self) -> bool:
        return self._keeper.poll() is None

    def wait(self) -> int:
        """Its exit status, as a shell tells it, once it is over and all of its output was read."""
        status = self._keeper.wait()
        self._reader.join(timeout=5)
        return status

    @property
    def has_refused(self) -> bool:
        """It ended by itself, and never worked: starting it again would not help."""
        return not self.is_running() and 0 < self.wait() < 128 and not self.is_ready.is_set()

    def ask_to_end(self) -> None:
        if self.is_running():
            self._keeper.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.is_running() and self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was about to end by itself

    def _read(self) -> None:
        assert self._keeper.stdout
        for raw in self._keeper.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.last_words = [*self.last_words[-19:], line] if line else self.last_words
            if self.program.ready in line:
                self.is_ready.set()
            try:
                self.on_line(self.program, line)
            except OSError:
                pass  # our own output is gone, and a worker must not stall for it


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
        self._worked: set[str] = set()  # those that were worth another start
        self._deaths: dict[str, int] = {}
        self._again_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._keep, name="crew", daemon=True)

    def start(self) -> ProcessManager:
        for program in self._programs:
            self._start(program)
        self._watch.start()
        return self

    @property
    def children(self) -> list[Child]:
        return [self._children[program.name] for program in self._programs]

    def wait_until_ready(self) -> None:
        """Raises as `check`."""
        while not all(child.is_ready.wait(_LOOK_EVERY_S) for child in self.children):
            self.check()

    def check(self) -> None:
        """Raises AgnoError for a program that refused to work: its last words say why."""
        for child in self.children:
            if child.has_refused:
                self._stopping.set()
                said = next((line for line in reversed(child.last_words) if line.strip()), "it said nothing")
                said = said.removeprefix("agno-workers: ").removeprefix("the worker does not start: ")
                raise AgnoError(f"the {child.program.name} worker could not start: {said}")

    def stop(self, hurry: threading.Event) -> None:
        """Ask all to end, and wait until nothing of them is left; `hurry` cuts it short."""
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        for child in self._children.values():
            child.ask_to_end()
        for child in self._children.values():
            while child.is_running():
                if hurry.is_set():
                    child.kill()
                time.sleep(_LOOK_EVERY_S / 5)
            child.wait()

    def _start(self, program: Program) -> None:
        child = Child(program, self._on_line).start()
        self._children[program.name] = child
        self._say(f"{program.name}: process {child.pid}")

    def _say(self, sentence: str) -> None:
        try:
            self._on_event(sentence)
        except OSError:
            pass  # our own output is gone; the work goes on

    def _keep(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY_S):
            for program in self._programs:
                self._look_after(program)

    def _look_after(self, program: Program) -> None:
        child = self._children[program.name]
        if child.is_running() or (child.has_refused and program.name not in self._worked):
            return  # the latter is for `check`
        self._worked.add(program.name)
        if program.name not in self._again_at:
            pause_s = self._pause_s(child)
            self._again_at[program.name] = time.monotonic() + pause_s
            again = f"in {pause_s:.0f} s" if pause_s else "now"
            self._say(
                f"{program.name}: process {child.pid} ended ({_ended(child.wait())}), starting it again {again}"
            )
        if time.monotonic() >= self._again_at[program.name]:
            del self._again_at[program.name]
            self._start(program)

    def _pause_s(self, child: Child) -> float:
        """None for one that worked until it was killed, more and more for one that keeps dying."""
        name, lived_s = child.program.name, time.monotonic() - child.started_at
        killed_at_work = child.is_ready.is_set() and child.wait() == 128 + signal.SIGKILL
        steady = lived_s > _STEADY_S or killed_at_work
        deaths = self._deaths[name] = 0 if steady else self._deaths.get(name, 0) + 1
        return 0.0 if steady else min(_MAX_PAUSE_S, 2.0 ** (deaths - 1))


@contextmanager
def ending_by_signal() -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and a closed terminal end the block by Ended; the event is set when a second one asks to hurry."""
    hurry = threading.Event()

    def again(_signum: int, _frame: Any) -> None:
        hurry.set()

    def end(signum: int, _frame: Any) -> None:
        for each in signals:
            signal.signal(each, again)  # the way out must not be cut short
        raise Ended(signum)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield hurry
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ended(status: int) -> str:
    return signal.Signals(status - 128).name if status > 128 else f"exit status {status}"
