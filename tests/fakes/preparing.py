"""Stands for knowledge/prepare.py in reading children, and does to its process what the first line of the document says."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Chunking, Parsed, Prepared, Source

_kept: list[bytes] = []


def prepare(parsed: Parsed, content: bytes, media_type: str, source: Source, chunking: Chunking) -> Prepared:
    """The first line becomes the title; the metadata tells about the process."""
    title = parsed.blocks[0].text.splitlines()[0] if parsed.blocks else ""
    word, _, rest = title.partition(" ")
    if word == "surrogate":
        title = "\ud800"
    if word in _DEEDS:
        _DEEDS[word](rest)
    process: dict[str, Any] = {
        "pid": os.getpid(),
        "has_text": source.text is not None,
        "environment": sorted(os.environ),
        "limits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
            for name in ("AS", "FSIZE", "CORE", "NOFILE")
        },
    }
    return Prepared(title, media_type, None, len(content), b"", b"", (), parsed.metadata | process, ())


def _loop(_: str) -> None:
    while True:
        pass


def _eat(megabytes: str) -> None:
    _kept.append(b"x" * (int(megabytes) * 1_000_000))


def _crash(_: str) -> None:
    ctypes.string_at(0)


def _kill(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])


def _kill_once(marker: str) -> None:
    if not Path(marker).exists():
        Path(marker).touch()
        _kill("SIGKILL")


def _talk(_: str) -> None:
    for _line in range(10_000):
        print("a library that prints")  # noqa: T201


def _babble(_: str) -> None:
    for descriptor in range(3, 12):
        try:
            os.write(descriptor, b"\xff" * 64)
        except OSError:
            pass  # no pipe of ours
    time.sleep(60)


def _write(path: str) -> None:
    Path(path).write_text("x")


def _wrong_strategy(_: str) -> None:
    raise InvalidInput("That strategy can't be loaded.", strategy="x:y")


def _missing(_: str) -> None:
    import no_such_library  # type: ignore[import-not-found] # noqa: F401


def _tell_and_loop(path: str) -> None:
    Path(path).symlink_to(str(os.getpid()))  # a link has no bytes, and none may be written
    _loop("")


_DEEDS = {
    "loop": _loop,
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "eat": _eat,
    "crash": _crash,
    "kill": _kill,
    "kill-once": _kill_once,
    "exit": lambda status: os._exit(int(status)),
    "talk": _talk,
    "babble": _babble,
    "write": _write,
    "raise": lambda words: (_ for _ in ()).throw(RuntimeError(words)),
    "wrong-strategy": _wrong_strategy,
    "missing": _missing,
    "tell-and-loop": _tell_and_loop,
}
