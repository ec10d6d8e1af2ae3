"""Servers and workers for the tests of your agents:

@pytest.fixture(scope="session", autouse=True)
def agno() -> Iterator[None]:
    with running("agents"):
        yield
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agno_workers import settings, wiring
from agno_workers.cli import servers
from agno_workers.cli.processes import ProcessManager, Program
from agno_workers.cli.programs import workers

log = logging.getLogger(__name__)


@contextmanager
def running(*imports: str, agents: int = 4, tools: int = 4, knowledge: int = 0) -> Iterator[None]:
    """Run workers that import these modules; agents and a `Client` of this process reach them until the block ends.

    `agents`, `tools` and `knowledge` are the numbers of turns, tool calls and processes at the same time; 0 starts no such
    worker. Postgres and Valkey are started too (extra `embedded`) and deleted at the end, unless AGNO_DATABASE_URL and
    AGNO_BROKER_URL are set: such a database is migrated, and keeps what the tests leave. The workers' output is logged.

    Raises AgnoError when a server or a worker can't start; its message is the reason.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="agno-") as folder:
        os.environ.update({"AGNO_IMPORTS": ",".join(imports), "AGNO_STATE_DIR": folder})
        try:
            loaded = settings.load()
            with servers.running(loaded) as started:
                servers.prepare(started)
                programs = workers(loaded, agents=agents, tools=tools, knowledge=knowledge)
                with _running(ProcessManager(programs, _log_line, log.info)):
                    yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _running(processes: ProcessManager) -> Iterator[None]:
    wiring.forget()  # connections to other servers
    at_once = threading.Event()
    at_once.set()
    try:
        processes.start().wait_until_ready()
        yield
    finally:
        wiring.forget()
        processes.stop(at_once)


def _log_line(program: Program, line: str) -> None:
    log.info("%s: %s", program.name, line)
