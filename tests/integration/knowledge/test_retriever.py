"""One question to a knowledge base, while others are at work on it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.retriever import FilterWarning, Retriever
from tests.database import RunDatabase
from tests.integration.knowledge.store.base import Base
from tests.invariants import until

EAST, NORTH = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def test_search_is_repeated_when_the_embedding_space_changes(db: RunDatabase) -> None:
    base = Base(db.pool)
    (chunk,) = base.add(("a text about cats", EAST))
    asked: list[str] = []

    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        def embed(self, texts: Sequence[str], kind: Any = "document") -> Any:
            asked.append(self.name)
            if self.name == "test":
                _switch(base, chunk)
            return np.array([EAST if self.name == "test" else NORTH for _ in texts], np.float32)

    asking = Retriever(db.pool, db.database.knowledge, Model)  # type: ignore[arg-type]  # of an embedder what a question needs
    hits = asking.search("docs", "felines", max_results=3, search_type="vector", filters={})
    assert [(hit.chunk_id, round(hit.scores["vector"], 2)) for hit in hits] == [(chunk, 1.0)]
    assert asked == ["test", "newer"]


def test_query_with_invalid_characters_is_searched(db: RunDatabase) -> None:
    base = Base(db.pool)
    (chunk,) = base.add("a text about cats")
    bases = db.database.knowledge
    asking = Retriever(db.pool, bases, lambda name: None)  # type: ignore[arg-type,return-value]
    hits = asking.search("docs", "cats \ud800", max_results=3, search_type="keyword", filters={})
    assert [hit.chunk_id for hit in hits] == [chunk]


def test_reranker_orders_more_results_than_requested(db: RunDatabase) -> None:
    base = Base(db.pool)
    for text in ("cats and cats and cats", "cats", "cats and dogs"):
        base.add(text)
    bases = db.database.knowledge
    asking = Retriever(db.pool, bases, lambda name: None)  # type: ignore[arg-type,return-value]
    (hit,) = asking.search(
        "docs", "cats", max_results=1, search_type="keyword", filters={},
        rerank=lambda question, hits: [float("dogs" in hit.content) for hit in hits],
    )  # fmt: skip
    assert (hit.content, hit.score) == ("cats and dogs", 1.0)


class _East:
    """A model whose questions all point to the east."""

    def embed(self, texts: Sequence[str], kind: Any = "document") -> Any:
        return np.array([EAST for _ in texts], np.float32)


def test_results_have_a_closeness_and_are_limited_by_it(db: RunDatabase) -> None:
    base = Base(db.pool)
    (near,), (half,), (far,), (bare,) = (
        base.add(("cats", EAST)), base.add(("cats too", (0.6, 0.8, 0.0))), base.add(("cats again", NORTH)), base.add("cats without a vector")
    )  # fmt: skip
    asking = Retriever(db.pool, db.database.knowledge, lambda name: _East())  # type: ignore[arg-type,return-value]

    def found(search_type: Any, min_score: float | None = None) -> dict[int, float | None]:
        hits = asking.search(
            "docs", "cats", max_results=9, search_type=search_type, filters={}, min_score=min_score
        )
        return {hit.chunk_id: None if hit.closeness is None else round(hit.closeness, 2) for hit in hits}

    assert found("hybrid") == {near: 1.0, half: 0.6, far: 0.0, bare: None}
    assert found("vector") == {near: 1.0, half: 0.6, far: 0.0}
    assert found("keyword") == dict.fromkeys((near, half, far, bare))
    for search_type in ("hybrid", "vector"):
        assert found(search_type, 0.5) == {near: 1.0, half: 0.6}
        assert found(search_type, 1.0) == {near: 1.0}
    for search_type, wrong in (("keyword", 0.5), ("hybrid", 30), ("vector", float("nan"))):
        with pytest.raises(InvalidInput, match="min_score"):
            found(search_type, wrong)


def test_search_warns_of_a_field_that_no_document_has(db: RunDatabase) -> None:
    base = Base(db.pool)
    base.add("cats")
    db.sql('UPDATE agno.document SET metadata = \'{"year": 2026, "author": {"name": "Ann"}}\'')
    asking = Retriever(db.pool, db.database.knowledge, lambda name: _East())  # type: ignore[arg-type,return-value]

    def search(filters: dict[str, Any]) -> int:
        return len(asking.search("docs", "cats", max_results=9, search_type="keyword", filters=filters))

    with pytest.warns(FilterWarning, match="Did you mean 'author.name'"):
        assert search({"author.nam": "Ann"}) == 0
    with pytest.warns(FilterWarning, match="have a number there"):
        assert search({"year": "2026"}) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search({"author.name": "Ann", "year": 2026}) == 1


def _switch(base: Base, chunk: int) -> None:
    """As the end of a reindex leaves it."""
    old = base.space
    ((row),) = base.sql(
        "INSERT INTO agno.embedding_space (knowledge_id, model, dimensions, status) VALUES (%s, 'newer', 3, 'current') RETURNING id",
        base.id,
    )
    base.space = row["id"]
    base.embed(chunk, NORTH)
    base.sql("UPDATE agno.embedding_space SET status = 'retired' WHERE id = %s", old)
    base.sql(
        "UPDATE agno.knowledge SET embedding_space_id = %s, version = version + 1 WHERE id = %s",
        base.space,
        base.id,
    )
    base.sql("DELETE FROM agno.chunk_embedding WHERE embedding_space_id = %s", old)


def test_similar_documents_are_found_while_the_model_changes(db: RunDatabase) -> None:
    """Between two looks of one search: the base was read, and its space is one that was searched before."""
    base = Base(db.pool)
    (one,), (other,) = base.add(("cats", EAST), uri="a"), base.add(("felines", EAST), uri="b")
    document = db.value("SELECT id FROM agno.document WHERE uri = 'a'")
    with db.pool.connection() as switching, ThreadPoolExecutor(1) as threads:
        with switching.transaction():
            switching.execute("LOCK TABLE agno.embedding_space IN ACCESS EXCLUSIVE MODE")
            hits = threads.submit(base.search.similar, base.id, document_id=document)
            until(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
            switching.execute("UPDATE agno.embedding_space SET status = 'retired'")
            switching.execute(
                "INSERT INTO agno.embedding_space (knowledge_id, model, dimensions, status) SELECT id, 'newer', 3, 'current' FROM agno.knowledge"
            )
            switching.execute(
                "UPDATE agno.knowledge SET embedding_space_id = (SELECT max(id) FROM agno.embedding_space)"
            )
            switching.execute(
                "UPDATE agno.chunk_embedding SET embedding_space_id = (SELECT max(id) FROM agno.embedding_space)"
            )
        assert [hit.chunk_id for hit in hits.result(timeout=30)] == [other]
    assert one != other
