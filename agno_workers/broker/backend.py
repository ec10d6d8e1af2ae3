"""Celery's result backend on Postgres, so that results and chords survive a loss of Redis.

`AsyncResult.get()` of a run reads the run; of a user's own task, the row that its worker wrote. A chord's counter is a row
beside its parts: one commit stores a part, counts it, and writes the body to the outbox. The turns and tools of a run have no
Celery results: `runs.commit.Commits.fan_out` committed their chord.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from celery import exceptions, states
from celery.backends.base import BaseBackend
from celery.result import GroupResult, result_from_tuple

from agno_workers.broker.canvas import CanvasSubmit, sending
from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.home import routed
from agno_workers.broker.names import STEP_TASKS, TOOL
from agno_workers.broker.states import STATES
from agno_workers.core.run import RunStatus
from agno_workers.database.pool import retry_while_unavailable, to_json
from agno_workers.errors import AgnoError, Unavailable
from agno_workers.runs.results import Outcome, barrier_id, is_over
from agno_workers.runs.submit import Chord

log = logging.getLogger(__name__)

_PROCESS_LOST = (exceptions.WorkerLostError, exceptions.TimeLimitExceeded, exceptions.Terminated)
"""Celery's errors for a task whose process has ended."""


class PostgresBackend(BaseBackend):
    """`result_backend` of our app. It needs `app.dispatch`, which `wiring.attach` sets on any Celery app."""

    persistent = True
    supports_native_join = False
    thread_safe = True

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        if (problem := unreadable(app.conf)) is not None:
            raise exceptions.ImproperlyConfigured(problem)

    @property
    def _dispatch(self) -> Dispatch:
        dispatch: Callable[[], Dispatch] | None = getattr(self.app, "dispatch", None)
        if dispatch is None:
            raise exceptions.ImproperlyConfigured(
                "this Celery app has no connection to Postgres: call agno_workers.attach(app) after creating it"
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

    def as_uri(self, include_password: bool = False) -> str:  # noqa: ARG002 - Celery's signature
        """Return the place of the results, for the banner of a worker."""
        return f"Postgres, {self._dispatch.results.address}"

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self._meta(task_id, self._dispatch.results.outcome(task_id))

    def _meta(self, task_id: str, outcome: Outcome | None) -> dict[str, Any]:
        if outcome is None:
            return {"task_id": task_id, "status": states.PENDING, "result": None}
        if outcome.meta is not None:
            meta: dict[str, Any] = self.meta_from_decoded(self.decode(to_json(outcome.meta)))
            return meta
        state = STATES[RunStatus(outcome.status)]
        result = AgnoError.from_json(outcome.error, run_id=task_id) if outcome.error else outcome.content
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
        """Wait as Celery does, but for NOTIFY instead of polling each `interval`."""

        def ended() -> dict[str, Any] | None:
            outcome = self._dispatch.results.outcome(task_id)
            return self._meta(task_id, outcome) if outcome and is_over(outcome) else None

        meta = self._dispatch.results.wait(task_id, ended, timeout, on_interval)
        if meta is None:
            raise exceptions.TimeoutError(f"task {task_id} has not ended within {timeout} s; it continues")
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
        """Retry while Postgres is unreachable; see `result_backend_*` in app.py."""
        return isinstance(exc, Unavailable)

    # Chords.

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """Store a user's chord before its header is sent."""
        header_result = self.app.GroupResult(*header_result_args)
        chord = Chord(barrier_id(header_result.id), self._as_json(routed(self.app, body)))
        if any(isinstance(result, GroupResult) for result in header_result.results):
            chord.header = header_result.as_tuple()
        if not getattr(self.app, "stores_canvases", False):
            self._dispatch.submissions.submit_canvas([], [chord])
            return
        canvas = sending.get() or CanvasSubmit(self.app)
        sending.set(canvas)
        canvas.open_chord(chord)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        canvas, chord_id = sending.get(), barrier_id(group_id)
        if canvas is None or not canvas.size_chord(chord_id, chord_size):
            self._dispatch.results.size_chord(chord_id, chord_size)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """Store a part of a user's chord. A tool's part was counted in the commit of its result."""
        if request.task == TOOL or not request.group or not request.id:
            return
        encoded, chord_id = self._as_json(self.encode_result(result, state)), barrier_id(request.group)
        part = chord_id, request.id, request.group_index, state, encoded
        if retry_while_unavailable(self._dispatch.results.chord_part, *part):
            self._dispatch.continue_chord(chord_id)
        elif state == states.SUCCESS:
            log.warning(
                "the chord of task %s is not in this database: does the app that sent it use another result backend?",
                request.id,
            )

    def _as_json(self, value: Any) -> Any:
        """Return plain JSON, with Celery's encoding of dates and the like."""
        return json.loads(self.encode(value))

    def mark_as_failure(
        self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> None:
        """Release the lease of a step whose process ended; Celery handles users' own tasks."""
        if _is_step(request):
            if isinstance(exc, _PROCESS_LOST):
                self._dispatch.claims.end_lease(task_id)
            return  # any other error may belong to a second copy of the step: the lease decides
        super().mark_as_failure(task_id, exc, traceback, request, **kwargs)

    def _fail_chain(
        self, chain: Any, exc: BaseException, *_: Any, state: str = states.FAILURE, **__: Any
    ) -> None:
        """Fail a chain as Celery does, and also the tasks inside its groups and chords."""
        self._dispatch.continuations.after_failure(chain or (), exc, state)


def _is_step(request: Any) -> bool:
    # The request that Celery makes for an unknown task has no `task`.
    return getattr(request, "task", None) in STEP_TASKS


def unreadable(conf: Any) -> str | None:
    """Return why workers and Postgres can't read what a Celery app with this configuration sends, or None."""
    expected = {"task_serializer": "json", "result_serializer": "json", "task_protocol": 2}
    wrong = [name for name, value in expected.items() if conf[name] != value] + [
        name
        for name in ("accept_content", "result_accept_content")
        if conf[name] is not None and not {"json", "application/json"} & set(conf[name])
    ]
    if not wrong:
        return None
    found = " and ".join(f"{name} is {conf[name]!r}" for name in wrong)
    return f"{found}, but workers of agno-workers read only JSON in Celery's protocol 2: leave these settings out."
