"""Checks at the start of a worker: a worker that can't keep our promises prints one sentence and exits with status 2.

The checks are a bootstep and not a handler of Celery's signal `worker_init`: Celery logs what such a handler raises and starts
the worker, and `celery.contrib.testing` sends no signal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from celery import bootsteps

from agno_workers.core.words import printable
from agno_workers.errors import AgnoError, message_of, notes

log = logging.getLogger(__name__)


def start_check(problems: Callable[[Any], Iterable[str]]) -> type[bootsteps.Step]:
    """Return a bootstep for `app.steps["worker"]`. `problems` gets the worker before its pool starts, and returns the reasons
    why it must not start, a sentence each.
    """

    class StartCheck(bootsteps.Step):
        def __init__(self, worker: Any, **_: Any) -> None:
            details: list[str] = []
            try:
                found = " ".join(problems(worker))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                found, details = described(error), notes(error)
            if found:
                refuse(f"the worker does not start: {found}", details, logfile=worker.logfile)

    return StartCheck


def refuse(sentence: str, details: Sequence[str] = (), *, logfile: object = None) -> NoReturn:
    """Print why this process ends, below the details, and end it. A worker with a log file may have no terminal: it is there too."""
    lines = [*map(printable, details), f"agno-workers: {printable(' '.join(sentence.split()))}\n"]
    line = "\n".join(lines)
    try:
        if logfile:
            log.critical("%s", line.rstrip())
        if sys.__stderr__ is not None:  # Celery redirects sys.stderr to its log
            sys.__stderr__.write(line)
            sys.__stderr__.flush()
    finally:
        sys.exit(2)


def described(error: BaseException) -> str:
    """Return an error as a sentence, for any class of error."""
    text = message_of(error)
    if isinstance(error, AgnoError):
        return text
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__} was raised."
