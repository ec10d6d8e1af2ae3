"""Ingesting on a real database: what is in afterwards, what it cost, and what goes on when something goes wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agno_workers.core.run import Canvas, StepKind
from agno_workers.core.step import NOT_RECORDED
from agno_workers.database.pool import execute, statements
from agno_workers.errors import (
    InvalidInput,
    ModelRejected,
    ModelUnavailable,
    SourceRejected,
    SourceUnavailable,
)
from agno_workers.knowledge.steps import MODEL, run_step
from agno_workers.knowledge.store import documents as editions
from agno_workers.knowledge.store.bases import ingestion_request
from agno_workers.knowledge.store.ingest import IngestLimits
from agno_workers.knowledge.store.search import Search
from agno_workers.knowledge.store.search_index import Taken
from agno_workers.knowledge.store.stats import KnowledgeStats
from agno_workers.knowledge.types import NEAR_BANDS, Chunking, Rows, Skipped, Source
from tests import invariants
from tests.database import RunDatabase
from tests.ingesting import Counted, Later, Shelf

SMALL = IngestLimits(ingest_window=2, embed_window=1, batch_documents=2, embed_texts=3, publish_after_s=0.0)


@pytest.fixture(autouse=True)
def _invariants_hold(db: RunDatabase) -> Iterator[None]:
    yield
    for what, statement in invariants.ALWAYS.items():
        assert db.sql(statement) == [], what


@pytest.fixture
def shelf(db: RunDatabase) -> Shelf:
    return Shelf(db)


@pytest.fixture
def small(db: RunDatabase) -> Shelf:
    """Steps of two documents, and three chunks."""
    return Shelf(db, SMALL)


def test_documents_are_stored_with_chunks_and_vectors(small: Shelf) -> None:
    small.books = {f"b{place}": f"one of {place}\n\ntwo of {place}" for place in range(7)}
    summary = small.run()
    assert small.chunks() == {name: text.split("\n\n") for name, text in small.books.items()}
    assert small.without_vector() == 0
    assert len(small.embedder.seen) == 14
    counted = {"documents": 7, "chunks": 14, "embedded": 14, "failed": 0, "unchanged": 0, "removed": 0}
    assert summary == summary | counted
    assert summary["tokens"] > 0


def test_expected_size_is_known_before_documents_are_stored(shelf: Shelf) -> None:
    shelf.books = {"a": "x " * 3000}
    shelf.take(shelf.submit(""))
    assert [chunks for _, chunks in shelf.expected] == [6000 // Chunking().max_chars]


def test_unchanged_documents_are_not_read_again(small: Shelf) -> None:
    small.books = {f"b{place}": f"text {place}" for place in range(5)}
    small.run()
    small.fetched.clear()
    again = small.run()
    assert (again["unchanged"], again["documents"], small.fetched) == (5, 0, [])
    assert len(small.embedder.seen) == 5


def test_only_new_chunks_of_an_edited_document_are_embedded(shelf: Shelf) -> None:
    shelf.books = {"a": "one\n\ntwo\n\nthree", "b": "other"}
    shelf.run()
    ids = dict(_ids(shelf))
    shelf.embedder.seen.clear()
    shelf.books["a"] = "zero\n\none\n\nthree"
    summary = shelf.run()
    assert shelf.embedder.seen == ["zero"]
    assert shelf.chunks() == {"a": ["zero", "one", "three"], "b": ["other"]}
    assert {text: dict(_ids(shelf))[text] for text in ("one", "three")} == {
        text: ids[text] for text in ("one", "three")
    }
    assert (summary["documents"], summary["unchanged"], summary["embedded"]) == (1, 1, 3)


def test_search_returns_the_old_version_until_the_new_one_has_all_vectors(small: Shelf) -> None:
    small.books = {"a": "one\n\ntwo\n\nthree\n\nfour"}
    small.run()
    small.books["a"] = "1\n\n2\n\n3\n\n4\n\nfour"
    before = small.chunks()
    send = small.submit("")
    (read,) = small.take(send).sends
    (first,) = small.take(read).sends
    assert small.chunks() == before
    assert small.chunks(live=False) == {"a": ["1", "2", "3", "4"]}
    (second,) = small.take(first).sends
    assert small.chunks() == before
    small.carry(second)
    assert small.chunks() == {"a": ["1", "2", "3", "4", "four"]}
    assert small.chunks(live=False) == {}


def test_edit_without_new_text_is_searchable_at_once(shelf: Shelf) -> None:
    shelf.books = {"a": "one\n\ntwo", "b": "three"}
    shelf.run()
    shelf.embedder.seen.clear()
    shelf.books["a"] = "two\n\nthree"
    (read,) = shelf.take(shelf.submit("")).sends
    shelf.take(read)
    assert shelf.chunks()["a"] == ["two", "three"]
    shelf.finish(read.run_id)
    assert shelf.embedder.seen == []
    assert shelf.without_vector() == 0


def test_rows_are_changed_kept_and_removed_one_by_one(shelf: Shelf) -> None:
    file = Source("shop.csv", rows=Rows("sku", "name"))
    shelf.books["shop.csv"] = "sku,name\nA,bike\nB,car\nC,boat\n"
    assert shelf.run(file)["documents"] == 3
    shelf.prepared.clear()
    shelf.books["shop.csv"] = "sku,name\nA,bike\nB,van\nD,kite\n"
    counted = {"documents": 2, "unchanged": 1, "removed": 1}
    summary = shelf.run(file)
    assert summary == summary | counted
    assert shelf.prepared == ["shop.csv#B", "shop.csv#D"]
    assert shelf.chunks() == {"shop.csv#A": ["bike"], "shop.csv#B": ["van"], "shop.csv#D": ["kite"]}


def test_file_with_a_wrong_column_fails_the_ingestion_and_removes_nothing(shelf: Shelf) -> None:
    shelf.books["shop.csv"] = "sku,name\nA,bike\n"
    shelf.run(Source("shop.csv", rows=Rows("sku", "name")))
    send = shelf.submit(Source("shop.csv", rows=Rows("sku", "nmae")))
    shelf.carry(send)
    error = shelf.db.queries.run(send.run_id).error
    assert error is not None
    assert (error["type"], "did you mean 'name'" in error["message"]) == ("InvalidInput", True)
    assert shelf.chunks() == {"shop.csv#A": ["bike"]}


def test_unchanged_chunk_gets_its_new_page(shelf: Shelf) -> None:
    shelf.books = {"a": "one\n\ntwo"}
    shelf.run()
    shelf.books["a"] = "cover\n\none\n\ntwo"
    shelf.run()
    base = shelf.knowledges.get("docs").id
    found = Search(shelf.db.pool).search(base, "two", search_type="keyword")
    assert [(hit.content, str(hit.place)) for hit in found] == [("two", "page 3")]


def test_documents_missing_from_their_origin_are_removed_and_single_ones_stay(shelf: Shelf) -> None:
    shelf.books = {"a1": "a one", "a2": "a two", "b1": "b one"}
    shelf.run("a", "b", {"uri": "note", "text": "a note"})
    del shelf.books["a2"], shelf.books["b1"]
    summary = shelf.run("a")
    assert sorted(shelf.chunks()) == ["a1", "b1", "note"]
    assert summary["removed"] == 1


def test_document_ingested_again_by_itself_keeps_its_origin(shelf: Shelf) -> None:
    shelf.books = {"a1": "a one\n\nmore", "a2": "a two", "a3": "a three", "a4": "a four"}
    shelf.run("a")
    shelf.books |= {"a1": "a one\n\nedited", "a2": "a new two"}
    for name in ("a1", "a2", "a3"):
        shelf.run({"uri": name, "bytes": 1})
    shelf.run({"uri": "a4", "fingerprint": hashlib.sha256(b"a four").hexdigest()})
    shelf.books = {"a0": "what is left"}
    assert shelf.run("a")["removed"] == 4
    assert sorted(shelf.chunks()) == ["a0"]


def test_failed_scan_removes_nothing(shelf: Shelf) -> None:
    shelf.books = {"a": "text"}
    shelf.run()
    send = shelf.submit("")
    shelf.books = {}
    find = shelf.context.find
    object.__setattr__(shelf.context, "find", _raising(SourceRejected("the folder is gone")))
    assert not shelf.take(send).sends
    object.__setattr__(shelf.context, "find", find)
    run = shelf.db.queries.run(send.run_id)
    assert (run.status, run.reason) == ("failed", "scan")
    assert shelf.chunks() == {"a": ["text"]}


def test_overtaken_ingestion_removes_nothing(shelf: Shelf) -> None:
    shelf.books = {"a": "one"}
    shelf.run()
    shelf.books = {}
    early = shelf.submit("")
    followed = shelf.take(early).sends
    shelf.books = {"a": "one"}
    shelf.run()
    shelf.carry(*followed)
    shelf.finish(early.run_id)
    assert shelf.chunks() == {"a": ["one"]}


# Duplicates.


@pytest.mark.parametrize("batch_documents", [1, 50])
def test_duplicate_has_no_chunks(db: RunDatabase, batch_documents: int) -> None:  # fmt: skip
    shelf = Shelf(db, IngestLimits(batch_documents=batch_documents, publish_after_s=0.0))
    shelf.books = {"a": "same\n\ntext", "b": "same\n\ntext", "c": "other"}
    summary = shelf.run()
    assert (summary["documents"], summary["duplicates"]) == (2, 1)
    assert sorted(shelf.chunks()) == ["a", "c"]
    assert len(shelf.embedder.seen) == 3


@pytest.mark.parametrize("how", ["edited", "gone", "removed"])
def test_removing_an_original_reassigns_its_chunks(shelf: Shelf, how: str) -> None:
    shelf.books = {"a": "same\n\ntext", "b": "same\n\ntext", "c": "same\n\ntext"}
    shelf.run()
    match how:
        case "edited":
            shelf.books["a"] = "quite other"
        case "gone":
            del shelf.books["a"]
        case "removed":
            assert shelf.knowledges.remove_documents("docs", ["a"])
            del shelf.books["a"]
    shelf.run()
    found = shelf.chunks()
    assert found.pop("a", None) == (["quite other"] if how == "edited" else None)
    assert found == {"b": ["same", "text"]}
    shelf.books.pop("b")
    shelf.run()
    assert shelf.chunks()["c"] == ["same", "text"]
    assert len(shelf.embedder.seen) == 2 + (how == "edited")
    assert shelf.without_vector() == 0


def test_edited_duplicate_is_searchable_at_once(shelf: Shelf) -> None:
    shelf.books = {"a": "same", "b": "same"}
    shelf.run()
    shelf.books["b"] = "own"
    shelf.run()
    assert shelf.chunks() == {"a": ["same"], "b": ["own"]}


def test_document_that_becomes_a_duplicate_loses_its_chunks(shelf: Shelf) -> None:
    shelf.books = {"a": "same", "b": "own"}
    shelf.run()
    shelf.books["b"] = "same"
    assert shelf.run()["duplicates"] == 1
    assert shelf.chunks() == {"a": ["same"]}


def test_two_documents_edited_to_the_same_text_share_one_copy_of_chunks(shelf: Shelf) -> None:  # fmt: skip
    shelf.books = {"a": "one", "b": "two"}
    shelf.run()
    shelf.books = {"a": "same\n\ntext", "b": "same\n\ntext"}
    shelf.run()
    assert list(shelf.chunks().values()) == [["same", "text"]]
    assert shelf.db.value("SELECT count(*) FROM agno.document WHERE duplicate_of IS NOT NULL") == 1


def duplicates(shelf: Shelf, limit: int = 100) -> list[tuple[str, str]]:
    knowledge_id = shelf.knowledges.get("docs").id
    found = KnowledgeStats(shelf.db.pool).duplicates(knowledge_id, limit)
    return [(each.uri, each.of) for each in found]


def test_duplicates_and_near_duplicates_are_listed(shelf: Shelf) -> None:
    shelf.books = {"a": "alike one", "b": "alike two", "c": "other", "d": "other"}
    shelf.run()
    assert duplicates(shelf) == [("d", "c"), ("b", "a")]
    assert len(shelf.chunks()) == 3
    shelf.books["b"] = "something else"
    shelf.run()
    assert duplicates(shelf) == [("d", "c")]


def test_duplicate_that_gets_a_text_is_compared_with_others_by_it(shelf: Shelf) -> None:
    shelf.books = {"a": "alike one", "b": "alike one", "c": "alike two"}
    shelf.run()
    assert duplicates(shelf) == [("b", "a"), ("c", "a")]
    shelf.books["a"] = "something else"
    shelf.run()
    assert duplicates(shelf) == [("c", "b")]


@pytest.mark.parametrize("embed_texts", [3, 100])
def test_text_of_many_new_documents_is_embedded_once(db: RunDatabase, embed_texts: int) -> None:
    """Whether they are in one step, or all of them are read before the first vector is made."""
    shelf = Shelf(db, IngestLimits(embed_texts=embed_texts, publish_after_s=0.0))
    shelf.books = {f"a{place}": f"own {place}\n\nthe footer of all" for place in range(8)}
    summary = shelf.run()
    assert sorted(shelf.embedder.seen) == [*(f"own {place}" for place in range(8)), "the footer of all"]
    assert (shelf.without_vector(), summary["embedded"]) == (0, 16)
    vectors = db.sql(
        "SELECT count(DISTINCT e.embedding::text) AS vectors FROM agno.chunk_embedding e JOIN agno.chunk c ON c.id = e.chunk_id "
        "WHERE c.content = 'the footer of all'"
    )
    assert vectors == [{"vectors": 1}]


# What goes wrong.


def test_failure_of_one_document_does_not_affect_others(small: Shelf) -> None:
    small.books = {"a": "fine", "b": " ", "c": "denied", "d": "fine, too"}
    small.ill["c"] = SourceRejected("c is denied to everybody")
    send = small.submit("")
    small.carry(send)
    small.finish(send.run_id)
    assert sorted(small.chunks()) == ["a", "d"]
    failures = {each.uri: (each.type, each.message) for each in small.knowledges.failures(send.run_id)}
    assert failures == {"b": ("empty", "there is nothing in it"), "c": ("SourceRejected", "c is denied to everybody")}  # fmt: skip
    progress = small.knowledges.progress(send.run_id)
    assert (progress.total, progress.settled, progress.failed, progress.to_embed) == (4, 4, 2, 0)


def test_failed_edit_keeps_the_old_document(shelf: Shelf) -> None:
    shelf.books = {"a": "old"}
    shelf.run()
    shelf.books = {"a": " ", "b": "new"}
    assert shelf.run()["failed"] == 1
    assert shelf.chunks() == {"a": ["old"], "b": ["new"]}


@pytest.mark.parametrize(
    ("many", "said"), [(1, "its only document could not"), (3, "none of its 3 documents")]
)
def test_ingestion_fails_when_all_its_documents_failed(shelf: Shelf, many: int, said: str) -> None:
    shelf.books = dict.fromkeys("abc"[:many], " ")
    run = shelf.db.queries.run(_ended(shelf))
    assert (run.status, run.reason) == ("failed", "no_documents")
    assert run.error is not None
    assert said in run.error["message"]
    assert "a: there is nothing in it" in run.error["message"]


def test_unavailable_source_is_tried_three_times(shelf: Shelf) -> None:
    shelf.books = {"a": "text", "b": "text too"}
    shelf.ill["a"] = SourceUnavailable("away", retry_after_s=7)
    send = shelf.submit("")
    (read,) = shelf.take(send).sends
    shelf.take(read)
    (again,) = shelf.db.sql("SELECT not_before - clock_timestamp() AS wait FROM agno.step WHERE not_before IS NOT NULL")  # fmt: skip
    assert 6 < again["wait"].total_seconds() <= 7
    shelf.finish(send.run_id)
    assert shelf.fetched.count("a") == 3
    (failure,) = shelf.knowledges.failures(send.run_id)
    assert (failure.uri, failure.type) == ("a", "SourceUnavailable")


def test_retry_ingests_failed_sources_only(shelf: Shelf) -> None:
    shelf.books = {"a": "fine", "b": "denied"}
    shelf.ill["b"] = SourceRejected("denied")
    send = shelf.submit("")
    shelf.carry(send)
    shelf.finish(send.run_id)
    shelf.ill.clear()
    shelf.fetched.clear()
    again = shelf.knowledges.rerun(send.run_id)
    assert again.send is not None
    shelf.carry(again.send)
    shelf.finish(again.run_id)
    assert (shelf.fetched, sorted(shelf.chunks())) == (["b"], ["a", "b"])
    assert shelf.knowledges.progress(again.run_id).total == 1


def test_document_that_fails_its_whole_step_is_isolated(small: Shelf) -> None:
    """As one whose text Postgres does not take."""
    small.books = {name: f"text {name}" for name in "abcdef"}
    small.breaks = {"c"}
    send = small.submit("")
    small.carry(send)
    small.finish(send.run_id)
    assert sorted(small.chunks()) == ["a", "b", "d", "e", "f"]
    (failure,) = small.knowledges.failures(send.run_id)
    assert (failure.uri, failure.type) == ("c", "ValueError")


def test_rejected_text_stays_without_a_vector(small: Shelf) -> None:
    small.books = {"a": "1\n\n2\n\nbad\n\n3\n\n4", "b": "5"}
    small.embedder.refuses = lambda texts: ModelRejected("no", status=400) if "bad" in texts else None
    send = small.submit("")
    small.carry(send)
    small.finish(send.run_id)
    assert sorted(small.embedder.seen) == ["1", "2", "3", "4", "5"]
    (failure,) = small.knowledges.failures(send.run_id)
    assert (failure.uri, failure.type, failure.message) == ("a", "no_vector", "chunk 2: no")
    assert small.chunks()["a"] == ["1", "2", "bad", "3", "4"]
    small.embedder.refuses = lambda _: None
    again = small.knowledges.rerun(send.run_id).send
    assert again is not None
    small.carry(again)
    small.finish(again.run_id)
    assert small.without_vector() == 0


def test_ingestion_without_a_single_vector_fails_and_the_next_one_makes_them(small: Shelf) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abc"}
    small.embedder.refuses = lambda _: ModelRejected("bad request", status=400)
    for documents in (3, 0):  # also when it is repeated with unchanged documents
        send = small.submit("")
        small.carry(send)
        small.finish(send.run_id)
        run, progress = small.db.queries.run(send.run_id), small.knowledges.progress(send.run_id)
        assert (run.status, run.reason) == ("failed", "no_vectors")
        assert run.error is not None
        assert "any of its 6 chunks" in run.error["message"]
        assert "bad request" in run.error["message"]
        assert (progress.documents, progress.embedded, progress.refused) == (documents, 0, 6)
        assert len(small.knowledges.failures(send.run_id)) == 6
    (base,) = KnowledgeStats(small.db.pool).bases()
    assert "6 of 6 chunks have no vector of counted:8 (bad request)" in base.problems[0]
    small.embedder.refuses = lambda _: None
    mended = small.run()
    assert mended == mended | {"embedded": 6, "refused": 0, "unchanged": 3}
    assert (small.without_vector(), KnowledgeStats(small.db.pool).bases()[0].problems) == (0, [])


def test_chunks_without_a_vector_are_counted_each_time(small: Shelf) -> None:
    small.books = {"a": "1\n\nbad\n\n2", "b": "3"}
    small.embedder.refuses = lambda texts: ModelRejected("no", status=400) if "bad" in texts else None
    first = small.run()
    assert (first["embedded"], first["refused"]) == (3, 1)
    again = small.run()
    assert (again["unchanged"], again["embedded"], again["refused"]) == (2, 0, 1)
    small.books["a"] = "1\n\nbad\n\n4"
    edited = small.run()
    assert (edited["embedded"], edited["refused"]) == (2, 1)


def test_model_that_refuses_every_chunk_does_not_replace_the_searched_one(small: Shelf) -> None:
    small.books = {"a": "1\n\n2"}
    small.run()
    before = small.knowledges.get("docs").embedding_space_id
    small.embedder = Counted(4)
    small.embedder.refuses = lambda _: ModelRejected("no such dimensions", status=400)
    send = small.knowledges.reindex("docs").send
    assert send is not None
    small.carry(send)
    small.finish(send.run_id)
    assert small.db.queries.run(send.run_id).reason == "no_vectors"
    assert small.knowledges.get("docs").embedding_space_id == before


def test_vectors_that_a_cancelled_ingestion_left_out_are_reported(small: Shelf) -> None:
    small.books = {"a": "1\n\n2"}
    send = small.submit("")
    (ingest,) = small.take(send).sends
    assert small.take(ingest).sends
    stats = KnowledgeStats(small.db.pool)
    assert stats.bases()[0].problems == [], "an open ingestion makes them"
    small.db.journal.cancel(send.run_id)
    assert "2 of 2 chunks have no vector" in stats.bases()[0].problems[0]


def test_edit_with_a_rejected_text_is_searchable(small: Shelf) -> None:
    small.books = {"a": "old"}
    small.run()
    small.embedder.refuses = lambda texts: ModelRejected("no", status=400) if "bad" in texts else None
    small.books = {"a": "new\n\nbad"}
    small.run()
    assert small.chunks() == {"a": ["new", "bad"]}


def test_rejected_key_ends_the_ingestion_and_stored_documents_stay(shelf: Shelf) -> None:
    shelf.books = {"a": "text"}
    shelf.embedder.refuses = lambda _: ModelRejected("bad key", status=401)
    send = shelf.submit("")
    shelf.carry(send)
    run = shelf.db.queries.run(send.run_id)
    assert (run.status, run.reason) == ("failed", "model_rejected")
    assert shelf.chunks() == {"a": ["text"]}
    shelf.embedder.refuses = lambda _: None
    assert shelf.run()["unchanged"] == 1
    assert shelf.without_vector() == 0


def test_failed_ingestion_ends_all_its_steps(small: Shelf) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abcdef"}
    small.embedder.refuses = lambda _: ModelRejected("bad key", status=401)
    send = small.submit("")
    small.carry(send)
    assert small.db.queries.run(send.run_id).reason == "model_rejected"
    assert small.db.sql("SELECT key FROM agno.step WHERE ended_at IS NULL") == []
    small.embedder.refuses = lambda _: None
    small.run()
    assert small.without_vector() == 0


def test_worker_without_a_key_leaves_the_step_to_another_one(shelf: Shelf) -> None:
    shelf.books = {"a": "text"}
    lacking = [ModelRejected("no key", status=None, code="not_configured"), None]
    shelf.embedder.refuses = lambda _: lacking.pop(0)
    send = shelf.submit("")
    shelf.carry(send)
    shelf.finish(send.run_id)
    assert (shelf.without_vector(), lacking) == (0, [])


def test_unavailable_provider_is_retried(shelf: Shelf) -> None:
    shelf.books = {"a": "text"}
    away = [ModelUnavailable("away", retry_after_s=20), ModelUnavailable("away"), None]
    shelf.embedder.refuses = lambda _: away.pop(0)
    send = shelf.submit("")
    shelf.carry(send)
    (step,) = shelf.db.sql("SELECT not_before - clock_timestamp() AS wait, error FROM agno.step WHERE not_before IS NOT NULL")  # fmt: skip
    assert step["wait"].total_seconds() > 19
    shelf.finish(send.run_id)
    assert shelf.without_vector() == 0


# Two at once, and late ones.


def test_two_workers_with_the_same_step_commit_once(db: RunDatabase, shelf: Shelf) -> None:
    other = Shelf(db, worker="w2")
    shelf.books = other.books = {"a": "one\n\ntwo", "b": "three"}
    (read,) = shelf.take(shelf.submit("")).sends

    def meanwhile() -> None:
        shelf.on_prepare = lambda: None
        db.expire(read.step_id)
        assert len(other.take(read).sends) == 1

    shelf.on_prepare = meanwhile
    assert not shelf.take(read).recorded
    shelf.finish(read.run_id)
    assert shelf.chunks() == {"a": ["one", "two"], "b": ["three"]}


def test_newer_text_of_two_concurrent_ingestions_stays(db: RunDatabase, shelf: Shelf) -> None:
    shelf.books = {"a": "first"}
    shelf.run()
    shelf.books["a"] = "second"
    (early,) = shelf.take(shelf.submit("")).sends

    def meanwhile() -> None:
        shelf.on_prepare = lambda: None
        shelf.books["a"] = "third"
        shelf.run()

    shelf.on_prepare = meanwhile
    shelf.carry(early)
    shelf.finish(early.run_id)
    assert shelf.chunks() == {"a": ["third"]}
    assert shelf.chunks(live=False) == {}
    assert shelf.knowledges.progress(early.run_id).settled == 1


def test_document_found_by_two_ingestions_is_stored_once(db: RunDatabase, shelf: Shelf) -> None:
    shelf.books = {name: f"text {name}" for name in "abc"}
    (early,) = shelf.take(shelf.submit("")).sends

    def meanwhile() -> None:
        shelf.on_prepare = lambda: None
        shelf.run()

    shelf.on_prepare = meanwhile
    shelf.carry(early)
    shelf.finish(early.run_id)
    assert shelf.chunks() == {name: [text] for name, text in shelf.books.items()}
    progress = shelf.knowledges.progress(early.run_id)
    assert (progress.unchanged, progress.documents, progress.settled) == (3, 0, 3)


@pytest.mark.parametrize("after", ["scan", "ingest", "embed"])
def test_cancelled_ingestion_keeps_documents_and_the_next_one_completes_them(
    small: Shelf, after: str
) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abcd"}
    send = small.submit("")
    sends = small.take(send).sends
    if after != "scan":
        sends += small.take(sends[0]).sends
    if after == "embed":
        (embed,) = (each for each in sends if each.kind == "embed")
        small.take(embed)
    assert small.db.journal.cancel(send.run_id)
    for late in sends:
        assert not small.take(late).recorded
    assert small.ingest.schedule_next(send.run_id) == ()
    assert small.db.queries.run(send.run_id).status == "cancelled"
    assert sorted(small.chunks()) == ([] if after == "scan" else ["a", "b"])
    small.run()
    assert small.chunks() == {name: text.split("\n\n") for name, text in small.books.items()}
    assert small.without_vector() == 0
    assert len(small.embedder.seen) == 8


def test_cancelled_edit_is_completed_by_the_next_ingestion(small: Shelf) -> None:
    small.books = {"a": "old\n\nstays"}
    small.run()
    small.books = {"a": "1\n\n2\n\n3\n\n4\n\nstays"}
    send = small.submit("")
    (read,) = small.take(send).sends
    (embed,) = small.take(read).sends
    small.take(embed)
    small.db.journal.cancel(send.run_id)
    assert small.chunks() == {"a": ["old", "stays"]}
    small.embedder.seen.clear()
    small.run()
    assert small.chunks() == {"a": ["1", "2", "3", "4", "stays"]}
    assert small.chunks(live=False) == {}
    assert small.embedder.seen == ["4"], "the vectors that were made before are used"


def test_paused_ingestion_continues_after_resume(small: Shelf) -> None:
    small.books = {name: f"text {name}" for name in "abcdef"}
    send = small.submit("")
    first, *_ = small.take(send).sends
    small.db.journal.pause(send.run_id)
    assert not small.take(first).recorded
    small.db.journal.resume(send.run_id)
    small.carry(*small.db.journal.pending(send.run_id))
    small.finish(send.run_id)
    assert len(small.chunks()) == 6


def test_removing_a_knowledge_base_ends_its_running_ingestion(small: Shelf) -> None:
    small.books = {name: f"text {name}" for name in "abcdef"}
    send = small.submit("")
    first, *_ = small.take(send).sends
    small.on_prepare = lambda: small.knowledges.remove("docs")
    assert not small.take(first).recorded
    assert small.db.queries.run(send.run_id).status == "cancelled"
    assert small.db.count("document") == small.db.count("source") == 0


def test_keeper_schedules_next_steps_after_a_crash(small: Shelf) -> None:
    small.books = {name: f"text {name}" for name in "abc"}
    send = small.submit("")
    small.db.journal.published([send.outbox_id])
    claim = small.ingest.claim(send.kind, send.run_id, send.step_id, 0)
    assert claim is not None
    small.ingest._committed = lambda claim: NOT_RECORDED  # type: ignore[method-assign]  # dies after the commit
    small.ingest.finish_scan(claim, [(source, b"r") for source in small.find("", {})], [])
    del small.ingest._committed
    assert small.ingest.stalled(10) == [send.run_id]
    small.finish(send.run_id)
    assert len(small.chunks()) == 3
    assert small.ingest.stalled(10) == []


def test_windows_limit_the_steps_sent_at_a_time(small: Shelf) -> None:
    small.books = {f"b{place:02}": f"one {place}\n\ntwo {place}" for place in range(20)}
    send = small.submit("")
    todo = list(small.take(send).sends)
    while todo:
        rows = small.db.sql("SELECT kind, count(*) AS open FROM agno.step WHERE status IN ('ready', 'running') GROUP BY kind")  # fmt: skip
        assert all(row["open"] <= {"ingest": 2, "embed": 1}.get(row["kind"], 1) for row in rows), rows
        todo += small.take(todo.pop(0)).sends
    assert small.db.queries.run(send.run_id).status == "done"
    assert small.without_vector() == 0


def test_finalize_retries_while_the_index_lock_is_taken(shelf: Shelf) -> None:
    answers = [*[Taken("another one is at it")] * 5, ValueError("what nobody expected"), None]

    def refresh_index(knowledge_id: int) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    shelf.context = dataclasses.replace(shelf.context, refresh_index=refresh_index)
    shelf.books = {"a": "one"}
    assert shelf.run()["documents"] == 1
    assert answers == []


# A provider's batches.


@pytest.fixture
def later(shelf: Shelf) -> Later:
    """The provider of a shelf with two books."""
    shelf.books = {"a": "one\n\ntwo", "b": "three"}
    shelf.embedder = Later(8)
    return shelf.embedder


def test_provider_batch_is_polled_without_blocking_a_worker(shelf: Shelf, later: Later) -> None:
    send = shelf.submit("", options={"batch": True})
    shelf.carry(send)
    assert [sorted(texts) for texts in later.batches.values()] == [["one", "three", "two"]]
    (step,) = shelf.db.sql("SELECT status, tries, not_before > clock_timestamp() AS waits FROM agno.step WHERE kind = 'embed'")  # fmt: skip
    assert step == {"status": "ready", "tries": 1, "waits": True}
    assert shelf.chunks() == {"a": ["one", "two"], "b": ["three"]}
    later.is_ready = True
    shelf.finish(send.run_id)
    assert shelf.without_vector() == 0
    assert len(later.batches) == 1


def test_provider_batch_started_before_a_crash_is_found(shelf: Shelf, later: Later) -> None:
    def dies() -> None:
        raise SystemExit("embed.started")

    later.on_start = dies
    send = shelf.submit("", options={"batch": True})
    (read,) = shelf.take(send).sends
    (embed,) = shelf.take(read).sends
    with pytest.raises(SystemExit):
        shelf.take(embed)
    (made,) = later.batches.items()
    later.on_start = lambda: pytest.fail("made twice")
    later.is_ready = True
    shelf.db.expire(embed.step_id)
    shelf.take(embed)
    shelf.finish(send.run_id)
    assert (shelf.without_vector(), dict([made])) == (0, later.batches)


@pytest.mark.parametrize("error", [ModelUnavailable("it is away"), ValueError("what nobody expected")])
def test_provider_batch_survives_an_outage_after_a_long_wait(
    shelf: Shelf, later: Later, error: Exception
) -> None:
    send = shelf.submit("", options={"batch": True})
    shelf.carry(send)
    (embed,) = shelf.db.sql("SELECT id::text, generation FROM agno.step WHERE kind = 'embed'")
    for _ in range(MODEL.attempts):
        shelf.db.sql("UPDATE agno.step SET not_before = NULL WHERE kind = 'embed'")
        run_step(shelf.context, StepKind.EMBED, send.run_id, embed["id"], embed["generation"])
    later.is_ready, later.refuses = True, lambda _: error
    shelf.db.sql("UPDATE agno.step SET not_before = NULL WHERE kind = 'embed'")
    run_step(shelf.context, StepKind.EMBED, send.run_id, embed["id"], embed["generation"])
    later.refuses = lambda _: None
    shelf.finish(send.run_id)
    assert (shelf.without_vector(), len(later.batches)) == (0, 1)


def test_document_removed_during_a_provider_batch_does_not_affect_others(shelf: Shelf, later: Later) -> None:
    send = shelf.submit("", options={"batch": True})
    shelf.carry(send)
    shelf.knowledges.remove_documents("docs", ["b"])
    later.is_ready = True
    shelf.finish(send.run_id)
    assert shelf.chunks() == {"a": ["one", "two"]}
    assert shelf.without_vector() == 0
    assert shelf.knowledges.progress(send.run_id).to_embed == 0


# Real transactions side by side.


def test_concurrent_ingestions_do_not_deadlock_and_store_all_texts(db: RunDatabase) -> None:
    """Three workers on the same books, with the same texts under other names, changed while they are read."""
    shelves = [Shelf(db, SMALL, worker=f"w{place}") for place in range(3)]
    for version in range(6):
        books = {f"b{place}": f"text {(place * 7 + version) % 5}\n\nv{version % 2}" for place in range(12)}
        for shelf in shelves:
            shelf.books = books
        sends = [shelf.submit("") for shelf in shelves]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda shelf, send: shelf.carry(send), shelves, sends))
        for send in sends:
            shelves[0].finish(send.run_id)
        assert sorted({"\n\n".join(parts) for parts in shelves[0].chunks().values()}) == sorted(
            set(books.values())
        )
        assert {row["status"] for row in db.sql("SELECT status FROM agno.run")} == {"done"}
        assert db.sql("SELECT key, error FROM agno.step WHERE tries > 0") == []
    shelves[0].books["b0"] = "a change, after which nobody is in the way of another"
    shelves[0].run()
    assert len(shelves[0].chunks()) == len(set(shelves[0].books.values()))


# Changes of how documents are read, and of the model.


def test_changed_chunking_reads_all_documents_and_keeps_vectors_of_equal_chunks(
    shelf: Shelf,
) -> None:
    shelf.books = {"a": "one\n\ntwo", "b": "three"}
    shelf.run()
    shelf.embedder.seen.clear()
    shelf.knowledges.ensure("docs", {"chunking": {"max_chars": 100}})
    assert shelf.run()["documents"] == 2
    assert shelf.embedder.seen == []
    assert shelf.run()["unchanged"] == 2


def test_changed_metadata_is_stored_for_unchanged_text(shelf: Shelf) -> None:
    shelf.run({"uri": "a", "text": "text", "metadata": {"team": "x"}})
    shelf.run({"uri": "a", "text": "text", "metadata": {"team": "y"}})
    assert shelf.db.sql("SELECT metadata FROM agno.document") == [{"metadata": {"team": "y"}}]
    assert shelf.embedder.seen == ["text"]


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ({}, {"team": "x"}),
        ({"metadata": {}}, {}),
        ({"metadata": {"lang": "de"}}, {"lang": "de"}),
    ],
    ids=["none", "cleared", "others"],
)
@pytest.mark.parametrize("edited", [False, True])
def test_metadata_given_before_stays_unless_told(
    shelf: Shelf, then: dict[str, Any], expected: dict[str, Any], edited: bool
) -> None:
    shelf.books = {"a": "one\n\ntwo", "b": "other"}
    shelf.run("", options={"metadata": {"team": "x"}})
    shelf.run({"uri": "note", "text": "a note", "metadata": {"team": "x"}})
    shelf.books |= {"c": "new"} | ({"a": "edited\n\nnew"} if edited else {})
    shelf.fetched.clear()
    for _ in range(2):
        shelf.run("", {"uri": "note", "text": "a note"}, options=then)
    stored = shelf.db.sql("SELECT uri, metadata FROM agno.document ORDER BY uri")
    assert stored == [{"uri": uri, "metadata": expected} for uri in ("a", "b", "c", "note")]
    if not then:
        assert sorted(set(shelf.fetched) - {"note"}) == (["a", "c"] if edited else ["c"]), (
            "the others are not read again"
        )


def test_new_and_changed_documents_are_counted(shelf: Shelf) -> None:
    shelf.books = {"a": "one", "b": "two"}
    shelf.run()
    shelf.books = {"a": "edited", "b": "two", "c": "three", "d": "three", "e": " "}
    progress = shelf.knowledges.progress(_ended(shelf))
    assert (progress.new, progress.changed, progress.unchanged, progress.duplicates, progress.failed) == (1, 1, 1, 1, 1)  # fmt: skip


def test_what_a_scan_leaves_out_is_counted_by_reason(shelf: Shelf) -> None:
    shelf.books = {"a": "one"}
    find = shelf.context.find

    def leaving_out(given: Any, options: Any) -> Any:
        for place in range(5):
            options["skip"]("hidden", f".{place}")
        options["skip"]("empty", "e")
        return find(given, options)

    object.__setattr__(shelf.context, "find", leaving_out)
    progress = shelf.knowledges.progress(_ended(shelf, "a", "none", "nothing"))
    assert progress.skipped == (
        Skipped("hidden", 15, (".0", ".1", ".2")),
        Skipped("empty", 3, ("e", "e", "e")),
    )
    assert progress.unmatched == ("none", "nothing")


def test_documents_of_a_cancelled_ingestion_that_are_complete_are_counted(small: Shelf) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abcdef"}
    send = small.submit("")
    (first, *_) = small.take(send).sends
    (embed, *_) = (each for each in small.take(first).sends if each.kind == "embed")
    assert small.knowledges.complete(send.run_id) == 0
    small.take(embed)
    small.db.journal.cancel(send.run_id)
    assert (small.knowledges.complete(send.run_id), small.knowledges.progress(send.run_id).total) == (1, 6)
    small.run()
    small.books["a"] = "a new\n\na two"
    send = small.submit("")
    small.take(small.take(send).sends[0])
    assert small.knowledges.complete(send.run_id) == 5, (
        "an edited document waits for the vectors of its new version"
    )


def test_new_model_is_built_while_the_old_one_is_searched(small: Shelf) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abc"}
    small.run()
    docs = small.knowledges.get("docs")
    other = Shelf(small.db, SMALL, dimensions=16)
    other.books = small.books
    send = other.knowledges.reindex("docs").send
    assert send is not None
    (first, *_) = other.take(send).sends
    assert other.knowledges.get("docs").embedding_space_id == docs.embedding_space_id
    other.carry(first)
    other.finish(send.run_id)
    after = other.knowledges.get("docs")
    assert after.embedding_space_id != docs.embedding_space_id
    assert after.version > docs.version
    assert [space.status for space in other.knowledges.embedding_spaces(docs.id)] == ["retired", "current"]
    assert other.db.sql(
        "SELECT embedding_space_id, count(*) AS many FROM agno.chunk_embedding GROUP BY 1"
    ) == [{"embedding_space_id": after.embedding_space_id, "many": 6}]


def test_documents_ingested_while_an_embedding_space_is_built_are_in_both(small: Shelf) -> None:
    small.books = {"a": "one\n\ntwo\n\nthree\n\nfour"}
    small.run()
    other = Shelf(small.db, SMALL, dimensions=16)
    models = {shelf.embedder.name: shelf.embedder for shelf in (small, other)}
    object.__setattr__(other.context, "embedder", lambda name: models.get(name, other.embedder))
    send = other.knowledges.reindex("docs").send
    assert send is not None
    (first, *_) = other.take(send).sends
    other.books = {"b": "five"}
    sends = other.take(other.submit("b")).sends
    other.carry(*(each for each in sends if each.kind == "ingest"))
    other.finish(sends[0].run_id)
    other.carry(first)
    other.finish(send.run_id)
    assert [space.status for space in other.knowledges.embedding_spaces(other.knowledges.get("docs").id)] == [
        "retired",
        "current",
    ]
    assert other.without_vector() == 0
    assert "five" in small.embedder.seen
    assert "five" in other.embedder.seen


NOT_THERE = ModelRejected("OPENAI_API_KEY is not set.", code="not_configured")


def _ended(shelf: Shelf, *sources: Any, **asked: Any) -> str:
    """Execute an ingestion, and return its id."""
    send = shelf.submit(*sources, **asked)
    shelf.carry(send)
    shelf.finish(send.run_id)
    return send.run_id


@pytest.mark.parametrize(
    "error",
    [NOT_THERE, ModelRejected("bad key", status=401), ModelUnavailable("away")],
    ids=["no key", "bad key", "away"],
)
def test_new_model_that_does_not_work_is_not_accepted(shelf: Shelf, error: Exception) -> None:
    shelf.books = {"a": "one"}
    shelf.run()
    before = shelf.knowledges.get("docs")
    first, shelf.embedder = shelf.embedder, Counted(16)
    shelf.embedder.unusable = error
    models = shelf.knowledges.prepare("docs", {"embedder": "other"}, moves=True)
    send = shelf.knowledges.reindex("docs", models).send
    assert send is not None
    shelf.carry(send)
    shelf.finish(send.run_id)
    run = shelf.db.queries.run(send.run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert str(error) in run.error["message"]
    assert shelf.knowledges.get("docs") == before
    assert [space.model for space in shelf.knowledges.embedding_spaces(before.id)] == [first.name]
    shelf.embedder, shelf.books["b"] = first, "two"
    assert shelf.run()["embedded"] == 1, "later ingestions go on with the old model"


def test_model_with_other_dimensions_than_before_is_not_accepted(shelf: Shelf) -> None:
    shelf.books = {"a": "one"}
    shelf.run()
    name, shelf.embedder = shelf.embedder.name, Counted(16)
    shelf.embedder.name = name
    send = shelf.knowledges.reindex("docs").send
    assert send is not None
    shelf.carry(send)
    run = shelf.db.queries.run(send.run_id)
    assert run.error is not None
    assert "16 dimensions, and those that are stored have 8" in run.error["message"]


def test_first_model_is_stored_when_it_works(shelf: Shelf) -> None:
    shelf.knowledges.prepare("docs", {"embedder": "other", "description": "d"})
    assert shelf.knowledges.get("docs").options == {"description": "d"}
    shelf.books = {"a": "one"}
    shelf.run(options={"embedder": "other"})
    assert shelf.knowledges.get("docs").options["embedder"] == "other"


def test_ingestion_does_not_change_the_model_of_vectors(shelf: Shelf) -> None:
    shelf.books = {"a": "one"}
    shelf.run()
    assert shelf.knowledges.prepare("docs", {"embedder": "hash"}) == {}
    with pytest.raises(InvalidInput, match="reindex docs --embedder other"):
        shelf.knowledges.prepare("docs", {"embedder": "other"})
    assert shelf.knowledges.prepare("docs", {"embedder": "other"}, moves=True) == {"embedder": "other"}


@pytest.mark.parametrize("when", ["before the scan", "after the scan"])
def test_words_get_in_while_the_model_makes_no_vectors(small: Shelf, when: str) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abc"}
    small.run()
    small.books = {name: f"{name} one\n\n{name} new" for name in "acde"} | {"a": "a one"}
    embedder = small.context.embedder
    if when == "before the scan":
        object.__setattr__(small.context, "embedder", _raising(NOT_THERE))
    small.embedder.refuses = lambda _: NOT_THERE
    run = small.db.queries.run(_ended(small))
    assert (run.status, run.reason) == ("failed", "model_rejected")
    assert small.chunks() == {
        "a": ["a one"], "c": ["c one", "c two"], "d": ["d one", "d new"], "e": ["e one", "e new"]
    }, "b is removed, and the edited c waits with its old text"  # fmt: skip
    progress = small.knowledges.progress(run.id)
    assert (progress.settled, progress.to_embed, progress.removed) == (4, 0, 1)
    object.__setattr__(small.context, "embedder", embedder)
    small.embedder.refuses = lambda _: None
    small.run()
    assert small.chunks()["c"] == ["c one", "c new"]
    assert small.without_vector() == 0


def test_new_model_that_stops_does_not_disturb_ingestions_and_can_be_given_up(small: Shelf) -> None:
    small.books = {name: f"{name} one\n\n{name} two" for name in "abcd"}
    small.run()
    other = Shelf(small.db, SMALL, dimensions=16)
    models = {shelf.embedder.name: shelf.embedder for shelf in (small, other)}
    object.__setattr__(other.context, "embedder", lambda name: models.get(name, other.embedder))
    other.embedder.refuses = lambda texts: ModelRejected("bill", status=401) if "c one" in texts else None
    send = other.knowledges.reindex("docs", {"embedder": "other"}).send
    assert send is not None
    other.carry(send)
    run = other.db.queries.run(send.run_id)
    assert (run.status, run.reason) == ("failed", "model_rejected")
    other.books = {"e": "e one"}
    assert other.db.queries.run(_ended(other, "e")).status == "done"
    old, new = other.knowledges.embedding_spaces(other.knowledges.get("docs").id)
    assert (old.status, old.error, new.status, new.error) == ("current", None, "building", {"type": "ModelRejected", "message": "bill", "ids": {"status": 401}})  # fmt: skip
    assert small.without_vector() == 0
    with pytest.raises(InvalidInput, match=r"is moving to .*--stop"):
        other.knowledges.prepare("docs", {"embedder": "third"})
    assert other.knowledges.stop_reindex("docs") == other.embedder.name
    assert other.knowledges.stop_reindex("docs") is None
    assert other.knowledges.prepare("docs", {"embedder": small.embedder.name}) == {}
    send = other.knowledges.reindex("docs", {"embedder": "other"}).send
    assert send is not None
    other.embedder.refuses = lambda _: None
    other.carry(send)
    assert [space.status for space in other.knowledges.embedding_spaces(new.knowledge_id)] == [
        "retired",
        "current",
    ]


def _raising(error: Exception) -> Any:
    def find(*_: Any) -> Any:
        raise error

    return find


def _ids(shelf: Shelf) -> list[tuple[str, int]]:
    return [(row["content"], row["id"]) for row in shelf.db.sql("SELECT id, content FROM agno.chunk")]


# Single documents.


def test_documents_are_listed_page_by_page_and_by_a_filter(shelf: Shelf) -> None:
    shelf.books = {name: f"text {name}" for name in "abc"}
    shelf.run("", {"uri": "note", "text": "a note", "metadata": {"year": 2026}})
    docs = shelf.knowledges.get("docs").id

    def uris(**asked: Any) -> list[str]:
        return [row.uri for row in shelf.knowledges.documents(docs, **asked)]

    assert uris() == ["a", "b", "c", "note"]
    assert uris(after="a", limit=2) == ["b", "c"]
    assert uris(filters={"year": {"gte": 2026}}) == uris(filters={"uri": "note"}) == ["note"]
    assert uris(filters={"not": {"year": 2026}}, limit=2) == ["a", "b"]


def test_chunks_of_a_document_are_shown_with_what_they_lack(shelf: Shelf) -> None:
    shelf.books = {"dir/a": "one\n\nbad", "dir/b": "one\n\nbad"}
    shelf.embedder.refuses = lambda texts: ModelRejected("no", status=400) if "bad" in texts else None
    shelf.run("dir")
    chunks = shelf.knowledges.chunks("docs", "dir/a")
    assert [(each.content, each.has_vector, each.refused) for each in chunks] == [("one", True, None), ("bad", False, "no")]  # fmt: skip
    assert shelf.knowledges.chunks("docs", "dir/b") == chunks, "a duplicate has those of its original"
    assert shelf.knowledges.chunks("docs", shelf.knowledges.document("docs", "dir/a").id) == chunks
    with pytest.raises(InvalidInput, match="Did you mean 'dir/a'"):
        shelf.knowledges.chunks("docs", "/other/a")


def test_documents_are_removed_by_name_id_and_filter(shelf: Shelf) -> None:
    shelf.books = {name: f"text {name}" for name in "abcd"} | {"e": "text d"}
    shelf.run("", {"uri": "note", "text": "a note", "metadata": {"year": 2026}})
    remove, c = shelf.knowledges.remove_documents, shelf.knowledges.document("docs", "c").id
    assert remove("docs", ["a", c, "none"], {"year": 2026}, dry_run=True) == ["a", "c", "note"]
    assert len(shelf.chunks()) == 5
    for wrong in ({"yaer": 2026}, {"not": {"yaer": 2026}}, {"year": "2026"}):
        with pytest.raises(InvalidInput, match="Nothing was removed"):
            remove("docs", ["a"], wrong)
    with pytest.raises(InvalidInput, match="no document is named"):
        remove("docs")
    assert remove("docs", ["a", c, "d", "none"], {"year": 2026}) == ["a", "c", "d", "note"]
    assert shelf.chunks() == {"b": ["text b"], "e": ["text d"]}


# Many that are alike: what one more costs must not grow with them.


def test_text_of_all_documents_is_looked_up_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.books = {f"a{place}": f"own {place}\n\nthe footer of all" for place in range(30)}
    shelf.run()
    sizes: list[int] = []

    def sized(connection: Any, statement: str, params: Any = None) -> list[Any]:
        rows = execute(connection, statement, params)
        sizes.extend(len(value) for value in (rows, *(params or {}).values()) if isinstance(value, list))
        return rows

    monkeypatch.setattr(editions, "execute", sized)
    shelf.books |= {f"b{place}": f"other {place}\n\nthe footer of all" for place in range(30)}
    shelf.run()
    assert max(sizes) <= 60
    assert shelf.embedder.seen.count("the footer of all") <= 30
    assert shelf.without_vector() == 0


def test_listing_many_near_duplicates_compares_each_with_the_first_ones_only(shelf: Shelf) -> None:
    shelf.books = {f"a{place:03}": f"alike {place}" for place in range(120)}
    shelf.run()
    assert {of for _, of in duplicates(shelf, 1000)} == {"a000"}
    asked = {"knowledge_id": shelf.knowledges.get("docs").id, "near_bands": NEAR_BANDS, "limit": 1000}
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statements('knowledge/store/stats')['duplicates']}"
    ((plan,),) = (row.values() for row in shelf.db.sql(explain, **asked))
    assert max(_rows(plan[0]["Plan"])) <= 16 * 120 * 32


def _rows(plan: dict[str, Any]) -> Iterator[float]:
    """How many rows went through each node of a plan."""
    yield plan["Actual Rows"] * plan["Actual Loops"]
    for below in plan.get("Plans", ()):
        yield from _rows(below)


def test_concurrent_calls_schedule_one_finalize_step(shelf: Shelf) -> None:
    shelf.books = {"a": "one"}
    pending = [shelf.submit("")]
    while pending[0].kind != "finalize":
        pending = [*shelf.take(pending[0]).sends, *pending[1:]]
    with ThreadPoolExecutor(3) as callers:
        for _ in range(60):
            shelf.db.sql("DELETE FROM agno.outbox")
            shelf.db.sql("DELETE FROM agno.step WHERE kind = 'finalize'")
            sends = list(callers.map(shelf.ingest.schedule_next, [pending[0].run_id] * 3))
            assert sum(map(len, sends)) == 1


def test_run_that_stands_for_an_ingestion_has_its_counts(shelf: Shelf) -> None:
    shelf.books = {"a": "one", "b": "two"}
    first = shelf.submit("", idempotency_key="k")
    own_id = str(uuid.uuid4())
    options = {"idempotency_key": "k", "run_id": own_id}
    request = ingestion_request("docs", ["books"], options, canvas=Canvas(root_id=own_id))
    shelf.db.database.submissions.submit(request)
    shelf.finish(first.run_id)
    counts = [shelf.db.queries.run(run_id).content for run_id in (first.run_id, own_id)]
    assert counts[0] == counts[1]
    assert counts[0]["documents"] == 2
