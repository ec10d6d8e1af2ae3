"""What agents do with knowledge: search it with a tool, get it with a question, add to it; what is counted of it."""

from __future__ import annotations

import msgspec
import pytest

from agno_workers.core.agent import Agent
from agno_workers.core.run import RunStatus
from agno_workers.engine.run_turn import run_turn
from agno_workers.knowledge.service import judged
from agno_workers.knowledge.types import Knowledge, SearchResult
from agno_workers.models.scripted import Turn
from tests.integration.engine.conftest import Scenario, ScriptedReplies

DOCS = Knowledge("docs", description="How it works.")


@pytest.fixture
def chunks(scenario: Scenario) -> list[int]:
    """Three chunks of a knowledge base of that name, so that there is something to count."""
    scenario.db.sql("INSERT INTO agno.knowledge (name) VALUES ('docs')")
    scenario.db.sql(
        "INSERT INTO agno.document (knowledge_id, uri) SELECT id, 'file:///a.md' FROM agno.knowledge"
    )
    scenario.db.sql("""
        INSERT INTO agno.chunk (knowledge_id, document_id, version, position, live, hash, content, start_at, end_at, tokens, language)
        SELECT knowledge_id, id, 1, n, true, sha256(n::text::bytea), 'chunk ' || n, 0, 1, 1, 'english'
        FROM agno.document, generate_series(1, 3) n""")
    return [row["id"] for row in scenario.pool.run("SELECT id FROM agno.chunk ORDER BY position")]


def hits(chunks: list[int], vector: float = 0.8) -> list[SearchResult]:
    return [
        SearchResult(
            chunk,
            1,
            f"file:///{place}.md",
            f"chunk {place}",
            1 / (place + 1),
            title=f"Page {place}",
            scores={"vector": vector},
        )
        for place, chunk in enumerate(chunks)
    ]


def counted(scenario: Scenario, chunks: list[int]) -> list[tuple[int, int]]:
    known = {
        row["chunk_id"]: (row["used"], row["cited"])
        for row in scenario.pool.run("SELECT * FROM agno.feedback")
    }
    return [known.get(chunk, (0, 0)) for chunk in chunks]


def test_citations_of_an_agent_are_reported_and_counted(scenario: Scenario, chunks: list[int]) -> None:
    scenario.knowledge.hits = hits(chunks[:2])
    replies = ScriptedReplies(
        Turn(calls=(("search_knowledge", {"query": "what is a lease?"}),)),
        Turn(calls=(("search_knowledge", {"query": "and a fence?"}),)),
        Turn(text="A right of a worker [1], and what holds the late [102]."),
    )
    run = scenario.run(Agent(name="helper", model=replies.model, knowledge=DOCS))
    assert run.status is RunStatus.DONE
    assert scenario.knowledge.asked == ["what is a lease?", "and a fence?"]
    assert "How it works." in replies.asked[0].tools[0].description
    given = scenario.handle(run.id).references
    assert [(each.n, each.uri, each.title, each.cited) for each in given] == [
        (1, "file:///0.md", "Page 0", True),
        (2, "file:///1.md", "Page 1", False),
        (101, "file:///0.md", "Page 0", False),
        (102, "file:///1.md", "Page 1", True),
    ]
    assert counted(scenario, chunks) == [(1, 1), (1, 1), (0, 0)]


def test_results_for_a_question_are_stored_for_retried_turns(scenario: Scenario, chunks: list[int]) -> None:
    scenario.knowledge.hits = hits(chunks)
    replies = ScriptedReplies(Turn(text="[2] says so"))
    agent = Agent(
        name="helper", model=replies.model, knowledge=DOCS.context(max_results=3), instructions="Be brief."
    )
    engine, step = scenario.engine(agent), scenario.submit("helper", "What is a lease?")
    claim = scenario.db.journal.claim_turn(step.run_id, step.step_id, 0)
    assert claim is not None
    first = scenario.knowledge.service.ground([DOCS.context(max_results=3)], step.run_id, claim.numbered)
    scenario.knowledge.hits = []  # the knowledge base has changed, and then the worker dies
    scenario.db.sql("UPDATE agno.step SET lease_until = clock_timestamp() - interval '1 s'")
    run_turn(engine, step.run_id, step.step_id, 0)

    (asked,) = replies.asked
    assert asked.tools == ()
    assert asked.system.startswith("Be brief.\n\nResults from the knowledge base 'docs'")
    for hit in first:
        assert hit.content in asked.system
    assert [each.cited for each in scenario.handle(step.run_id).references] == [False, True, False]
    assert counted(scenario, chunks) == [(1, 0), (1, 1), (1, 0)]


def test_search_without_results_reports_it_and_records_a_gap(scenario: Scenario, chunks: list[int]) -> None:
    replies = ScriptedReplies(
        Turn(calls=tuple(("search_knowledge", {"query": text}) for text in ("What  is a Fence?", "what is a fence"))),
        Turn(text="I don't know."),
    )  # fmt: skip
    run = scenario.run(Agent(name="helper", model=replies.model, knowledge=DOCS))
    assert all("Nothing in 'docs' matches" in said for said in scenario.results(run.id))
    assert [(gap.question, gap.asked) for gap in scenario.knowledge.service.feedback.gaps("docs")] == [
        ("what is a fence", 2)
    ]
    assert scenario.handle(run.id).references == []


def test_confident_note_is_ingested_and_others_wait_for_a_review(
    scenario: Scenario, chunks: list[int]
) -> None:
    note = {"title": "Fences", "text": "A fence holds the late.", "source": "ann"}
    replies = ScriptedReplies(
        Turn(calls=(
            ("add_knowledge", note | {"confidence": 0.9}),
            ("add_knowledge", note | {"confidence": 0.5}),
            ("add_knowledge", note | {"confidence": 2}),
        )),
        Turn(text="Noted."),
    )  # fmt: skip
    run = scenario.run(Agent(name="helper", model=replies.model, knowledge=DOCS.with_feedback(0.8)))
    added, waits, wrong = scenario.results(run.id)
    assert ("is being added" in added, "waits for a review" in waits, "confidence" in wrong) == (
        True,
        True,
        True,
    )
    (source,) = scenario.knowledge.added
    assert source.text == "A fence holds the late."
    assert source.uri.startswith("learned:")
    assert source.metadata == {"author": "helper", "run_id": run.id, "confidence": 0.9, "source": "ann"}
    (kept,) = scenario.knowledge.service.feedback.notes("docs")
    assert (kept.title, kept.author, kept.run_id, kept.confidence) == ("Fences", "helper", run.id, 0.5)


def test_agent_without_feedback_has_no_add_tool(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    scenario.run(Agent(name="helper", model=replies.model, knowledge=DOCS))
    assert [spec.name for spec in replies.asked[0].tools] == ["search_knowledge"]


def test_note_for_an_unknown_knowledge_base_is_an_error_for_the_model(scenario: Scenario) -> None:
    note = {"title": "t", "text": "x", "source": "s", "confidence": 0.1}
    replies = ScriptedReplies(Turn(calls=(("add_knowledge", note),)), Turn(text="ok"))
    run = scenario.run(Agent(name="helper", model=replies.model, knowledge=DOCS.with_feedback()))
    assert scenario.results(run.id) == ["There is no knowledge base 'docs' yet: the note was not added."]


@pytest.mark.parametrize(
    ("alike", "said"),
    [
        ([0.2, 0.4], (0.4, False)),
        ([0.2], (0.2, True)),
        ([], (None, True)),
        ([None], (None, False)),  # found by words only: how good it is, nobody can say
        ([None, 0.1], (0.1, True)),
    ],
)
def test_question_is_a_gap_if_its_best_result_has_a_low_cosine(
    alike: list[float | None], said: tuple[float | None, bool]
) -> None:
    found = [
        SearchResult(1, 1, "u", "c", 1.0, scores={} if each is None else {"vector": each}) for each in alike
    ]
    assert judged(found, 0.3) == said


def test_search_results_are_json_with_their_uris(scenario: Scenario, chunks: list[int]) -> None:
    scenario.knowledge.hits = hits(chunks[:1])
    replies = ScriptedReplies(Turn(calls=(("search_knowledge", {"query": "x"}),)), Turn(text="ok"))
    run = scenario.run(Agent(name="helper", model=replies.model, knowledge=DOCS))
    (said,) = scenario.results(run.id)
    assert msgspec.json.decode(said) == {
        "results": [
            {"n": 1, "uri": "file:///0.md", "title": "Page 0", "content": "chunk 0", "chunk": chunks[0]}
        ]
    }


def test_agent_searches_each_of_its_knowledge_bases(scenario: Scenario, chunks: list[int]) -> None:
    scenario.db.sql("INSERT INTO agno.knowledge (name) VALUES ('wiki')")
    scenario.knowledge.hits = hits(chunks[:2])
    replies = ScriptedReplies(
        Turn(calls=(("search_knowledge_docs", {"query": "a"}), ("search_knowledge_wiki", {"query": "b"}))),
        Turn(text="Both say so [1, 4]."),
    )
    wiki = Knowledge("wiki", description="What people wrote.").tool(max_results=3)
    run = scenario.run(Agent(name="helper", model=replies.model, knowledge=[DOCS.tool(2), wiki]))
    assert run.status is RunStatus.DONE
    assert [tool.name for tool in replies.asked[0].tools] == [
        "search_knowledge_docs",
        "search_knowledge_wiki",
    ]
    given = scenario.handle(run.id).references
    assert [(each.n, each.cited) for each in given] == [(1, True), (2, False), (4, True), (5, False)]
