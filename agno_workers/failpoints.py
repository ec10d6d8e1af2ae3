"""Named places where a test kills this very process, so that each cell of the crash matrix is met for sure.

`AGNO_CRASH_AT=tool.executed` ends the process with SIGKILL at the first time that place is reached;
`tool.executed:3` at the third; `tool.executed@/path` only while that file is there, and removes it first: so of
many processes, and over restarts, one dies once. `AGNO_CRASH_HOW` names another signal: `STOP`, `TERM`.

Nothing happens without the variable. Each name is said once in the code, and POINTS lists them.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

POINTS = {
    "submit.asked": "a run was asked for, nothing is stored",
    "submit.committed": "the run is in Postgres, its message is not sent",
    "dispatch.sent": "messages are in Redis, and still in the outbox",
    "dispatch.part": "one message of several is in Redis",
    "turn.received": "a turn's message was taken, the turn is not claimed",
    "turn.claimed": "the turn is claimed, the model is not asked",
    "turn.replied": "the model has answered, nothing is recorded",
    "turn.recorded": "the turn is recorded, what follows is not sent",
    "tool.received": "a tool's message was taken, the call is not claimed",
    "tool.claimed": "the call is claimed, the tool has not run",
    "tool.executed": "the tool has run, its result is not recorded",
    "tool.recorded": "the result is recorded, what follows is not sent",
    "scan.claimed": "the scan of an ingestion is claimed, nothing was looked for",
    "scan.found": "the sources are known, and not written down",
    "scan.recorded": "the sources are written down, what follows is not sent",
    "ingest.claimed": "a batch of sources is claimed, none is read",
    "ingest.read": "the documents were read, nothing is written",
    "ingest.recorded": "documents and chunks are in, what follows is not sent",
    "embed.claimed": "a batch of chunks is claimed, no vector is made",
    "embed.started": "a batch is at the provider, its id is not recorded",
    "embed.made": "the vectors are made, and not written",
    "embed.recorded": "the vectors are in, what follows is not sent",
    "finalize.claimed": "the end of an ingestion is claimed, nothing is tidied",
    "finalize.removed": "what vanished is removed, the ingestion has not ended",
    "finalize.recorded": "the ingestion has ended, what its canvas has behind it is not sent",
    "keeper.taken": "the keeper has taken something to send, and not sent it",
    "answer.recorded": "a person's answer is recorded, its step is not sent",
    "cancel.recorded": "a run is cancelled, the runs that it delegated to are not",
}

_lock = threading.Lock()
_reached = 0


def reach(name: str) -> None:
    """Say that a place is reached; where `AGNO_CRASH_AT` names it, this does not return."""
    if _WANTED is None:
        return
    if _WANTED["name"] is None:
        _maybe_die_of(Path(str(_WANTED["token"])), name)
    elif _WANTED["name"] == name:
        _maybe_die(_WANTED)


def _maybe_die_of(folder: Path, name: str) -> None:
    for token in [*sorted(folder.glob(f"{name}.[0-9]*")), folder / name]:
        try:
            how = token.read_text() or "KILL"
            token.unlink()
        except FileNotFoundError:  # none there, or another process was faster
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
    if (
        how is signal.SIGSTOP
    ):  # a stop that is meant for the whole process lets this thread run on for a moment
        signal.pthread_kill(threading.get_ident(), how)
    else:
        os.kill(os.getpid(), how)


def _wanted(text: str) -> dict[str, str | None] | None:
    if not text:
        return None
    found = re.fullmatch(r"((?P<name>[a-z.]+)(:(?P<nth>\d+))?)?(@(?P<token>.+))?", text)
    if found is None or found["name"] not in (*POINTS, None):
        raise ValueError(
            f"AGNO_CRASH_AT={text!r} names no failpoint: give one of {', '.join(POINTS)}, with :N or @FILE, or @FOLDER."
        )
    return found.groupdict()


_WANTED = _wanted(os.environ.get("AGNO_CRASH_AT", ""))
