"""A reader process as the worker sees it: its pipes, its time limit, and the reason of its death."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

import msgspec

from agno_workers.errors import AgnoError, Unavailable
from agno_workers.knowledge.frames import LENGTH_BYTES, Answer, Order, Task, frame
from agno_workers.knowledge.types import Chunking, Prepared, Raw, Refusal, Source

_START_WITHIN_S = 60.0
_PIPE_BYTES = 1 << 20
_SHOWN_LOG_BYTES = 2000
# A document may have this fraction of the memory limit: its text and its tree take several times as much.
_LARGEST_SHARE = 8
# Signals from outside are not the document's fault; it gets a second attempt.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
# Messages of native code that runs out of memory, before it aborts.
_NO_MEMORY = (
    b"memory allocation of", b"bad_alloc", b"out of memory", b"Out of memory", b"MemoryError", b"Cannot allocate",
)  # fmt: skip


class Died(Exception):
    """A child exited before it answered."""

    def __init__(self, refusal: Refusal, from_outside: bool = False) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.from_outside = from_outside


class Child:
    """A process and its pipes. It serves one thread at a time."""

    def __init__(self, order: Order) -> None:
        self.is_usable = True
        self._order = order
        self._log = b""
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", "-m", "agno_workers.knowledge.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the worker, which finishes its batch
        )
        self._pipes = [
            pipe for pipe in (self._process.stdin, self._process.stdout, self._process.stderr) if pipe
        ]
        self._to, self._from, self._log_from = (pipe.fileno() for pipe in self._pipes)
        for end in (self._to, self._from, self._log_from):
            os.set_blocking(end, False)
        for end in (self._to, self._from):
            _widen(end)
        try:
            for _ in self._answers(iter([frame(order)]), _START_WITHIN_S, 1):
                pass
        except Died as death:
            self.end()
            log = self._log.decode(errors="replace").strip().rpartition("\n")[2]
            raise Unavailable(
                f"no reader process can be started: {death.refusal.message} {log} Try again later."
            ) from death

    def read(
        self, items: Sequence[tuple[Source, Raw]], chunking: Chunking
    ) -> Iterator[Prepared | Refusal | tuple[Source, ...]]:
        """Yield the outcomes in order; fewer than items if the child reaches its limits. Raises Died at the document that killed it."""
        refused = [self._refused(source, raw) for source, raw in items]
        frames = (
            frame(_task(source, raw, chunking))
            for (source, raw), refusal in zip(items, refused, strict=True)
            if refusal is None
        )
        answers = self._answers(frames, self._order.time_limit_s * 2, refused.count(None))
        for refusal in refused:
            if refusal is not None:
                yield refusal
                continue
            answer = next(answers)
            if answer.fault is not None:
                self.is_usable = False  # tasks are left in its pipe
                raise AgnoError.from_json(answer.fault)
            outcome = answer.prepared or answer.refusal or answer.rows
            assert outcome is not None
            yield outcome
            if answer.leaves:
                self.is_usable = False
                return

    def _refused(self, source: Source, raw: Raw) -> Refusal | None:
        """Refuse documents that can't be sent."""
        limit = self._order.memory_limit_bytes // _LARGEST_SHARE
        if len(raw.content) > limit:
            return Refusal(
                "too_large", f"It has {len(raw.content):,} bytes; the limit is {limit:,}: split it."
            )
        try:
            msgspec.msgpack.encode((source.uri, source.title, source.metadata))
        except (TypeError, ValueError, RecursionError) as error:  # such as a file name that is not text
            return Refusal("unreadable", f"Its uri, title or metadata can't be encoded: {error!r}.")
        return None

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process and close the pipes."""
        self.is_usable = False
        self._process.kill()
        self._process.wait()
        self.leave()

    def leave(self) -> None:
        """Close the pipes only."""
        for pipe in self._pipes:
            pipe.close()

    def _answers(self, frames: Iterator[bytes], within_s: float, expected: int) -> Iterator[Answer]:
        """Write as far ahead as the pipe allows, and yield each answer; each has its own time limit."""
        left = memoryview(b"")
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        poll.register(self._log_from, select.POLLIN)
        deadline = time.monotonic() + within_s
        while expected:
            if not left:
                left = memoryview(next(frames, b""))
            if left:
                poll.register(self._to, select.POLLOUT)
            events = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not events:
                self._kill_for_time(within_s)
            if self._to in events:
                left = self._write(left)
                if not left:
                    poll.unregister(self._to)
            if self._log_from in events and not self._read_log():
                poll.unregister(self._log_from)
            if self._from in events:
                received = _read(self._from)
                if received == b"":
                    self._mourn()
                self._buffer += received or b""
                for answer in self._whole_answers():
                    expected -= 1
                    self._log = b""  # further output is about the next document
                    deadline = time.monotonic() + within_s
                    yield answer

    def _whole_answers(self) -> Iterator[Answer]:
        start = 0
        try:
            while len(self._buffer) >= start + LENGTH_BYTES:
                end = (
                    start
                    + LENGTH_BYTES
                    + int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "little")
                )
                if end - start > self._order.memory_limit_bytes:
                    raise ValueError("the answer is too long")
                if len(self._buffer) < end:
                    return
                content = self._buffer[start + LENGTH_BYTES : end]
                start = end
                yield self._decoder.decode(content)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            self.is_usable = False
            raise Died(Refusal("crashed", f"The reader process sent an invalid answer: {error}.")) from error
        finally:
            del self._buffer[:start]

    def _write(self, left: memoryview) -> memoryview:
        try:
            return left[os.write(self._to, left[:_PIPE_BYTES]) :]
        except BlockingIOError:
            return left
        except BrokenPipeError:  # it is dead; the end of its output follows
            return left

    def _read_log(self) -> bool:
        """Keep the end of the child's log. Returns False at the end of it."""
        received = _read(self._log_from)
        self._log = (self._log + (received or b""))[-_SHOWN_LOG_BYTES:]
        return received != b""

    def _kill_for_time(self, within_s: float) -> NoReturn:
        self.is_usable = False
        self._process.kill()
        self._process.wait()
        raise Died(Refusal("time_limit", f"Reading it took longer than the limit of {within_s:g} s."))

    def _mourn(self) -> NoReturn:
        """Raise Died with the reason of the child's death."""
        self.is_usable = False
        try:
            status = self._process.wait(10)
        except subprocess.TimeoutExpired:  # it closed its pipe and is alive
            self._process.kill()
            status = self._process.wait()
        self._read_log()
        raise _why(status, self._log, self._order)


def _task(source: Source, raw: Raw, chunking: Chunking) -> Task:
    name = source.uri if source.text is None else ""
    return Task(
        raw.content,
        source.media_type or raw.media_type,
        name,
        msgspec.structs.replace(source, text=None),
        chunking,
        raw.seen,
    )


def _why(status: int, log: bytes, order: Order) -> Died:
    megabytes = order.memory_limit_bytes // 1_000_000
    if any(word in log for word in _NO_MEMORY):
        return Died(Refusal("memory_limit", f"Reading it takes more than the limit of {megabytes} MB."))
    if status >= 0:
        return Died(Refusal("crashed", f"The reader process exited with status {status}."))
    if -status == signal.SIGXCPU:
        return Died(Refusal("time_limit", f"Reading it took more than {order.time_limit_s:g} s of CPU time."))
    name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    if -status in _FROM_OUTSIDE:
        return Died(
            Refusal("crashed", f"The reader process was killed twice ({name}): check whether the machine ran out of memory."),
            from_outside=True,
        )  # fmt: skip
    return Died(
        Refusal(
            "crashed",
            f"It crashed the parser ({name}): it is broken, or needs more than {megabytes} MB of memory.",
        )
    )


def _environment() -> dict[str, str]:
    """Return the environment of the child, without keys and passwords of the worker."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path),  # noqa: PTH100 - "" is the current folder
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",  # its address space is limited, and each arena reserves 64 MB
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _widen(pipe: int) -> None:
    """Enlarge a pipe, for fewer context switches. The kernel limits the total per user."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass


def _read(pipe: int) -> bytes | None:
    """Return the available bytes, b"" at the end, None if there are none yet."""
    try:
        return os.read(pipe, _PIPE_BYTES)
    except BlockingIOError:
        return None
