"""Databases that are used by one test after another, with the workers that may stay alive in between.

To copy a database costs 0.4 s, to delete all rows 0.02 s. A database whose schema a test changed is dropped, and a worker
that has not finished its work when a test ends is killed.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql

from agno_workers.broker.queues import DEPLOYMENT_KEY, EPOCH_KEY
from agno_workers.database.tables import metadata
from tests.invariants import comes
from tests.servers import TEMPLATE, Servers
from tests.worker import Worker

TABLES = [table.name for table in reversed(metadata.sorted_tables)]
OF_WORKERS = {"meta", "worker", "agent"}
"""Tables that live workers wrote at their start and won't write again. The agents are in the template, too."""
KEPT_KEYS = (b"_kombu.binding.", b"agno.canary.", EPOCH_KEY.encode(), DEPLOYMENT_KEY.encode())
"""Keys of live workers in Redis."""
FINISHES_IN_S = 3.0

_SCHEMA = "SELECT " + ", ".join(
    f"(SELECT (count(*), sum(oid::bigint)) FROM {catalog})"
    for catalog in ("pg_class WHERE relpersistence <> 't'", "pg_proc", "pg_trigger", "pg_namespace", "pg_constraint")
)  # fmt: skip
_BUSY = """
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND state <> 'idle'"""
"""Sessions that a test left behind, with locks."""

Key = tuple[object, ...]


@dataclass
class Place:
    """A migrated database and a logical Redis, both empty when a test begins."""

    servers: Servers
    database_url: str
    schema: object
    migrated: list[str]
    """Keys of agno.meta that the migrations wrote."""
    workers: dict[Key, Worker] = field(default_factory=dict)
    used: set[Key] = field(default_factory=set)

    def worker(
        self, environment: dict[str, str], queues: str, pool: str, concurrency: int, *more: str
    ) -> Worker:
        """Return a worker that an earlier test left, if it is like this one; else start it, and end unlike ones."""
        key = (*sorted(environment.items()), queues, pool, concurrency, *more)
        self.used.add(key)
        for other in self.workers.keys() - self.used:
            self.workers.pop(other).kill()
        found = self.workers.get(key)
        if found is None or found.process.poll() is not None:
            found = self.workers[key] = Worker(environment, queues, pool, concurrency, *more)
        else:
            found.forget_lines()
        return found

    def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        self.workers.clear()

    def clean(self) -> bool:
        """Make it as good as new; False if it can't be used again."""
        self.used.clear()
        with (
            psycopg.connect(self.database_url, autocommit=True) as connection,
            redis.Redis.from_url(self.servers.redis_url) as client,
        ):
            self.workers = {
                key: worker for key, worker in self.workers.items() if worker.process.poll() is None
            }
            if self.workers and not _is_idle(connection, client):
                self.close()
            if connection.execute(_SCHEMA).fetchone() != self.schema:
                return False
            if not self.workers and connection.execute(_BUSY).rowcount:
                return False
            try:
                self._empty(connection, client)
            except psycopg.OperationalError:  # a deadlock with a live worker's keeper
                self.close()
                self._empty(connection, client)
        return True

    def _empty(self, connection: psycopg.Connection, client: redis.Redis) -> None:
        if not self.workers:
            emptied = [table for table in TABLES if table not in ("meta", "agent")]
            connection.execute("; ".join(f"DELETE FROM agno.{table}" for table in emptied).encode())
            connection.execute("DELETE FROM agno.meta WHERE key <> ALL (%s)", [self.migrated])
            connection.execute("SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence")
            client.flushdb()
            return
        gone = [table for table in TABLES if table not in OF_WORKERS]
        connection.execute("; ".join(f"DELETE FROM agno.{table}" for table in gone).encode())
        pids = [worker.process.pid for worker in self.workers.values()]
        connection.execute("DELETE FROM agno.worker WHERE pid <> ALL (%s)", [pids])
        if keys := _keys_of_tests(client):
            client.delete(*keys)


class Places:
    """The places of one pair of servers, for one test at a time. Those with workers have a logical Redis of their own."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._clean: dict[bool, Place] = {}

    def take(self, *, workers: bool) -> Place:
        return self._clean.pop(workers, None) or self._make(workers)

    def put_back(self, place: Place, *, workers: bool) -> None:
        if place.clean():
            self._clean[workers] = place
        else:
            self._drop(place)

    def stop_workers(self) -> None:
        """End the workers that tests left running."""
        place = self._clean.get(True)
        if place is not None and place.workers:
            place.close()
            place.clean()

    def _make(self, workers: bool) -> Place:
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, TEMPLATE)
        url = named(self._servers.database_url, name)
        with psycopg.connect(url) as connection:
            schema = connection.execute(_SCHEMA).fetchone()
            migrated = [key for (key,) in connection.execute("SELECT key FROM agno.meta")]
        servers = with_workers(self._servers) if workers else self._servers
        with redis.Redis.from_url(servers.redis_url) as client:
            client.flushdb()
        return Place(servers, url, schema, migrated)

    def _drop(self, place: Place) -> None:
        place.close()
        self._execute("DROP DATABASE {} WITH (FORCE)", urlsplit(place.database_url).path[1:])

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._servers.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def with_workers(servers: Servers) -> Servers:
    """The logical Redis of the places in which workers stay alive."""
    return servers.numbered(servers.number + 1)


def named(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def _is_idle(connection: psycopg.Connection, client: redis.Redis) -> bool:
    """Wait a little until no worker has anything to do."""

    def is_idle() -> bool:
        messages = [key for key in _keys_of_tests(client) if client.type(key) == b"list"]
        running = connection.execute("SELECT FROM agno.step WHERE status = 'running'").rowcount
        return not (messages or client.exists("unacked") or running)

    return comes(is_idle, FINISHES_IN_S)


def _keys_of_tests(client: redis.Redis) -> list[bytes]:
    return [key for key in client.scan_iter(count=1000) if not key.startswith(KEPT_KEYS)]
