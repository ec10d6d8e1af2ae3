"""Knowledge bases and their ingestions from outside: what is submitted, what is known, what is gone."""

from __future__ import annotations

import pytest

from agno_workers.errors import InvalidInput, RunNotFound, UnknownKnowledge
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.types import Knowledge, SearchConfig, as_options, from_options
from agno_workers.sdk.handles import RunHandle
from tests.database import RunDatabase, claimed, unknown_id


@pytest.fixture
def knowledges(db: RunDatabase) -> KnowledgeBases:
    return db.database.knowledge


def test_knowledge_base_is_created_once_and_new_options_override_stored_ones(
    knowledges: KnowledgeBases,
) -> None:
    made = knowledges.ensure("docs", {"embedder": "hash:8", "description": "d"})
    assert knowledges.ensure("docs") == made
    assert knowledges.ensure("docs", {"embedder": "hash:16"}).options == {
        "embedder": "hash:16",
        "description": "d",
    }
    assert knowledges.get("docs").id == made.id
    assert [row.name for row in knowledges.all()] == ["docs"]


def test_unknown_knowledge_base_suggests_similar_names(knowledges: KnowledgeBases) -> None:
    knowledges.ensure("documents")
    with pytest.raises(UnknownKnowledge, match=r"'document'.*Did you mean 'documents'"):
        knowledges.get("document")
    with pytest.raises(UnknownKnowledge, match="Did you mean"):
        knowledges.submit("document", ["/tmp"])


def test_submit_to_an_unknown_knowledge_base_stores_nothing(
    db: RunDatabase, knowledges: KnowledgeBases
) -> None:
    with db.unchanged(), pytest.raises(UnknownKnowledge, match="There are none yet"):
        knowledges.submit("docs", ["/tmp"])


def test_ingestion_is_a_run_whose_first_step_is_a_scan(db: RunDatabase, knowledges: KnowledgeBases) -> None:
    knowledges.ensure("docs")
    submitted = knowledges.submit("docs", ["/tmp/a", "/tmp/b"], idempotency_key="k", metadata={"by": "me"})
    again = knowledges.submit("docs", ["/tmp/a"], idempotency_key="k")
    assert (again.run_id, again.created, again.send) == (submitted.run_id, False, None)
    send = claimed(submitted.send)
    assert (send.kind, send.queue) == ("scan", "knowledge")
    run = db.queries.run(submitted.run_id)
    assert (run.agent, run.status, run.metadata) == ("knowledge:docs", "queued", {"by": "me"})
    progress = knowledges.progress(submitted.run_id)
    assert (progress.knowledge, progress.scanned, progress.total) == ("docs", False, 0)
    assert [ingested.run_id for ingested in knowledges.ingestions(knowledges.get("docs").id)] == [
        submitted.run_id
    ]


def test_submit_commits_with_the_callers_transaction(db: RunDatabase, knowledges: KnowledgeBases) -> None:
    knowledges.ensure("docs")
    with (
        db.unchanged(),
        db.pool.connection() as connection,
        connection.transaction(force_rollback=True),
    ):
        assert knowledges.submit("docs", ["text"], connection=connection).created


def test_progress_of_an_unknown_ingestion_is_not_found(db: RunDatabase, knowledges: KnowledgeBases) -> None:
    for run_id in (unknown_id(), db.submit().run_id):
        with pytest.raises(RunNotFound, match="knowledge show"):
            knowledges.progress(run_id)


def test_first_embedding_space_is_searched_and_the_next_one_is_built(knowledges: KnowledgeBases) -> None:
    docs = knowledges.ensure("docs")
    first = knowledges.ensure_embedding_space(docs.id, "hash:8", 8)
    assert knowledges.ensure_embedding_space(docs.id, "hash:8", 8) == first
    assert first.status == "current"
    assert knowledges.get("docs").embedding_space_id == first.id
    assert knowledges.ensure_embedding_space(docs.id, "hash:16", 16).status == "building"
    assert knowledges.get("docs").embedding_space_id == first.id


def test_removing_a_knowledge_base_ends_its_ingestions(db: RunDatabase, knowledges: KnowledgeBases) -> None:
    knowledges.ensure("docs")
    submitted = knowledges.submit("docs", ["/tmp"])
    knowledges.remove("docs")
    assert db.queries.run(submitted.run_id).status == "cancelled"
    assert db.count("ingestion") == 0
    with pytest.raises(UnknownKnowledge):
        knowledges.get("docs")


def test_ingestion_can_not_be_forked_or_retried(db: RunDatabase, knowledges: KnowledgeBases) -> None:
    knowledges.ensure("docs")
    submitted = knowledges.submit("docs", ["/tmp"])
    with db.unchanged():
        assert not db.journal.retry_run(submitted.run_id)
        with pytest.raises(InvalidInput, match="cannot be forked"):
            db.journal.fork(claimed(submitted.send).step_id)
        handle = RunHandle(submitted.run_id, db.database)
        for at in (None, "scan:1"):
            with pytest.raises(InvalidInput, match="is of kind ingestion and has no transcript to fork"):
                handle.fork(at)


def test_omitted_embedder_keeps_the_stored_one(
    knowledges: KnowledgeBases,
) -> None:
    knowledges.ensure("docs", {"embedder": "hash:8", "vision": "openai:gpt-5", "description": "of people"})
    kept = knowledges.ensure(
        "docs", as_options(Knowledge("docs", search_config=SearchConfig(max_results=3)))
    ).options
    assert kept == {
        "embedder": "hash:8", "vision": "openai:gpt-5", "description": "of people", "search_config": {"max_results": 3},
    }  # fmt: skip
    assert (
        knowledges.ensure("docs", as_options(Knowledge("docs", embedder="local"))).options["embedder"]
        == "local"
    )
    assert from_options("docs", kept) == Knowledge(
        "docs",
        embedder="hash:8",
        vision="openai:gpt-5",
        description="of people",
        search_config=SearchConfig(max_results=3),
    )
