"""Workers that start at once: a process imports Celery and our package, and forks for each worker.

A worker that starts by itself computes for 1.0 s, a forked one for 0.15 s. `tests/acceptance/test_worker_start.py` and
`agno-workers up` start workers in the usual way.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOADED = (
    "celery.bin.celery", "celery.concurrency.prefork", "celery.concurrency.thread", "celery.worker.consumer",
    "kombu.transport.redis", "agno_workers.wiring",
)  # fmt: skip
"""Modules that read no setting when they are imported; `signals` does, and is loaded again in each worker."""
MAX_BYTES = 1 << 17


class Forked:
    """A forked process: what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def ended(self, status: int) -> None:
        self.returncode = status
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, how: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, how)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def inherited(*dropped: str) -> dict[str, str]:
    """Return this process's environment without AGNO_* and variables with these prefixes."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AGNO_", *dropped))}


class Forker:
    """The process that forks. It ends with this one."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(theirs.fileno())],
                cwd=ROOT, env=inherited(), stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._lock = threading.Lock()
        self._new: queue.Queue[Forked] = queue.Queue()
        self._alive: dict[int, Forked] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, arguments: list[str], environment: dict[str, str], output: int) -> Forked:
        """Fork a process that is `python -m` with these arguments; `output` is its stdout and stderr."""
        order = json.dumps({"arguments": arguments, "environment": environment}).encode()
        assert len(order) < MAX_BYTES
        with self._lock:
            socket.send_fds(self._control, [order], [output])
            return self._new.get(timeout=60)

    def _read(self) -> None:
        while said := self._control.recv(MAX_BYTES):
            pid, status = json.loads(said)
            if status is None:
                self._alive[pid] = Forked(pid)
                self._new.put(self._alive[pid])
            else:
                self._alive.pop(pid).ended(status)


def main(control: socket.socket) -> None:
    """Fork for each order and tell how each process ended, until the other end of `control` is closed."""
    for module in LOADED:
        importlib.import_module(module)
    gc.freeze()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, int] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                os.close(ready)
                pid = children.pop(ready)
                control.send(json.dumps([pid, status_of(pid)]).encode())
                continue
            order, (*output,), _, _ = socket.recv_fds(control, MAX_BYTES, 1)
            if not order:
                for pid in children.values():
                    os.killpg(pid, signal.SIGKILL)
                return
            pid = os.fork()
            if not pid:
                control.close()
                for handle in children:
                    os.close(handle)
                become(output[0], **json.loads(order))
            os.close(output[0])
            handle = os.pidfd_open(pid)
            children[handle] = pid
            poll.register(handle, select.POLLIN)
            control.send(json.dumps([pid, None]).encode())


def status_of(pid: int) -> int:
    """Return the status of a child that ended. It stays a zombie, so its pid is not given to another process group."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def become(output: int, arguments: list[str], environment: dict[str, str]) -> None:
    """Run the module, and exit as it does."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    importlib.reload(sys.modules["agno_workers.signals"])
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
