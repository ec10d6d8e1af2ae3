"""The transcripts that a process has read, so that a claim of the next turn reads only the messages that are new.

Postgres decides whether what is known still holds, see `agno.claim_steps`: a retry may have deleted the last messages, or a backup
may have been restored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import msgspec

from agno_workers.core.messages import Message
from agno_workers.forks import after_fork


class Transcript(msgspec.Struct, frozen=True):
    """All messages of a run up to one of them; the oldest may be compacted to a summary."""

    messages: tuple[Message, ...] = ()
    last: dict[str, int | None] = {}
    """The number of the last message, when it was written, and the first number after the summary (0: there is none): `{"seq", "at",
    "since"}`."""
    size: int = 0
    """The characters of its JSON."""

    def extended(
        self, new: tuple[Message, ...], size: int, seq: int, at: int | None, since: int = 0
    ) -> Transcript:
        return Transcript((*self.messages, *new), {"seq": seq, "at": at, "since": since}, self.size + size)


class Transcripts:
    """The transcripts that were used last, at most `max_size` characters of JSON. All threads of a process share it."""

    def __init__(self, max_size: int = 16 * 1024 * 1024) -> None:
        self._max_size = max_size
        self._begin()
        after_fork(self, Transcripts._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Transcript] = OrderedDict()
        self._size = 0

    def of(self, run_id: str) -> Transcript | None:
        return self._kept.get(run_id)

    def keep(self, run_id: str, transcript: Transcript) -> None:
        """Keep the transcript of a run in place of the one that is kept of it, and drop those that were not used for longest."""
        with self._lock:
            self._drop(run_id)
            self._kept[run_id] = transcript
            self._size += transcript.size
            while self._size > self._max_size:
                self._drop(next(iter(self._kept)))

    def forget(self, run_id: str) -> None:
        with self._lock:
            self._drop(run_id)

    def _drop(self, run_id: str) -> None:
        if transcript := self._kept.pop(run_id, None):
            self._size -= transcript.size
