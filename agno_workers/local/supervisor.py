"""Keeps one server: starts it, and ends it with everything it started as soon as our own parent is gone.

Runs as a small process of its own between the program and its server, `python -I -S keeper.py ORDER`, and needs only the
standard library. Three things make it a process rather than a flag on the server:

* The kernel's "signal me when my parent dies" means the parent *thread*, so a server started from a worker thread would
  end with that thread. The keeper has one thread, so for its child the two are the same.
* That flag is cleared by setuid and can't be polite. The keeper sets it after setuid, as a net under itself, and asks the
  server to stop in its own way first.
* A killed Postgres leaves children behind. The keeper is their next parent (a subreaper), so it finds and ends them.
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
STOP_REQUESTS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
LOOK_EVERY_S = 0.2  # how late we may notice that our parent died


@dataclass(frozen=True)
class Order:
    """What to start and how to end it. Crosses to the keeper as JSON."""

    command: list[str]  # an absolute path and its arguments
    folder: (
        str  # working folder, entered before the change of user: the new user need not reach it by its path
    )
    environment: dict[str, str]  # all of it: keys in our own environment are none of a server's business
    parent: int  # the process whose end ends the server
    user: tuple[int, int] | None = None  # uid and gid to become, or None to stay who we are
    talks: bool = False  # whether the parent reads the server's output; it goes to the log otherwise
    stop_signal: int = signal.SIGTERM  # the server's own polite way to stop
    orphan_signal: int = signal.SIGTERM  # what it gets should the keeper be killed
    patience_s: float = 10.0  # from the polite signal to SIGKILL
    remove: str | None = None  # a folder to delete when all is over


def main() -> None:
    """Writes the server's pid, keeps it until its end or ours, and exits with its status (127 if it could not start)."""
    order = Order(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *STOP_REQUESTS})
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    server = start(order)
    sys.stdout.write(f"{server}\n")
    sys.stdout.flush()
    status = wait_for_an_end(order, server)
    if status is None:
        status = stop(order, server)
    end_what_is_left()
    if order.remove:
        shutil.rmtree(order.remove, ignore_errors=True)
    sys.exit(status)


def start(order: Order) -> int:
    """Fork and become the server; gives its pid. What goes wrong on the way is written to the log."""
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(order.folder)
        if order.user is not None:
            uid, gid = order.user
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        prctl(PR_SET_PDEATHSIG, order.orphan_signal)
        if os.getppid() != keeper:  # it died before the line above could tell
            os._exit(1)
        if not order.talks:
            os.dup2(2, 1)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execve(order.command[0], order.command, order.environment)
    except OSError as error:
        os.write(2, f"{order.command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def wait_for_an_end(order: Order, server: int) -> int | None:
    """The server's status if it ended by itself; None if it must, because we are told to stop or our parent is gone."""
    while True:
        got = signal.sigtimedwait({signal.SIGCHLD, *STOP_REQUESTS}, LOOK_EVERY_S)
        status = reap(server)
        if status is not None:
            return status
        if (got and got.si_signo in STOP_REQUESTS) or os.getppid() != order.parent:
            return None


def stop(order: Order, server: int) -> int:
    """Ask the server to stop and wait up to `patience_s`; its status, or 128 + SIGKILL if it would not."""
    os.kill(server, order.stop_signal)
    give_up = time.monotonic() + order.patience_s
    while time.monotonic() < give_up:
        status = reap(server)
        if status is not None:
            return status
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_EVERY_S)
    return 128 + signal.SIGKILL


def reap(server: int) -> int | None:
    """Collect every child that has ended, adopted ones too; the server's status if it was among them, as a shell tells it."""
    found = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == server:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass
    return found


def end_what_is_left() -> None:
    """SIGKILL whatever the server left; orphans of those become our children in turn, until there are none."""
    while children := open("/proc/thread-self/children").read().split():  # noqa: PTH123, SIM115 - pathlib is slow to import
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
        os.waitpid(-1, 0)


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
