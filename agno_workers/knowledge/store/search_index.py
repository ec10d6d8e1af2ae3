"""What makes the searching of a large base fast: counted words, a partition and an HNSW index of its own for each space.

All of it may be cut short anywhere and called again, and one at a time works on a base (an advisory lock). Searching needs
none of it: without the index it compares every vector, without the counts it counts the words of the question.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import msgspec
from psycopg import errors
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from agno_workers.database.pool import Connection, Pool, Row, execute, statements
from agno_workers.errors import SettingsError, Unavailable

log = logging.getLogger(__name__)

_SQL = statements("knowledge/store/search")
OWN_PARTITION = 10_000
"""Vectors from which a space gets a partition and an index: below, all of them are match_chunks in some ms."""
PGVECTOR = (0, 8, 0)
"""The oldest that searches on behind a filter (iterative scan)."""
_MAX_DIMENSIONS = 4000
"""Of halfvec in HNSW; a longer one stays without an index."""
_LOCKS = 0x61676E6F
"""The first half of our advisory locks, `agno`; the second is the id of the base."""


class Index(msgspec.Struct, frozen=True):
    """How an HNSW index is built."""

    m: int = 16
    ef_construction: int = 100
    memory_mb: int = 512
    """For the graph while it is built, at the most; where that is too little the build is many times slower."""
    workers: int = 2
    """Processes beside the one that builds, at the most; Postgres's own max_parallel_workers counts, too."""
    build_s: float = 3600.0
    """The longest that a build may take, and that another one is waited for."""


class Taken(Unavailable):
    """Somebody else has the lock of a base."""


class SearchIndex:
    """See the module. Raises Unavailable where Postgres can't be reached, or where a lock was not to be had."""

    def __init__(self, pool: Pool, index: Index | None = None, *, own_partition: int = OWN_PARTITION) -> None:
        self._pool = pool
        self._index = index or Index()
        self._own_partition = own_partition

    def refresh_index(self, knowledge_id: int, *, wait_s: float | None = None) -> list[str]:
        """Count the words anew, and give each space that has become large its partition and index. Says what was done.

        Raises Taken where somebody else has been at it for `wait_s`, which may be an hour, the time of a build, and is that by default.
        """
        with self._alone(knowledge_id, wait_s) as connection:
            done = []
            if execute(connection, _SQL["words_are_stale"], {"knowledge_id": knowledge_id}):
                execute(connection, _SQL["count_words"], {"knowledge_id": knowledge_id})
                done.append("words")
            for space in _spaces(connection, knowledge_id):
                done += self._refresh(connection, space)
        return done

    def expect(self, knowledge_id: int, chunks: int) -> bool:
        """A load of so many chunks is coming: a large one gets its partition while that is empty, and moving costs nothing.
        Whether one was made; where somebody else tends to the base just now, none is, and `refresh_index` sees to it later.
        """
        if chunks < self._own_partition:
            return False
        try:
            with self._alone(knowledge_id, wait_s=0.0) as connection:
                bare = [space for space in _spaces(connection, knowledge_id) if not space["has_partition"]]
                for space in bare:
                    _own_partition(connection, space["id"])
        except Taken:
            return False
        return bool(bare)

    def drop(self, knowledge_id: int) -> None:
        """Take the partitions of all its spaces away, and the vectors in them: before a base is removed."""
        with self._alone(knowledge_id) as connection:
            for space in _spaces(connection, knowledge_id, retired=True):
                _patiently(connection, "drop_partition", space["id"])

    def drop_embedding_space(
        self, knowledge_id: int, embedding_space_id: int, *, wait_s: float | None = None
    ) -> None:
        """Take one space's partition away, and the vectors in it: once another model is searched. Waits and raises as `refresh_index`."""
        with self._alone(knowledge_id, wait_s) as connection:
            _patiently(connection, "drop_partition", embedding_space_id)

    @contextmanager
    def _alone(self, knowledge_id: int, wait_s: float | None = None) -> Iterator[Connection]:
        """A connection of its own, since CONCURRENTLY is no transaction, and what holds the lock ends with it. Somebody else is
        waited for `wait_s` (default: as long as a build may take).
        """
        connection = self._pool.dedicated()
        try:
            execute(connection, _SQL["patience"], {"ms": str(round(self._index.build_s * 1000))})
            self._take_turn(connection, knowledge_id, self._index.build_s if wait_s is None else wait_s)
            yield connection
        except (errors.LockNotAvailable, errors.QueryCanceled) as error:
            raise Unavailable(
                f"the index of knowledge base {knowledge_id} could not be tended to: {error.diag.message_primary}. It is tried again."
            ) from error
        except errors.OperationalError as error:
            raise Unavailable(f"Postgres did not answer: {str(error).strip()}") from error
        finally:
            connection.close()

    def _take_turn(self, connection: Connection, knowledge_id: int, wait_s: float) -> None:
        """By asking now and then: CONCURRENTLY waits for every statement under way, and so for one that waits for us."""
        turn = {"lock": _LOCKS, "knowledge_id": knowledge_id}
        until = monotonic() + wait_s
        while not execute(connection, _SQL["alone"], turn)[0]["ours"]:
            if monotonic() >= until:
                raise Taken(
                    f"the index of knowledge base {knowledge_id} has been tended to by somebody else for {wait_s:g} s. Try again."
                )
            sleep(random.uniform(0.05, 0.5))

    def _refresh(self, connection: Connection, space: Row) -> list[str]:
        done = []
        if not space["has_partition"]:
            if space["vectors"] < self._own_partition:
                return []
            _own_partition(connection, space["id"])
            done.append(f"partition {space['id']}")
        if space["vectors"] < self._own_partition or space["dimensions"] > _MAX_DIMENSIONS:
            return done
        if self._build(connection, space):
            done.append(f"index {space['id']}")
        return done

    def _build(self, connection: Connection, space: Row) -> bool:
        """Build the index, unless it stands; one that was cut short stands there invalid, and goes first."""
        name = f"chunk_embedding_{space['id']}_hnsw"
        standing = execute(connection, _SQL["index"], {"name": name})
        if standing and standing[0]["valid"]:
            execute(connection, _SQL["indexed"], {"embedding_space_id": space["id"]})
            return False
        require_pgvector(connection)
        if standing:
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS agno.{name}".encode())
        graph_mb = space["vectors"] * (space["dimensions"] * 2 + self._index.m * 24 + 100) // 2**20
        memory = min(self._index.memory_mb, max(64, graph_mb * 5 // 4))
        create = (
            f"CREATE INDEX CONCURRENTLY {name} ON agno.chunk_embedding_{space['id']} USING hnsw "
            f"((embedding::halfvec({space['dimensions']})) halfvec_ip_ops) WITH (m = {self._index.m}, ef_construction = {self._index.ef_construction})"
        ).encode()
        try:
            execute(connection, _SQL["means"], {"memory": f"{memory}MB", "workers": str(self._index.workers)})
            connection.execute(create)
        except (errors.DiskFull, errors.OutOfMemory, errors.InsufficientResources):
            # The workers share the graph in /dev/shm, of which a container often has 64 MB: one process needs none.
            log.warning(
                "building %s beside others failed for want of shared memory: it is built by one", name
            )
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS agno.{name}".encode())
            execute(connection, _SQL["means"], {"memory": f"{memory}MB", "workers": "0"})
            connection.execute(create)
        execute(connection, _SQL["indexed"], {"embedding_space_id": space["id"]})
        return True


def require_pgvector(connection: Connection) -> str:
    """The version that is installed. Raises SettingsError for one that would find next to nothing behind a filter."""
    version = installed_pgvector(connection)
    if version is None or tuple(int(part) for part in version.split(".")[:3]) < PGVECTOR:
        raise SettingsError(
            f"pgvector is {version or 'not installed'}, and an index needs {'.'.join(map(str, PGVECTOR))} or newer: update the extension "
            "on the server, then run `ALTER EXTENSION vector UPDATE`."
        )
    return version


def installed_pgvector(connection: Connection) -> str | None:
    rows = execute(connection, _SQL["pgvector"])
    return rows[0]["version"] if rows else None


def _spaces(connection: Connection, knowledge_id: int, *, retired: bool = False) -> list[Row]:
    return execute(connection, _SQL["embedding_spaces"], {"knowledge_id": knowledge_id, "retired": retired})


def _own_partition(connection: Connection, embedding_space_id: int) -> None:
    _patiently(connection, "make_partition", embedding_space_id)
    execute(connection, _SQL["fill_partition"], {"embedding_space_id": embedding_space_id})
    _patiently(connection, "attach_partition", embedding_space_id)
    connection.execute(f"ANALYZE agno.chunk_embedding_{embedding_space_id}".encode())


def _patiently(connection: Connection, statement: str, embedding_space_id: int) -> None:
    """In a transaction that gives up its place in the queue of a lock after 2 s, lest everybody waits behind it."""
    for attempt in Retrying(
        retry=retry_if_exception_type((errors.LockNotAvailable, errors.DeadlockDetected)),
        wait=wait_random_exponential(0.2, 5.0),
        stop=stop_after_attempt(20),
        reraise=True,
    ):
        with attempt, connection.transaction():
            execute(connection, _SQL["brief"])
            execute(connection, _SQL[statement], {"embedding_space_id": embedding_space_id})
