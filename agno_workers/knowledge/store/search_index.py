"""Indexes of a large knowledge base: word counts, and a partition with an HNSW index for each embedding space.

Every operation may be interrupted and repeated; an advisory lock admits one at a time per knowledge base. Search works without
them: it then compares all vectors and counts the words of the query.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from time import monotonic, sleep

import msgspec
from psycopg import errors

from agno_workers.database.pool import LOCKED, Connection, Pool, Row, execute, statements, translated
from agno_workers.errors import SettingsError, Unavailable
from agno_workers.knowledge.quality import weights
from agno_workers.knowledge.words import VERSION, words

log = logging.getLogger(__name__)

_SQL = statements("knowledge/store/search")
OWN_PARTITION = 10_000
"""Number of vectors from which an embedding space gets a partition and an index; fewer are compared within milliseconds."""
PGVECTOR = (0, 8, 0)
"""The first version with iterative scans, which filters need."""
_MAX_DIMENSIONS = 4000
"""Limit of halfvec in HNSW; longer vectors have no index."""
_DOCUMENTS = 100
"""Documents whose words are written in one transaction."""
_LOCKS = 0x61676E6F
"""The first key of the advisory locks, `agno`; the second is the id of the knowledge base."""


class Index(msgspec.Struct, frozen=True):
    """Options for building an HNSW index."""

    m: int = 16
    ef_construction: int = 100
    memory_mb: int = 512
    """Maximum `maintenance_work_mem`; a build that exceeds it is many times slower."""
    workers: int = 2
    """Maximum parallel workers; `max_parallel_workers` of Postgres applies as well."""
    build_s: float = 3600.0
    """Time limit of a build, and of waiting for another one."""


class Taken(Unavailable):
    """Another process holds the lock of the knowledge base."""


class SearchIndex:
    """Raises Unavailable if Postgres can't be reached or a lock is not available."""

    def __init__(self, pool: Pool, index: Index | None = None, *, own_partition: int = OWN_PARTITION) -> None:
        self._pool = pool
        self._index = index or Index()
        self._own_partition = own_partition

    def refresh_index(self, knowledge_id: int, *, wait_s: float | None = None) -> list[str]:
        """Write the words that an earlier version wrote, count and merge the words, and create the partitions and indexes of large embedding spaces. Returns what was done.

        Raises Taken if another process holds the lock for `wait_s` (default: the time limit of a build).
        """
        with self._alone(knowledge_id, wait_s) as connection:
            done = []
            if _write_words(connection, knowledge_id):
                done.append("new words")
            if execute(connection, _SQL["words_are_stale"], {"knowledge_id": knowledge_id}):
                execute(connection, _SQL["count_words"], {"knowledge_id": knowledge_id})
                done.append("words")
            spaces = _spaces(connection, knowledge_id)
            if self._may_index(connection, spaces):
                execute(connection, _SQL["merge_new_words"])
                for space in spaces:
                    done += self._refresh(connection, space)
        return done

    def expect(self, knowledge_id: int, chunks: int) -> bool:
        """Create partitions before a load of this many chunks, while they are empty and moving vectors is cheap.

        Returns whether one was created. If another process holds the lock, `refresh_index` creates it later.
        """
        if chunks < self._own_partition:
            return False
        try:
            with self._alone(knowledge_id, wait_s=0.0) as connection:
                if not execute(connection, _SQL["owns_vectors"])[0]["owns"]:
                    return False
                bare = [space for space in _spaces(connection, knowledge_id) if not space["has_partition"]]
                for space in bare:
                    _own_partition(connection, space["id"])
        except Taken:
            return False
        return bool(bare)

    def drop(self, knowledge_id: int) -> None:
        """Drop the partitions of all its embedding spaces, with the vectors, before a knowledge base is removed."""
        with self._alone(knowledge_id) as connection:
            for space in _spaces(connection, knowledge_id, retired=True):
                _with_lock_retries(connection, "drop_partition", space["id"])

    def drop_embedding_space(
        self, knowledge_id: int, embedding_space_id: int, *, wait_s: float | None = None
    ) -> None:
        """Drop the partition of a retired embedding space, with its vectors. Waits and raises like `refresh_index`."""
        with self._alone(knowledge_id, wait_s) as connection:
            _with_lock_retries(connection, "drop_partition", embedding_space_id)

    @contextmanager
    def _alone(self, knowledge_id: int, wait_s: float | None = None) -> Iterator[Connection]:
        """Hold the lock on a connection of its own: CONCURRENTLY does not run in a transaction, and closing it releases the lock."""
        with translated(), closing(self._pool.dedicated()) as connection:
            try:
                execute(connection, _SQL["set_timeouts"], {"ms": str(round(self._index.build_s * 1000))})
                self._lock(connection, knowledge_id, self._index.build_s if wait_s is None else wait_s)
                yield connection
            except (errors.LockNotAvailable, errors.QueryCanceled) as error:
                raise Unavailable(
                    f"the index of knowledge base {knowledge_id} could not be updated: {error.diag.message_primary}. It is retried later."
                ) from error

    def _lock(self, connection: Connection, knowledge_id: int, wait_s: float) -> None:
        """Poll for the lock: CONCURRENTLY waits for all running statements, so a blocked one would deadlock with it."""
        turn = {"lock": _LOCKS, "knowledge_id": knowledge_id}
        until = monotonic() + wait_s
        while not execute(connection, _SQL["try_lock"], turn)[0]["ours"]:
            if monotonic() >= until:
                raise Taken(
                    f"another process has been updating the index of knowledge base {knowledge_id} for {wait_s:g} s: try again."
                )
            sleep(random.uniform(0.05, 0.5))

    def _may_index(self, connection: Connection, spaces: list[Row]) -> bool:
        """Return False, with a line in the log if it matters, for a role that does not own the tables: it searches without an index."""
        if execute(connection, _SQL["owns_vectors"])[0]["owns"]:
            return True
        if any(space["vectors"] >= self._own_partition for space in spaces):
            log.warning(
                "the role of this worker does not own agno.chunk_embedding, so it can't build an index, and searches compare all vectors: "
                "let the workers of knowledge use the role that owns the schema agno"
            )
        return False

    def _refresh(self, connection: Connection, space: Row) -> list[str]:
        done = []
        if not space["has_partition"]:
            if space["vectors"] < self._own_partition:
                return []
            _own_partition(connection, space["id"])
            done.append(f"partition {space['id']}")
        too_few = space["vectors"] < self._own_partition
        if too_few or space["dimensions"] > _MAX_DIMENSIONS or not space["needs_index"]:
            return done
        if self._build(connection, space):
            done.append(f"index {space['id']}")
        return done

    def _build(self, connection: Connection, space: Row) -> bool:
        """Build the index unless a valid one exists. An invalid one, from an interrupted build, is dropped first."""
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
            execute(
                connection,
                _SQL["set_build_resources"],
                {"memory": f"{memory}MB", "workers": str(self._index.workers)},
            )
            connection.execute(create)
        except (errors.DiskFull, errors.OutOfMemory, errors.InsufficientResources):
            # Parallel workers share the graph in /dev/shm, which often has 64 MB in a container. One process does not use it.
            log.warning("not enough shared memory to build %s in parallel: one process builds it", name)
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS agno.{name}".encode())
            execute(connection, _SQL["set_build_resources"], {"memory": f"{memory}MB", "workers": "0"})
            connection.execute(create)
        execute(connection, _SQL["indexed"], {"embedding_space_id": space["id"]})
        return True


def require_pgvector(connection: Connection) -> str:
    """Return the installed version. Raises SettingsError for a version without iterative scans."""
    version = installed_pgvector(connection)
    if version is None or tuple(int(part) for part in version.split(".")[:3]) < PGVECTOR:
        raise SettingsError(
            f"pgvector is {version or 'not installed'}; an index needs {'.'.join(map(str, PGVECTOR))} or newer: update the extension "
            "on the server, then run `ALTER EXTENSION vector UPDATE`."
        )
    return version


def installed_pgvector(connection: Connection) -> str | None:
    rows = execute(connection, _SQL["pgvector"])
    return rows[0]["version"] if rows else None


def _write_words(connection: Connection, knowledge_id: int) -> bool:
    """Write the words and weights of all chunks again, unless this version wrote them. Returns whether it did. Safe to repeat."""
    (row,) = execute(connection, _SQL["words_version"], {"knowledge_id": knowledge_id})
    if row["version"] >= VERSION:
        return False
    after = ""
    while True:
        with connection.transaction():
            asked = {"knowledge_id": knowledge_id, "after": after, "limit": _DOCUMENTS}
            documents = execute(connection, _SQL["documents_to_write"], asked)
            ids = [each["id"] for each in documents]
            chunks = execute(connection, _SQL["chunks_to_write"], {"document_ids": ids})
            if not documents:
                execute(connection, _SQL["words_written"], {"knowledge_id": knowledge_id, "version": VERSION})
                return True
            after = documents[-1]["uri"]
            by_document = groupby(chunks, key=itemgetter("document_id"))
            written = {
                "ids": [each["id"] for each in chunks],
                "words": [words(f"{each['heading']}\n{each['content']}") for each in chunks],
                "weights": [w for _, own in by_document for w in weights([each["content"] for each in own])],
            }
            execute(connection, _SQL["write_words"], written)


def _spaces(connection: Connection, knowledge_id: int, *, retired: bool = False) -> list[Row]:
    return execute(connection, _SQL["embedding_spaces"], {"knowledge_id": knowledge_id, "retired": retired})


def _own_partition(connection: Connection, embedding_space_id: int) -> None:
    _with_lock_retries(connection, "make_partition", embedding_space_id)
    execute(connection, _SQL["fill_partition"], {"embedding_space_id": embedding_space_id})
    _with_lock_retries(connection, "attach_partition", embedding_space_id)
    connection.execute(f"ANALYZE agno.chunk_embedding_{embedding_space_id}".encode())


def _with_lock_retries(connection: Connection, statement: str, embedding_space_id: int) -> None:
    """Run a statement that takes strong locks, with a short lock timeout and retries, so that others don't queue behind it."""
    from tenacity import (  # noqa: PLC0415 - as in database/pool.py
        Retrying,
        retry_if_exception_type,
        stop_after_attempt,
        wait_random_exponential,
    )

    for attempt in Retrying(
        retry=retry_if_exception_type(LOCKED),
        wait=wait_random_exponential(0.2, 5.0),
        stop=stop_after_attempt(20),
        reraise=True,
    ):
        with attempt, connection.transaction():
            execute(connection, _SQL["set_short_lock_timeout"])
            execute(connection, _SQL[statement], {"embedding_space_id": embedding_space_id})
