"""The tables of the migrations, of SQLAlchemy and of the statements are the same."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql

from agno_workers.core.run import RunStatus, StepKind, StepStatus, WaitsFor
from agno_workers.core.step import StepMessage
from agno_workers.database import functions, migrate
from agno_workers.database.checks import database_problems
from agno_workers.database.migrations import NEWEST
from agno_workers.database.pool import Pool, statements
from agno_workers.database.tables import SCHEMA, metadata
from agno_workers.errors import Unavailable
from agno_workers.knowledge.store.search import Search
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.store.stats import KnowledgeStats
from agno_workers.knowledge.types import EmbeddingSpaceStatus, SourceStatus
from agno_workers.local import LocalServers
from agno_workers.runs.queries import narrowed
from tests.database import FEW, SQL_FILES, RunDatabase, asking, claimed, said, tool_steps

ROOT = Path(__file__).parents[3]
VERSIONS = ROOT / "agno_workers/database/migrations/versions"
TEMPORARY = {"runs/batch": "stage", "runs/prune": "open"}
"""Files whose statements work on a temporary table, and the statement that makes it."""
STATEMENTS = [
    (file, name)
    for file in SQL_FILES
    for name, text in statements(file).items()
    if TEMPORARY.get(file) != name and not re.search(r"^(?:COPY|CREATE|ANALYZE)", text, re.MULTILINE)
    # PREPARE takes no DDL and no COPY; test_bulk.py and test_ingest.py run them
]
NewDatabase = Callable[[], str]


@pytest.fixture
def new_database(servers: LocalServers) -> Iterator[NewDatabase]:
    """Return a function that creates empty databases."""
    names: list[str] = []
    with psycopg.connect(servers.database_url, autocommit=True) as connection:

        def make() -> str:
            names.append(f"empty_{uuid.uuid4().hex[:12]}")
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(names[-1])))
            return urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{names[-1]}"))

        yield make
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def connect(url: str) -> sa.Connection:
    """Connect without our schema on the search path, so that Alembic does not take it for the default one."""
    engine = sa.create_engine(
        sa.engine.make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=sa.pool.NullPool,
        connect_args={"options": "-c search_path=public"},
    )
    return engine.connect()


CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'agno'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND c.relname <> 'alembic_version'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '') FROM pg_constraint
        WHERE connamespace = 'agno'::regnamespace AND conrelid <> coalesce(to_regclass('agno.alembic_version'), 0::oid)""",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'agno' AND tablename <> 'alembic_version'",
}


@pytest.mark.parametrize("part", CATALOGUE)
def test_migrations_create_the_tables_of_sqlalchemy(
    db_url: str, new_database: NewDatabase, part: str
) -> None:
    """Return columns with defaults, constraints and indexes as Postgres prints them."""
    with connect(new_database()) as drawn, connect(db_url) as migrated:
        drawn.execute(sa.text(f"CREATE SCHEMA {SCHEMA}"))
        metadata.create_all(drawn)
        wanted, found = (
            {tuple(row) for row in connection.execute(sa.text(CATALOGUE[part]))}
            for connection in (drawn, migrated)
        )
    assert found == wanted
    assert found


def test_turns_change_no_column_that_an_index_of_runs_names(db: RunDatabase) -> None:
    """Postgres writes no index then (a HOT update), and an index in no other case is as dear: a run has a dozen."""
    submitted = db.submit()
    assert submitted.send is not None
    before = db.run(submitted.run_id)
    turn = db.journal.claim_turn(submitted.run_id, submitted.send.step_id, 0)
    assert db.journal.fan_out(claimed(turn), asking("a"), FEW, tool_steps("a"), "agents").recorded
    after = db.run(submitted.run_id)
    changed = {name for name in before if before[name] != after[name]}
    assert {"status", "turns", "started_at"} <= changed
    named = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'agno' AND tablename = 'run'"
    words = {word for row in db.sql(named) for word in re.findall(r"\w+", row["indexdef"])}
    assert not changed & words


def test_alembic_finds_nothing_to_migrate(db_url: str) -> None:
    def ours(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "schema":
            return name == SCHEMA
        is_partition = kind == "table" and str(name).startswith("chunk_embedding_")
        return name != "alembic_version" and not is_partition

    with connect(db_url) as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_schemas": True, "include_name": ours, "compare_type": True, "compare_server_default": True, "version_table_schema": SCHEMA},
        )  # fmt: skip
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("run_status", RunStatus),
        ("step_status", StepStatus),
        ("step_kind", StepKind),
        ("step_waits_for", WaitsFor),
        ("source_status", SourceStatus),
        ("embedding_space_status", EmbeddingSpaceStatus),
    ],
)
def test_check_constraints_have_the_values_of_the_enums(
    db: RunDatabase, constraint: str, words: type[StrEnum]
) -> None:
    text = db.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %(name)s", name=constraint)  # fmt: skip
    assert set(re.findall(r"'(\w+)'", text)) == {str(word) for word in words}


@pytest.mark.parametrize("status", list(RunStatus), ids=str)
def test_run_has_an_end_time_exactly_when_its_status_is_terminal(db: RunDatabase, status: RunStatus) -> None:
    statement = (
        "UPDATE agno.run SET status = %(status)s, ended_at = CASE WHEN %(ended)s THEN clock_timestamp() END"
    )
    db.submit()
    with pytest.raises(psycopg.errors.CheckViolation):
        db.sql(statement, status=status, ended=not status.is_terminal)
    db.sql(statement, status=status, ended=status.is_terminal)


def test_upgrade_of_an_empty_database_is_idempotent(
    new_database: NewDatabase,
) -> None:
    url = new_database()
    assert functions.state(url).revision is None
    assert migrate.upgrade(url) == (None, NEWEST)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT agno.submit('echo', 'hi', allow_unknown => true)")
        assert migrate.upgrade(url) == (NEWEST, NEWEST)
        assert connection.execute("SELECT count(*) FROM agno.run").fetchone() == (1,)
    assert functions.state(url).revision == NEWEST


def test_concurrent_upgrades_succeed(new_database: NewDatabase) -> None:
    url = new_database()
    code = f"from agno_workers.database import migrate; migrate.upgrade({url!r})"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (migrate._LOCK,))
        processes = [
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        waiting = "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while connection.execute(waiting).fetchone() != (True,):
            assert all(process.poll() is None for process in processes)
        connection.execute("SELECT pg_advisory_unlock(%s)", (migrate._LOCK,))
    assert [process.communicate(timeout=60)[1] for process in processes] == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    assert functions.state(url).revision == NEWEST


def test_upgrade_beside_a_submit_is_no_deadlock(new_database: NewDatabase) -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url, autocommit=True) as look:
        make_first_schema(connection)
        connection.execute((VERSIONS / "0002_tables.sql").read_bytes())
        connection.execute("UPDATE agno.alembic_version SET version_num = '0002'")
        with connection.transaction():  # as agno.submit does: the run, then its large strings
            connection.execute(
                "INSERT INTO agno.run (id, agent, status, queue) VALUES (gen_random_uuid(), 'a', 'queued', 'q')"
            )
            code = f"from agno_workers.database import migrate; migrate.upgrade({url!r})"
            upgrade = subprocess.Popen(
                [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
            )
            waiting = (
                "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'agno.run'::regclass AND NOT granted"
            )
            while look.execute(waiting).fetchone() != (True,):
                assert upgrade.poll() is None
            connection.execute("INSERT INTO agno.blob VALUES ('x', '1')")
    assert upgrade.communicate(timeout=60)[1] == ""
    assert functions.state(url).revision == NEWEST


def test_upgrade_that_waits_for_a_long_transaction_lets_others_work(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    submit = "SELECT agno.submit('echo', 'hi', allow_unknown => true)"
    monkeypatch.setattr(migrate, "_LOCK_WAIT_S", 1)
    with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url, autocommit=True) as other:
        make_first_schema(connection)
        other.execute("SET lock_timeout = '5s'")
        with ThreadPoolExecutor(1) as threads:
            with connection.transaction():
                connection.execute(submit)
                upgrade = threads.submit(migrate.upgrade, url)
                waiting = (
                    "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'agno.run'::regclass AND NOT granted"
                )
                while other.execute(waiting).fetchone() != (True,):
                    assert not upgrade.done()
                other.execute(submit)
            assert upgrade.result(60) == ("0001", NEWEST)
        assert other.execute("SELECT count(*) FROM agno.run").fetchone() == (2,)


def test_upgrade_gives_up_and_names_the_reason_when_a_transaction_does_not_end(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    monkeypatch.setattr(migrate, "_LOCK_WAIT_S", 1)
    monkeypatch.setattr(migrate, "_PATIENCE_S", 0.5)
    with psycopg.connect(url) as connection:
        make_first_schema(connection)
        connection.commit()
        connection.execute("LOCK TABLE agno.run")
        with pytest.raises(Unavailable, match=r"has used the tables of 'empty_.*pg_stat_activity"):
            migrate.upgrade(url)
    assert migrate.upgrade(url) == ("0001", NEWEST)


def test_upgrade_shows_new_tables_only_with_the_functions_for_them(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        make_first_schema(connection)
        seen: list[str | None] = []
        apply = functions.apply

        def looking(raw: psycopg.Connection[tuple[object, ...]]) -> bool:
            seen.append(functions.read(connection).revision)
            return apply(raw)

        monkeypatch.setattr(functions, "apply", looking)
        assert migrate.upgrade(url) == ("0001", NEWEST)
        assert seen == ["0001"]
    assert database_problems(url) == []


def test_newest_revision_is_the_head_of_the_migrations() -> None:
    assert ScriptDirectory.from_config(migrate._config()).get_current_head() == NEWEST


def test_functions_are_written_again_when_they_change(new_database: NewDatabase) -> None:
    url = new_database()
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        assert not functions.apply(connection)
        connection.execute(
            "DROP FUNCTION agno.arrive; UPDATE agno.meta SET value = '0.0.1 x' WHERE key = 'functions'"
        )
        assert database_problems(url) == [
            "the functions in the database are older than this code: run `agno-workers db upgrade`."
        ]
        migrate.upgrade(url)
        connection.execute("SELECT agno.submit('echo', 'hi', allow_unknown => true)")
        connection.execute("UPDATE agno.meta SET value = '99.0.0 x' WHERE key = 'functions'")
        assert not functions.apply(connection)  # those of a newer release, which serves old workers as well
    assert database_problems(url) == []


def make_first_schema(connection: psycopg.Connection) -> None:
    connection.execute("""
        CREATE SCHEMA agno;
        CREATE TABLE agno.alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY);
        INSERT INTO agno.alembic_version VALUES ('0001')""")
    for first in (VERSIONS / "0001_tables.sql", ROOT / "tests/fixtures/functions_0001.sql"):
        connection.execute(first.read_bytes())


def test_chunks_of_the_first_schema_are_found_under_the_newest(new_database: NewDatabase) -> None:
    """Old workers write chunks before and after the migration; the next refresh of the index writes their words again."""
    chunk = """
        INSERT INTO agno.chunk (knowledge_id, document_id, version, position, live, hash, content, start_at, end_at, tokens, language)
        SELECT knowledge_id, id, 1, %s, true, '', %s, 0, 1, 1, 'english' FROM agno.document"""
    url = new_database()
    with psycopg.connect(url, autocommit=True) as old:
        make_first_schema(old)
        old.execute("""
            INSERT INTO agno.knowledge (name) VALUES ('docs');
            INSERT INTO agno.document (knowledge_id, uri, version) SELECT id, 'a', 1 FROM agno.knowledge""")
        old.execute(chunk, (0, "JIRA-5678 leaks"))
        migrate.upgrade(url)
        old.execute(chunk, (1, "JIRA-5679 leaks"))
    pool = Pool(url, size=2, timeout_s=10, statement_timeout_s=30)
    try:
        stats = KnowledgeStats(pool)
        docs = stats.searched("docs")
        assert docs is not None

        def found(query: str) -> int:
            return len(Search(pool).search(docs.id, query, search_type="keyword"))

        assert (found("leaking"), found("5678"), found("5679")) == (2, 0, 0)
        assert "An earlier version wrote the words" in stats.bases()[0].problems[0]
        SearchIndex(pool).refresh_index(docs.id)
        assert (found("leaking"), found("5678"), found("5679")) == (2, 1, 1)
        assert stats.bases()[0].problems == []
    finally:
        pool.close()


def test_runs_of_the_first_schema_continue_under_the_newest(new_database: NewDatabase) -> None:
    """A deploy migrates the database while runs of the old code are open; new workers execute them."""
    url = new_database()
    with psycopg.connect(url, autocommit=True) as old:
        make_first_schema(old)
        for agent in ("sent", "under way"):
            old.execute("SELECT agno.submit(%s, 'hi', allow_unknown => true)", (agent,))
        old.execute("""
            UPDATE agno.run SET status = 'running', started_at = now() WHERE agent = 'under way';
            UPDATE agno.step SET status = 'running', attempt = 1, worker = 'old', started_at = now(), lease_until = now()
            FROM agno.run WHERE run.id = run_id AND agent = 'under way'""")
        assert migrate.upgrade(url) == ("0001", NEWEST)
        old.execute("SELECT agno.submit('submitted by old code', 'hi', allow_unknown => true)")
    pool = Pool(url, size=2, timeout_s=10, statement_timeout_s=30)
    try:
        db = RunDatabase(pool)
        for step in [*db.journal.take(10, 1.0), *db.journal.release_expired(10)]:
            assert isinstance(step, StepMessage)
            if (turn := db.journal.claim_turn(step.run_id, step.step_id, 0)) is not None:
                assert db.journal.end(turn, said("ok"), FEW, "ok", "end").recorded
                db.journal.published([step.outbox_id] if step.outbox_id else [])
        assert [row["status"] for row in db.sql("SELECT status FROM agno.run")] == ["done"] * 3
    finally:
        pool.close()


def test_migrations_only_add() -> None:
    """A later release removes what no code uses any more."""
    later = sorted(VERSIONS.glob("*_tables.sql"))[1:]
    for path in later:
        text = path.read_text()
        assert not re.findall(
            r"DROP (?:TABLE|COLUMN)|RENAME|ALTER COLUMN(?! \w+ DROP EXPRESSION)|SET NOT NULL",
            text,
            re.IGNORECASE,
        ), path
        columns = re.findall(r"ADD COLUMN[^,;]*NOT NULL[^,;]*", text, re.IGNORECASE)
        assert all("DEFAULT" in column for column in columns), path


def test_missing_database_is_unavailable(servers: LocalServers) -> None:
    url = urlunsplit(urlsplit(servers.database_url)._replace(path="/nowhere"))
    with pytest.raises(Unavailable, match="AGNO_DATABASE_URL"):
        migrate.upgrade(url)


@pytest.mark.parametrize(("file", "name"), STATEMENTS, ids=str)
def test_postgres_understands_every_statement(db: RunDatabase, file: str, name: str) -> None:
    """Prepare each statement: this checks names and types without executing it."""
    whole = statements(file)[name]
    given = dict.fromkeys(re.findall(r"%\((\w+)\)s", whole), 1)
    is_read_both_ways = whole.count("\nORDER BY") > 1
    ways = [narrowed(whole, given | {other: None}) for other in ("first", "last")] if is_read_both_ways else [whole]  # fmt: skip
    with db.pool.connection() as connection, connection.transaction(force_rollback=True):
        if stage := TEMPORARY.get(file):
            connection.execute(statements(file)[stage])  # the others work on the table that it makes
        for way in ways:
            connection.execute(f"PREPARE understood AS {_numbered(way)}".encode())
            connection.execute("DEALLOCATE understood")


def _numbered(statement: str) -> str:
    """Return a statement with $1, $2 ... in place of named parameters."""
    places: dict[str, str] = {}
    text = re.sub(r"%\((\w+)\)s", lambda found: places.setdefault(found[1], f"${len(places) + 1}"), statement)
    return text.replace("%%", "%")


def test_every_statement_is_found() -> None:
    assert len(STATEMENTS) > 30
    assert ("runs/commit", "finish") in STATEMENTS
