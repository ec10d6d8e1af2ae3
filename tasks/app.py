"""The worker's Celery app: its tasks, and the threads that each worker process starts."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import uuid
from importlib.metadata import version
from itertools import count
from typing import Any

from celery import bootsteps, signals
from celery.app.log import ColorFormatter
from celery.worker import state
from celery.worker.control import Panel

from agno_workers import wiring
from agno_workers.broker import names
from agno_workers.broker.canary import Canary
from agno_workers.broker.control import cancelling
from agno_workers.broker.keeper import KeeperThread, LeaseRenewer
from agno_workers.broker.lease_guard import LeaseGuard
from agno_workers.broker.lifecycle import WorkerLifecycle, active_requests, pool_name
from agno_workers.broker.run_log import name_runs_in_log
from agno_workers.broker.start import described, refuse, start_check
from agno_workers.broker.submit import RunTask
from agno_workers.core.logs import SafeFormatter
from agno_workers.core.words import as_uuid
from agno_workers.registry import import_from_here
from agno_workers.runs.workers import WorkerIdentity
from agno_workers.tasks import runs, steps

import_from_here()

log = logging.getLogger(__name__)
_MAINTAIN_POOL_EVERY_S = 0.5

try:
    app = wiring.celery_app()
except Exception as error:  # a wrong setting is a sentence, not a traceback
    refuse(described(error))


class WorkerThreads(bootsteps.StartStopStep):
    """Runs the keeper, the renewal of leases, the self-test and the heartbeat in the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._threads: list[KeeperThread | LeaseRenewer | Canary | WorkerLifecycle] = []
        self._lifecycle: WorkerLifecycle | None = None
        self._maintains_pool = False
        worker.canary = None

    def start(self, worker: Any) -> None:
        services, upkeep = wiring.services(), wiring.upkeep()
        settings, name = services.settings, services.worker
        host, pool = socket.gethostname(), pool_name(type(worker.pool))
        lifecycle = self._lifecycle = WorkerLifecycle(
            worker,
            WorkerIdentity(
                name,
                host,
                os.getpid(),
                version("agno-workers"),
                pool,
                tuple(agent.name for agent in services.registry.all()),
            ),
            upkeep.database.workers,
            upkeep.dispatch,
            every_s=settings.runs.renew_every_s,
            grace_s=settings.worker.shutdown_grace_s,
            max_s=settings.worker.shutdown_max_s,
            on_new=upkeep.register_agents,
            active=active_steps,
        )
        worker.canary = Canary(
            worker,
            app,
            upkeep.redis,
            lifecycle.fail,
            name=name,
            every_s=settings.worker.canary_every_s,
            key_prefix=settings.broker.key_prefix,
        )
        keeper = KeeperThread(
            upkeep.keeper(on_other_owner=lifecycle.fail),
            upkeep.database.pool,
            every_s=settings.keeper.every_s,
            standby_s=settings.keeper.lease_s,
        )
        services.active.is_renewed = True  # a prefork child has services of its own
        if pool != "prefork":
            services.active.takes = lifecycle.takes
        claims, every_s = upkeep.database.journal, settings.runs.renew_every_s
        # Tools of any other pool run in this process, where one can stop all threads.
        guard = None if pool == "prefork" else LeaseGuard(*claims.renewal(), every_s=every_s)
        renewal = LeaseRenewer(claims, active_steps, services.active.lose, every_s=every_s, guard=guard)
        lifecycle.register()
        self._threads = [keeper, renewal, worker.canary, lifecycle]
        for thread in self._threads:
            thread.start()
        shut_down_on_signals(lifecycle)
        # Celery calls `stop` earlier, while active steps still need their leases.
        signals.worker_shutdown.connect(self._stop_threads, weak=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Notice a dead child within a second: Celery often looks just before it can be reaped, and again after 5 s."""
        if not self._maintains_pool:
            self._maintains_pool = True
            hub.call_repeatedly(_MAINTAIN_POOL_EVERY_S, worker.pool.maintain_pool)

    def close(self, worker: Any) -> None:
        if self._lifecycle is not None:
            worker.canary.stop()  # a worker that shuts down receives nothing
            self._lifecycle.close()

    def _stop_threads(self, **_: Any) -> None:
        for thread in self._threads:
            thread.stop()


class CanaryListener(bootsteps.StartStopStep):
    """Receives self-test messages on each new connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        if consumer.controller.canary is not None:
            consumer.controller.canary.listen(consumer)


def shut_down_on_signals(lifecycle: WorkerLifecycle) -> None:
    """Let the first SIGTERM or Ctrl-C begin Celery's warm shutdown, and a second one, or SIGQUIT, end the worker at once.

    Celery's own handlers would wait for threads that can't be stopped.
    """
    process = os.getpid()
    begin = signal.getsignal(signal.SIGTERM)
    assert callable(begin), "Celery installs its handler first"
    # A second signal may interrupt the handling of the first: `next` counts each once. It must not reach Celery's handler, which
    # holds a lock that is not reentrant.
    received = count()

    def on_quit(*_: Any) -> None:
        if os.getpid() == process:  # a child of the pool inherits the handlers
            state.should_stop = 0
            lifecycle.command("hurry")

    def on_shutdown(*args: Any) -> None:
        if os.getpid() == process and next(received):
            lifecycle.command("hurry")
            return
        begin(*args)
        if os.getpid() == process:
            lifecycle.command("shut_down")

    signal.signal(signal.SIGQUIT, on_quit)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_shutdown)


def active_steps() -> list[str]:
    """Return the ids of the steps that this worker's pool executes, each as a task or within one."""
    requested = {
        request.id
        for request in active_requests()
        if request.name in names.STEP_TASKS and as_uuid(request.id) is not None
    }
    return list(requested.union(wiring.services().active.ids()))


def cancel_runs(task_ids: list[str]) -> set[str]:
    """Cancel the runs among these tasks, and return the ids of the others."""
    return wiring.services().dispatch.control.revoke(task_ids)


@signals.worker_init.connect
def _leave_no_folders(**_: Any) -> None:
    """Let the pool use the temporary directory itself: in a killed worker, nobody would remove the folder that it makes there."""
    multiprocessing.current_process()._config["tempdir"] = tempfile.gettempdir()  # type: ignore[attr-defined]


@signals.worker_process_shutdown.connect
def _delete_sent_messages(**_: Any) -> None:
    """Delete the last sent messages from the outbox: a prefork child ends without Python's own shutdown."""
    wiring.services().dispatch.close()


@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def _protect_log(logger: logging.Logger, **_: Any) -> None:
    """Let no foreign text forge a line of Celery's own log; a formatter of yours is left alone."""
    for handler in logger.handlers:
        if isinstance(handler.formatter, ColorFormatter):
            handler.setFormatter(SafeFormatter(handler.formatter))


def prepare(worker: Any) -> list[str]:
    """Name the worker and register its agents; or return why it must not start.

    The pool's children inherit the name: a lease belongs to the worker, and each start makes a new worker.
    """
    # Hundreds of threads that wait for models compete for the interpreter's lock: with Python's 5 ms a call costs
    # 5-21 ms of CPU instead of 2.5 (benchmarks/models).
    sys.setswitchinterval(0.02)
    wiring.name_worker(f"{worker.hostname}#{os.getpid()}-{uuid.uuid4().hex[:6]}")
    queues = worker.app.amqp.queues.consume_from
    found = wiring.problems(queues)
    if not found:
        services = wiring.services()
        services.register_agents()
        named = services.settings.queues
        own = {named.agents, named.tools, named.background}.intersection(queues)
        if own and not services.registry.all():
            log.warning(
                "this worker knows no agent, so it returns the steps of its queue %s: set AGNO_IMPORTS to the modules that define "
                "your agents, and start it again",
                " and ".join(sorted(own)),
            )
    return found


name_runs_in_log()
app.steps["worker"].update((start_check(prepare), WorkerThreads))
app.steps["consumer"].add(CanaryListener)
app.tasks.unregister(names.RUN)  # of a process that only sends
app.task(name=names.RUN, bind=True, base=RunTask, Request=runs.Submission)(runs.run)
for name in ("revoke", "terminate"):
    Panel.data[name] = cancelling(Panel.data[name], cancel_runs)
for kind, task in names.TASK_OF.items():
    app.task(name=task, ignore_result=True)(steps.body(kind))
