"""Servers and workers for the time of one command, when none are configured and no `agno-workers up` is running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from agno_workers.cli import connection, screen
from agno_workers.cli.processes import ProcessManager
from agno_workers.cli.programs import workers
from agno_workers.settings import Settings

WAITS_FOR_A_PERSON, TIMED_OUT = 4, 5
"""Exit statuses of a command that stops waiting while its run continues."""


@dataclass(frozen=True)
class Ready:
    """Servers that a command can use."""

    settings: Settings
    temporary: bool
    """They stop with the command, and their workers too."""


@contextmanager
def autostart(*, wait: bool = True, agents: int = 0, tools: int = 0, knowledge: int = 0) -> Iterator[Ready]:
    """Yield the servers of the settings or of a running `up`; start servers and workers when there are neither.

    agents, tools, knowledge: the concurrency of each worker. wait: the command waits for its work without being told to.
    Raises as `servers.running` and `ProcessManager.check`.
    """
    given = connection.settings()
    if not given.may_use_local_servers:
        yield Ready(given, temporary=False)
        return
    from agno_workers.cli.servers import prepare, running  # noqa: PLC0415 - brings Alembic, 0.5 s to import

    what = "Postgres, Valkey and workers" if agents or knowledge else "Postgres and Valkey"
    waiting = "" if wait else " It waits for the result, because the work stops with it."
    screen.echo(
        f"agno-workers: nothing is configured and no `agno-workers up` is running: starting {what} for this command.{waiting}",
        err=True,
    )
    with running(given) as servers:
        prepare(servers)
        settings = connection.settings()
        programs = workers(settings, agents=agents, tools=tools, knowledge=knowledge)
        processes = ProcessManager(programs, lambda _program, _line: None, lambda _sentence: None)
        try:
            processes.start().wait_until_ready()
            yield Ready(settings, temporary=True)
        except (KeyboardInterrupt, typer.Exit) as ended:
            if isinstance(ended, KeyboardInterrupt) or ended.exit_code in (
                WAITS_FOR_A_PERSON,
                TIMED_OUT,
                130,
            ):
                screen.echo("Stopping; the next `agno-workers up` continues unfinished work.", err=True)
            raise
        finally:
            processes.stop(threading.Event())
