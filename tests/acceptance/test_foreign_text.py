"""Text of others in every field that a command or a log shows: it controls no terminal, forges no line, and JSON keeps it."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from agno_workers.core.messages import Message, Text, ToolCall
from agno_workers.core.run import WaitsFor
from agno_workers.core.step import ToolStep
from agno_workers.core.tool import Effect, Policy
from agno_workers.database.pool import Pool
from tests.acceptance.terminal import Type
from tests.conftest import StartWorker, Worker
from tests.database import FEW, RunDatabase, said

FORGED = "[2026-11-30 00:00:00,000: INFO/MainProcess] forged"
NASTY = (
    " \x1b[31mred\x1b]8;;http://evil\x07link\x1b]8;;\x07 \x9b2J \x7f \u202etxt.exe\u2066 a\u200bb\ufeffc \U000e0041"
    f" [red]markup[/red] [link=http://evil]x[/link] :smile: \r\n{FORGED}\u2028{FORGED}\x85{FORGED}"
)
OWN = {
    "alembic_version", "meta", "lexeme", "definition", "blob", "barrier", "chord_part", "task_group", "task_result", "ingest_count",
}  # fmt: skip
"""Tables that no command shows."""
KEPT = {
    "kind", "status", "effect", "waits_for", "key", "tenant", "language", "fingerprint", "model", "pool", "event",
    "type", "role", "needs", "on_timeout", "on_unknown", "limits", "retry", "embedder", "chunking", "search_type", "media_type", "call_id", "id",
}  # fmt: skip
"""Columns and JSON names whose values this program chooses from a few."""


def nasty(value: Any) -> Any:
    """Return JSON with the foreign text behind each string that is not ours."""
    match value:
        case str():
            return value + NASTY
        case dict():
            return {name: item if name in KEPT else nasty(item) for name, item in value.items()}
        case list():
            return [nasty(item) for item in value]
        case _:
            return value


def spoil(database_url: str) -> None:
    """Put the foreign text behind every text in the database."""
    with psycopg.connect(database_url) as connection:
        columns = connection.execute(
            "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c WHERE c.table_schema = 'agno'"
            " AND c.data_type IN ('text', 'jsonb', 'ARRAY') AND c.is_generated = 'NEVER'"
        ).fetchall()
        for table, column, kind in columns:
            if table in OWN or column in KEPT or (table, column) == ("knowledge", "name"):
                continue
            names = {"table": sql.Identifier("agno", table), "column": sql.Identifier(column)}
            if kind == "text":
                statement = "UPDATE {table} SET {column} = {column} || %s WHERE {column} <> ''"
                connection.execute(sql.SQL(statement).format(**names), [NASTY])
                continue
            rows = connection.execute(
                sql.SQL("SELECT ctid, {column} FROM {table} WHERE {column} IS NOT NULL").format(**names)
            ).fetchall()
            for place, value in rows:
                changed = nasty(value) if kind == "ARRAY" else Jsonb(nasty(value))
                statement = "UPDATE {table} SET {column} = %s WHERE ctid = %s"
                connection.execute(sql.SQL(statement).format(**names), [changed, place])


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"AGNO_IMPORTS": "tests.acceptance.people_agents"}


@pytest.fixture
def runs(database_url: str) -> dict[str, str]:
    """The ids of a done run with a key, a failed one, and one that waits, and of its steps by tool."""
    pool = Pool(database_url, size=2, timeout_s=10, statement_timeout_s=30)
    db = RunDatabase(pool)
    done = db.turn(text="the question", session_id="s", user_id="u", idempotency_key="k", metadata={"m": "v"})
    db.journal.end(done, said("the answer"), FEW, "the answer", "end")
    failed = db.turn(text="another")
    db.journal.fail(
        failed, {"type": "RunFailed", "message": "the reason", "ids": {}}, "refused", said("no"), FEW
    )
    turn = db.turn(text="a third")
    calls = [
        ToolCall(f"c{place}", name, json.dumps({"note": "n" * 300, "amount": 1000000}))
        for place, name in enumerate(("pay", "closed", "charge"))
    ]
    policies = (Policy(needs=WaitsFor.CONFIRMATION), Policy(), Policy())
    steps = [
        ToolStep(call, "tools", Effect.PURE, 3, policy) for call, policy in zip(calls, policies, strict=True)
    ]
    db.journal.fan_out(turn, Message("assistant", (Text("I pay."), *calls)), FEW, steps, "agents")
    ids = {step.name: step.id for step in db.queries.steps(turn.run_id) if step.name}
    pool.close()
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE agno.step SET status = 'dead', ended_at = now(), worker = 'w', error = %s WHERE name = 'closed'",
            [Jsonb({"type": "raised", "message": "the shop is closed", "ids": {}})],
        )
        connection.execute(
            "INSERT INTO agno.session (id, title, summary, user_id, metadata) VALUES ('s', 'the question', 'a summary', 'u', '{\"m\": \"v\"}') "
            "ON CONFLICT (tenant, id) DO UPDATE SET summary = 'a summary'"
        )
        connection.execute(
            "INSERT INTO agno.state (scope, owner, key, value) VALUES ('session', 's', 'cart', '1')"
        )
        connection.execute(
            "INSERT INTO agno.quarantine (reason, detail, queue, head, bytes, worker) VALUES ('unreadable', 'd', 'agents', 'h', 1, 'w')"
        )
    return {"done": done.run_id, "failed": failed.run_id, "turn": turn.run_id, **ids}


@pytest.fixture
def ingestion(type_: Type, keep_worker: StartWorker, tmp_path: Path) -> str:
    """The id of an ingestion of a document and of a file that can't be read, both with foreign names."""
    keep_worker(queues="knowledge", pool="prefork", concurrency=1)
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, content in (("leases", b"# Leases\n\nA lease ends."), ("broken.pdf", b"%PDF-1.7 broken")):
        (folder / os.fsdecode(f"{name}\x1b[31m\u202e\n".encode() + b"\xff.md")).write_bytes(content)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    began = type_("ingest", str(folder), "-k", "docs", "--embedder", "hash:64", "--wait")
    assert_harmless(began.out + began.err)
    with psycopg.connect(os.environ["AGNO_DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO agno.gap (knowledge_id, question) SELECT id, 'why' FROM agno.knowledge"
        )
        (run_id,) = connection.execute("SELECT run_id::text FROM agno.ingestion").fetchone() or ("",)
    return str(run_id)


def assert_harmless(text: str, *, lines: bool = True) -> None:
    """Assert that a terminal shows this text as it is. `lines`: no line in it is foreign."""
    harmful = [
        char
        for char in text
        if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]
    assert harmful == []
    if lines:
        assert not [line for line in text.splitlines() if line.strip().startswith(FORGED)]


def strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, item in value.items():
                yield name
                yield from strings(item)
        case list():
            for item in value:
                yield from strings(item)


def test_no_command_prints_what_controls_a_terminal(
    type_: Type, runs: dict[str, str], ingestion: str, database_url: str
) -> None:
    spoil(database_url)
    commands = [
        "runs ls", "runs waiting", f"runs show {runs['failed']}", f"runs show {runs['turn']}", f"runs events {runs['turn']}",
        "dead ls", f"dead show {runs['failed']}", f"dead show {runs['closed']}", "workers ls", "agents ls", "sessions ls", "sessions show s", "knowledge ls",
        "knowledge show docs", f"knowledge failures {ingestion}", f"knowledge watch {ingestion}", "knowledge gaps docs",
        "knowledge duplicates docs", "search docs lease", "doctor", "metrics --once",
    ]  # fmt: skip
    shows_texts = ("runs show", "sessions show", "search")  # of several lines
    spoilt = 0
    for command in commands:
        shown = type_(*command.split(), COLUMNS="5000")  # where no line wraps
        assert "Traceback" not in shown.err, command
        assert_harmless(shown.out + shown.err, lines=not command.startswith(shows_texts))
        spoilt += "[red]markup[/red]" in shown.out + shown.err
        if command != "metrics --once":
            found = type_(*command.split(), "--json")
            assert_harmless(found.out)
            values = [*strings(found.json)]
            assert not any("\\u001b" in value for value in values), command
            spoilt += any(NASTY in value for value in values)
    assert spoilt >= 29
    again = type_("run", f"echo{NASTY}", "the question", "--key", f"k{NASTY}")
    assert_harmless(again.out + again.err, lines=False)
    refused = type_("runs", "approve", runs["pay"], "--by", NASTY)
    assert_harmless(refused.out + refused.err)
    assert f"the reason{NASTY}" in [*strings(type_("runs", "show", runs["failed"], "--json").json)]


def test_log_lines_are_not_forged_by_the_texts_of_exceptions(type_: Type, worker: Worker) -> None:
    worker.forget_lines()
    text = f"no\n{FORGED}\r\n{FORGED}\x1b[31m"
    type_("run", "clerk", f"burst {json.dumps({'text': text})}", "--no-wait")
    worker.wait_for("tool raised")
    worker.wait_for("succeeded")
    written = "".join(worker.lines)
    assert FORGED in written
    assert_harmless(written)
