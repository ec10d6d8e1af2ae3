"""Notes are decided once, alike questions are counted together, feedback adds up, and what a run was given stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from agno_workers.knowledge.store.feedback import Count, FeedbackStore, normalised
from agno_workers.knowledge.store.stats import KnowledgeStats
from agno_workers.knowledge.types import Note, SearchResult
from tests.database import RunDatabase

NOTE = Note("Fences", "A fence holds back the late.", "ann", 0.4, author="reader")


@pytest.fixture
def feedback(db: RunDatabase) -> FeedbackStore:
    db.sql("INSERT INTO agno.knowledge (name) VALUES ('docs'), ('other')")
    return FeedbackStore(db.pool)


@pytest.fixture
def chunk(feedback: FeedbackStore, db: RunDatabase) -> int:
    db.sql(
        "INSERT INTO agno.document (knowledge_id, uri) SELECT id, 'file:///a' FROM agno.knowledge WHERE name = 'docs'"
    )
    db.sql("""
        INSERT INTO agno.chunk (knowledge_id, document_id, version, position, live, hash, content, start_at, end_at, tokens, language)
        SELECT knowledge_id, id, 1, 0, true, sha256('x'), 'text', 0, 4, 1, 'english' FROM agno.document""")
    return int(db.value("SELECT max(id) FROM agno.chunk"))


def keep(db: RunDatabase, feedback: FeedbackStore, note: Note = NOTE, knowledge: str = "docs") -> int | None:
    with db.pool.connection() as connection, connection.transaction():
        return feedback.add_review_note(knowledge, note, connection)


def decide(db: RunDatabase, feedback: FeedbackStore, id: int, knowledge: str = "docs") -> object:
    with db.pool.connection() as connection, connection.transaction():
        return feedback.decide_note(knowledge, id, "approved", connection, by="bob", note="yes")


def test_note_is_decided_once(db: RunDatabase, feedback: FeedbackStore) -> None:
    kept_id = keep(db, feedback)
    assert kept_id is not None
    assert decide(db, feedback, kept_id, "other") is None  # it is not theirs
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: decide(db, feedback, kept_id), range(4)))
    assert sum(each is not None for each in said) == 1
    assert feedback.notes("docs") == []
    (kept,) = feedback.notes("docs", None)
    assert (kept.status, kept.decided_by, kept.note, kept.author) == ("approved", "bob", "yes", "reader")
    assert kept.decided_at is not None


def test_rolled_back_note_is_not_stored(db: RunDatabase, feedback: FeedbackStore) -> None:
    with db.pool.connection() as connection, connection.transaction(force_rollback=True):
        assert feedback.add_review_note("docs", NOTE, connection)
    assert feedback.notes("docs") == []


def test_note_for_an_unknown_knowledge_base_is_not_stored(db: RunDatabase, feedback: FeedbackStore) -> None:
    assert keep(db, feedback, knowledge="nothing") is None


def test_equal_questions_are_counted_together_most_frequent_first(feedback: FeedbackStore) -> None:
    for question, score in (("How?", None), ("What  IS it?", 0.1), ("what is it", 0.2)):
        feedback.note_gap("docs", question, score)
    assert [(gap.question, gap.asked, gap.best_score) for gap in feedback.gaps("docs")] == [
        ("what is it", 2, 0.2),
        ("how", 1, None),
    ]
    assert feedback.gaps("other") == []
    feedback.note_gap("nothing", "how", None)  # is nobody's
    assert feedback.forget_gap("docs", "HOW ?")
    assert not feedback.forget_gap("docs", "how")
    assert len(feedback.gaps("docs")) == 1


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What  is\n it ?", "what is it"),
        ("Straße…", "strasse"),
        ("?!", ""),
        ("x" * 5000, "x" * 500),
        ("1.5", "1.5"),
    ],
)
def test_question_is_normalised(question: str, said: str) -> None:
    assert normalised(question) == said


def test_question_of_any_length_is_a_valid_key(feedback: FeedbackStore) -> None:
    feedback.note_gap("docs", "\U0001f511" * 5000, None)
    assert len(feedback.gaps("docs")) == 1


def test_concurrent_feedback_adds_up_and_deleted_chunks_are_skipped(
    db: RunDatabase, feedback: FeedbackStore, chunk: int
) -> None:
    counts = [Count(chunk, used=1, cited=1), Count(chunk, used=1), Count(-1, up=1)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: feedback.count(counts), range(8))) == [1] * 8
    feedback.count([Count(chunk, up=1), Count(chunk, down=2)])
    (row,) = db.pool.run("SELECT used, cited, up, down FROM agno.feedback")
    assert row == {"used": 16, "cited": 8, "up": 1, "down": 2}
    assert feedback.count([]) == 0


def test_first_stored_results_of_a_message_win(db: RunDatabase, feedback: FeedbackStore) -> None:
    run_id = db.submit().run_id
    one, other = [SearchResult(1, 1, "u", "one", 1.0)], [SearchResult(2, 1, "u", "other", 1.0)]
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda hits: feedback.ground(run_id, 0, hits), [one, other] * 4))
    assert kept == [kept[0]] * 8
    assert feedback.ground(run_id, 2, []) == []
    assert feedback.grounded(run_id) == {0: kept[0], 2: []}
    db.sql("DELETE FROM agno.run")
    assert feedback.grounded(run_id) == {}


def test_stats_count_documents_chunks_and_vectors(
    db: RunDatabase, feedback: FeedbackStore, chunk: int
) -> None:
    keep(db, feedback)
    feedback.note_gap("docs", "how", None)
    overview = KnowledgeStats(db.pool)
    docs, other = overview.bases()
    assert (docs.documents, docs.chunks, docs.vectors, docs.notes, docs.gaps, docs.model) == (
        1,
        1,
        0,
        1,
        1,
        None,
    )
    assert (other.documents, other.chunks, other.updated_at) == (0, 0, None)
    assert [base.name for base in overview.bases("docs")] == ["docs"]
    assert [(origin.origin, origin.documents) for origin in overview.origins("docs")] == [("", 1)]
    assert overview.searched("nothing") is None

    db.sql(
        "INSERT INTO agno.embedding_space (knowledge_id, model, dimensions) SELECT id, 'hash:8', 8 FROM agno.knowledge WHERE name = 'docs'"
    )
    (unfinished,) = overview.unfinished()
    assert (unfinished.knowledge, unfinished.model, unfinished.vectors, unfinished.chunks) == (
        "docs",
        "hash:8",
        0,
        1,
    )


@pytest.mark.parametrize(("minutes", "stuck"), [(0, []), (5, ["no_step"])])
def test_ingestion_between_two_steps_is_stuck_only_after_a_while(
    db: RunDatabase, feedback: FeedbackStore, minutes: int, stuck: list[str]
) -> None:
    db.sql(
        "INSERT INTO agno.run (id, agent, status, queue) VALUES (agno.uuid7(), 'knowledge:docs', 'running', 'knowledge')"
    )
    db.sql(
        """INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, seq, max_attempts, ended_at)
           SELECT agno.uuid7(), id, 0, 'scan', 'scan', 'done', 'knowledge', 1, 3, now() - make_interval(mins => %(minutes)s) FROM agno.run""",
        minutes=minutes,
    )
    minute = timedelta(minutes=1)
    assert [each.what for each in db.queries.stuck(unclaimed=minute, overdue=minute, person=minute)] == stuck
