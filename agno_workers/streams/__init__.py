"""Live events of a run in a Redis stream, for display only: the facts are rows in Postgres.

A stream may lack events or be gone; readers then use the rows. A failed write never fails a step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import redis

from agno_workers.core.messages import Delta

log = logging.getLogger(__name__)

_FLUSH_AFTER_S = 0.05
_FLUSH_AFTER_CHARS = 2000
_PAUSE_AFTER_ERROR_S = 20.0


class Streamed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One live event: a piece of a reply (`text`, `reasoning`), or a line that a tool emits (`line`)."""

    id: str
    """Its place in the Redis stream."""
    step_id: str
    """The step that writes it."""
    attempt: int = 0
    """The attempt of the step, from 1; 0 if an older worker wrote it."""
    text: str = ""
    """A piece of the answer."""
    reasoning: str = ""
    """A piece of the model's visible thinking."""
    line: str = ""
    """A line that a tool has emitted."""


class Streams:
    """The live streams of all runs."""

    def __init__(self, client: redis.Redis, *, max_events: int, ttl_s: int, key_prefix: str = "") -> None:
        self._client = client
        self._max_events = max_events
        self._ttl_s = ttl_s
        self._key_prefix = key_prefix
        self._silent_until = 0.0

    @contextmanager
    def writer(self, run_id: str, step_id: str, attempt: int) -> Iterator[Writer]:
        """Yield a writer of a step's events; it collects them for 50 ms each, and flushes at the end."""
        writer = Writer(self, run_id, step_id, attempt)
        try:
            yield writer
        finally:
            writer.flush()

    def append(self, run_id: str, fields: dict[str, str]) -> None:
        """Append one event. After a failure, events are dropped for 20 s, so that a Redis outage does not slow steps."""
        if time.monotonic() < self._silent_until:
            return
        key = self._key(run_id)
        clean = {
            name: text.encode("utf-8", "replace") for name, text in fields.items()
        }  # models write lone surrogates
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.xadd(key, clean, maxlen=self._max_events, approximate=True)  # type: ignore[arg-type]  # dict is invariant
                pipe.expire(key, self._ttl_s)
                pipe.execute()
        except redis.RedisError as error:
            self._silent_until = time.monotonic() + _PAUSE_AFTER_ERROR_S
            log.warning("dropped a live event: %s", error, extra={"run_id": run_id})

    def read(self, run_id: str, after: str = "0-0", wait_s: float = 0.0) -> list[Streamed]:
        """Return the events after the one with id `after`; wait up to `wait_s` for the first. Empty when Redis does not answer."""
        return self.read_all({run_id: after}, wait_s).get(run_id, [])

    def read_all(self, after: Mapping[str, str], wait_s: float = 0.0) -> dict[str, list[Streamed]]:
        """Return the events of several runs as `read` does; wait for the first of any run."""
        keys = {self._key(run_id): run_id for run_id in after}
        try:
            found: Any = self._client.xread(
                {key: after[run_id] for key, run_id in keys.items()},
                count=500,
                block=max(1, round(wait_s * 1000)) if wait_s else None,
            )
        except redis.RedisError as error:
            log.warning("could not read live events: %s", error, extra={"run_id": next(iter(after))})
            time.sleep(wait_s)
            return {}
        return {
            keys[key.decode()]: [_streamed(entry_id, fields) for entry_id, fields in entries]
            for key, entries in found or ()
        }

    def _key(self, run_id: str) -> str:
        return f"{self._key_prefix}agno:run:{run_id}"


def _streamed(entry_id: bytes, fields: dict[bytes, bytes]) -> Streamed:
    texts = {key.decode(): value.decode() for key, value in fields.items()}
    return msgspec.convert({"id": entry_id.decode(), **texts}, Streamed, strict=False)


class Writer:
    """Collect the pieces of one step, so that 200 tokens are not 200 round trips."""

    def __init__(self, streams: Streams, run_id: str, step_id: str, attempt: int) -> None:
        self._streams = streams
        self._run_id = run_id
        self._of = {"step_id": step_id, "attempt": str(attempt)}
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._chars = 0
        self._since = 0.0

    def __call__(self, delta: Delta) -> None:
        now = time.monotonic()
        if not self._chars:
            self._since = now
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        self._chars += len(delta.text) + len(delta.reasoning)
        if self._chars >= _FLUSH_AFTER_CHARS or now - self._since >= _FLUSH_AFTER_S:
            self.flush()

    def line(self, text: str) -> None:
        """Append a line of progress at once."""
        self._streams.append(self._run_id, self._of | {"line": text})

    def flush(self) -> None:
        if self._chars:
            self._streams.append(
                self._run_id,
                self._of
                | {
                    "text": "".join(self._text),
                    "reasoning": "".join(self._reasoning),
                },
            )
            self._text, self._reasoning, self._chars = [], [], 0
