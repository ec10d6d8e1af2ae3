"""The quarantine: rejected messages leave their queue and are stored for a person to look at."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from agno_workers.database.pool import Pool, statements

_SQL = statements("broker/quarantine")
HEAD_CHARACTERS = 2000
"""How much of a message is stored: enough to identify its sender."""
_NAME_CHARACTERS = 255


class Quarantined(msgspec.Struct, frozen=True):
    """A rejected message. Text is truncated and cleaned when it is stored."""

    reason: str
    """`unreadable`, `unsigned`, `altered`, `replayed`, `unknown_task`, or `unsendable` for a delayed task."""
    detail: str
    queue: str
    task: str | None
    message_id: str | None
    head: str
    """The beginning of the message, as text."""
    bytes: int


class ReasonCount(msgspec.Struct, frozen=True):
    """The number of messages that were quarantined for one reason."""

    reason: str
    messages: int
    newest: datetime


class Quarantine:
    """The table agno.quarantine. Raises Unavailable when Postgres can't be reached."""

    def __init__(self, pool: Pool, *, worker: str = "", max_per_hour: int = 10_000) -> None:
        self._pool = pool
        self._worker = worker
        self._max_per_hour = max_per_hour

    def store(self, message: Quarantined) -> bool:
        """Store a message; return False, without storing it, when `max_per_hour` is reached."""
        row = {
            "reason": message.reason,
            "detail": _storable(message.detail, HEAD_CHARACTERS),
            "queue": _storable(message.queue, _NAME_CHARACTERS),
            "task": message.task and _storable(message.task, _NAME_CHARACTERS),
            "message_id": message.message_id and _storable(message.message_id, _NAME_CHARACTERS),
            "head": _storable(message.head, HEAD_CHARACTERS),
            "bytes": message.bytes,
            "worker": self._worker,
            "max_per_hour": self._max_per_hour,
        }
        return bool(self._pool.run(_SQL["store"], row))

    def count_recent(self, since: timedelta) -> list[ReasonCount]:
        """Count the messages of the last `since`, by reason."""
        rows = self._pool.run(_SQL["count_recent"], {"seconds": since.total_seconds()})
        return [msgspec.convert(row, ReasonCount) for row in rows]


def _storable(text: str, characters: int) -> str:
    """Truncate text, and replace what Postgres refuses: U+0000 and lone surrogates."""
    return text[:characters].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
