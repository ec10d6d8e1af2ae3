"""What a service adds to its workers' imports to hear of failures: handlers of Celery's signals, as Sentry's integration has."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals

log = logging.getLogger(__name__)


def report(sender: Any, task_id: str, exception: BaseException, args: Any, kwargs: Any, **_: Any) -> None:
    cause = type(exception.__cause__).__name__
    log.info(
        "task_failure %s %s %s by %s, %s",
        sender.name,
        task_id,
        type(exception).__name__,
        cause,
        sorted(kwargs),
    )


signals.task_failure.connect(report)
