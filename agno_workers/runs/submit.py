"""Submit runs: one transaction stores the run, its first message, its first step and the message for Celery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import psycopg

from agno_workers.core.request import RunRequest
from agno_workers.core.step import StepMessage, Submitted
from agno_workers.core.words import did_you_mean, without_none
from agno_workers.database.pool import Connection, Payloads, Row, execute, jsonb, statements
from agno_workers.errors import IdempotencyConflict, InvalidInput, UnknownAgent
from agno_workers.runs.base import Repository, convert, utc
from agno_workers.signals import signal

_SQL = statements("runs/submit")
_AT_ONCE = 200
"""Runs of a canvas in one statement, at most."""


class Chord(msgspec.Struct, omit_defaults=True):
    """A user's chord that is submitted with its runs."""

    id: str
    body: dict[str, Any]
    """Celery's signature, as JSON."""
    size: int | None = None
    """The number of its parts; None while Celery has not counted them."""
    header: Any = None
    """The shape of its results, where the header has groups."""


class Submissions(Repository):
    """See the module."""

    def submit(self, request: RunRequest, connection: Connection | None = None) -> Submitted:
        """Store a run. A known id or idempotency key returns the existing run. `connection` may be the caller's open transaction.

        A message that joins the live run of its session returns that run; see IfBusy. Raises UnknownAgent when no worker ever registered
        the agent, InvalidInput, SessionForbidden, SessionEnded and SessionBusy; then nothing is stored.
        """
        signal("submit.asked")
        asked = {"run": jsonb(self._row(request, payloads := self._payloads()) | {"blobs": payloads.blobs})}
        with self._refusals([request]):
            if connection is None:
                (row,) = self._pool.run(_SQL["submit"], asked)
            else:
                with connection.transaction():  # a refusal leaves the caller's transaction usable
                    (row,) = execute(connection, _SQL["submit"], asked)
        signal("submit.committed")
        return _submitted(row)

    def submit_canvas(self, requests: Sequence[RunRequest], chords: Sequence[Chord]) -> list[Submitted]:
        """Store the runs and the chords of a canvas, all or nothing; raises as `submit` does. Safe to repeat: every run has an id.

        Runs with keys come in the order of their keys, so that two canvases with the same keys cannot deadlock.
        """
        signal("submit.asked")
        ordered = sorted(requests, key=lambda request: request.idempotency_key or "")
        parts = [ordered[first : first + _AT_ONCE] for first in range(0, len(ordered), _AT_ONCE)] or [[]]
        rows: list[Row] = []
        with self._refusals(ordered), self._pool.connection() as connection, ExitStack() as stack:
            if len(parts) > 1:
                stack.enter_context(connection.transaction())
            for part in parts:
                payloads = self._payloads()
                canvas = {"runs": [self._row(request, payloads) for request in part], "chords": chords}
                params = {"canvas": jsonb(canvas | {"blobs": payloads.blobs})}
                rows += execute(connection, _SQL["submit_canvas"], params)
                chords = ()
        signal("submit.committed")
        return [_submitted(row) for row in rows]

    def wake_keeper(self) -> None:
        """Notify the keeper of a pending message, for a caller who does not publish it."""
        self._pool.run(_SQL["wake_keeper"])

    @contextmanager
    def _refusals(self, requests: Sequence[RunRequest]) -> Iterator[None]:
        """Raise what Postgres refuses as errors of ours."""
        try:
            yield
        except psycopg.errors.UndefinedObject as error:
            raise self._unknown(requests) from error
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name is not None:
                raise
            text = str(error.diag.message_primary).removeprefix("agno.submit: ")
            raise IdempotencyConflict(text, run_id=error.diag.message_detail) from error
        except (psycopg.errors.NoDataFound, psycopg.errors.InvalidParameterValue) as error:
            ids = {"agent": requests[0].agent} if len(requests) == 1 else {}
            raise InvalidInput(str(error.diag.message_primary), **ids) from error

    def _row(self, request: RunRequest, payloads: Payloads) -> dict[str, Any]:
        fields = {
            "id": request.id,
            "tenant": request.tenant,
            "kind": request.kind,
            "agent": request.agent,
            "queue": request.queue,
            "default_queue": request.default_queue,
            "allow_unknown": request.allow_unknown,
            "input": payloads.pack(request.input),
            "first_step": self._first_step(request.kind),
            "session_id": request.session_id,
            "if_busy": request.if_busy,
            "user_id": request.user_id,
            "idempotency_key": request.idempotency_key,
            "metadata": request.metadata,
            "canvas": request.canvas,
            "priority": request.priority,
            "not_before": utc(request.not_before),
            "countdown_s": request.countdown_s,
            "deadline_s": request.deadline_s,
            "publish_after_s": self._numbers.publish_after_s,
            "options": None if request.options is None else payloads.pack(request.options),
        }
        return without_none(fields)

    def _unknown(self, requests: Sequence[RunRequest]) -> UnknownAgent:
        known = [row["name"] for row in self._pool.run(_SQL["agents"], {"tenant": requests[0].tenant})]
        listed = ", ".join(known[:10]) or "none"
        agent = next((request.agent for request in requests if request.agent not in known), requests[0].agent)
        return UnknownAgent(
            f"agent {agent!r} is not registered by any worker (registered: {listed})."
            f"{did_you_mean(agent, known)} Start a worker that imports it (AGNO_IMPORTS).",
            agent=agent,
        )


def _submitted(row: Row) -> Submitted:
    """Return the result of a submit. A run that existed, one with a timer and one that waits for its session have nothing to send."""
    send = convert(row | {"generation": 0}, StepMessage) if row["due"] else None
    steer_id = row["step_id"] if row["kind"] == "steer" else None
    return Submitted(row["run_id"], row["created"], send, steer_id)
