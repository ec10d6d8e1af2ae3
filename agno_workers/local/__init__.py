"""Postgres with pgvector, and Valkey, started from wheels: no installation, no root, no network, no container.

    with local.servers() as servers:
        servers.database_url, servers.broker_url, servers.redis_url

For `demo`, `up`, tests and benchmarks on one machine; production has servers of its own. They listen only on unix sockets
that no other user can reach, keep their data in the state folder, and end with the process that started them, even if it
is killed. Linux only. The wheels' own start code is not used: it opens TCP ports, changes modes of folders or adds users.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agno_workers.errors import EmbeddedError
from agno_workers.local.postgres import Postgres
from agno_workers.local.state import default_state_dir, is_private
from agno_workers.local.valkey import Valkey

__all__ = ["LocalServers", "Postgres", "Valkey", "default_state_dir", "running", "servers", "start"]


@dataclass(frozen=True)
class LocalServers:
    """Both servers of one state folder."""

    postgres: Postgres
    valkey: Valkey

    @property
    def database_url(self) -> str:
        """For psycopg and libpq: `postgresql://agno@/agno?host=/...`."""
        return self.postgres.database_url

    @property
    def broker_url(self) -> str:
        """For Celery and kombu: `redis+socket:///...`."""
        return self.valkey.broker_url

    @property
    def redis_url(self) -> str:
        """For redis-py: `unix:///...`."""
        return self.valkey.redis_url

    def start(self) -> None:
        """Start what does not run. Raises EmbeddedError."""
        self.valkey.start()
        self.postgres.start()

    def stop(self) -> None:
        """Stop both in order; safe to repeat."""
        try:
            self.valkey.stop()
        finally:
            self.postgres.stop()


def running() -> LocalServers | None:
    """Return the servers of the default state folder that another process of this user runs, such as `agno-workers up`; None if
    there are none. Without them, this costs one look at a folder.
    """
    try:
        folder = default_state_dir()
    except EmbeddedError:
        return None
    found = LocalServers(Postgres(folder), Valkey(folder))
    both = (found.valkey, found.postgres)
    return found if all(is_private(each.socket_dir) and each.is_ready() for each in both) else None


def start(state_dir: Path | None = None, *, fsync: bool = True) -> LocalServers:
    """Start both and wait until they answer. Raises EmbeddedError, and then neither runs.

    state_dir: default AGNO_STATE_DIR or ~/.local/state/agno-workers. fsync: see Postgres.
    """
    folder = state_dir or default_state_dir()
    running = LocalServers(Postgres(folder, fsync=fsync), Valkey(folder))
    try:
        running.start()
    except BaseException:
        running.stop()
        raise
    return running


@contextmanager
def servers(state_dir: Path | None = None, *, fsync: bool = True) -> Iterator[LocalServers]:
    """Run both servers for a with block."""
    running = start(state_dir, fsync=fsync)
    try:
        yield running
    finally:
        running.stop()
