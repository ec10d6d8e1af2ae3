"""Runs one process, and ends it with all its descendants as soon as our parent is gone.

`supervised.Supervised` starts this file as a small program between itself and a server or a worker. Three reasons make it
a program instead of a flag on the process:

* The kernel's "signal me when my parent dies" means the parent *thread*: a server that a worker thread started would end
  with that thread. The supervisor has one thread, so for its child the two are the same.
* The kernel clears that flag on setuid, and its signal is all the warning a process gets. The supervisor sets the flag
  after setuid, for the case that the supervisor itself is killed, and otherwise asks the process to stop first.
* A killed Postgres leaves children behind. The supervisor is a subreaper: they become its children, and it kills them.

Runs as `python -I -S supervisor.py` on the standard library alone, and reads what to run from stdin: every user of the
machine can read a command line, and the environment may hold keys and passwords.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
CHECK_EVERY_S = 0.2  # the longest time until we notice that our parent died


@dataclass(frozen=True)
class ProcessSpec:
    """The command of a process, and how to stop it."""

    command: list[str]  # an absolute path and its arguments
    cwd: str  # entered before the change of user, who may not be allowed to reach it by its path
    environment: dict[str, str]  # the whole environment: nothing is inherited
    user: tuple[int, int] | None = None  # uid and gid to change to; None keeps ours
    stop_signal: int = signal.SIGTERM  # asks the process to stop
    orphan_signal: int = signal.SIGTERM  # sent by the kernel if the supervisor is killed
    stop_timeout_s: float = 10.0  # from stop_signal to SIGKILL
    pipe_stdout: bool = False  # stdout goes to our parent instead of to stderr
    remove_dir: str | None = None  # deleted once everything has ended


def main() -> None:
    """Start the process, wait until it or our parent ends, and exit with its status (127: not started)."""
    parent, fields = json.load(sys.stdin)
    spec = ProcessSpec(**fields)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *STOP_SIGNALS})
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid = start(spec)
    status = wait(pid, parent)
    if status is None:
        status = stop(spec, pid)
    kill_descendants()
    if spec.remove_dir:
        shutil.rmtree(spec.remove_dir, ignore_errors=True)
    sys.exit(status)


def start(spec: ProcessSpec) -> int:
    """Fork and execute the command; return its pid. The child writes an error of its start to stderr."""
    supervisor = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(spec.cwd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if spec.user is not None:
            uid, gid = spec.user
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        prctl(PR_SET_PDEATHSIG, spec.orphan_signal)
        if os.getppid() != supervisor:  # it died before prctl
            os._exit(1)
        os.write(1, f"{os.getpid()}\n".encode())  # the first line that our parent reads
        if not spec.pipe_stdout:
            os.dup2(2, 1)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execve(spec.command[0], spec.command, spec.environment)
    except OSError as error:
        os.write(2, f"{spec.command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def wait(pid: int, parent: int) -> int | None:
    """Return the status of a process that ended by itself; None when it must stop: we got a signal or lost our parent."""
    while True:
        received = signal.sigtimedwait({signal.SIGCHLD, *STOP_SIGNALS}, CHECK_EVERY_S)
        status = reap(pid)
        if status is not None:
            return status
        if (received and received.si_signo in STOP_SIGNALS) or os.getppid() != parent:
            return None


def stop(spec: ProcessSpec, pid: int) -> int:
    """Ask the process to stop; return its status, or 128 + SIGKILL when `stop_timeout_s` was not enough."""
    os.kill(pid, spec.stop_signal)
    deadline = time.monotonic() + spec.stop_timeout_s
    while time.monotonic() < deadline:
        status = reap(pid)
        if status is not None:
            return status
        signal.sigtimedwait({signal.SIGCHLD}, CHECK_EVERY_S)
    return 128 + signal.SIGKILL


def reap(pid: int) -> int | None:
    """Collect every child that has ended, adopted ones too; return the process's status (as a shell counts) if it has."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass
    return found


def kill_descendants() -> None:
    """SIGKILL all children until there are none: the orphans of each become our children."""
    while children := open("/proc/thread-self/children").read().split():  # noqa: PTH123, SIM115 - pathlib is slow to import
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
        os.waitpid(-1, 0)


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
