"""Failpoints: a test kills this process at a signal of `signals.py`.

`AGNO_CRASH_AT=tool.executed` sends SIGKILL at the first such signal, `tool.executed:3` at the third. `tool.executed@/path` does
so only while that file exists, and removes it first: of many processes, and over restarts, one dies once. `AGNO_CRASH_HOW`
names another signal: `STOP`, `TERM`. `@/folder` kills at each signal whose token file is in that folder.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Collection
from pathlib import Path

_lock = threading.Lock()
_reached = 0


def listener(text: str, names: Collection[str]) -> Callable[..., None]:
    """Return a listener that kills this process at the failpoint `text`, the value of `AGNO_CRASH_AT`. Raises ValueError."""
    wanted = _parsed(text, names)

    def reached(name: str, **_: object) -> None:
        if wanted["name"] is None:
            _maybe_die_of(Path(str(wanted["token"])), name)
        elif wanted["name"] == name:
            _maybe_die(wanted)

    return reached


def _maybe_die_of(folder: Path, name: str) -> None:
    for token in [*sorted(folder.glob(f"{name}.[0-9]*")), folder / name]:
        try:
            how = token.read_text() or "KILL"
            token.unlink()
        except FileNotFoundError:  # there is none, or another process was faster
            continue
        if token.name == name:
            _send_itself(signal.Signals[f"SIG{how}"])
        return


def _maybe_die(wanted: dict[str, str | None]) -> None:
    global _reached
    with _lock:
        _reached += 1
        if wanted["nth"] and _reached != int(wanted["nth"]):
            return
        if wanted["token"]:
            try:
                Path(wanted["token"]).unlink()
            except FileNotFoundError:
                return
    _send_itself(signal.Signals[f"SIG{os.environ.get('AGNO_CRASH_HOW', 'KILL')}"])


def _send_itself(how: signal.Signals) -> None:
    if how is signal.SIGSTOP:  # os.kill would let this thread run on for a moment
        signal.pthread_kill(threading.get_ident(), how)
    else:
        os.kill(os.getpid(), how)


def _parsed(text: str, names: Collection[str]) -> dict[str, str | None]:
    found = re.fullmatch(r"((?P<name>[a-z.]+)(:(?P<nth>\d+))?)?(@(?P<token>.+))?", text)
    if found is None or found["name"] not in (*names, None):
        raise ValueError(
            f"AGNO_CRASH_AT={text!r} is not a failpoint: write one of {', '.join(names)}, with :N or @FILE, or @FOLDER."
        )
    return found.groupdict()
