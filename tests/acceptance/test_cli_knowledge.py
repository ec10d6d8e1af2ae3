"""`ingest`, `search` and `knowledge` as people type them, and agents that use what was brought in; real servers, real workers."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from celery import chord

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from tests import invariants
from tests.acceptance.terminal import StartProgram, Type, Typed, programs
from tests.agents import echo, handbook
from tests.conftest import StartWorker, Worker
from tests.fakes import embeddings
from tests.fakes.documents import picture
from tests.fakes.provider import running

WAIT_S = 60
LEASES = """# Leases

A lease is the right of one worker to carry one step for some seconds.

## Renewal

A worker renews its leases every five seconds, all of them with one statement, so that a busy child can not starve it.
"""
BARRIERS = """# Barriers

A barrier counts the tool calls of one turn down; at zero, the next turn is written in the same transaction.
"""


@pytest.fixture
def start_program(environment: dict[str, str], tmp_path: Path) -> Iterator[StartProgram]:
    yield from programs({**environment, "AGNO_STATE_DIR": str(tmp_path / "state")})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "leases.md").write_text(LEASES)
    (docs / "barriers.md").write_text(BARRIERS)
    return docs


@pytest.fixture
def librarian(keep_worker: StartWorker) -> Worker:
    """A worker for documents, as the Procfile has it."""
    return keep_worker(queues="knowledge", pool="prefork", concurrency=1)


@pytest.fixture
def brought_in(type_: Type, librarian: Worker, folder: Path) -> str:
    """The handbook of tests/agents.py, with two documents in it; the id of their ingestion."""
    ingested = type_("ingest", str(folder), "--knowledge", "handbook", "--wait", "--json")
    assert ingested.status == 0, ingested.err
    return str(ingested.json["run_id"])


# Bringing in, and what is there then.


def test_rows_of_a_file_are_documents(type_: Type, librarian: Worker, tmp_path: Path) -> None:
    file = tmp_path / "shop.csv"
    file.write_text(
        "sku,name,about,price\nA1,Wallaby,Red bicycle with bells,10\nB2,Potoroo,Blue bicycle,90\n"
    )
    asked = ("ingest", str(file), "--knowledge", "docs", "--embedder", "hash:384", "--rows", "--id", "sku")
    stored = type_(*asked, "--text", "about", "--title", "name", "--metadata", "price,team=shop", "--wait")
    assert (stored.status, stored.err) == (0, "")
    (hit,) = type_("search", "docs", "bicycle", "--filter", 'price={"lt": 50}', "--json").json
    assert (hit["uri"], hit["title"]) == (f"file://{file}#A1", "Wallaby")
    assert hit["metadata"] == {"price": 10, "team": "shop"}
    wrong = type_(*asked, "--text", "abuot", "--wait")
    assert wrong.status != 0
    assert "did you mean 'about'?" in wrong.err
    assert "with all vectors" not in wrong.out
    assert "Wallaby" in type_("knowledge", "chunks", "docs", f"{file}#A1").out
    assert f"Did you mean 'file://{file}#A1'" in type_("knowledge", "chunks", "docs", str(file)).err
    assert type_(*asked, "--text", "about", "--metadata", '{"team": "x"}', "--wait").status == 0
    assert type_("search", "docs", "bicycle", "--json").json[0]["metadata"] == {"team": "x"}
    assert type_(*asked, "--text", "about", "--metadata", "{}", "--wait").status == 0
    unfiltered = type_("search", "docs", "bicycle", "--filter", "team=x")
    assert "warning: filter 'team': no document of 'docs' has this field" in unfiltered.err
    assert type_("ingest", str(file), "--knowledge", "docs", "--id", "sku").err.count("--rows") == 1


def test_a_folder_is_brought_in_searched_and_brought_in_again_for_nothing(
    type_: Type, librarian: Worker, folder: Path
) -> None:
    asked = (
        "ingest",
        str(folder),
        "--knowledge",
        "docs",
        "--embedder",
        "hash:384",
        "--metadata",
        "team=core",
    )
    first = type_(*asked, "--wait")
    assert (first.status, first.err) == (0, "")
    assert re.search(
        r"^docs done in .*: 2 of 2 documents \(2 new\), (\d) chunks, \1 of \1 vectors$",
        first.out,
        re.MULTILINE,
    )

    found = type_("search", "docs", "renewal of leases", "--max-results", "1")
    assert found.status == 0
    assert "Leases > Renewal" in found.out
    assert "leases.md" in found.out
    (hit,) = type_("search", "docs", "renewal of leases", "--max-results", "1", "--json").json
    assert hit["uri"].endswith("leases.md")
    assert hit["metadata"]["team"] == "core"
    assert {"vector", "keyword"} <= set(hit["scores"])

    again = type_(*asked, "--wait", "--json")
    assert again.status == 0
    assert (again.json["unchanged"], again.json["documents"], again.json["embedded"]) == (2, 0, 0)

    (folder / "barriers.md").write_text(BARRIERS.replace("zero", "nought"))
    (folder / "leases.md").unlink()
    (folder / ".secret.md").write_text("Nobody reads this.")
    edited = type_(*asked[:-2], "--wait")
    assert (edited.status, "1 of 1 document" in edited.out) == (0, True)
    assert "(1 changed, 1 removed)" in edited.out
    assert "1 skipped (hidden): .secret.md" in edited.out
    (hit,) = type_("search", "docs", "nought", "--json").json
    assert hit["uri"].endswith("/barriers.md")
    assert hit["metadata"]["team"] == "core", "metadata stays without --metadata"


def test_filters_use_the_types_of_front_matter(type_: Type, librarian: Worker, tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text(
        "---\nyear: 2031\ndraft: false\ntags: [tide]\n---\nThe tide of the bay.\n"
    )
    (tmp_path / "old.md").write_text(
        "+++\nyear = 2019\ndraft = false\ndate = 2019-05-01\n+++\nThe old tide.\n"
    )
    (tmp_path / "draft.md").write_text("---\nyear: 2031\ndraft: true # not yet\n---\nA tide to be.\n")
    assert (
        type_("ingest", str(tmp_path), "--knowledge", "docs", "--embedder", "hash:384", "--wait").status == 0
    )

    def found(*filters: str) -> set[str]:
        options = [word for each in filters for word in ("--filter", each)]
        hits = type_("search", "docs", "tide", "--search-type", "keyword", "--json", *options).json
        return {Path(hit["uri"]).name for hit in hits}

    assert found("draft=false") == {"new.md", "old.md"}
    assert found('not={"draft": true}', 'year={"gte": 2024}') == {"new.md"}
    assert found('date={"lt": "2020-01-01"}') == {"old.md"}
    assert found("tags=tide") == {"new.md"}


def test_images_are_described_by_the_model_that_was_named_once(
    type_: Type, start_worker: StartWorker, folder: Path
) -> None:
    (folder / "coast.png").write_bytes(picture("say A lighthouse stands on a cliff."))
    asked = ("ingest", str(folder), "--knowledge", "docs", "--wait", "--json")
    with running() as provider:
        start_worker(queues="knowledge", pool="prefork", concurrency=1, **provider.env())
        first = type_(*asked, "--embedder", "hash:384", "--vision", "openai:gpt-5")
        assert (first.status, first.json["documents"]) == (0, 3), first.err
        (hit,) = type_("search", "docs", "lighthouse", "--search-type", "keyword", "--json").json
        assert hit["uri"].endswith("/coast.png")
        (folder / "coast.png").touch()
        assert type_(*asked).json["unchanged"] == 3
        assert len(provider.requests()) == 1
        assert "described by openai:gpt-5" in type_("knowledge", "show", "docs").out
        assert type_(*asked, "--vision", "none").json["documents"] == 3
        assert type_("search", "docs", "lighthouse", "--search-type", "keyword", "--json").json == []
    refused = type_(*asked, "--vision", "opnai:gpt-5")
    assert (refused.status, "openai" in refused.err) == (2, True)


@pytest.mark.parametrize("search_type", ["hybrid", "vector", "keyword"])
def test_each_mode_finds_and_a_filter_narrows(type_: Type, brought_in: str, search_type: str) -> None:
    first = type_("search", "handbook", "a barrier counts down", "--search-type", search_type, "--json").json[
        0
    ]
    assert first["uri"].endswith("barriers.md")
    none = type_(
        "search", "handbook", "a barrier counts down", "--search-type", search_type, "--filter", "team=none"
    )
    assert (none.status, none.out) == (0, "No results in handbook. Try without --filter.\n")


def test_what_there_is_is_listed_and_shown_and_removed(
    type_: Type, brought_in: str, database_url: str
) -> None:
    (listed,) = type_("knowledge", "ls", "--json").json
    assert (listed["name"], listed["documents"], listed["model"]) == ("handbook", 2, "hash:384")
    assert listed["vectors"] == listed["chunks"] > 0
    assert re.search(r"^handbook +2 ", type_("knowledge", "ls").out, re.MULTILINE)
    shown = type_("knowledge", "show", "handbook").out
    assert "hash:384 (384)" in shown
    assert brought_in in shown
    report = {finding["about"]: finding["text"] for finding in type_("doctor", "--json").json}
    assert report["knowledge"] == "1 knowledge base, 2 documents, all vectors complete"

    assert type_("knowledge", "duplicates", "handbook").out == "No duplicates in handbook.\n"
    assert type_("knowledge", "rm", "handbook", "--yes").out == "Removed handbook.\n"
    assert type_("knowledge", "ls").out.startswith("No knowledge bases")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM agno.chunk").fetchone() == (0,)


def test_what_can_not_be_read_is_told_with_its_reason_and_the_rest_is_in(
    type_: Type, librarian: Worker, folder: Path
) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of a PDF follows")
    ingested = type_("ingest", str(folder), "--knowledge", "docs", "--embedder", "hash:384", "--wait")
    assert ingested.status == 1
    assert "3 of 3 documents (2 new, 1 failed)" in ingested.out
    assert re.search(r"✗ file://\S+broken\.pdf: \S+", ingested.out)
    (run_id,) = re.findall(r"agno-workers knowledge retry (\S+)", ingested.out)
    failures = type_("knowledge", "failures", run_id)
    assert failures.status == 1
    assert "broken.pdf" in failures.out
    assert type_("search", "docs", "leases", "--json").json

    (folder / "broken.pdf").write_bytes(b"")
    (folder / "broken.pdf").unlink()
    (folder / "broken.pdf").write_text(
        "Now it is plain text about fences, whatever its name says, and long enough."
    )
    again = type_("knowledge", "retry", run_id, "--wait", "--json")
    assert again.json["total"] == 1


def test_ingestion_without_vectors_reports_them_everywhere(
    type_: Type, librarian: Worker, folder: Path
) -> None:
    for path in folder.iterdir():
        path.write_text(f"{path.name} is about leases. fault:400")
    with embeddings.running() as provider:
        asked = ("ingest", str(folder), "-k", "docs", "--wait", "--embedder", f"compatible:{provider.url}/v1#any@384")  # fmt: skip
        none = type_(*asked)
        assert none.status == 1
        assert re.search(r"^docs failed in .*: 2 of 2 documents \(2 new\), 2 chunks, 0 of 2 vectors$", none.out, re.MULTILINE)  # fmt: skip
        assert "2 chunks without a vector, which only keyword search finds:" in none.out
        assert len(re.findall(r"✗ file://\S+\.md: chunk 0: .*You asked for a 400", none.out)) == 2
        said = "2 of 2 chunks have no vector of compatible"
        assert said in " ".join(type_("knowledge", "show", "docs").out.split())
        assert re.search(r"^docs .* incomplete ", type_("knowledge", "ls").out, re.MULTILINE)
        (finding,) = (each for each in type_("doctor", "--json").json if each["about"] == "knowledge")
        assert (finding["level"], said in finding["text"]) == ("warn", True)

        (folder / "leases.md").write_text(LEASES)
        some = type_(*asked, "--json")
        assert (some.status, some.json["status"], some.json["refused"]) == (1, "done", 1)
        assert [each["type"] for each in some.json["failures"]] == ["no_vector"]


def test_sources_use_only_what_the_settings_of_the_worker_name(
    type_: Type, start_worker: StartWorker, folder: Path
) -> None:
    (folder / "link.md").symlink_to("/etc/hostname")
    none = dict.fromkeys(
        (f"AGNO_KNOWLEDGE__SOURCE_{each}" for each in ("VARIABLES", "DATABASES", "OBJECTS")), ""
    )
    start_worker(
        queues="knowledge", pool="prefork", concurrency=1, **none, AGNO_KNOWLEDGE__SOURCE_ROOTS=str(folder)
    )

    def ingest(source: object) -> Typed:
        given = source if isinstance(source, str) else json.dumps(source)
        return type_("ingest", given, "-k", "docs", "--embedder", "hash:384", "--wait")

    allowed = ingest({"path": str(folder), "follow_links": True})
    assert (allowed.status, "3 of 3 documents (2 new, 1 failed)" in allowed.out) == (1, True)
    assert re.search(r"link\.md.* lies outside of the folders", allowed.out)
    api = {"api": "https://api.example.com/", "id": "id", "text": "x", "headers_env": {"X-Key": "HOME"}}
    query = {"database": "PATH", "query": "SELECT 1", "id": "id", "text": "x"}
    for source, setting in {
        "/etc/hostname": "source_roots",
        f"file://{folder}{'/..' * 20}/etc/hostname": "source_roots",
        json.dumps(api): "source_variables",
        json.dumps(query): "source_databases",
        "s3://library/": "source_objects",
    }.items():
        refused = ingest(source)
        assert refused.status == 2
        assert f"knowledge.{setting} (AGNO_KNOWLEDGE__{setting.upper()})" in refused.err
    (run, *_) = type_("runs", "ls", "--json").json
    listed = type_("knowledge", "failures", run["run"]["id"])
    assert (listed.status, listed.out, listed.err) == (2, "", refused.err), "it failed as a whole"
    nothing = ingest(f"{folder}/*.none")
    assert (nothing.status, f"No documents were found in {folder}/*.none" in nothing.out) == (1, True)


def test_a_new_model_takes_over_when_all_its_vectors_are_there(
    type_: Type, librarian: Worker, folder: Path
) -> None:
    type_("ingest", str(folder), "--knowledge", "docs", "--embedder", "hash:384", "--wait")
    moved = type_("knowledge", "reindex", "docs", "--embedder", "hash:128", "--wait", "--json")
    assert moved.status == 0, moved.err
    (listed,) = type_("knowledge", "ls", "--json").json
    assert (listed["model"], listed["vectors"]) == ("hash:128", listed["chunks"])
    assert type_("search", "docs", "leases", "--search-type", "vector", "--json").json


def test_new_model_is_checked_by_a_worker_before_it_is_stored(
    type_: Type, librarian: Worker, folder: Path
) -> None:
    ingest = ("ingest", str(folder), "-k", "docs", "--embedder")
    assert type_(*ingest, "hash:384", "--wait").status == 0
    openai = "openai:text-embedding-3-small"
    for asked in (
        ("knowledge", "reindex", "docs", "--embedder", openai),
        ("ingest", str(folder), "-k", "other", "--embedder", openai),
    ):
        refused = type_(*asked)
        assert (refused.status, refused.err.count("\n")) == (2, 1)
        assert "OPENAI_API_KEY is not set" in refused.err
        assert "keeps the models that it had" in refused.err
    refused = type_(*ingest, "hash:128")
    assert (refused.status, "`agno-workers knowledge reindex docs --embedder hash:128`" in refused.err) == (2, True)  # fmt: skip

    (folder / "bill.md").write_text("Nobody has paid the bill. fault:401")
    assert type_("ingest", str(folder), "-k", "docs", "--wait").status == 0
    with embeddings.running() as provider:
        moved = type_("knowledge", "reindex", "docs", "--embedder", f"compatible:{provider.url}/v1#any@384", "--wait")  # fmt: skip
    assert (moved.status, "You asked for a 401" in moved.err) == (2, True)
    shown = " ".join(type_("knowledge", "show", "docs").out.split())
    assert "Moving to compatible:" in shown
    assert "and stopped: " in shown
    assert "searches use hash:384 until it is complete" in shown
    assert type_("knowledge", "reindex", "docs", "--stop").out.startswith("Gave up compatible:")
    assert "Moving" not in type_("knowledge", "show", "docs").out
    assert type_("ingest", str(folder), "-k", "docs", "--wait").status == 0


def test_without_a_worker_it_says_so_and_ctrl_c_leaves_it_waiting(
    start_program: StartProgram, type_: Type, folder: Path, start_worker: StartWorker
) -> None:
    ingesting = start_program("ingest", str(folder), "-k", "docs", "--embedder", "hash:384", "--wait")
    assert "the ingestion waits" in ingesting.wait_for("No worker listens to the queue 'knowledge'")
    report = type_("doctor")
    assert re.search(r"fail +queues +No worker consumes the queue 'knowledge' \(1 step, waiting", report.out)
    ingesting.signal(signal.SIGINT)
    line = ingesting.wait_for("The ingestion continues")
    assert ingesting.end() == 130
    (run_id,) = re.findall(r"knowledge watch (\S+)`", line)

    start_worker(queues="knowledge", pool="prefork", concurrency=1)
    watched = type_("knowledge", "watch", run_id, "--json")
    assert (watched.status, watched.json["status"], watched.json["documents"]) == (0, "done", 2)


def test_single_documents_are_added_listed_shown_and_removed(
    type_: Type, librarian: Worker, tmp_path: Path
) -> None:
    note = tmp_path / "note.md"
    note.write_text("# Doors\n\nThe door of the archive is green.\n")
    kept = ("knowledge", "add", "docs", "--metadata", "year=2026", "--wait")
    assert type_(*kept, "--file", str(note)).status == 0
    assert type_(*kept, "The gate is red.", "--uri", "text:gate", "--title", "Gate").status == 0
    listed = type_("knowledge", "documents", "docs", "--filter", "year=2026", "--json").json
    assert [(each["uri"], each["media_type"]) for each in listed] == [("text:gate", "text/plain"), ("text:note.md", "text/markdown")]  # fmt: skip
    assert "text:note.md" in type_("knowledge", "documents", "docs").out
    shown = type_("knowledge", "chunks", "docs", "text:note.md").out
    assert "year=2026" in shown
    assert "The door of the archive is green." in shown
    unknown = type_("knowledge", "chunks", "docs", "gate")
    assert (unknown.status, "has no document" in unknown.err) == (2, True)

    close = type_("search", "docs", "the green door of the archive", "--min-score", "0.5", "--json")
    assert [hit["uri"] for hit in close.json] == ["text:note.md"]
    assert close.json[0]["closeness"] > 0.5
    found = type_("search", "docs", "green door").out
    assert re.search(r"cosine \d\.\d\d", found)
    assert "year=2026" in found
    misspelt = type_("search", "docs", "door", "--filter", "yaer=2026")
    assert (misspelt.status, misspelt.err) == (0, "warning: filter 'yaer': no document of 'docs' has this field. Did you mean 'year'?\n")  # fmt: skip

    remove = ("knowledge", "remove", "docs")
    assert type_(*remove, "--filter", "year=2026", "--dry-run").out == "text:gate\ntext:note.md\n2 documents would be removed.\n"  # fmt: skip
    wrong = type_(*remove, "--filter", 'not={"yaer": 2026}', "--yes")
    assert (wrong.status, "Nothing was removed" in wrong.err) == (2, True)
    assert type_(*remove, "text:gate", "--yes").out == "text:gate\nRemoved 1 document.\n"
    assert type_(*remove, "text:gate", "--yes").status == 2
    assert type_("knowledge", "add", "docs", "A gate.", "--uri", "gate", "--wait").status == 0
    assert "A gate." in type_("knowledge", "chunks", "docs", "gate").out
    assert type_(*remove, "gate", "--yes").out == "gate\nRemoved 1 document.\n"
    assert [each["uri"] for each in type_("knowledge", "documents", "docs", "--json").json] == ["text:note.md"]  # fmt: skip


# What agents and people make of it.


def test_an_agent_searches_cites_and_learns_and_a_person_approves(
    type_: Type, brought_in: str, start_worker: StartWorker, client: Client
) -> None:
    start_worker()
    asked = 'search_knowledge {"query": "how often are leases renewed?"}'
    run_id = type_("run", "reader", asked, "--json").json["run_id"]
    given = client.runs.get(run_id).references
    assert [each.n for each in given] == [1, 2, 3][: len(given)]
    assert given[0].uri.endswith("leases.md")
    assert re.search(r"^\[1\] Leases.* file://\S+leases\.md", type_("runs", "show", run_id).out, re.MULTILINE)

    note = {"title": "Fences", "text": "A fence holds back a late worker.", "source": "ann"}
    sure, unsure = (json.dumps(note | {"confidence": each}) for each in (0.9, 0.4))
    learned = type_("run", "reader", f"add_knowledge {sure}", "--json").json["run_id"]
    type_("run", "reader", f"add_knowledge {unsure}", "--json")
    with psycopg.connect(client._database.pool.url) as connection:
        row = connection.execute(
            "SELECT id FROM agno.run WHERE idempotency_key LIKE 'learned:%%' AND agent = 'knowledge:handbook'"
        ).fetchone()
    assert row is not None
    client.ingestions.get(str(row[0])).wait(timeout=WAIT_S)
    (hit,) = type_("search", "handbook", "fence", "--search-type", "keyword", "--json").json
    assert (hit["metadata"]["author"], hit["metadata"]["run_id"]) == ("reader", learned)

    (waiting,) = type_("knowledge", "review", "handbook", "--json").json
    assert (waiting["title"], waiting["author"], waiting["confidence"]) == ("Fences", "reader", 0.4)
    assert "40% sure, by reader" in type_("knowledge", "review", "handbook").out
    approved = type_("knowledge", "review", "handbook", "approve", str(waiting["id"]), "--by", "bob")
    assert approved.out == f"Approved note {waiting['id']}; it is being ingested.\n"
    assert type_("knowledge", "review", "handbook").out == "No notes of handbook wait for a review.\n"
    twice = type_("knowledge", "review", "handbook", "reject", str(waiting["id"]))
    assert (twice.status, "is not waiting: it was decided" in twice.err) == (2, True)


def test_an_agent_gets_the_best_hits_with_its_question(
    type_: Type, brought_in: str, start_worker: StartWorker, client: Client, database_url: str
) -> None:
    start_worker()
    outcome = type_("run", "informed", "what does a barrier count?", "--json").json
    assert "barriers.md" in outcome["content"]
    (reference,) = client.runs.get(outcome["run_id"]).references
    assert (reference.n, reference.cited) == (1, True)
    with psycopg.connect(database_url, autocommit=True) as connection:
        counted = "SELECT used, cited, up FROM agno.feedback"  # a worker counts after the run has ended
        invariants.until(lambda: connection.execute(counted).fetchall() == [(1, 1, 0)])


def test_questions_without_a_good_hit_are_listed_and_struck_out(type_: Type, brought_in: str) -> None:
    assert type_("knowledge", "gaps", "handbook").out.startswith("No gaps in handbook")
    for question in ("zebra crossings?", "Zebra  crossings"):
        type_("search", "handbook", question)
    (gap,) = type_("knowledge", "gaps", "handbook", "--json").json
    assert (gap["question"], gap["asked"]) == ("zebra crossings", 2)
    assert "zebra crossings" in type_("knowledge", "gaps", "handbook").out
    assert (
        type_("knowledge", "gaps", "handbook", "--forget", "Zebra crossings?").out
        == "Deleted the gap 'Zebra crossings?'.\n"
    )
    assert type_("knowledge", "gaps", "handbook", "--json").json == []


# In Python.


def test_knowledge_in_python_is_ingested_found_judged_and_removed(
    app: AgnoCelery, librarian: Worker, folder: Path
) -> None:
    job = handbook.ingest(folder, glob="l*.md", metadata={"team": "core"})
    assert (job.wait(timeout=WAIT_S).documents, job.failures()) == (1, [])
    added = handbook.add("The office is closed on Fridays.", uri="text:office", metadata={"kind": "note"})
    added.wait(timeout=WAIT_S)
    hit, *_ = handbook.search("when is the office closed?", filters={"kind": "note"})
    assert (hit.uri, hit.metadata["kind"]) == ("text:office", "note")
    assert handbook.feedback(hit, "up")
    assert [each.uri for each in handbook.similar("text:office", max_results=1)] != ["text:office"]
    assert [row.uri for row in handbook.documents()] == [f"file://{folder}/leases.md", "text:office"]
    assert handbook.remove("text:office")
    assert not handbook.remove("text:office")
    assert handbook.search("office", search_type="keyword") == []
    assert handbook.feedback(hit, "down") is False


def test_ingestions_are_parts_of_a_canvas(app: AgnoCelery, start_worker: StartWorker, folder: Path) -> None:
    start_worker(queues="agents,tools,knowledge")
    header = [handbook.s(folder / "leases.md"), handbook.s(folder / "barriers.md")]
    said = chord(header, echo.s("done")).delay().get(timeout=WAIT_S)
    assert said.count('"documents":1') == 2
    assert said.endswith("done>")


def test_a_webhook_that_calls_twice_brings_in_once(
    type_: Type, librarian: Worker, client: Client, brought_in: str
) -> None:
    pushed = [
        client.knowledge("handbook").add("crm:17", "Ann prefers mail.", idempotency_key="17-v2")
        for _ in range(2)
    ]
    assert pushed[0].id == pushed[1].id
    assert pushed[0].wait(timeout=WAIT_S).documents == 1
    assert type_("search", "handbook", "Ann", "--search-type", "keyword", "--json").json[0]["uri"] == "crm:17"
    assert [hit.uri for hit in client.knowledge("handbook").search("Ann", search_type="keyword")] == [
        "crm:17"
    ]
    assert client.knowledge("handbook").search("what does Ann prefer?")[0].uri == "crm:17"


# What people get wrong.

WRONG: dict[str, tuple[list[str], str]] = {
    "a path that is not there": (["ingest", "/nothing/here", "-k", "docs"], "does not exist"),
    "no embedder's name": (["ingest", ".", "-k", "docs", "--embedder", "lokal"], "Did you mean local?"),
    "another embedder than the code's": (
        ["ingest", ".", "-k", "handbook", "--embedder", "hash:8"],
        "in the code of AGNO_IMPORTS",
    ),
    "no name": (["ingest", ".", "-k", "a/b"], "is not a valid name of a knowledge base"),
    "no pair": (["ingest", ".", "-k", "docs", "--metadata", "team"], "write it as --metadata name=value"),
    "a name that is not there": (["search", "handbok", "x"], "Did you mean 'handbook'?"),
    "no mode": (["search", "handbook", "x", "--search-type", "fuzzy"], "choose one of hybrid, vector, keyword"),
    "an empty question": (["search", "handbook", "  "], "the query is empty"),
    "no filter": (["search", "handbook", "x", "--filter", 'year={"above": 3}'], "above"),
    "an empty one": (["search", "handbook", "x"], "'handbook' is empty: `agno-workers ingest"),
    "show of none": (["knowledge", "show", "nothing"], "there is no knowledge base 'nothing'"),
    "rm of none": (["knowledge", "rm", "nothing", "--yes"], "there is no knowledge base 'nothing'"),
    "rm without a terminal": (["knowledge", "rm", "handbook"], "Remove 'handbook' with its 0 documents and 0 vectors? Add --yes"),
    "gaps of none": (["knowledge", "gaps", "nothing"], "there is no knowledge base 'nothing'"),
    "no verdict": (["knowledge", "review", "handbook", "maybe", "1"], "use approve or reject"),
    "a verdict on nothing": (["knowledge", "review", "handbook", "approve"], "approve which note?"),
    "a note that is not there": (["knowledge", "review", "handbook", "approve", "7"], "note 7 of 'handbook' is not waiting"),
    "no ingestion": (["knowledge", "watch", "0198c0de-0000-7000-8000-000000000000"], "there is no ingestion"),
    "no id": (["knowledge", "failures", "nonsense"], "is not a run id"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_answered_in_one_sentence(type_: Type, mistake: str, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO agno.knowledge (name) VALUES ('handbook')")
    arguments, said = WRONG[mistake]
    answer = type_(*arguments)
    assert answer.status == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("agno-workers: ")
