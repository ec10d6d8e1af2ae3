"""Sending what a commit owes: steps to their queues, and what a user's canvas has after a run or a chord.

Always after the commit, and never a failure of the step: what can't be sent stays in the outbox, and the keeper
sends it. Sent twice is harmless: the second claim of a step gets no row, and what a canvas sends has ids that
are fixed beforehand (see canvas.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError

from agno_workers.broker.canvas import AWAY, CanvasContinuations
from agno_workers.broker.names import TASK_OF, TURN
from agno_workers.core.step import CanvasContinuation, CommitResult, StepMessage
from agno_workers.errors import Unavailable
from agno_workers.runs.claim import Claims
from agno_workers.runs.outbox import Outbox
from agno_workers.runs.queries import RunQueries
from agno_workers.runs.results import Results
from agno_workers.runs.submit import Submissions
from agno_workers.signals import signal

log = logging.getLogger(__name__)


class Dispatch:
    """Publishes through a Celery app, and strikes out of the outbox what was sent."""

    def __init__(
        self, app: Celery, *, submissions: Submissions, claims: Claims, outbox: Outbox, results: Results, queries: RunQueries
    ) -> None:  # fmt: skip
        self._app = app
        self.submissions = submissions
        self.claims = claims
        self._outbox = outbox
        self.results = results
        self._queries = queries
        self.followers = CanvasContinuations(app)

    def publish(self, recorded: CommitResult) -> None:
        """All that a finished step owes: the chord of its tools, the next turn, or what comes after the run."""
        shape: dict[str, Any] = {}
        if recorded.body is not None:
            body = self._app.signature(
                TURN, kwargs=_ids(recorded.body), task_id=recorded.body.step_id, immutable=True
            )
            shape = {"group_id": recorded.barrier_id, "chord": body}
        self.send(recorded.sends, **shape)
        self.send(recorded.children)
        if recorded.parent_run_id is not None:
            self.send(self._outbox.pending(recorded.parent_run_id))
        if recorded.continues is not None:
            self.go_on(self.results.owed(*recorded.continues))

    def send(self, sends: Sequence[StepMessage], **shape: Any) -> bool:
        """Publish steps, in one round trip. False: the broker is away, and the keeper will do it.

        `shape` makes them the header of a chord, as Celery's own canvas would write it (`group_id`, `chord`), for a
        quarter less CPU; the count is kept by `finish_tool`, and its last part sends the body.
        """
        if not sends:
            return True
        try:
            with self._app.producer_or_acquire() as producer, producer.batch():
                for place, send in enumerate(sends):
                    options = shape if send.priority is None else {**shape, "priority": send.priority}
                    self._app.send_task(
                        TASK_OF[send.kind],
                        kwargs=_ids(send),
                        task_id=send.step_id,
                        root_id=send.run_id,
                        group_index=place if shape else None,
                        queue=send.queue,
                        producer=producer,
                        ignore_result=True,
                        add_to_parent=False,
                        **options,
                    )
                    signal("dispatch.part")
        except (OperationalError, BatchPublishError, OSError) as error:
            log.warning("the broker is away; the keeper sends %d message(s) later: %s", len(sends), error)
            return False
        signal("dispatch.sent")
        self._strike_out([send.outbox_id for send in sends if send.outbox_id is not None])
        return True

    def after_end(self, run_id: str) -> None:
        """What is owed for a run that was ended from outside; what this does not send, the keeper's next round does."""
        run = self._queries.run(run_id)
        self.go_on(self.results.owed(run_id, self._queries.canvas(run_id).group_id))
        if run.parent_run_id is not None:
            self.send(self._outbox.pending(run.parent_run_id))

    def go_on(self, continues: Sequence[CanvasContinuation]) -> None:
        """Publish what comes after ended runs and completed chords."""
        for owed in continues:
            if self.results.hold_owed(owed.outbox_id) and self._went_on(owed):
                self._strike_out([owed.outbox_id])

    def continue_chord(self, chord_id: str) -> None:
        """Publish the body of a user's chord, if its last part has come in."""
        self.go_on(self.results.owed(None, chord_id))

    def _strike_out(self, outbox_ids: Sequence[int]) -> None:
        """What was sent is no longer owed. If that can't be said now, the keeper sends it again, which is harmless."""
        try:
            self._outbox.published(outbox_ids)
        except Unavailable as error:
            log.warning("%d sent message(s) stay in the outbox: %s", len(outbox_ids), error)

    def _went_on(self, owed: CanvasContinuation) -> bool:
        try:
            self._go_on(owed)
        except AWAY as error:
            log.warning("a server is away; the keeper goes on with %s later: %s", owed, error)
        except Exception:  # a bug, ours or an errback's: it must not keep the others waiting
            log.exception("%s failed; the keeper tries again", owed)
        else:
            return True
        self.results.release_owed(owed.outbox_id)
        return False

    def _go_on(self, owed: CanvasContinuation) -> None:
        if owed.ended_run_id is not None:
            self.followers.after_run(
                self._queries.run(owed.ended_run_id), self._queries.canvas(owed.ended_run_id)
            )
        elif owed.chord_id is not None:
            header = self._app.backend.restore_group(owed.chord_id)
            self.followers.after_chord(self.results.chord(owed.chord_id), header)


def _ids(send: StepMessage) -> dict[str, Any]:
    """What a message carries: ids, and nothing else."""
    return {"run_id": send.run_id, "step_id": send.step_id, "generation": send.generation}
