"""Partitions, indexes and counted words: made while others read and write, cut short anywhere, and by two at once."""

from __future__ import annotations

import math
import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from agno_workers.database.checks import grants
from agno_workers.database.connect import parse
from agno_workers.database.pool import Pool
from agno_workers.errors import SettingsError, Unavailable, UnusableDatabase
from agno_workers.knowledge.filters import compile_filter
from agno_workers.knowledge.store import search_index
from agno_workers.knowledge.store.search import Effort, Search
from agno_workers.knowledge.store.search_index import Index, SearchIndex
from tests.integration.knowledge.store.base import Base

LARGE = 60
DIMENSIONS = 8


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    pool = Pool(database_url, size=4, timeout_s=10, statement_timeout_s=30)
    yield pool
    pool.close()


@pytest.fixture
def index(pool: Pool) -> SearchIndex:
    return SearchIndex(pool, Index(workers=0), own_partition=LARGE)


@pytest.fixture
def base(pool: Pool) -> Base:
    return Base(pool, dimensions=DIMENSIONS)


def vectors(count: int, seed: int = 1) -> list[list[float]]:
    chance = random.Random(seed)
    drawn = [[chance.gauss(0, 1) for _ in range(DIMENSIONS)] for _ in range(count)]
    return [[each / math.hypot(*vector) for each in vector] for vector in drawn]


def fill(base: Base, count: int, seed: int = 1) -> None:
    for number, vector in enumerate(vectors(count, seed)):
        base.add((f"word{number} common", vector), tenth=number % 10)


def answers(base: Base, **asked: int) -> list[list[int]]:
    base.search = Search(base.pool)
    return [base.found("", vector, search_type="vector", **asked) for vector in vectors(5, seed=9)]


def how(base: Base) -> str:
    found = base.search.find(base.id, vectors(1)[0], None, None, {"text": "", "search_type": "vector", "max_results": 3})  # fmt: skip
    return str(found.how["vector"])


def test_large_embedding_space_gets_a_partition_and_an_index(base: Base, index: SearchIndex) -> None:
    fill(base, LARGE)
    before = answers(base)
    assert how(base) == "exact"
    assert index.refresh_index(base.id) == ["words", f"partition {base.space}", f"index {base.space}"]
    assert answers(base) == before
    assert how(base) == "hnsw"
    assert base.sql("SELECT FROM agno.chunk_embedding_small") == []
    assert index.refresh_index(base.id) == []


def test_role_that_does_not_own_the_tables_searches_without_an_index(
    base: Base, index: SearchIndex, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(base, LARGE)
    before = answers(base)
    name = f"reader_{uuid.uuid4().hex[:8]}"
    base.sql(f"CREATE ROLE {name}")
    for statement in grants(name, "agno", parse(database_url)["dbname"]):
        base.sql(statement)
    with closing(Pool(f"{database_url}&options=-c%20role%3D{name}", size=1, timeout_s=10, statement_timeout_s=30)) as pool:  # fmt: skip
        owned = SearchIndex(pool, Index(workers=0), own_partition=LARGE)
        assert not owned.expect(base.id, LARGE)
        assert owned.refresh_index(base.id) == ["words"]
        assert (
            "searches compare all vectors: let the workers of knowledge use the role that owns" in caplog.text
        )
        assert Base(pool, dimensions=DIMENSIONS, name="own").id
        index.refresh_index(base.id)
        with pytest.raises(UnusableDatabase, match=r"must be owner of .*: use the role that owns"):
            owned.drop(base.id)
    assert answers(base) == before
    base.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_small_embedding_spaces_share_a_partition(base: Base, index: SearchIndex) -> None:
    fill(base, LARGE - 1)
    assert not index.expect(base.id, LARGE - 1)
    assert index.refresh_index(base.id) == ["words"]
    assert how(base) == "exact"


def test_expected_load_gets_its_partition_first(base: Base, index: SearchIndex) -> None:
    assert index.expect(base.id, LARGE)
    assert not index.expect(base.id, LARGE)
    fill(base, LARGE)
    assert base.sql("SELECT FROM agno.chunk_embedding_small") == []
    before = answers(base)
    assert index.refresh_index(base.id) == ["words", f"index {base.space}"]
    assert answers(base) == before


def test_words_are_counted(base: Base, index: SearchIndex) -> None:
    fill(base, 3)
    index.refresh_index(base.id)
    assert base.sql("SELECT lexeme, documents FROM agno.lexeme") == [{"lexeme": "common", "documents": 3}]
    base.sql("DELETE FROM agno.chunk WHERE content LIKE 'word0%%'")
    base.add("rare")
    base.add("rare")
    index.refresh_index(base.id)
    counted = base.sql("SELECT lexeme, documents FROM agno.lexeme ORDER BY lexeme")
    assert counted == [{"lexeme": "common", "documents": 2}, {"lexeme": "rare", "documents": 2}]
    (row,) = base.sql("SELECT stats_chunks, avg_length FROM agno.knowledge WHERE id = %s", base.id)
    assert row == {"stats_chunks": 4, "avg_length": 1.5}


@pytest.mark.parametrize("done", ["made", "filled", "filled, then changed", "attached", "index cut short"])
def test_interrupted_index_build_is_completed(base: Base, index: SearchIndex, done: str) -> None:
    fill(base, LARGE + 5)
    base.sql("SELECT agno.make_partition(%s)", base.space)
    if done != "made":
        base.sql("SELECT agno.fill_partition(%s)", base.space)
    if done == "filled, then changed":
        base.sql("DELETE FROM agno.chunk WHERE content LIKE 'word3 %%'")
        base.add(("new", vectors(1, seed=5)[0]))
    if done in ("attached", "index cut short"):
        base.sql("SELECT agno.attach_partition(%s)", base.space)
    if done == "index cut short":
        name = f"chunk_embedding_{base.space}_hnsw"
        base.sql(
            f"CREATE INDEX {name} ON agno.chunk_embedding_{base.space} USING hnsw ((embedding::halfvec({DIMENSIONS})) halfvec_ip_ops)"
        )
        base.sql(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'agno.{name}'::regclass")
    before = answers(base)
    assert f"index {base.space}" in index.refresh_index(base.id)
    assert answers(base) == before
    assert how(base) == "hnsw"
    assert base.sql("SELECT FROM pg_index WHERE NOT indisvalid") == []


def test_concurrent_writes_survive_the_move_to_a_partition(
    base: Base, index: SearchIndex, pool: Pool
) -> None:
    fill(base, LARGE)
    more, stop = vectors(2000, seed=3), threading.Event()

    def write() -> int:
        for count, vector in enumerate(more):
            base.add((f"more{count}", vector))
            if stop.is_set():
                return count + 1
        return len(more)

    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(write)
        index.refresh_index(base.id)
        stop.set()
        count = written.result(timeout=60)
    (row,) = base.sql(
        "SELECT count(*) AS vectors FROM agno.chunk_embedding WHERE embedding_space_id = %s", base.space
    )
    assert row["vectors"] == LARGE + count
    (row,) = base.sql(f"SELECT count(*) AS vectors FROM agno.chunk_embedding_{base.space}")
    assert row["vectors"] == LARGE + count


@pytest.mark.parametrize("search_type", ["vector", "hybrid"])
def test_search_is_complete_while_vectors_move(base: Base, index: SearchIndex, search_type: Any) -> None:
    fill(base, LARGE)
    (question,) = vectors(1)
    expected = base.found("", question, search_type=search_type)
    stop = threading.Event()

    def read() -> list[list[int]]:
        other = []
        while not stop.is_set():
            found = [
                hit.chunk_id
                for hit in Search(base.pool).search(base.id, "", question, search_type=search_type)
            ]
            if found != expected:
                other.append(found)
        return other

    with ThreadPoolExecutor(2) as beside:
        readers = [beside.submit(read) for _ in range(2)]
        index.refresh_index(base.id)
        stop.set()
        assert [reader.result(timeout=60) for reader in readers] == [[], []]


def test_refresh_leaves_no_words_outside_of_the_index(base: Base, index: SearchIndex) -> None:
    fill(base, 3)
    index.refresh_index(base.id)
    assert base.sql("SELECT gin_clean_pending_list('agno.chunk_words') AS pages") == [{"pages": 0}]


def test_concurrent_refreshes_do_the_work_once(base: Base, index: SearchIndex) -> None:
    fill(base, LARGE)
    with ThreadPoolExecutor(2) as both:
        done = [
            each.result(timeout=60) for each in [both.submit(index.refresh_index, base.id) for _ in range(2)]
        ]
    assert sorted(done, key=len) == [[], ["words", f"partition {base.space}", f"index {base.space}"]]


def test_waiting_for_the_index_lock_times_out(base: Base, pool: Pool) -> None:
    with pool.connection() as connection:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", (search_index._LOCKS, base.id))
        with pytest.raises(
            Unavailable, match=f"another process has been updating the index of knowledge base {base.id}"
        ):
            SearchIndex(pool, Index(build_s=0.05)).refresh_index(base.id)
        connection.execute("SELECT pg_advisory_unlock_all()")


def test_load_does_not_wait_for_an_index_build(base: Base, pool: Pool) -> None:
    index = SearchIndex(pool, own_partition=LARGE)
    with pool.connection() as connection:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", (search_index._LOCKS, base.id))
        assert not index.expect(base.id, LARGE)
        connection.execute("SELECT pg_advisory_unlock_all()")
    assert index.expect(base.id, LARGE)


def test_filters_and_row_level_security_do_not_reduce_the_number_of_results(
    base: Base, index: SearchIndex, database_url: str
) -> None:
    """Both let one in ten through; HNSW by itself looks at `ef` of them, and would leave one of those."""
    fill(base, 400)
    index.refresh_index(base.id)
    (question,) = vectors(1, seed=9)
    effort = Effort(ef=10, exact_chunks=0)
    filtered = base.found(
        "", question, search_type="vector", effort=effort, filter=compile_filter({"tenth": 3})
    )
    assert len(filtered) == 8
    base.sql("DROP ROLE IF EXISTS tenant_reader")
    for statement in (
        "CREATE ROLE tenant_reader LOGIN",
        "GRANT USAGE ON SCHEMA agno TO tenant_reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA agno TO tenant_reader",
        "ALTER TABLE agno.document ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE agno.chunk ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY tenant ON agno.document USING (metadata @> '{\"tenth\": 3}')",
        "CREATE POLICY tenant ON agno.chunk USING (document_id IN (SELECT id FROM agno.document))",
    ):
        base.sql(statement)
    tenant = Pool(database_url.replace("agno@", "tenant_reader@"), size=1, timeout_s=10, statement_timeout_s=30)  # fmt: skip
    try:
        hits = Search(tenant).search(base.id, "", question, search_type="vector", effort=effort)
        assert len(hits) == 8
        hits += Search(tenant).search(base.id, "common", question, effort=effort)
        assert {hit.metadata["tenth"] for hit in hits} == {3}
    finally:
        tenant.close()
        base.sql("DROP OWNED BY tenant_reader")
        base.sql("DROP ROLE tenant_reader")


def test_removed_knowledge_base_leaves_no_partition(base: Base, index: SearchIndex) -> None:
    fill(base, LARGE)
    index.refresh_index(base.id)
    index.drop(base.id)
    index.drop(base.id)
    assert base.sql(f"SELECT FROM pg_class WHERE relname LIKE 'chunk_embedding_{base.space}%%'") == []
    base.sql("DELETE FROM agno.knowledge WHERE id = %s", base.id)


@pytest.mark.parametrize(("installed", "enough"), [("0.7.4", False), ("0.8.0", True), ("0.10.1", True), ("1.0", True)])  # fmt: skip
def test_old_pgvector_is_refused(pool: Pool, installed: str, enough: bool) -> None:
    with pool.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'", (installed,))
        if enough:
            assert search_index.require_pgvector(connection) == installed
        else:
            with pytest.raises(SettingsError, match=r"pgvector is 0.7.4; an index needs 0.8.0 or newer"):
                search_index.require_pgvector(connection)


def test_search_uses_the_index(base: Base, index: SearchIndex) -> None:
    """Through the parent table, to the one partition, in the order of the index."""
    fill(base, 400)
    index.refresh_index(base.id)
    with base.pool.connection() as connection:
        connection.execute("SET enable_sort = off")
        plan = connection.execute(
            f"EXPLAIN SELECT c.id FROM agno.chunk_embedding e JOIN agno.chunk c ON c.id = e.chunk_id WHERE e.embedding_space_id = {base.space} AND c.live "
            f"ORDER BY e.embedding::halfvec({DIMENSIONS}) <#> '{vectors(1)[0]}'::halfvec({DIMENSIONS}) LIMIT 5".encode()
        ).fetchall()
        connection.execute("RESET enable_sort")
    assert f"chunk_embedding_{base.space}_hnsw" in str(plan)
