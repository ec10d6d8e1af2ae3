"""Sending what a commit owes: steps to their queues, and what a user's canvas has after a run or a chord.

Always after the commit, and never a failure of the step: what can't be sent stays in the outbox, and the keeper
sends it. Sent twice is harmless: the second claim of a step gets no row, and what a canvas sends has ids that
are fixed beforehand.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from celery import Celery, chord, group, states
from celery.app.task import Context
from celery.canvas import Signature, maybe_signature
from celery.exceptions import ChordError
from celery.result import allow_join_result
from kombu.exceptions import OperationalError

from agno_workers.broker.backend import STATES
from agno_workers.broker.names import RUN, TASK_OF
from agno_workers.core.run import Canvas, Run, RunStatus
from agno_workers.errors import AgnoError, RunFailed
from agno_workers.storage.journal import Continue, Journal, Recorded, Send
from agno_workers.storage.look import Look
from agno_workers.storage.pool import to_json
from agno_workers.storage.results import Part, Results

log = logging.getLogger(__name__)


class Dispatch:
    """Publishes through a Celery app, and strikes out of the outbox what was sent."""

    def __init__(self, app: Celery, journal: Journal, results: Results, look: Look) -> None:
        self._app = app
        self.journal = journal
        self.results = results
        self._look = look

    def publish(self, recorded: Recorded) -> None:
        """All that a finished step owes: the chord of its tools, the next turn, or what comes after the run."""
        if recorded.body is not None:
            self._sent(recorded.sends, lambda: self._fan_out(recorded))
        else:
            self.send(recorded.sends)
        if recorded.continues is not None:
            self.go_on(self.journal.take_owed(*recorded.continues))

    def send(self, sends: Sequence[Send]) -> bool:
        """Publish steps one by one. False: the broker is away, and the keeper will do it."""
        return self._sent(sends, lambda: self._send_each(sends))

    def go_on(self, continues: Sequence[Continue]) -> None:
        """Publish what comes after ended runs and completed chords."""
        for owed in continues:
            try:
                if owed.ended_run_id is not None:
                    self._after_run(self._look.run(owed.ended_run_id), self._look.canvas(owed.ended_run_id))
                elif owed.chord_id is not None:
                    self._chord_body(owed.chord_id)
            except (OperationalError, OSError) as error:
                log.warning("the broker is away; the keeper goes on with %s later: %s", owed, error)
                continue
            self.journal.published([owed.outbox_id])

    def continue_chord(self, chord_id: str) -> None:
        """Publish the body of a user's chord, if its last part has come in."""
        self.go_on(self.journal.take_owed(None, chord_id))

    def _sent(self, sends: Sequence[Send], publish: Any) -> bool:
        if not sends:
            return True
        try:
            publish()
        except (OperationalError, OSError) as error:
            log.warning("the broker is away; the keeper sends %d message(s) later: %s", len(sends), error)
            return False
        self.journal.published([send.outbox_id for send in sends if send.outbox_id is not None])
        return True

    def _send_each(self, sends: Sequence[Send]) -> None:
        with self._app.producer_or_acquire() as producer:
            for send in sends:
                self._signature(send).apply_async(producer=producer)

    def _fan_out(self, recorded: Recorded) -> None:
        """The tools of one turn, side by side, as Celery's chord; its count is kept by `finish_tool`."""
        assert recorded.body is not None
        header = group(
            [self._signature(send) for send in recorded.sends], app=self._app, task_id=recorded.barrier_id
        )
        chord(header, self._signature(recorded.body), app=self._app).apply_async()

    def _signature(self, send: Send) -> Signature:
        ids = {"run_id": send.run_id, "step_id": send.step_id, "generation": send.generation}
        options: dict[str, Any] = {"task_id": send.step_id, "queue": send.queue}
        if send.priority is not None:
            options["priority"] = send.priority
        return self._app.signature(TASK_OF[send.kind], kwargs=ids, options=options, immutable=True)

    def _after_run(self, run: Run, canvas: Canvas) -> None:
        """What Celery's own tracer does when a task ends, for a run: link and chain, or link_error."""
        context = {"root_id": canvas.root_id or run.id, "parent_id": run.id}
        if run.status is RunStatus.DONE:
            for place, callback in enumerate(canvas.link):
                self._fixed(callback, run.id, place).apply_async((run.content,), **context)
            if canvas.chain:
                *rest, following = canvas.chain
                maybe_signature(following, app=self._app).apply_async((run.content,), chain=rest, **context)
            return
        error = AgnoError.from_json(run.error or {})
        backend, state = self._app.backend, STATES[run.status]
        request = Context(
            {"id": run.id, "task": RUN, "errbacks": canvas.link_error, "delivery_info": {}, **context}
        )
        backend._fail_chain(canvas.chain, error, state=state)
        if canvas.link_error:
            backend._call_task_errbacks(request, error, None)

    def _fixed(self, callback: Any, run_id: str, place: int) -> Signature:
        """A callback with an id that is the same each time it is sent."""
        signature = maybe_signature(callback, app=self._app)
        if signature.subtask_type is None and "task_id" not in signature.options:
            signature = signature.clone(task_id=str(uuid5(NAMESPACE_OID, f"{run_id}:link:{place}")))
        return signature

    def _chord_body(self, chord_id: str) -> None:
        """Send a user's chord body its parts, in the header's order; or tell its errbacks which part failed."""
        described, parts = self.results.chord(chord_id)
        body = maybe_signature(described, app=self._app)
        failed = [part for part in parts if part.status not in (RunStatus.DONE, states.SUCCESS)]
        if failed:
            self._chord_failed(body, failed[0])
            return
        body.apply_async((self._header_results(chord_id, parts),))

    def _header_results(self, chord_id: str, parts: list[Part]) -> list[Any]:
        """The parts' results; nested as the header was, where it held groups."""
        saved = self._app.backend.restore_group(chord_id)
        if saved is not None:
            with allow_join_result():
                joined: list[Any] = saved.join(timeout=60)
                return joined
        return [self._decoded(part) for part in parts]

    def _decoded(self, part: Part) -> Any:
        return (
            part.result if part.status == RunStatus.DONE else self._app.backend.decode(to_json(part.result))
        )

    def _chord_failed(self, body: Any, part: Part) -> None:
        cause = self._cause(part)
        error = ChordError(f"Dependency {part.task_id} raised {cause!r}")
        error.__cause__ = cause
        self._app.backend.chord_error_from_stack(body, error)
        if body.options.get("group_id") and body.options.get("chord"):
            # Celery stops here, and the chord around this one would wait for ever: its part has failed, too.
            inner = Context(
                {**body, **body.options, "id": body.options["task_id"], "group": body.options["group_id"]}
            )
            self._app.backend.on_chord_part_return(inner, states.FAILURE, error)

    def _cause(self, part: Part) -> BaseException:
        if part.status in (RunStatus.FAILED, RunStatus.CANCELLED):
            return AgnoError.from_json(part.result or {})
        cause = self._app.backend.exception_to_python(self._decoded(part))
        return cause if isinstance(cause, BaseException) else RunFailed(f"a header task failed: {cause!r}")
