"""Vectors of questions are kept: a question is embedded once, within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pytest

from agno_workers.errors import ModelUnavailable
from agno_workers.knowledge.embedders.cache import MAX_QUESTIONS, embed_query
from agno_workers.knowledge.embedders.hash import Hash


class Counting(Hash):
    """Tells what it was asked."""

    def __init__(self) -> None:
        super().__init__(32)
        self.asked: list[str] = []
        self.fails = False

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Any:
        self.asked += [f"{kind}: {text}" for text in texts]
        if self.fails:
            raise ModelUnavailable("Try again later.", retry_after_s=None)
        return super().embed(texts, kind)


@pytest.fixture
def embedder() -> Iterator[Counting]:
    yield Counting()
    embed_query.cache_clear()


def test_a_question_is_embedded_once_and_as_a_question(embedder: Counting) -> None:
    first, again = embed_query(embedder, "why?"), embed_query(embedder, "why?")
    assert embedder.asked == ["query: why?"]
    assert again is first
    assert np.array_equal(first, Hash(32).embed(["why?"])[0])


def test_another_embedder_has_vectors_of_its_own(embedder: Counting) -> None:
    other = Counting()
    assert embed_query(embedder, "why?") is not embed_query(other, "why?")
    assert other.asked == ["query: why?"]


def test_nobody_changes_what_others_will_get(embedder: Counting) -> None:
    with pytest.raises(ValueError, match="read-only"):
        embed_query(embedder, "why?")[0] = 7


def test_a_failure_is_not_kept(embedder: Counting) -> None:
    embedder.fails = True
    with pytest.raises(ModelUnavailable):
        embed_query(embedder, "why?")
    embedder.fails = False
    assert embed_query(embedder, "why?").shape == (32,)


def test_the_oldest_question_goes_first(embedder: Counting) -> None:
    for number in range(MAX_QUESTIONS):
        embed_query(embedder, f"{number}")
    embed_query(embedder, "0")
    embed_query(embedder, "one more")
    embedder.asked.clear()
    embed_query(embedder, "0")
    embed_query(embedder, "1")
    assert embedder.asked == ["query: 1"]


def test_threads_share_it(embedder: Counting) -> None:
    with ThreadPoolExecutor(8) as threads:
        vectors = list(threads.map(lambda n: embed_query(embedder, f"{n % 4}"), range(200)))
    expected = Hash(32).embed([f"{n}" for n in range(4)])
    assert all(np.array_equal(vector, expected[n % 4]) for n, vector in enumerate(vectors))
