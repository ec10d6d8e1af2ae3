"""Publishes what a commit left in the outbox: steps for their queues, and what follows a run or a chord in a user's canvas.

It publishes after the commit and never fails the step: what can't be sent stays in the outbox, and the keeper sends it. A
message that is sent twice does no harm: the second claim of a step gets no row, and what a canvas sends has fixed ids (see
canvas.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery

from agno_workers.broker.canvas import TRANSIENT_ERRORS, CanvasContinuations
from agno_workers.broker.delayed import DelayedTasks
from agno_workers.broker.direct import DirectPublisher, ids_of
from agno_workers.broker.names import TASK_OF, TURN
from agno_workers.broker.outage import BROKER_ERRORS, Outage
from agno_workers.broker.run_log import log_end
from agno_workers.broker.sent import SentMessages
from agno_workers.core.step import CanvasContinuation, CommitResult, StepMessage
from agno_workers.errors import Unavailable
from agno_workers.runs.claim import Claims
from agno_workers.runs.control import Control
from agno_workers.runs.outbox import Outbox
from agno_workers.runs.queries import RunQueries
from agno_workers.runs.results import Results
from agno_workers.runs.submit import Submissions
from agno_workers.signals import signal

log = logging.getLogger(__name__)


class Dispatch:
    """Publishes through a Celery app, and deletes from the outbox what was sent."""

    def __init__(
        self, app: Celery, *, submissions: Submissions, claims: Claims, control: Control, outbox: Outbox, results: Results, queries: RunQueries,
        delayed: DelayedTasks,
    ) -> None:  # fmt: skip
        self._app = app
        self.submissions = submissions
        self.claims = claims
        self.control = control
        self.delayed = delayed
        self._outbox = outbox
        self.results = results
        self._queries = queries
        self.continuations = CanvasContinuations(app)
        self._direct = DirectPublisher(app)
        self._sent = SentMessages(outbox)
        self._outage = Outage(log, "sending: Redis")

    def publish(self, result: CommitResult, here: StepMessage | None = None) -> None:
        """Publish what follows a step: the chord of its tools, the next turn, or the rest of the run's canvas.

        `here` is the one step of `result.sends` that the caller executes itself, now: it is treated as sent.
        """
        chord = None
        if (body := result.body) is not None:
            chord = self._app.signature(TURN, kwargs=ids_of(body), task_id=body.step_id, immutable=True)
        if here is None:
            self.send(result.sends, result.barrier_id, chord)
        elif here.outbox_id is not None:
            self._sent.add([here.outbox_id])
        self.send(result.children)
        if result.parent_run_id is not None:
            self.send(self._outbox.pending(result.parent_run_id))
        if result.continues is not None:
            self.continue_canvases(self.results.pending_continuations(*result.continues))

    def send(self, sends: Sequence[StepMessage], group_id: str | None = None, chord: Any = None) -> bool:
        """Publish steps. Return False when the broker is unreachable; the keeper sends them later.

        With `group_id` and `chord`, its body, they are the header of a chord, as Celery's canvas would write it. `finish_tool`
        counts the parts, and the last one sends the body.
        """
        if not sends:
            return True
        try:
            if not self._direct.push(sends, group_id, chord):
                self._send_by_celery(sends, group_id, chord)
        except BROKER_ERRORS as error:
            self._outage.failed(
                "Redis can't be used; the keeper sends what is not sent now, beginning with %d message(s): %s",
                len(sends), error.__cause__ or error,
            )  # fmt: skip
            return False
        self._outage.worked()
        signal("dispatch.sent")
        self._sent.add([send.outbox_id for send in sends if send.outbox_id is not None])
        return True

    def _send_by_celery(self, sends: Sequence[StepMessage], group_id: str | None, chord: Any) -> None:
        with self._app.producer_or_acquire() as producer, producer.batch():
            for index, send in enumerate(sends):
                self._app.send_task(
                    TASK_OF[send.kind],
                    kwargs=ids_of(send),
                    task_id=send.step_id,
                    root_id=send.run_id,
                    group_id=group_id,
                    group_index=None if group_id is None else index,
                    chord=chord,
                    queue=send.queue,
                    producer=producer,
                    ignore_result=True,
                    add_to_parent=False,
                    **({} if send.priority is None else {"priority": send.priority}),
                )

    def close(self) -> None:
        """Delete the last sent messages from the outbox, and close the connection to Redis."""
        self._sent.close()
        self._direct.close()

    def after_end(self, run_id: str) -> None:
        """Publish what follows a run that was ended from outside; the keeper's next round publishes the rest."""
        run, canvas = self._queries.run_and_canvas(run_id)
        log_end(run)
        self.continue_canvases(self.results.pending_continuations(run_id, canvas.group_id))
        if run.parent_run_id is not None:
            self.send(self._outbox.pending(run.parent_run_id))

    def continue_canvases(self, continuations: Sequence[CanvasContinuation]) -> None:
        """Publish what follows ended runs and completed chords."""
        for continuation in continuations:
            if self.results.hold_continuation(continuation.outbox_id) and self._try_to_continue(continuation):
                self._delete_sent([continuation.outbox_id])

    def continue_chord(self, chord_id: str) -> None:
        """Publish the body of a user's chord if all of its parts have returned."""
        self.continue_canvases(self.results.pending_continuations(None, chord_id))

    def _delete_sent(self, outbox_ids: Sequence[int]) -> None:
        """Delete sent messages from the outbox. When Postgres is unreachable, the keeper sends them again, which does no harm."""
        try:
            self._outbox.published(outbox_ids)
        except Unavailable as error:
            log.warning("%d sent message(s) remain in the outbox: %s", len(outbox_ids), error)

    def _try_to_continue(self, continuation: CanvasContinuation) -> bool:
        try:
            self._continue(continuation)
        except TRANSIENT_ERRORS as error:
            self._outage.failed(
                "a server can't be used; the keeper continues %s later: %s", continuation, error
            )
        except Exception:  # a bug, ours or an errback's, must not delay the others
            log.exception("%s failed; the keeper tries again", continuation)
        else:
            return True
        self.results.release_continuation(continuation.outbox_id)
        return False

    def _continue(self, continuation: CanvasContinuation) -> None:
        if (run_id := continuation.ended_run_id) is not None:
            self.continuations.after_run(*self._queries.run_and_canvas(run_id))
        elif (chord_id := continuation.chord_id) is not None:
            header = self._app.backend.restore_group(chord_id)
            self.continuations.after_chord(self.results.chord(chord_id), header)
