"""Ingesting on a real database: what is in afterwards, what it cost, and what goes on when something goes wrong."""

from __future__ import annotations

import pytest

from agno_workers.storage.ingest import Windows
from tests.ingesting import Shelf
from tests.integration.storage.world import World

SMALL = Windows(ingest_window=2, embed_window=1, batch_documents=2, embed_texts=3, publish_after_s=0.0)


@pytest.fixture
def shelf(world: World) -> Shelf:
    return Shelf(world)


@pytest.fixture
def small(world: World) -> Shelf:
    """Steps of two documents, and three chunks."""
    return Shelf(world, SMALL)


def test_documents_are_in_with_their_chunks_and_vectors(small: Shelf) -> None:
    small.books = {f"b{place}": f"one of {place}\n\ntwo of {place}" for place in range(7)}
    summary = small.run()
    assert small.chunks() == {name: text.split("\n\n") for name, text in small.books.items()}
    assert small.without_vector() == 0
    assert len(small.embedder.seen) == 14
    counted = {"documents": 7, "chunks": 14, "embedded": 14, "failed": 0, "unchanged": 0, "removed": 0}
    assert summary == summary | counted
    assert summary["tokens"] > 0


def test_the_same_again_is_not_read(small: Shelf) -> None:
    small.books = {f"b{place}": f"text {place}" for place in range(5)}
    small.run()
    small.fetched.clear()
    again = small.run()
    assert (again["unchanged"], again["documents"], small.fetched) == (5, 0, [])
    assert len(small.embedder.seen) == 5
