"""Where a message goes that can't be read or must not be believed: out of the queue, and not out of sight."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from agno_workers.database.pool import Pool, statements

_SQL = statements("broker/quarantine")
HEAD_CHARACTERS = 2000
"""How much of a message is kept: enough to see whose it is."""
_NAME_CHARACTERS = 255


class Quarantined(msgspec.Struct, frozen=True):
    """A message as it is kept. Text is cut and cleaned when it is stored."""

    reason: str
    """`unreadable`, `unsigned`, `altered`, `replayed` or `unknown_task`."""
    detail: str
    queue: str
    task: str | None
    message_id: str | None
    head: str
    """The beginning of the message, as far as it can be shown as text."""
    bytes: int


class Count(msgspec.Struct, frozen=True):
    """How many messages were kept for one reason."""

    reason: str
    messages: int
    newest: datetime


class Quarantine:
    """The rows. Raises Unavailable where Postgres can't be reached."""

    def __init__(self, pool: Pool, *, worker: str = "", most_an_hour: int = 10_000) -> None:
        self._pool = pool
        self._worker = worker
        self._most = most_an_hour

    def keep(self, message: Quarantined) -> bool:
        """False: too many came within an hour, and this one is not stored."""
        row = {
            "reason": message.reason,
            "detail": _storable(message.detail, HEAD_CHARACTERS),
            "queue": _storable(message.queue, _NAME_CHARACTERS),
            "task": message.task and _storable(message.task, _NAME_CHARACTERS),
            "message_id": message.message_id and _storable(message.message_id, _NAME_CHARACTERS),
            "head": _storable(message.head, HEAD_CHARACTERS),
            "bytes": message.bytes,
            "worker": self._worker,
            "most": self._most,
        }
        return bool(self._pool.run(_SQL["keep"], row))

    def recent(self, since: timedelta) -> list[Count]:
        """What came within this time, by reason."""
        rows = self._pool.run(_SQL["recent"], {"seconds": since.total_seconds()})
        return [msgspec.convert(row, Count) for row in rows]


def _storable(text: str, characters: int) -> str:
    """Postgres takes neither U+0000 nor half a character."""
    return text[:characters].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
