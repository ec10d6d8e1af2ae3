"""Change runs from outside: cancel, pause, resume, retry, fork; and end runs, for the keeper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from uuid6 import uuid7

from agno_workers.core.messages import Message, ToolCall
from agno_workers.core.run import RunStatus
from agno_workers.core.step import ExpiredWait
from agno_workers.core.words import as_uuid, without_none
from agno_workers.database.pool import execute, jsonb, statements
from agno_workers.errors import InvalidInput, LimitReached, RunCancelled
from agno_workers.runs.base import Repository
from agno_workers.signals import signal

_SQL = statements("runs/control")


class Control(Repository):
    """See the module."""

    def cancel(self, run_id: str) -> bool:
        """Cancel a run and the runs that it delegated to; False when it has ended already."""
        stopped = self._stop(run_id, _cancelled(run_id))
        signal("cancel.recorded")
        for child_id in self.open_children(run_id) if stopped else ():
            self.cancel(child_id)  # after a crash before this, the keeper cancels them
        return stopped

    def cancel_all(self, run_ids: Sequence[str]) -> int:
        """Cancel several runs, and return how many of them it ended. One transaction ends most of them; those that were locked in it, or
        whose end locks more than the run, follow one by one.
        """
        stops = [{"id": run_id, "how": _cancelled(run_id)} for run_id in sorted(set(run_ids))]
        (row,) = self._pool.run(_SQL["stop_many"], {"stops": jsonb(stops)})
        stopped: int = row["stopped"]
        for left in self._pool.run(_SQL["still_open"], {"run_ids": list(run_ids)}):
            stopped += self._stop(left["id"], _cancelled(left["id"]))
        signal("cancel.recorded")
        if children := self.open_children(*run_ids):
            self.cancel_all(children)  # as in `cancel`
        return stopped

    def revoke(self, task_ids: Sequence[str]) -> set[str]:
        """Cancel the runs with these ids of Celery tasks, also the runs of steps; return the ids of other tasks.

        Those are remembered for 30 days, and until they are due: one may be a run of a canvas that is submitted later.
        """
        self._pool.run(
            _SQL["remember_revoked"], {"task_ids": list(task_ids)}
        )  # first, or a submit may slip by
        uuids = [task_id for task_id in task_ids if as_uuid(task_id)]
        found = {
            row["task_id"]: row["run_id"]
            for row in self._pool.run(_SQL["runs_of_tasks"], {"task_ids": uuids})
        }
        if found:
            self.cancel_all(list(found.values()))
        return {task_id for task_id in task_ids if as_uuid(task_id) not in found}

    def end_overdue(self, run_id: str) -> bool:
        """End a run past its deadline: as `failed` with LimitReached, or as `done` when its agent has `on_limit="return"`. Its last
        text is stored either way.
        """
        text = f"run {run_id} reached its deadline: raise deadline_s, or set on_limit='return'"
        error = LimitReached(text, run_id=run_id, reason="limit:deadline").to_json()
        how = {"status": RunStatus.DONE, "reason": "limit:deadline", "error": error, "overdue_only": True}
        return self._stop(run_id, how)

    def fail_unanswered(self, step: ExpiredWait, error: dict[str, Any]) -> bool:
        """End a run as `failed` because nobody answered this step; False when it was answered meanwhile."""
        how = {"status": RunStatus.FAILED, "reason": "nobody_answered", "error": error}
        return self._stop(step.run_id, how | {"if_waits": step.step_id})

    def open_children(self, *run_ids: str) -> list[str]:
        """Return the ids of the open runs that these runs delegated to."""
        return [row["id"] for row in self._pool.run(_SQL["open_children"], {"run_ids": list(run_ids)})]

    def pause(self, run_id: str) -> bool:
        """Pause a run and the runs that it delegated to: no further step is claimed. False when it has ended or is paused."""
        paused = bool(self._pool.run(_SQL["pause"], {"run_id": run_id}))
        for child_id in self.open_children(run_id):
            self.pause(child_id)
        return paused

    def resume(self, run_id: str) -> bool:
        """Resume a paused run and the runs that it delegated to; False when none of them is paused."""
        with self._pool.connection() as connection, connection.transaction():
            execute(connection, _SQL["hold_run"], {"run_id": run_id})
            resumed = bool(execute(connection, _SQL["resume"], {"run_id": run_id}))
        for child_id in self.open_children(run_id):  # read last: a turn under way may delegate meanwhile
            resumed = self.resume(child_id) or resumed
        return resumed

    def retry_run(self, run_id: str) -> bool:
        """Retry a failed run after its last good turn; False when it has not failed."""
        return bool(self._pool.run(_SQL["retry_run"], {"run_id": run_id}))

    def fork(
        self, step_id: str, *, asked: Message | None = None, messages: Sequence[tuple[int, Message]] = (),
        call: ToolCall | None = None, **options: Any,
    ) -> tuple[str, bool]:  # fmt: skip
        """Start a new run at a step of another one; return `(run_id, created)`.

        `asked` replaces the first message (at a later turn it is inserted before the turn, at a delegation it is the input of the
        child run); `messages` replace those at their positions; `call` replaces the call of the tool step. `options`:
        idempotency_key, metadata, deadline_s.
        """
        payloads = self._payloads()
        fork = {
            "id": str(uuid7()),
            "step_id": step_id,
            "input": None if asked is None else payloads.pack(asked),
            "messages": [{"seq": seq, "content": payloads.pack(message)} for seq, message in messages],
            "call": None if call is None else payloads.pack(call),
            **options,
            "blobs": payloads.blobs,
        }
        try:
            (row,) = self._pool.run(_SQL["fork"], {"fork": jsonb(without_none(fork))})
        except psycopg.errors.InvalidParameterValue as error:
            raise InvalidInput(str(error.diag.message_primary), step_id=step_id) from error
        return row["run_id"], row["created"]

    def _stop(self, run_id: str, how: dict[str, Any]) -> bool:
        (row,) = self._pool.run(_SQL["stop"], {"run_id": run_id, "how": jsonb(how)})
        return bool(row["stopped"])


def _cancelled(run_id: str) -> dict[str, Any]:
    error = RunCancelled(f"run {run_id} was cancelled", run_id=run_id).to_json()
    return {"status": RunStatus.CANCELLED, "reason": "cancelled", "error": error}
