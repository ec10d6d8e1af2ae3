"""Postgres with pgvector, and Valkey, started from wheels: no installation, no root, no network, no container.

    with embedded.servers() as servers:
        servers.database_url, servers.broker_url, servers.redis_url

For `demo`, `up`, tests and benchmarks on one machine; production has servers of its own. They listen on unix sockets only
that no other user can reach, keep their data in the state folder, and end with the process that started them, even if that
is killed. Linux only. Our own start code, because the wheels' own opens TCP ports, changes modes of folders or adds users.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agno_workers.local.places import default_state_dir
from agno_workers.local.postgres import Postgres
from agno_workers.local.valkey import Valkey

__all__ = ["EmbeddedServers", "Postgres", "Valkey", "default_state_dir", "servers", "start"]


@dataclass(frozen=True)
class EmbeddedServers:
    """Both servers of one state folder, running."""

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

    def stop(self) -> None:
        """Stop both in order; safe to repeat."""
        try:
            self.valkey.stop()
        finally:
            self.postgres.stop()


def start(state_dir: Path | None = None, *, fsync: bool = True) -> EmbeddedServers:
    """Start both and wait until they answer. Raises EmbeddedError, and then neither runs.

    state_dir: default AGNO_STATE_DIR or ~/.local/state/agno-workers. fsync: see Postgres.
    """
    folder = state_dir or default_state_dir()
    running = EmbeddedServers(Postgres(folder, fsync=fsync), Valkey(folder))
    try:
        running.valkey.start()
        running.postgres.start()
    except BaseException:
        running.stop()
        raise
    return running


@contextmanager
def servers(state_dir: Path | None = None, *, fsync: bool = True) -> Iterator[EmbeddedServers]:
    """`start` for a with block; stops them at its end."""
    running = start(state_dir, fsync=fsync)
    try:
        yield running
    finally:
        running.stop()
