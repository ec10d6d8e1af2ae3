"""The programs of `up` and `demo`: Celery workers, and Flower."""

from __future__ import annotations

import os
import secrets
import socket

from agno_workers.cli.processes import Program
from agno_workers.errors import SettingsError
from agno_workers.settings import Settings

THREADS = 64
"""Turns, or tool calls, of one worker at the same time: they wait for models and for Postgres, and share about 16 connections."""
BACKGROUND_THREADS = 8
"""Summaries, memories and indexes of one worker at the same time: nobody waits for them."""
FLOWER_USER = "agno"
_WITHOUT = "--without-gossip --without-mingle"  # they cost a second at the start, and we do not use them
_QUIET = (
    "-W",
    "ignore::UserWarning:celery.platforms",
)  # ten lines that warn root about pickle: we accept JSON only


def workers(
    settings: Settings, *, agents: int = 0, tools: int = 0, knowledge: int = 0, background: int = 0, events: bool = False
) -> list[Program]:  # fmt: skip
    """Return a worker for each kind whose concurrency is above 0: processes for knowledge, threads for the others.

    Without a worker for background work, that for agents does it, too: it is for servers that start and stop with a command,
    where no backlog can delay agents. events: report each task to Flower.
    """
    queues = settings.queues
    kinds = [
        (
            "agents",
            queues.agents if background else f"{queues.agents},{queues.background}",
            "threads",
            agents,
        ),
        ("tools", queues.tools, "threads", tools),
        ("background", queues.background, "threads", background),
        ("knowledge", queues.knowledge, "prefork", knowledge),
    ]
    return [
        _worker(name, queue, pool, slots, events, settings.worker.shutdown_max_s)
        for name, queue, pool, slots in kinds
        if slots
    ]


def _worker(name: str, queue: str, pool: str, slots: int, events: bool, shutdown_max_s: float) -> Program:
    command = f"-m celery -q -A agno_workers worker -P {pool} -l INFO {_WITHOUT}".split()
    options = ["-Q", queue, "-c", str(slots), "-n", f"{name}-{os.getpid()}@%h", *(["-E"] if events else [])]
    return Program(name, (*_QUIET, *command, *options), ready=" ready.", stop_timeout_s=shutdown_max_s + 5)


def flower(port: int) -> tuple[Program, str]:
    """Return Flower (read-only, for this machine only) and a new password. Raises SettingsError when the port is taken."""
    _must_be_free(port)
    password = secrets.token_urlsafe(12)
    options = {
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": str(port),
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}",  # not on the command line, which other users can read
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
