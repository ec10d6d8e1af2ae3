"""A small process that renews a worker's leases while a tool keeps the worker's own threads from running.

A call into C that holds the interpreter's lock (a regular expression, an extension) stops every thread of its process, also the
one that renews the leases: another worker's keeper would execute the steps again, and end `once` tools as unknown.

    LeaseRenewer ──a byte after each round──▶ this process ──no byte for 1.5 rounds──▶ UPDATE agno.step ... WHERE worker = me

It renews only leases that have not expired, while its worker is neither dead nor stopped (SIGSTOP), and for at most five minutes
after the last byte: a worker that hangs loses its steps. Its memory is a bare Python's, and it connects when it is first needed.

This file is executed as a program, so it imports nothing of this package.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_LONGEST_SILENCE_S = 300.0
_SELF = ["-P", __file__]  # -P: the modules beside this file are not importable by their short names


class LeaseGuard:
    """The worker's side: starts the process, and tells it that the worker's threads run."""

    def __init__(self, database_url: str, statement: str, params: dict[str, Any], *, every_s: float) -> None:
        """`statement` renews all unexpired leases of this worker."""
        task = {
            "url": database_url,
            "statement": statement,
            "params": params,
            "every_s": every_s,
            "path": sys.path,
        }
        self._task = json.dumps(task).encode() + b"\n"
        self._process: subprocess.Popen[bytes] | None = None

    def beat(self) -> None:
        """Tell the process that the worker's threads run; start it where it does not run."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen([sys.executable, *_SELF], stdin=subprocess.PIPE, bufsize=0)
                self._tell(self._process, self._task)
            self._tell(self._process, b".")
        except OSError as error:
            log.warning(
                "the process that guards the leases does not answer; the next round starts it: %s", error
            )

    @staticmethod
    def _tell(process: subprocess.Popen[bytes], text: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(text)


def guard() -> None:
    """Be that process: return when the worker has ended."""
    worker = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they reach a whole process group
        signal.signal(number, signal.SIG_IGN)
    head = b""
    while b"\n" not in head:
        if not (piece := os.read(0, 65536)):
            return
        head += piece
    task = json.loads(head.partition(b"\n")[0])
    sys.path[:] = task["path"]
    late_s, every_s = 1.5 * task["every_s"], task["every_s"]
    heard_at, wait_s, connection, is_told = time.monotonic(), late_s, None, False
    while True:
        if select.select([0], [], [], wait_s)[0]:
            if not os.read(0, 65536):
                return
            heard_at, wait_s, is_told = time.monotonic(), late_s, False
            continue
        silent_s, wait_s = time.monotonic() - heard_at, every_s
        if os.getppid() != worker:  # a fork of the worker may keep the pipe open
            return
        if silent_s > _LONGEST_SILENCE_S or not _runs(worker):
            continue
        connection, renewed = _renew(connection, task)
        if renewed and not is_told:
            is_told = True
            _report(
                f"no thread has run for {silent_s:.0f} s (a tool holds the GIL?); {renewed} lease(s) are renewed"
            )


def _renew(connection: Any, task: dict[str, Any]) -> tuple[Any, int]:
    """Renew the leases; return the connection for the next time, and the number of leases."""
    import psycopg  # noqa: PLC0415 - most workers never need it

    from agno_workers.database.connect import connect  # noqa: PLC0415 - as above
    from agno_workers.errors import AgnoError  # noqa: PLC0415 - as above

    try:
        if connection is None or connection.broken:
            connection = connect(task["url"], timeout_s=5, autocommit=True)
        return connection, connection.execute(task["statement"], task["params"]).rowcount
    except (psycopg.Error, AgnoError):  # the worker reports an outage of Postgres
        return None, 0


def _report(text: str) -> None:
    print(f"agno-workers: worker {os.getppid()}: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the worker's log


def _runs(process: int) -> bool:
    """Return whether a process is neither stopped nor dead. False where the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "TtXZ"
    except OSError:
        return False


if __name__ == "__main__":
    guard()
