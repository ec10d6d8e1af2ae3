"""The outbox: messages that are committed with the state that caused them, and published right after."""

from __future__ import annotations

from collections.abc import Sequence

from agno_workers.core.step import CanvasContinuation, StepMessage
from agno_workers.database.pool import Row, statements
from agno_workers.runs.base import Repository, convert

_SQL = {**statements("runs/outbox"), "take": statements("runs/maintain")["take_outbox"]}


class Outbox(Repository):
    """See the module."""

    @property
    def publish_after_s(self) -> float:
        """The age at which the keeper sends a message."""
        return self._numbers.publish_after_s

    def pending(self, run_id: str) -> list[StepMessage]:
        """Return the messages of a run that are not published yet."""
        return [convert(row, StepMessage) for row in self._pool.run(_SQL["pending"], {"run_id": run_id})]

    def published(self, outbox_ids: Sequence[int]) -> None:
        """Delete messages that were published."""
        if outbox_ids:
            self._pool.run(_SQL["published"], {"outbox_ids": list(outbox_ids)})

    def take(self, limit: int, again_s: float) -> list[StepMessage | CanvasContinuation]:
        """Take overdue messages for `again_s`, and delete messages of steps that are no longer ready."""
        rows = self._pool.run(_SQL["take"], {"limit": limit, "again_s": again_s})
        stale = [
            row["outbox_id"]
            for row in rows
            if row["wanted"] is not True and not (row["ended_run_id"] or row["chord_id"])
        ]
        self.published(stale)
        return [_message(row) for row in rows if row["outbox_id"] not in stale]


def _message(row: Row) -> StepMessage | CanvasContinuation:
    is_canvas = row["ended_run_id"] or row["chord_id"]
    return convert(row, CanvasContinuation) if is_canvas else convert(row, StepMessage)
