"""A user's canvas around runs and chords: the run stores what Celery has to do after it, and the outbox does it.

Celery does this in the process that ran the task, and loses it with that process. Here it is a row of the outbox (see
dispatch.py). It may be sent twice, so each task has an id that was fixed when the canvas was submitted. A task that can't be
sent, or whose predecessor failed, is marked as failed, so that nobody waits for it forever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
from celery import Celery, states
from celery.app.task import Context
from celery.canvas import Signature
from celery.exceptions import ChordError
from celery.result import GroupResult
from kombu.utils.functional import maybe_list

from agno_workers.broker.home import routed
from agno_workers.broker.names import RUN
from agno_workers.broker.outage import BROKER_ERRORS
from agno_workers.broker.states import STATES
from agno_workers.core.request import RunRequest
from agno_workers.core.run import Canvas, Run, RunStatus
from agno_workers.database.pool import to_json
from agno_workers.errors import AgnoError, RunFailed, Unavailable
from agno_workers.runs.results import Part, UserChord, barrier_id
from agno_workers.runs.submit import Chord

log = logging.getLogger(__name__)

TRANSIENT_ERRORS = (*BROKER_ERRORS, Unavailable)
"""The broker or Postgres is unreachable: the task has not failed, and the keeper tries again."""


def canvas_of(app: Celery, options: Mapping[str, Any]) -> Canvas:
    """Return the canvas in a task's options (those of `send_task`), as JSON to be stored with its run."""
    group_id = options.get("group_id")
    canvas = {
        "link": [_frozen(app, callback) for callback in maybe_list(options.get("link")) or []],
        "link_error": [_frozen(app, errback) for errback in maybe_list(options.get("link_error")) or []],
        "chain": [routed(app, task) for task in options.get("chain") or []],
        "group_id": group_id and barrier_id(group_id),
        "group_index": options.get("group_index"),
        "chord": bool(options.get("chord")),
        "root_id": options.get("root_id"),
        "parent_id": options.get("parent_id"),
    }
    return msgspec.convert(json.loads(app.backend.encode(canvas)), Canvas)


def _frozen(app: Celery, callback: Any) -> Signature:
    """Return a copy with a fixed id for each of its tasks."""
    signature = Signature.from_dict(app.backend.decode(app.backend.encode(routed(app, callback))), app=app)
    signature.freeze()
    return signature


is_continuing: ContextVar[bool] = ContextVar("is_continuing", default=False)
"""Set while the next part of a stored canvas is sent: it was accepted with the first part, so its agents need not be registered yet."""


class CanvasSubmit:
    """The runs and the chords of a canvas while Celery sends it; they are stored in one transaction when it has sent all of them."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.depth = 0
        """The number of groups that are being sent: nested ones belong to the outermost."""
        self._requests: list[RunRequest] = []
        self._chords: dict[str, Chord] = {}

    def add(self, request: RunRequest) -> None:
        self._requests.append(request)

    def open_chord(self, chord: Chord) -> None:
        self._chords[chord.id] = chord

    def size_chord(self, chord_id: str, size: int) -> bool:
        """Set the number of a chord's parts; False when the chord is stored already."""
        if chord := self._chords.get(chord_id):
            chord.size = size
        return chord is not None

    def store(self) -> None:
        """Store what is not stored yet, and send it."""
        requests, chords = self._requests, list(self._chords.values())
        self._requests, self._chords = [], {}
        if requests or chords:
            dispatch = self._app.dispatch()
            submitted = dispatch.submissions.submit_canvas(requests, chords)
            dispatch.send([each.send for each in submitted if each.send is not None])


sending: ContextVar[CanvasSubmit | None] = ContextVar("sending", default=None)
"""The canvas that this thread sends; a chord begins it before Celery sends the header."""


def store_collected() -> None:
    """Store what this thread's canvas has collected: a plain task, which is sent now, needs its chord at once."""
    if (canvas := sending.get()) is not None and canvas.depth:
        canvas.store()


class CanvasContinuations:
    """Sends what follows runs and chords. Raises TRANSIENT_ERRORS; then all of it may be repeated."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def after_run(self, run: Run, canvas: Canvas) -> None:
        """Send link and chain, or link_error, as Celery does when a task ends."""
        context = {"root_id": canvas.root_id or run.id, "parent_id": run.id}
        if run.status is RunStatus.DONE:
            for callback in canvas.link:
                self._send(self._signature(callback), run.content, context)
            if canvas.chain:  # the last task comes first
                *rest, following = [self._signature(task) for task in canvas.chain]
                self._send(following, run.content, {**context, "chain": rest})
            return
        error = AgnoError.from_json(run.error or {})
        self.after_failure(self._decoded(canvas.chain), error, STATES[run.status])
        self._call_errbacks(run.id, RUN, self._decoded(canvas.link_error), error, context)

    def after_failure(self, chain: Sequence[Any], error: BaseException, state: str) -> None:
        """Fail the rest of a chain, in which the last task comes first."""
        for later in reversed(chain):
            self._mark_failed(Signature.from_dict(later, app=self._app), error, state)

    def after_chord(self, chord: UserChord, header: GroupResult | None) -> None:
        """Send the body with the header's results, in the header's order, nested as `header` where that has groups; or fail it
        with the first part that failed.
        """
        body = self._signature(chord.body)
        context = {"root_id": body.options.get("root_id") or chord.last, "parent_id": chord.last}
        for part in chord.parts:
            if part.status not in (RunStatus.DONE, states.SUCCESS):
                cause = self._cause(part)
                error = ChordError(f"Dependency {part.task_id} raised {cause!r}")
                error.__cause__ = cause
                self._fail(body, error, context)
                return
        results = {part.task_id: self._result(part) for part in chord.parts}
        self._send(body, _nested(header, results) if header is not None else list(results.values()), context)

    def _send(self, signature: Signature, result: Any, options: dict[str, Any]) -> None:
        token = is_continuing.set(True)
        try:
            signature.apply_async((result,), **options)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            log.exception("%s can't be sent and is marked as failed", signature)
            self._fail(signature, error, options)
            for later in options.get("chain", ()):
                self._mark_failed(later, error)
        finally:
            is_continuing.reset(token)

    def _fail(self, signature: Signature, error: BaseException, context: dict[str, Any]) -> None:
        """Fail a signature before it starts: mark its tasks as failed, and call its errbacks."""
        self._mark_failed(signature, error)
        for task, errbacks in _errbacks(signature):
            self._call_errbacks(task.id, task.task, errbacks, error, context)

    def _mark_failed(
        self,
        signature: Signature,
        error: BaseException,
        state: str = states.FAILURE,
        part: Mapping[str, Any] | None = None,
    ) -> None:
        """Mark all tasks in a signature as failed, and return the part to its chord (`part` has the chord's options).

        Celery marks only the signature itself: a caller that waits for a task inside it, or for the chord around it, waits
        forever.
        """
        part = signature.options if signature.options.get("chord") else part
        match signature.subtask_type:
            case "chain" if signature.tasks:
                *first, last = signature.tasks
                for task in first:
                    self._mark_failed(task, error, state)
                self._mark_failed(last, error, state, part)
            case "group":
                for task in signature.tasks:
                    self._mark_failed(task, error, state, part)
            case "chord":
                for task in getattr(signature.tasks, "tasks", signature.tasks):
                    self._mark_failed(task, error, state)
                self._mark_failed(signature.body, error, state, part)
            case None:
                self._app.backend.store_result(signature.id, error, state)
                if part is not None:
                    group = {"group": part["group_id"], "group_index": part.get("group_index")}
                    request = Context({"task": signature.task, "id": signature.id, **group})
                    self._app.backend.on_chord_part_return(request, state, error)
        for later in signature.options.get("chain") or ():
            self._mark_failed(Signature.from_dict(later, app=self._app), error, state)

    def _call_errbacks(
        self, task_id: str, name: str, errbacks: list[Any], error: BaseException, context: dict[str, Any]
    ) -> None:
        if errbacks:
            family = {key: context[key] for key in ("root_id", "parent_id")}
            request = Context(
                {"id": task_id, "task": name, "errbacks": errbacks, "delivery_info": {}, **family}
            )
            self._app.backend._call_task_errbacks(request, error, None)

    def _signature(self, stored: Any) -> Signature:
        return Signature.from_dict(self._decoded(stored), app=self._app)

    def _decoded(self, stored: Any) -> Any:
        """Decode Celery's JSON, which can hold dates, decimals and the like."""
        return self._app.backend.decode(to_json(stored))

    def _result(self, part: Part) -> Any:
        return part.result if part.status == RunStatus.DONE else self._decoded(part.result)

    def _cause(self, part: Part) -> BaseException:
        if part.status in (RunStatus.FAILED, RunStatus.CANCELLED):
            return AgnoError.from_json(part.result or {})
        cause = self._app.backend.exception_to_python(self._decoded(part.result))
        return cause if isinstance(cause, BaseException) else RunFailed(f"a header task failed: {cause!r}")


def _nested(header: GroupResult, results: Mapping[str, Any]) -> list[Any]:
    return [
        _nested(result, results) if isinstance(result, GroupResult) else results[result.id]
        for result in header
    ]


def _errbacks(signature: Signature, outer: Sequence[Any] = ()) -> list[tuple[Signature, list[Any]]]:
    """Return the tasks whose errbacks are called when a signature fails before it starts, each with its own and the outer ones."""
    own = [*outer]
    own.extend(each for each in maybe_list(signature.options.get("link_error")) or [] if each not in own)
    match signature.subtask_type:
        case "group":
            return [found for task in signature.tasks for found in _errbacks(task, own)]
        case "chord":
            return _errbacks(signature.body, own)
        case "chain" if signature.tasks:
            first = maybe_list(signature.tasks[0].options.get("link_error")) or []
            return [(signature, own + [each for each in first if each not in own])]
        case _:
            return [(signature, own)]
