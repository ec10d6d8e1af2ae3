"""The worker's Celery app: the tasks, and the threads that each worker brings with it."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from agno_workers import wiring
from agno_workers.broker.keeper import Renewal, Rounds
from agno_workers.broker.names import STEP_TASKS
from agno_workers.errors import AgnoError
from agno_workers.storage.results import as_uuid

if (
    folder := str(Path.cwd())
) not in sys.path:  # AGNO_IMPORTS is found where `-A` is: in the working folder, too
    sys.path.insert(0, folder)

try:
    app = wiring.celery_app()
except AgnoError as error:  # a wrong setting: one sentence, not a traceback
    print(f"agno-workers: {error}", file=sys.stderr)  # noqa: T201 - for a person
    sys.exit(2)


class Threads(bootsteps.StartStopStep):
    """The keeper and the renewal of leases, in the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, _worker: Any, **_: Any) -> None:
        self._threads: list[Rounds | Renewal] = []

    def start(self, _worker: Any) -> None:
        services, upkeep = wiring.services(), wiring.upkeep()
        settings = services.settings
        self._threads = [
            Rounds(
                upkeep.keeper(),
                upkeep.pool,
                every_s=settings.keeper_every_s,
                standby_s=settings.keeper_lease_s,
            ),
            Renewal(upkeep.journal, carried, services.engine.held.lose, every_s=settings.renew_every_s),
        ]
        for thread in self._threads:
            thread.start()
        # Not in `stop`: that comes first, and a step that is still under way needs its lease until it is over.
        signals.worker_shutdown.connect(self._end, weak=False)

    def _end(self, **_: Any) -> None:
        for thread in self._threads:
            thread.stop()


def carried() -> list[str]:
    """The steps that this worker's pool is at work on, whatever kind of pool it is."""
    return [
        request.id
        for request in list(state.active_requests)
        if request.name in STEP_TASKS and as_uuid(request.id) is not None
    ]


@signals.worker_init.connect
def _begin(sender: Any, **_: Any) -> None:
    """Take a name, and refuse to work on servers that would lose work.

    The pool's children inherit the name: a lease belongs to the worker, and each start of a worker is a new one.
    """
    # With hundreds of threads that wait for models, Python's 5 ms make them poll for the interpreter's lock: a call
    # costs 5-21 ms of CPU instead of 2.5 (benchmarks/models).
    sys.setswitchinterval(0.02)
    wiring.name_worker(f"{sender.hostname}#{os.getpid()}-{uuid.uuid4().hex[:6]}")
    try:
        problems = wiring.problems()
    except AgnoError as error:
        problems = [str(error)]
    if problems:
        print(f"agno-workers: the worker does not start: {' '.join(problems)}", file=sys.stderr)  # noqa: T201 - for a person
        sys.exit(2)


app.steps["worker"].add(Threads)

from agno_workers.tasks import runs, tools  # noqa: E402, F401 - they register their tasks on `app`
