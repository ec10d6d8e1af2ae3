"""The worker's Celery app: the tasks, and the threads that each worker brings with it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import uuid
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from agno_workers import wiring
from agno_workers.broker.canary import Canary
from agno_workers.broker.keeper import KeeperThread, LeaseRenewer
from agno_workers.broker.lifecycle import WorkerLifecycle, kind_of, under_way
from agno_workers.broker.names import STEP_TASKS
from agno_workers.core.words import as_uuid
from agno_workers.errors import AgnoError
from agno_workers.runs.workers import WorkerIdentity

if (
    folder := str(Path.cwd())
) not in sys.path:  # AGNO_IMPORTS is found where `-A` is: in the working folder, too
    sys.path.insert(0, folder)

_LOOK_AFTER_CHILDREN_EVERY_S = 0.5

try:
    app = wiring.celery_app()
except AgnoError as error:  # a wrong setting: one sentence, not a traceback
    print(f"agno-workers: {error}", file=sys.stderr)  # noqa: T201 - for a person
    sys.exit(2)


class WorkerThreads(bootsteps.StartStopStep):
    """The keeper, the renewal of leases, and the worker's own life (see broker/life.py), in its main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._threads: list[KeeperThread | LeaseRenewer | Canary | WorkerLifecycle] = []
        self._life: WorkerLifecycle | None = None
        self._looks_after_children = False
        worker.canary = None

    def start(self, worker: Any) -> None:
        services, upkeep = wiring.services(), wiring.upkeep()
        settings, name = services.settings, services.worker
        host, pool = socket.gethostname(), kind_of(type(worker.pool))
        life = self._life = WorkerLifecycle(
            worker,
            WorkerIdentity(name, host, os.getpid(), version("agno-workers"), pool),
            upkeep.database.workers,
            upkeep.dispatch,
            every_s=settings.renew_every_s,
            grace_s=settings.shutdown_grace_s,
            max_s=settings.shutdown_max_s,
        )
        worker.canary = Canary(
            worker, app, upkeep.redis, life.deaf, name=name, every_s=settings.canary_every_s
        )
        rounds = KeeperThread(
            upkeep.keeper(),
            upkeep.database.pool,
            every_s=settings.keeper_every_s,
            standby_s=settings.keeper_lease_s,
        )
        services.active.is_renewed = True  # in this process; a prefork child has services of its own
        renewal = LeaseRenewer(
            upkeep.database.journal, carried, services.active.lose, every_s=settings.renew_every_s
        )
        life.register()
        self._threads = [rounds, renewal, worker.canary, life]
        for thread in self._threads:
            thread.start()
        leave_when_asked(life)
        # Not in `stop`: that comes first, and a step that is still under way needs its lease until it is over.
        signals.worker_shutdown.connect(self._end, weak=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """See a dead child within a second: Celery often looks just before it can be reaped, and then after 5 s again."""
        if not self._looks_after_children:
            self._looks_after_children = True
            hub.call_repeatedly(_LOOK_AFTER_CHILDREN_EVERY_S, worker.pool.maintain_pool)

    def close(self, worker: Any) -> None:
        if self._life is not None:
            worker.canary.stop()  # from here on it is no fault to hear nothing
            self._life.close()

    def _end(self, **_: Any) -> None:
        for thread in self._threads:
            thread.stop()


class CanaryListener(bootsteps.StartStopStep):
    """Hears the canary, at each connection anew."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        if consumer.controller.canary is not None:
            consumer.controller.canary.listen(consumer)


def leave_when_asked(life: WorkerLifecycle) -> None:
    """The first signal is Celery's warm shutdown, in our time, for Ctrl-C as for SIGTERM. SIGQUIT, or a second signal, ends at
    once: Celery would wait in its handler for threads that can't be stopped.
    """
    process = os.getpid()
    asked = (
        count()
    )  # the second signal may come while the first one is being handled: `next` counts each once

    def hurry(*_: Any) -> None:
        if os.getpid() == process:  # a child of the pool has our handlers, too
            state.should_stop = 0
            life.ask("hurry")

    def leave(**_: Any) -> None:
        life.ask("hurry" if next(asked) else "leave")

    signals.worker_shutting_down.connect(leave, weak=False)
    signal.signal(signal.SIGQUIT, hurry)
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))


def carried() -> list[str]:
    """The steps that this worker's pool is at work on."""
    return [
        request.id
        for request in under_way()
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
        problems = wiring.problems(sender.app.amqp.queues.consume_from)
    except AgnoError as error:
        problems = [str(error)]
    if not problems:
        wiring.services().register_agents()
    if problems:
        print(f"agno-workers: the worker does not start: {' '.join(problems)}", file=sys.stderr)  # noqa: T201 - for a person
        sys.exit(2)


app.steps["worker"].add(WorkerThreads)
app.steps["consumer"].add(CanaryListener)

from agno_workers.tasks import embeddings, ingestion, runs, tools  # noqa: E402, F401 - they register their tasks on `app`
