"""Celery's result backend on Postgres, so that results and chords survive whatever Redis forgets.

`AsyncResult.get()` of a run reads the run; of a user's own task, the row that its worker wrote. A chord's counter
is a row beside its parts: a part and the count are one commit, and the body is owed in that same commit.
The turns and tools of a run have no results of their own: their chord was committed by `runs.commit.Commits.fan_out`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.backends.base import BaseBackend
from celery.result import GroupResult, result_from_tuple

from agno_workers.broker.names import STEP_TASKS, TOOL
from agno_workers.core.run import RunStatus
from agno_workers.database.pool import retry_while_unavailable, to_json
from agno_workers.errors import AgnoError, Unavailable
from agno_workers.runs.results import Outcome, barrier_id, is_over

if TYPE_CHECKING:
    from agno_workers.broker.dispatch import Dispatch

log = logging.getLogger(__name__)

_DEATHS = (exceptions.WorkerLostError, exceptions.TimeLimitExceeded, exceptions.Terminated)
"""What Celery says when the process that carried a task is gone."""

STATES = {
    RunStatus.QUEUED: states.PENDING,
    RunStatus.RUNNING: states.STARTED,
    RunStatus.WAITING: states.STARTED,
    RunStatus.DONE: states.SUCCESS,
    RunStatus.FAILED: states.FAILURE,
    RunStatus.CANCELLED: states.REVOKED,
}
"""A run's status in Celery's words."""


class PostgresBackend(BaseBackend):
    """`result_backend` of our app. It needs `app.dispatch`, which `wiring.attach` gives to any Celery app."""

    persistent = True
    supports_native_join = False
    thread_safe = True

    @property
    def _dispatch(self) -> Dispatch:
        dispatch: Callable[[], Dispatch] | None = getattr(self.app, "dispatch", None)
        if dispatch is None:
            raise exceptions.ImproperlyConfigured(
                "this Celery app is not connected: call agno_workers.attach(app) after creating it"
            )
        return dispatch()

    # Results.

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> None:
        if _is_step(request):
            return
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        self._dispatch.results.store(task_id, state, self._as_json(meta))

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self._meta(task_id, self._dispatch.results.outcome(task_id))

    def _meta(self, task_id: str, outcome: Outcome | None) -> dict[str, Any]:
        if outcome is None:
            return {"task_id": task_id, "status": states.PENDING, "result": None}
        if outcome.meta is not None:
            meta: dict[str, Any] = self.meta_from_decoded(self.decode(to_json(outcome.meta)))
            return meta
        state = STATES[RunStatus(outcome.status)]
        result = AgnoError.from_json(outcome.error) if outcome.error else outcome.content
        ended_at = outcome.ended_at and outcome.ended_at.isoformat()
        return {
            "task_id": task_id,
            "status": state,
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": ended_at,
        }

    def wait_for(self, task_id: str, timeout: float | None = None, on_interval: Any = None, **_: Any) -> Any:
        """As Celery's, but woken by NOTIFY instead of a poll each `interval`."""

        def look() -> dict[str, Any] | None:
            outcome = self._dispatch.results.outcome(task_id)
            return self._meta(task_id, outcome) if outcome and is_over(outcome) else None

        meta = self._dispatch.results.wait(task_id, look, timeout, on_interval)
        if meta is None:
            raise exceptions.TimeoutError(f"task {task_id} has not ended within {timeout} s; it goes on")
        return meta

    def _forget(self, task_id: str) -> None:
        self._dispatch.results.forget(task_id)

    def _save_group(self, group_id: str, result: GroupResult) -> GroupResult:
        self._dispatch.results.save_group(group_id, result.as_tuple())
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        row = self._dispatch.results.restore_group(group_id)
        if row is None:
            return None
        return {
            "task_id": group_id,
            "result": result_from_tuple(row["result"], self.app),
            "date_done": row["created_at"],
        }

    def _delete_group(self, group_id: str) -> None:
        self._dispatch.results.delete_group(group_id)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Reading and storing hold on while Postgres is away; see `result_backend_*` in app.py."""
        return isinstance(exc, Unavailable)

    # Chords.

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """Write a user's chord down before its header is sent."""
        header_result = self.app.GroupResult(*header_result_args)
        chord_id = barrier_id(header_result.id)
        if any(isinstance(result, GroupResult) for result in header_result.results):
            self.save_group(chord_id, header_result)
        self._dispatch.results.open_chord(chord_id, self._as_json(dict(body)))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        self._dispatch.results.size_chord(barrier_id(group_id), chord_size)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """A header task of a user's chord came back. A tool's own part was counted in the commit of its result."""
        if request.task == TOOL or not request.group or not request.id:
            return
        encoded, chord_id = self._as_json(self.encode_result(result, state)), barrier_id(request.group)
        part = chord_id, request.id, request.group_index, state, encoded
        if retry_while_unavailable(self._dispatch.results.chord_part, *part):
            self._dispatch.continue_chord(chord_id)
        elif state == states.SUCCESS:
            log.warning(
                "task %s is part of a chord that is not in this database: was it sent by an app that keeps its chords elsewhere?",
                request.id,
            )

    def _as_json(self, value: Any) -> Any:
        """Plain JSON, with what Celery makes of dates and the like."""
        return json.loads(self.encode(value))

    def mark_as_failure(
        self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> None:
        """A step whose worker process died gives up its lease at once; anything else is Celery's own affair."""
        if _is_step(request):
            if isinstance(exc, _DEATHS):
                self._dispatch.claims.give_up(task_id)
            return  # anything else may have met a copy of the step: its lease tells
        super().mark_as_failure(task_id, exc, traceback, request, **kwargs)

    def _fail_chain(
        self, chain: Any, exc: BaseException, *_: Any, state: str = states.FAILURE, **__: Any
    ) -> None:
        """As Celery's, but telling also those who wait for a task inside of a group or a chord of the chain."""
        self._dispatch.followers.after_failure(chain or (), exc, state)


def _is_step(request: Any) -> bool:
    # What Celery makes up for a task that the worker does not know has no `task`.
    return getattr(request, "task", None) in STEP_TASKS
