"""The process that reads documents: `python -m agno_workers.knowledge.child`. A malicious document kills only this process.

The worker (process.py) writes an order, then tasks, and receives an answer to each, in order. The kernel limits the parsers:
address space, CPU seconds for each document, no writable files, few open ones. The process exits when its input is closed, and
is killed by a signal if the worker dies while a document is read.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import resource
import signal
import time
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from agno_workers.errors import AgnoError, SettingsError, message_of
from agno_workers.knowledge.frames import LENGTH_BYTES, Answer, Order, Task, frame
from agno_workers.knowledge.readers import detect, read, read_rows
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Chunking, Parsed, Prepared, Refusal, Source

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_MAX_DOCUMENTS = 5000  # parsers leak; a new child costs as much as some documents
_MAX_OPEN_FILES = 64
_LOOK_AT_MEMORY_EVERY = 20  # documents

Prepare = Callable[[Parsed, bytes, str, Source, Chunking], Prepared | Refusal]


def main() -> None:
    """Answer tasks until the input is closed."""
    tasks, answers = _private_pipes()
    order = msgspec.msgpack.decode(_next_frame(tasks) or b"", type=Order)
    _end_with(order.parent)
    child = _Child(order)
    _send(answers, Answer())
    decoder = msgspec.msgpack.Decoder(Task)
    while (content := _next_frame(tasks)) is not None:
        task = decoder.decode(content)
        del content
        answer = child.answer(task)
        _send(answers, answer)
        if answer.leaves:
            return


class _Child:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._prepare: Prepare = _find(order.prepare)
        self._read = 0
        _warm_up(self._prepare)
        _limit(order)
        gc.freeze()  # loaded modules stay

    def answer(self, task: Task) -> Answer:
        _allow_cpu(self._order.time_limit_s)
        self._read += 1
        try:
            outcome = self._outcome(task)
        except AgnoError as error:
            return Answer(fault=error.to_json())
        except ImportError as error:  # such as a missing library
            return Answer(fault=SettingsError(f"documents can't be read here: {error}.").to_json())
        except MemoryError:
            pass
        else:
            if isinstance(outcome, Refusal):
                return Answer(refusal=outcome, leaves=self._has_enough())
            if isinstance(outcome, tuple):
                return Answer(rows=outcome, leaves=self._has_enough())
            return Answer(prepared=outcome, leaves=self._has_enough())
        return Answer(refusal=self._no_memory(), leaves=True)

    def _outcome(self, task: Task) -> Prepared | Refusal | tuple[Source, ...]:
        """Read one document. Any error of a parser is the document's fault; Rust panics are not Exceptions."""
        try:
            media_type = detect(task.content, task.media_type, task.name)
            if task.source.rows:
                return read_rows(task.content, media_type, task.source)
            parsed = _with(read(task.content, media_type, task.name), task.seen)
        except (MemoryError, ImportError, AgnoError):
            raise
        except Unreadable as error:
            return Refusal(error.type, _writable(str(error)))
        except RecursionError:
            return Refusal("unreadable", "It is nested too deeply to be read.")
        except BaseException as error:
            return Refusal("unreadable", f"It is broken: the parser failed with {_shown(error)}.")
        try:
            essence = media_type.partition(";")[0]
            return self._prepare(parsed, task.content, essence, task.source, task.chunking)
        except (MemoryError, ImportError, AgnoError):
            raise
        except BaseException as error:
            return Refusal("crashed", f"It was read, but chunking failed with {_shown(error)}.")

    def _has_enough(self) -> bool:
        if self._read % _LOOK_AT_MEMORY_EVERY:
            return False
        return self._read >= _MAX_DOCUMENTS or _resident_bytes() > self._order.memory_limit_bytes // 3

    def _no_memory(self) -> Refusal:
        limit = self._order.memory_limit_bytes // 1_000_000
        return Refusal("memory_limit", f"Reading it takes more than the limit of {limit} MB.")


def _with(parsed: Parsed, seen: Parsed | None) -> Parsed:
    """Append the description of an image to its metadata."""
    if seen is None:
        return parsed
    return Parsed(parsed.blocks + seen.blocks, parsed.title, parsed.metadata | seen.metadata)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes for tasks and answers. Output of libraries goes to the log."""
    tasks, answers = os.fdopen(os.dup(0), "rb", 1 << 16), os.fdopen(os.dup(1), "wb", 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return tasks, answers


def _next_frame(tasks: BinaryIO) -> bytes | None:
    """Return None if the worker closed the pipe or died."""
    length = tasks.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    content = tasks.read(size := int.from_bytes(length, "little"))
    return content if len(content) == size else None


def _send(answers: BinaryIO, answer: Answer) -> None:
    try:
        content = frame(answer)
    except (
        MemoryError,
        TypeError,
        ValueError,
    ) as error:  # a custom strategy returned something else than text, or too much
        why = f"The result can't be encoded: {_shown(error)}."
        content = frame(Answer(refusal=Refusal("crashed", why), leaves=answer.leaves))
    left = memoryview(content)
    while left:
        left = left[answers.write(left) :]


def _end_with(parent: int) -> None:
    """Let the kernel kill this process with the thread that started it, which reading.py keeps alive."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:  # the parent died before prctl
        os._exit(1)


def _find(name: str) -> Prepare:
    module, _, function = name.partition(":")
    found: Prepare = getattr(importlib.import_module(module), function)
    return found


def _warm_up(prepare: Prepare) -> None:
    """Load everything that a document needs before limits apply, such as the language model, which writes a file."""
    words = "This is the first of the documents, and nobody will ever search for it."
    prepare(
        Parsed((Block("paragraph", words),)), words.encode(), "text/plain", Source("text:first"), Chunking()
    )


def _limit(order: Order) -> None:
    for kind, wished in (
        (resource.RLIMIT_AS, order.memory_limit_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = wished if hard == resource.RLIM_INFINITY else min(wished, hard)
        resource.setrlimit(kind, (limit, limit))


def _allow_cpu(seconds: float) -> None:
    """SIGXCPU ends the process after this much more CPU time, accurate to a second."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def _resident_bytes() -> int:
    """Not from getrusage, whose peak includes that of the parent."""
    with open("/proc/self/statm", "rb") as pages:  # noqa: PTH123 - pathlib is slow to import
        return int(pages.read().split()[1]) * resource.getpagesize()


def _shown(error: BaseException) -> str:
    return _writable(f"{type(error).__name__}: {message_of(error)}".rstrip(": "))


def _writable(message: str) -> str:
    """Make a message encodable: libraries quote bytes of the file."""
    return message[:500].encode(errors="replace").decode().replace("\0", "?")


if __name__ == "__main__":
    main()
