"""Celery's word for each status of a run."""

from __future__ import annotations

from celery import states

from agno_workers.core.run import RunStatus

STATES = {
    RunStatus.QUEUED: states.PENDING,
    RunStatus.RUNNING: states.STARTED,
    RunStatus.WAITING: states.STARTED,
    RunStatus.DONE: states.SUCCESS,
    RunStatus.FAILED: states.FAILURE,
    RunStatus.CANCELLED: states.REVOKED,
}
