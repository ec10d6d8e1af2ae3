"""The programs that `up` and `demo` keep running: Celery workers, and Flower."""

from __future__ import annotations

import os
import secrets
import socket

from agno_workers.cli.processes import Program
from agno_workers.errors import SettingsError
from agno_workers.settings import Settings

FLOWER_USER = "agno"
_WITHOUT = "--without-gossip --without-mingle"  # they cost a second at the start, and serve nothing of ours
_QUIET = (
    "-W",
    "ignore::UserWarning:celery.platforms",
)  # ten lines against root, for the sake of pickle: we take JSON only


def workers(
    settings: Settings, *, agents: int, tools: int, knowledge: int = 0, events: bool = False
) -> list[Program]:
    """One for the turns of agents, one for tools, with so many threads each; one for knowledge, with so many processes, where
    that is above 0. `events`: tell Flower of each task.
    """
    kinds = [
        ("agents", settings.agent_queue, "threads", agents),
        ("tools", settings.tool_queue, "threads", tools),
        ("knowledge", settings.knowledge_queue, "prefork", knowledge),
    ]
    return [
        _worker(name, queue, pool, slots, events, settings.shutdown_max_s)
        for name, queue, pool, slots in kinds
        if slots
    ]


def _worker(name: str, queue: str, pool: str, slots: int, events: bool, ends_within_s: float) -> Program:
    command = f"-m celery -q -A agno_workers worker -P {pool} -l INFO {_WITHOUT}".split()
    itself = ["-Q", queue, "-c", str(slots), "-n", f"{name}-{os.getpid()}@%h", *(["-E"] if events else [])]
    return Program(name, (*_QUIET, *command, *itself), ready=" ready.", stop_timeout_s=ends_within_s + 5)


def flower(port: int) -> tuple[Program, str]:
    """Flower, for this machine only, read-only; and its new password.

    Raises SettingsError when the port is taken.
    """
    _must_be_free(port)
    password = secrets.token_urlsafe(12)
    options = {
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": str(port),
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}",  # not on the command line, which others can read
        "FLOWER_READ_ONLY": "true",
    }
    arguments = ("-m", "celery", "-A", "agno_workers", "flower")
    return Program("flower", arguments, ready="Visit me at", environment=options), password


def _must_be_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(
                f"port {port} of 127.0.0.1 can't be used for Flower ({error.strerror}): choose another with --flower-port."
            ) from error
