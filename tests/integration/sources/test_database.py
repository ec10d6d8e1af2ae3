"""Rows of a query, from the tests' own Postgres and from SQLite."""

from __future__ import annotations

import gc
import sqlite3
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agno_workers.database.connect import parse
from agno_workers.errors import AgnoError, InvalidInput, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources import database, records
from agno_workers.knowledge.types import Source

ARTICLES = {
    "database": "ARTICLES_URL",
    "query": "SELECT * FROM article ORDER BY id",
    "id": "id",
    "text": "body",
}


@pytest.fixture
def articles(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Five articles, and the variable that names their database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE article (id int PRIMARY KEY, title text, body text, team text, price numeric, tags text[],"
            " details jsonb, changed timestamptz, secret_key uuid DEFAULT gen_random_uuid())"
        )
        connection.execute(
            "INSERT INTO article SELECT n, 'Title ' || n, 'Body ' || n, 'docs', n + 0.5, ARRAY['a', 'b'], '{\"n\": 1}',"
            " '2026-01-02 03:04:05+00' FROM generate_series(1, 5) n"
        )
    monkeypatch.setenv("ARTICLES_URL", database_url)
    return database_url


def find(**changed: Any) -> list[Source]:
    return list(database.find(ARTICLES | changed))


def test_a_row_is_a_document(articles: str) -> None:
    first, *others = find(
        title="title",
        metadata=["team", "price", "tags", "details"],
        updated="changed",
        media_type="text/markdown",
    )
    assert first == Source(
        "db:ARTICLES_URL/1",
        origin="db:ARTICLES_URL",
        bytes=6,
        fingerprint="updated:2026-01-02T03:04:05+00:00",
        media_type="text/markdown",
        title="Title 1",
        metadata={"team": "docs", "price": 1.5, "tags": ["a", "b"], "details": {"n": 1}},
        text="Body 1",
    )
    assert [source.uri for source in others] == [f"db:ARTICLES_URL/{n}" for n in range(2, 6)]
    raw = records.fetch(first, timeout_s=1, max_bytes=6)
    assert (raw.content, raw.media_type, raw.fingerprint) == (b"Body 1", "text/markdown", first.fingerprint)
    with pytest.raises(SourceRejected, match="more than 5 bytes"):
        records.fetch(first, timeout_s=1, max_bytes=5)


def test_address_may_have_any_form_and_the_database_any_settings(
    articles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = find(title="title", updated="changed", metadata=["price"])
    parts = parse(articles)
    with psycopg.connect(articles, autocommit=True) as connection:
        for setting in ("DateStyle = German", "client_encoding = latin1", "statement_timeout = '1ms'"):
            connection.execute(f"ALTER DATABASE {parts['dbname']} SET {setting}".encode())
    monkeypatch.setenv("ARTICLES_URL", f"host={parts['host']} user=agno dbname={parts['dbname']}")
    assert find(title="title", updated="changed", metadata=["price"]) == wanted
    with psycopg.connect(articles, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {parts['dbname']} RESET ALL".encode())


def test_row_without_an_updated_column_is_known_by_its_hash(articles: str) -> None:
    before = [source.fingerprint for source in find(title="title")]
    assert before == [source.fingerprint for source in find(title="title")]
    with psycopg.connect(articles, autocommit=True) as connection:
        connection.execute("UPDATE article SET title = 'New' WHERE id = 2")
    changed = [old != new.fingerprint for old, new in zip(before, find(title="title"), strict=True)]
    assert changed == [False, True, False, False, False]


def test_a_name_of_its_own_keeps_two_queries_apart(articles: str) -> None:
    assert {source.origin for source in find(name="old articles")} == {"db:old articles"}


def test_an_id_may_be_anything(articles: str) -> None:
    [source] = find(query="SELECT 'a/b?c' AS id, 'x' AS body")
    assert source.uri == "db:ARTICLES_URL/a%2Fb%3Fc"


@pytest.mark.parametrize("page_rows", [1, 2, 5, 100])
def test_rows_come_by_pages(articles: str, page_rows: int) -> None:
    assert len(find(page_rows=page_rows)) == 5


def test_endless_query_yields_its_first_rows(articles: str) -> None:
    query = "SELECT generate_series(1, 1000000000000) AS id, 'x' AS body"
    assert [source.uri for source in islice(database.find(ARTICLES | {"query": query}), 3)] == [
        f"db:ARTICLES_URL/{n}" for n in (1, 2, 3)
    ]


def test_stopped_iteration_leaves_no_connection(articles: str) -> None:
    rows = database.find(ARTICLES | {"page_rows": 1})
    next(rows)
    del rows
    gc.collect()
    with psycopg.connect(articles) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%agno_rows%'"
            " AND pid <> pg_backend_pid()"
        ).fetchone()
    assert left == (0,)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM article RETURNING id, body",
        "UPDATE article SET body = 'x' RETURNING id, body",
        "WITH gone AS (DELETE FROM article RETURNING *) SELECT * FROM gone",
        "SELECT 1 AS id, 'x' AS body; DELETE FROM article",
        "SELECT 1 AS id, 'x' AS body; COMMIT; DELETE FROM article",
        "SELECT emptied() AS id, 'x' AS body",
        "SELECT set_config('transaction_read_only', 'off', false) AS body, emptied() AS id",
        "TRUNCATE article",
        "SELECT nextval('counter') AS id, 'x' AS body",
    ],
)
def test_a_query_cannot_write(articles: str, query: str) -> None:
    with psycopg.connect(articles, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE counter")
        connection.execute(
            "CREATE FUNCTION emptied() RETURNS int LANGUAGE sql AS 'DELETE FROM article; SELECT 1'"
        )
        with pytest.raises(InvalidInput, match="was refused by the database"):
            find(query=query)
        assert connection.execute("SELECT count(*) FROM article").fetchone() == (5,)


def test_a_slow_query_is_cut_off(articles: str) -> None:
    query = "SELECT 1 AS id, pg_sleep(60)::text AS body"
    with pytest.raises(SourceUnavailable, match="longer than"):
        find(query=query, timeout_s=0.2)


def test_a_percent_sign_and_a_semicolon_are_left_alone(articles: str) -> None:
    assert len(find(query="SELECT * FROM article WHERE title LIKE 'Title%';")) == 5


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"text": "bdy"}, "did you mean 'body'"),
        ({"title": "titel"}, "did you mean 'title'"),
        ({"metadata": ["taem"]}, "did you mean 'team'"),
        ({"updated": "changd"}, "did you mean 'changed'"),
        ({"query": "SELECT * FROM artikel"}, "42P01.*does not exist"),
        ({"query": "SELEC"}, "42601.*syntax error"),
        ({"query": "SELECT 1/0 AS id, 'x' AS body"}, "22012.*division by zero"),
        ({"query": "SELECT NULL AS id, 'x' AS body"}, "NULL in 'id'"),
        ({"query": ""}, "refused"),
        ({"database": "NO_SUCH_VARIABLE"}, "'NO_SUCH_VARIABLE' is not set"),
    ],
)
def test_refused_query_is_an_error_with_a_reason(articles: str, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        find(**changed)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"databse": "X"}, "did you mean 'database'"),
        ({"database": "X", "query": "SELECT 1", "id": "id"}, "missing required field `text`"),
        ({**ARTICLES, "metadata": "team"}, "Expected `array`"),
        ({**ARTICLES, "timeout_s": 0}, "above 0"),
        ({**ARTICLES, "url": "postgresql://"}, "unknown key 'url'"),
    ],
)
def test_unusable_description_is_refused_at_once(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        database.find(given)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://ann:s3cret@127.0.0.1:1/db", SourceUnavailable),
        ("postgresql://ann:s3cret@nowhere.invalid/db", SourceUnavailable),
        ("postgresql://ann:s3cret@127.0.0.1:port/db?s3cret", AgnoError),
        ("postgresql://ann:s3cret@h/db?no_such_option=s3cret", InvalidInput),
        ("nonsense://ann:s3cret@h/db", InvalidInput),
        ("s3cret", InvalidInput),
    ],
)
def test_no_error_tells_where_the_database_is(monkeypatch: pytest.MonkeyPatch, url: str, kind: type[AgnoError]) -> None:  # fmt: skip
    monkeypatch.setenv("ARTICLES_URL", url)
    with pytest.raises(kind) as caught:
        find()
    told = f"{caught.value.to_json()} {caught.value.__cause__!r}"
    assert "s3cret" not in told
    assert "ann" not in told
    assert "ARTICLES_URL" in told
    assert caught.value.__suppress_context__


def test_sqlite_by_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "articles.db") as connection:
        connection.execute("CREATE TABLE article (id TEXT, body TEXT, team TEXT)")
        connection.executemany("INSERT INTO article VALUES (?, ?, 'docs')", [(f"n{n}", f"Body {n}%") for n in range(5)])  # fmt: skip
    connection.close()
    monkeypatch.setenv("ARTICLES_URL", f"sqlite:///{tmp_path}/articles.db")
    found = find(metadata=["team"], page_rows=2)
    assert [(source.uri, source.text) for source in found] == [(f"db:ARTICLES_URL/n{n}", f"Body {n}%") for n in range(5)]  # fmt: skip
    assert found[0].metadata == {"team": "docs"}
    for query, why in [
        ("SELECT * FROM artikel", "no such table"),
        ("DELETE FROM article RETURNING id, body", "readonly"),
        ("PRAGMA query_only", "no column 'id'"),
    ]:
        with pytest.raises(InvalidInput, match=why):
            find(query=query)


def test_too_long_text_fails_alone(articles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_TEXT_BYTES", 10)
    small, big = find(query="SELECT 1 AS id, 'small' AS body UNION ALL SELECT 2, repeat('x', 11)")
    assert (small.text, big.text, big.bytes) == ("small", None, 11)
    with pytest.raises(SourceRejected) as caught:
        records.fetch(big, timeout_s=1, max_bytes=100)
    assert caught.value.code == "too_large"


def test_takes_descriptions_of_databases() -> None:
    assert database.takes(ARTICLES)
    assert not any(database.takes(given) for given in ({"url": "x"}, "db:x", {"items": "x"}, 5))
