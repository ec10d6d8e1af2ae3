"""Named moments of runs for listeners: failpoints now, telemetry and audit later.

Without a listener, `signal("turn.claimed")` costs a loop over an empty list.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Listener = Callable[..., None]
"""A listener gets the name of a signal, and its facts as keyword arguments."""

SIGNALS = {
    "submit.asked": "a run was requested, nothing is stored",
    "submit.committed": "the run is in Postgres, its message is not sent",
    "dispatch.sent": "messages are in Redis, and still in the outbox",
    "dispatch.part": "the messages of one queue are in Redis, those of another are not",
    "turn.received": "a turn's message was received, the turn is not claimed",
    "turn.claimed": "the turn is claimed, the model is not asked",
    "turn.replied": "the model has answered, nothing is recorded",
    "turn.recorded": "the turn is recorded, the next messages are not sent",
    "tool.received": "a tool's message was received, the call is not claimed",
    "tool.claimed": "the call is claimed, the tool has not run",
    "tool.executed": "the tool has run, its result is not recorded",
    "tool.recorded": "the result is recorded, the next messages are not sent",
    "compact.received": "a compaction's message was received, the step is not claimed",
    "compact.claimed": "a compaction is claimed, the model is not asked",
    "compact.replied": "the model has written the summary, nothing is recorded",
    "compact.recorded": "the summary is recorded, its turn is not sent",
    "scan.claimed": "the scan of an ingestion is claimed, it has not searched for sources",
    "scan.found": "the sources are found, and not recorded",
    "scan.recorded": "the sources are recorded, the next messages are not sent",
    "ingest.claimed": "a batch of sources is claimed, none is read",
    "ingest.read": "the documents were read, and not recorded",
    "ingest.recorded": "documents and chunks are recorded, the next messages are not sent",
    "embed.claimed": "a batch of chunks is claimed, no vector is made",
    "embed.started": "a batch is at the provider, its id is not recorded",
    "embed.made": "the vectors are made, and not recorded",
    "embed.recorded": "the vectors are recorded, the next messages are not sent",
    "finalize.claimed": "the end of an ingestion is claimed, nothing is finalized",
    "finalize.removed": "vanished documents are removed, the ingestion has not ended",
    "finalize.recorded": "the ingestion has ended, the next tasks of its canvas are not sent",
    "background.claimed": "background work is claimed, nothing is done",
    "background.worked": "background work is done, and not recorded",
    "background.recorded": "background work and the end of its run are recorded, the next messages are not sent",
    "keeper.taken": "the keeper has taken messages to send, and not sent them",
    "answer.recorded": "a person's answer is recorded, its step is not sent",
    "cancel.recorded": "a run is cancelled, its child runs are not",
}
_listeners: list[Listener] = []


def signal(name: str, **facts: Any) -> None:
    """Report a moment of SIGNALS to the listeners."""
    for listener in _listeners:
        listener(name, **facts)


def subscribe(listener: Listener) -> None:
    """Call `listener` for each signal from now on, in the thread that reports it."""
    _listeners.append(listener)


if text := os.environ.get("AGNO_CRASH_AT"):  # only crash tests set it, and pay for the import
    from agno_workers import failpoints

    subscribe(failpoints.listener(text, SIGNALS))
