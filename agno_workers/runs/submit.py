"""Submit runs: one transaction stores the run, its first message, its first step and the message for Celery."""

from __future__ import annotations

from typing import Any

import psycopg

from agno_workers.core.request import RunRequest
from agno_workers.core.step import StepMessage, Submitted
from agno_workers.core.words import did_you_mean, without_none
from agno_workers.database.pool import Connection, execute, jsonb, statements
from agno_workers.errors import InvalidInput, UnknownAgent
from agno_workers.runs.base import Repository, convert, utc
from agno_workers.signals import signal

_SQL = statements("runs/submit")


class Submissions(Repository):
    """See the module."""

    def submit(self, request: RunRequest, connection: Connection | None = None) -> Submitted:
        """Store a run. A known id or idempotency key returns the existing run. `connection` may be the caller's open transaction.

        Raises UnknownAgent when no worker ever registered the agent, and InvalidInput; then nothing is stored.
        """
        signal("submit.asked")
        asked = {"run": jsonb(self._row(request))}
        try:
            if connection is None:
                (row,) = self._pool.run(_SQL["submit"], asked)
            else:
                with connection.transaction():  # a refusal leaves the caller's transaction usable
                    (row,) = execute(connection, _SQL["submit"], asked)
        except psycopg.errors.UndefinedObject as error:
            raise self._unknown(request) from error
        except (psycopg.errors.NoDataFound, psycopg.errors.InvalidParameterValue) as error:
            raise InvalidInput(str(error.diag.message_primary), agent=request.agent) from error
        signal("submit.committed")
        send = convert(row | {"generation": 0}, StepMessage) if row["due"] else None
        return Submitted(row["run_id"], row["created"], send)

    def wake_keeper(self) -> None:
        """Notify the keeper of a pending message, for a caller who does not publish it."""
        self._pool.run(_SQL["wake_keeper"])

    def _row(self, request: RunRequest) -> dict[str, Any]:
        payloads = self._payloads()
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
            "user_id": request.user_id,
            "idempotency_key": request.idempotency_key,
            "metadata": request.metadata,
            "canvas": request.canvas,
            "priority": request.priority,
            "not_before": utc(request.not_before),
            "deadline_s": request.deadline_s,
            "publish_after_s": self._numbers.publish_after_s,
            "options": None if request.options is None else payloads.pack(request.options),
            "blobs": payloads.blobs,
        }
        return without_none(fields)

    def _unknown(self, request: RunRequest) -> UnknownAgent:
        known = [row["name"] for row in self._pool.run(_SQL["agents"], {"tenant": request.tenant})]
        listed = ", ".join(known[:10]) or "none"
        return UnknownAgent(
            f"agent {request.agent!r} is not registered by any worker (registered: {listed})."
            f"{did_you_mean(request.agent, known)} Start a worker that imports it.",
            agent=request.agent,
        )
