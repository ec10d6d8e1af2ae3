"""Change runs from outside: cancel, pause, resume, retry, fork; and end runs, for the keeper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from msgspec import Raw
from uuid6 import uuid7

from agno_workers.core.messages import Message, ToolCall
from agno_workers.core.run import RunStatus
from agno_workers.core.step import ExpiredWait
from agno_workers.core.words import as_uuid, without_none
from agno_workers.database.pool import execute, jsonb, statements, to_json
from agno_workers.errors import InvalidInput, LimitReached, RunCancelled
from agno_workers.runs.base import Repository
from agno_workers.signals import signal

_SQL = statements("runs/control")


class Control(Repository):
    """See the module."""

    def cancel(self, run_id: str) -> bool:
        """Cancel a run and all runs below it; False when it has ended already."""
        return self._stop_tree(run_id, _cancelled(run_id))

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
        if run_ids:
            self._cancel_below(*run_ids)
        return stopped

    def _cancel_below(self, *run_ids: str) -> None:
        """Cancel the runs that these runs started, a level at a time; after a crash before this, the keeper does."""
        if children := self.open_children(*run_ids):
            self.cancel_all(children)

    def cancel_abandoned(self, run_id: str) -> None:
        """Cancel the runs that a program started and needs no more; after a crash before this, the keeper does."""
        if abandoned := self._pool.run(_SQL["abandoned_children"], {"run_id": run_id}):
            self.cancel_all([row["id"] for row in abandoned])

    def signal(self, run_id: str, name: str, payload: Any = None, key: str | None = None) -> bool:
        """Send a signal to a run; False for a key that was sent before. Raises InvalidInput, RunNotFound, and NotWaiting for a run that has ended."""
        if type(name) is not str or type(key) not in (str, type(None)):
            raise InvalidInput(
                f"the name and the key of a signal are text, got {name!r} and {key!r}.", run_id=run_id
            )
        try:
            stored = None if payload is None else Raw(to_json(payload))
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"the payload of signal {name!r} can't be stored as JSON: {error}.", run_id=run_id
            ) from error
        asked = {"run_id": run_id, "name": name, "payload": jsonb(stored), "key": key}
        return bool(self._pool.run(_SQL["signal"], asked)[0]["is_sent"])

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
        return self._stop_tree(run_id, how)

    def fail_unanswered(self, step: ExpiredWait, error: dict[str, Any]) -> bool:
        """End a run as `failed` because nobody answered this step; False when it was answered meanwhile."""
        how = {"status": RunStatus.FAILED, "reason": "nobody_answered", "error": error}
        return self._stop_tree(step.run_id, how | {"if_waits": step.step_id})

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

    def _stop_tree(self, run_id: str, how: dict[str, Any]) -> bool:
        stopped = self._stop(run_id, how)
        signal("cancel.recorded")
        if stopped:
            self._cancel_below(run_id)
        return stopped

    def _stop(self, run_id: str, how: dict[str, Any]) -> bool:
        (row,) = self._pool.run(_SQL["stop"], {"run_id": run_id, "how": jsonb(how)})
        return bool(row["stopped"])


def _cancelled(run_id: str) -> dict[str, Any]:
    error = RunCancelled(f"run {run_id} was cancelled", run_id=run_id).to_json()
    return {"status": RunStatus.CANCELLED, "reason": "cancelled", "error": error}
