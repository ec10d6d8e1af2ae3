"""Sending what a commit owes: steps to their queues, and what a user's canvas has after a run or a chord.

Always after the commit, and never a failure of the step: what can't be sent stays in the outbox, and the keeper
sends it. Sent twice is harmless: the second claim of a step gets no row, and what a canvas sends has ids that
are fixed beforehand (see canvas.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery, chord, group
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from agno_workers.broker.canvas import AWAY, Followers
from agno_workers.broker.names import TASK_OF
from agno_workers.storage.journal import Continue, Journal, Recorded, Send
from agno_workers.storage.look import Look
from agno_workers.storage.results import Results

log = logging.getLogger(__name__)


class Dispatch:
    """Publishes through a Celery app, and strikes out of the outbox what was sent."""

    def __init__(self, app: Celery, journal: Journal, results: Results, look: Look) -> None:
        self._app = app
        self.journal = journal
        self.results = results
        self._look = look
        self.followers = Followers(app)

    def publish(self, recorded: Recorded) -> None:
        """All that a finished step owes: the chord of its tools, the next turn, or what comes after the run."""
        if recorded.body is not None:
            self._sent(recorded.sends, lambda: self._fan_out(recorded))
        else:
            self.send(recorded.sends)
        if recorded.continues is not None:
            self.go_on(self.results.owed(*recorded.continues))

    def send(self, sends: Sequence[Send]) -> bool:
        """Publish steps one by one. False: the broker is away, and the keeper will do it."""
        return self._sent(sends, lambda: self._send_each(sends))

    def go_on(self, continues: Sequence[Continue]) -> None:
        """Publish what comes after ended runs and completed chords."""
        for owed in continues:
            if self.results.hold_owed(owed.outbox_id) and self._went_on(owed):
                self.journal.published([owed.outbox_id])

    def continue_chord(self, chord_id: str) -> None:
        """Publish the body of a user's chord, if its last part has come in."""
        self.go_on(self.results.owed(None, chord_id))

    def _went_on(self, owed: Continue) -> bool:
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

    def _go_on(self, owed: Continue) -> None:
        if owed.ended_run_id is not None:
            self.followers.after_run(self._look.run(owed.ended_run_id), self._look.canvas(owed.ended_run_id))
        elif owed.chord_id is not None:
            header = self._app.backend.restore_group(owed.chord_id)
            self.followers.after_chord(self.results.chord(owed.chord_id), header)

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
                self._signature(send).apply_async(producer=producer, add_to_parent=False)

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
