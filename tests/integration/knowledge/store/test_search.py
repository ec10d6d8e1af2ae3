"""What a search finds, in which order, and what its scores are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.filters import compile_filter
from agno_workers.knowledge.store.search import Effort, Search
from agno_workers.knowledge.types import SearchResult
from tests.database import RunDatabase
from tests.integration.knowledge.store.base import Base
from tests.invariants import until

EAST, NORTH, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
NORTH_EAST = (0.8, 0.6, 0.0)


@pytest.fixture
def base(db: RunDatabase) -> Base:
    return Base(db.pool)


# Near-duplicates.


@pytest.mark.parametrize("search_type", ["keyword", "vector", "hybrid"])
def test_near_duplicates_of_a_better_result_are_dropped_on_request(base: Base, search_type: Any) -> None:
    best, copy, other = (
        base.add(("red cat", EAST)),
        base.add(("red cat is", NORTH_EAST)),
        base.add(("cat", NORTH)),
    )
    for chunk, bands in ((best, range(16)), (copy, range(12, 28)), (other, range(3))):
        for value in bands:
            base.sql(
                "INSERT INTO agno.near_band SELECT knowledge_id, %s, %s, document_id FROM agno.chunk WHERE id = %s",
                value % 16, value, chunk[0],
            )  # fmt: skip
    everything = base.found("red cat", EAST, search_type=search_type)
    assert set(everything) == {*best, *copy, *other}
    assert base.found("red cat", EAST, search_type=search_type, near_duplicates=False) == [*best, *other]


# Lists of links.


@pytest.mark.parametrize("search_type", ["keyword", "vector", "hybrid"])
def test_listing_counts_less_than_a_text(base: Base, search_type: Any) -> None:
    (listing,), (text,) = base.add(("red cat", EAST)), base.add(("the cat is red and sleeps", NORTH_EAST))
    assert base.found("red cat", EAST, search_type=search_type) == [listing, text]
    base.sql("UPDATE agno.chunk SET weight = 0.4 WHERE id = %s", listing)
    base.sql("UPDATE agno.knowledge SET version = version + 1")
    first, last = base.search.search(base.id, "red cat", EAST, search_type=search_type)
    assert (first.chunk_id, last.chunk_id) == (text, listing)
    assert "weight" not in first.scores
    assert last.scores["weight"] == pytest.approx(0.4)
    if search_type == "vector":
        assert last.scores["vector"] == pytest.approx(1, abs=1e-3), "gaps compare the cosine itself"


# By words.


def test_one_matching_word_is_enough_and_rare_words_score_higher(base: Base) -> None:
    rare, common = base.add("the zeppelin arrives"), base.add("a train arrives here")
    base.add("the train leaves"), base.add("nothing of the kind")
    assert base.found("when does a zeppelin or a train land?", search_type="keyword")[0] == rare[0]
    assert set(base.found("zeppelin train", search_type="keyword")) > {rare[0], common[0]}


def test_keyword_score_is_bm25(base: Base) -> None:
    texts = ["cat", "cat cat cat dog", "cat dog bird fish", "bird fish horse"]
    ids = [base.add(text)[0] for text in texts]
    base.sql("SELECT agno.count_words(%s)", base.id)
    hits = {hit.chunk_id: hit.score for hit in base.search.search(base.id, "cats", search_type="keyword")}
    lengths = [len(set(text.split())) for text in texts]
    average = sum(lengths) / 4
    idf = math.log(1 + (4 - 3 + 0.5) / (3 + 0.5))
    expected = {
        ids[i]: idf * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * lengths[i] / average)) for i, f in enumerate((1, 3, 1))
    }  # fmt: skip
    assert hits == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 15, 16, 40])
def test_bm25_counts_a_word_up_to_16_times(db: RunDatabase, count: int) -> None:
    text = "other words " + "word filler " * count
    score = db.value("SELECT agno.bm25(to_tsvector('simple', %(text)s), '{word}', '{2}', 4)", text=text)
    times, length = min(count, 16), 2 + 2 * (count > 0)
    assert score == pytest.approx(2 * times * 2.2 / (times + 0.3 + 0.9 * length / 4))


def test_multilingual_knowledge_base_is_searched_in_all_languages(base: Base) -> None:
    german, english = base.add("Die Häuser am Hafen", language="german"), base.add("running water")
    assert base.found("ein Haus", search_type="keyword") == german
    assert base.found("it runs", search_type="keyword") == english


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30) | st.sampled_from(["a' | b", "\\", "a\\'b", "!(&|<->:*", "x:A*", "''", "http://a.b/c?d='e'", "%s %(a)s", "O'Reilly's"]))  # fmt: skip
def test_any_query_is_valid(db: RunDatabase, question: str) -> None:
    db.empty()
    base = Base(db.pool)
    base.add(("something", EAST))
    for search_type in ("keyword", "vector", "hybrid"):
        base.search.search(base.id, question, EAST, search_type=search_type)


def test_very_common_words_score_but_are_not_looked_up(base: Base) -> None:
    for number in range(30):
        base.add(f"house number{number}")
    target = base.add("house zeppelin")
    found = base.search.find(
        base.id, None, None, Effort(words_budget=5), {"text": "zeppelin house", "search_type": "keyword", "max_results": 8}
    )  # fmt: skip
    assert [hit.chunk_id for hit in found.hits] == target
    assert (found.how["words"], found.how["looked_up"]) == (2, 1)


@pytest.mark.parametrize("is_counted", [True, False])
def test_word_that_no_chunk_has_does_not_replace_a_common_one(base: Base, is_counted: bool) -> None:
    houses = [base.add(f"house number{number}")[0] for number in range(30)]
    if is_counted:
        base.sql("SELECT agno.count_words(%s)", base.id)
    asked = {"text": "unheard-of house", "search_type": "keyword", "max_results": 50}
    found = base.search.find(base.id, None, None, Effort(words_budget=5), asked)
    assert {hit.chunk_id for hit in found.hits} == set(houses)


# By meaning.


def test_vector_search_orders_by_cosine(base: Base) -> None:
    ids = base.add(("a", EAST), ("b", NORTH), ("c", NORTH_EAST))
    hits = base.search.search(base.id, "", EAST, search_type="vector")
    assert [hit.chunk_id for hit in hits] == [ids[0], ids[2], ids[1]]
    assert [hit.scores["vector"] for hit in hits] == pytest.approx([1, 0.8, 0], abs=1e-3)
    assert [hit.scores["vector_rank"] for hit in hits] == [1, 2, 3]


def test_other_knowledge_bases_and_pending_versions_are_not_searched(base: Base, db: RunDatabase) -> None:
    other = Base(db.pool, "other")
    other.add(("zeppelin", EAST))
    base.add(("zeppelin", EAST), live=False)
    for search_type in ("keyword", "vector", "hybrid"):
        assert base.found("zeppelin", EAST, search_type=search_type) == []
        assert len(other.found("zeppelin", EAST, search_type=search_type)) == 1


def test_vector_of_another_model_is_refused(base: Base) -> None:
    base.add(("a", EAST))
    with pytest.raises(InvalidInput, match="the question has 2 dimensions, and the vectors of test have 3"):
        base.found("a", (1.0, 0.0), search_type="vector")


def test_similar_returns_other_documents(base: Base) -> None:
    (own, _), near, far = base.add(("a", EAST), ("b", NORTH)), base.add(("c", NORTH_EAST), ("d", NORTH_EAST)), base.add(("e", UP))  # fmt: skip
    ((document,),) = (row.values() for row in base.sql("SELECT document_id FROM agno.chunk WHERE id = %s", own))  # fmt: skip
    assert [hit.chunk_id for hit in base.search.similar(base.id, document)] == [near[0], far[0]]
    every = base.search.similar(base.id, document, per_document=None)
    assert [hit.chunk_id for hit in every] == [*near, far[0]]


# By both.


def test_hybrid_result_has_both_scores(base: Base) -> None:
    said, meant = base.add(("zeppelin", NORTH)), base.add(("airship", EAST))
    hits = {hit.chunk_id: hit for hit in base.search.search(base.id, "zeppelin", EAST, effort=Effort(candidates=1), max_results=1)}  # fmt: skip
    hits |= {hit.chunk_id: hit for hit in base.search.search(base.id, "zeppelin", EAST)}
    assert hits[said[0]].scores["vector"] == pytest.approx(0, abs=1e-3)
    assert hits[meant[0]].scores["keyword"] == 0
    assert hits[meant[0]].scores["vector"] == pytest.approx(1, abs=1e-3)


def test_hybrid_search_without_vectors_is_keyword_search(base: Base) -> None:
    ids = base.add("zeppelin", "airship")
    assert base.found("zeppelin", EAST) == ids[:1]
    assert base.found("zeppelin") == ids[:1]
    assert base.found("zeppelin", EAST, search_type="vector") == []


def test_hybrid_search_finds_a_chunk_without_a_vector(base: Base) -> None:
    base.add(("boat", NORTH))
    base.add(("train", UP))
    assert base.add("zeppelin")[0] in base.found("zeppelin", EAST)


def test_neighbours_of_a_chunk_raise_its_score(base: Base) -> None:
    alone = base.add(("it flies", EAST))
    at_home = base.add(("the zeppelin", EAST), ("it flies", EAST))
    found = base.found("zeppelin flies", EAST, per_document=10)
    assert found.index(at_home[1]) < found.index(alone[0])


def test_document_with_many_matching_chunks_leaves_room_for_others(base: Base) -> None:
    said_often = base.add(*((f"zeppelin {number}", EAST) for number in range(10)))
    other = base.add(("zeppelin elsewhere", NORTH_EAST))
    hits = base.search.search(base.id, "zeppelin", EAST, max_results=4)
    assert [hit.chunk_id in said_often for hit in hits] == [True, False, True, True]
    assert [hit.scores.get("sibling") for hit in hits] == pytest.approx([None, None, 0.8, 0.64])
    assert other[0] not in base.found("zeppelin", EAST, max_results=4, per_document=10)


# Around all of them.


@pytest.mark.parametrize("search_type", ["keyword", "vector", "hybrid"])
def test_document_that_changes_during_a_search_is_found_in_its_old_version(
    base: Base, db: RunDatabase, search_type: Any
) -> None:
    """Feedback is read by the last statement of a search, after the chunks were looked up."""
    (old,) = base.add(("zeppelin", EAST), uri="file:///a")
    with db.pool.connection() as changing, ThreadPoolExecutor(1) as threads:
        with changing.transaction():
            changing.execute("LOCK TABLE agno.feedback IN ACCESS EXCLUSIVE MODE")
            found = threads.submit(base.found, "zeppelin", EAST, search_type=search_type)
            until(lambda: db.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
            changing.execute("DELETE FROM agno.chunk WHERE id = %s", [old])
        assert found.result(timeout=30) == [old]


@pytest.mark.parametrize("search_type", ["keyword", "vector", "hybrid"])
def test_filters_apply_to_every_search_type(base: Base, search_type: Any) -> None:
    base.add(("zeppelin", EAST), year=1930)
    newer = base.add(("zeppelin", NORTH_EAST), year=1999, uri="file:///b")

    def found(**conditions: Any) -> list[int]:
        return base.found("zeppelin", EAST, search_type=search_type, filter=compile_filter(conditions))

    assert found(year={"gt": 1950}) == found(year=1999) == found(uri={"prefix": "file:"}) == newer
    assert found(uri="file:///b", lang="en", created={"gt": "2020-01-01"}) == newer
    assert found(year=1) == []


def test_result_has_its_position(base: Base) -> None:
    _, second = base.add("one", "zeppelin", uri="file:///a", year=1930)
    base.sql("UPDATE agno.chunk SET heading = E'Air\\nShips' WHERE id = %s", second)
    (hit,) = base.search.search(base.id, "zeppelin")
    assert (hit.uri, hit.title, hit.heading, hit.position) == ("file:///a", "A title", ("Air", "Ships"), 1)
    assert hit.metadata == {"year": 1930}


def test_limits_of_a_search_are_applied(base: Base) -> None:
    base.add(("a", EAST), ("b", EAST), ("c", EAST))
    other = base.add(("d", NORTH_EAST))
    assert len(base.found("", EAST, search_type="vector", max_results=2)) == 2
    assert base.found("", EAST, search_type="vector", per_document=1)[1:] == other
    for wrong in (0, 1001):
        with pytest.raises(InvalidInput, match=f"max_results is {wrong}"):
            base.found("", EAST, max_results=wrong)
    with pytest.raises(InvalidInput, match="there is no knowledge base with id 0"):
        base.search.search(0, "a")


@pytest.mark.parametrize(("up", "down", "moved"), [(0, 0, None), (1, 0, 1.023), (10**6, 0, 1.1), (0, 10**6, 0.9)])  # fmt: skip
def test_feedback_changes_a_score_by_at_most_a_tenth(base: Base, up: int, down: int, moved: float | None) -> None:  # fmt: skip
    (chunk,) = base.add(("a", EAST))
    if up or down:
        base.sql("INSERT INTO agno.feedback (chunk_id, up, down) VALUES (%s, %s, %s)", chunk, up, down)
    (hit,) = base.search.search(base.id, "", EAST, search_type="vector")
    assert hit.scores.get("feedback") == (moved and pytest.approx(moved, abs=1e-3))
    assert hit.score == pytest.approx(moved or 1, abs=2e-3)


def test_reranker_orders_the_results(base: Base) -> None:
    ids = base.add(*((text, EAST) for text in ("aa", "a", "aaa", "aaaa")))

    def by_length(question: str, hits: Sequence[SearchResult]) -> list[float]:
        return [float(len(hit.content)) for hit in hits]

    hits = base.search.search(base.id, "q", EAST, search_type="vector", max_results=2, rerank=by_length)
    assert [hit.chunk_id for hit in hits] == [ids[3], ids[2]]
    assert hits[0].scores["rerank"] == hits[0].score == 4


def test_cached_results_are_returned_until_the_knowledge_base_changes(base: Base) -> None:
    (chunk,) = base.add("zeppelin")
    assert base.found("zeppelin") == [chunk]
    base.sql("DELETE FROM agno.chunk WHERE id = %s", chunk)
    assert base.found("zeppelin") == [chunk]  # nobody said that it changed
    assert base.found("zeppelin", max_results=9) == []  # another question
    base.sql("UPDATE agno.knowledge SET version = version + 1 WHERE id = %s", base.id)
    assert base.found("zeppelin") == []


def test_cache_size_is_limited(base: Base) -> None:
    base.search = Search(base.pool, cached=2)
    (chunk,) = base.add("zeppelin")
    for limit in (1, 2, 3):
        base.found("zeppelin", max_results=limit)
    base.sql("DELETE FROM agno.chunk WHERE id = %s", chunk)
    assert [len(base.found("zeppelin", max_results=limit)) for limit in (3, 2, 1)] == [1, 1, 0]


def test_cached_results_expire(base: Base) -> None:
    """Feedback moves ranks, and changes no base."""
    base.search = Search(base.pool, cached_s=0.0)
    (chunk,) = base.add("zeppelin")
    assert base.found("zeppelin") == [chunk]
    base.sql("DELETE FROM agno.chunk WHERE id = %s", chunk)
    assert base.found("zeppelin") == []
