"""Reports of runs in a worker's log and in Celery: one line at the start and at the end of a run, and a failed task for a failed run.

The task that fails a run raises the run's error. So its event is `task-failed`, handlers of `task_failure` are called, and Sentry's
integration for Celery reports it, with the exception behind it. Celery's own lines of our tasks get the run's id; its line of a failure
becomes the line of the run's end.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from agno_workers.broker.names import STEP_TASKS
from agno_workers.core.run import Run, RunStatus
from agno_workers.core.step import RunEnd
from agno_workers.errors import AgnoError

log = logging.getLogger(__name__)

_RUN_ID = re.compile(r"'run_id': '([^']+)'")


def log_end(ended: RunEnd | Run) -> None:
    """Write the line of the end of a run."""
    run_id = ended.id if isinstance(ended, Run) else ended.run_id
    level = logging.ERROR if ended.status is RunStatus.FAILED else logging.INFO
    log.log(level, *_line(run_id, ended.agent, ended.status, ended.reason, ended.error))


def failure(ended: RunEnd) -> AgnoError:
    """Return the error of a failed run, for the task that failed it."""
    ids = {"run_id": ended.run_id, "agent": ended.agent, "reason": ended.reason}
    return AgnoError.from_json(ended.error or {}, **ids)


def name_runs_in_log() -> None:
    """Add the runs' ids to the lines that Celery writes about our tasks."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_name_run)


def _name_run(record: logging.LogRecord) -> bool:
    about: dict[str, Any] = getattr(record, "data", None) or {}
    if about.get("name") not in STEP_TASKS:
        return True
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, AgnoError) and {"run_id", "agent", "reason"} <= error.ids.keys():
        told = {"type": type(error).__name__, "message": str(error)}
        ids = error.ids
        record.msg, *arguments = _line(ids["run_id"], ids["agent"], RunStatus.FAILED, ids["reason"], told)
        record.args, record.exc_info = tuple(arguments), None
    elif found := _RUN_ID.search(str(about.get("kwargs"))):
        record.run_id = found[1]
    return True


def _line(
    run_id: str, agent: str, status: RunStatus, reason: str | None, error: dict[str, Any] | None
) -> list[Any]:
    """Return the format of a line and its arguments."""
    line = ["run %s of agent %s ended: %s (%s)", run_id, agent, status, reason]
    return (
        line if error is None else [f"{line[0]}: %s: %s", *line[1:], error.get("type"), error.get("message")]
    )
