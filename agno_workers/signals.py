"""Named moments in the life of runs, for whoever listens: failpoints now, telemetry and audit later.

`signal("turn.claimed")` costs a loop over nothing when nobody listens.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Listener = Callable[..., None]
"""Called with the name of a signal, and with its facts as keyword arguments."""

SIGNALS = {
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
_listeners: list[Listener] = []


def signal(name: str, **facts: Any) -> None:
    """Report that a moment has come; each is named once in the code, and SIGNALS lists them."""
    for listener in _listeners:
        listener(name, **facts)


def subscribe(listener: Listener) -> None:
    """Call `listener` for each signal from now on, in the thread that reports it."""
    _listeners.append(listener)


if text := os.environ.get("AGNO_CRASH_AT"):  # only tests of crashes set it: they alone pay for the import
    from agno_workers import failpoints

    subscribe(failpoints.listener(text, SIGNALS))
