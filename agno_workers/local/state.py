"""The folders of the local servers, and the lock that lets one launcher at a time use them.

* The state folder holds what must survive: data, logs, locks.
* The socket folder is short and under /tmp or XDG_RUNTIME_DIR, because a unix socket's path has at most 107 bytes. Its
  name follows from the state folder, so addresses stay the same over restarts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from pathlib import Path

from agno_workers.errors import EmbeddedError

STOPPING_TIMEOUT_S = 20.0  # how long the servers of a dead launcher may take to end


def default_state_dir() -> Path:
    """Return AGNO_STATE_DIR, or `agno-workers` in the user's state folder (XDG_STATE_HOME, ~/.local/state).

    Raises EmbeddedError for a user without a home.
    """
    try:
        if chosen := os.environ.get("AGNO_STATE_DIR"):
            return Path(chosen).expanduser()
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise EmbeddedError(
            f"Python finds no home directory for the state folder: {error} Set AGNO_STATE_DIR to a folder of your own."
        ) from error
    return Path(base) / "agno-workers"


def make_state_dir(state_dir: Path) -> None:
    """Create the folder for this user only; an existing one keeps its mode."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(state_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise EmbeddedError(
            f"The state folder {str(state_dir)!r} can't be written to ({error.strerror}): "
            "set AGNO_STATE_DIR to a folder of your own."
        ) from error


def lock(state_dir: Path, name: str) -> int:
    """Lock the server `name` of this state folder; return the open file that holds the lock.

    The lock lasts as long as any process has this file open. Only the supervisor, the server and the server's children
    inherit it, so holding it proves that no process of an earlier start is left.
    """
    path = state_dir / f"{name}.lock"
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedError(
            f"{str(path)!r} can't be opened ({error.strerror}): set AGNO_STATE_DIR to a folder of your own."
        ) from error
    deadline = time.monotonic() + STOPPING_TIMEOUT_S
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = int(os.pread(opened, 20, 0) or b"0")
            if _is_alive(holder) or time.monotonic() > deadline:
                os.close(opened)
                raise EmbeddedError(
                    f"The {name} in {str(state_dir)!r} is in use by process {holder}: "
                    "stop that process, or set AGNO_STATE_DIR to another folder.",
                    pid=holder,
                ) from None
            time.sleep(0.02)  # its launcher is dead, and the server is about to end
        else:
            os.ftruncate(opened, 0)
            os.pwrite(opened, str(os.getpid()).encode(), 0)
            return opened


def socket_dir(state_dir: Path, name: str) -> Path:
    """Return the short private folder for the sockets of the server `name` of this state folder."""
    key = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]
    base = Path("/tmp")  # noqa: S108 - make_socket_dir checks that the folder in it is ours
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() != 0 and 0 < len(runtime) < 48 and os.access(runtime, os.W_OK | os.X_OK):
        base = Path(runtime)
    return base / f"agno-{os.geteuid()}-{key}-{name}"


def is_private(path: Path) -> bool:
    """Return True for a folder of this user: nobody else could have put a socket there."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def make_socket_dir(path: Path, mode: int) -> None:
    """Create an empty folder of ours. Remnants of an earlier start are deleted: `lock` proved that nobody uses them."""
    try:
        if os.path.lexists(path):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise EmbeddedError(
                    f"{str(path)!r} belongs to user {found.st_uid}: remove it, or use another state folder."
                )
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
        path.chmod(mode)  # the umask cuts mkdir's mode
    except OSError as error:
        raise EmbeddedError(f"The socket folder {str(path)!r} can't be made: {error.strerror}.") from error


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
