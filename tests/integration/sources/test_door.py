"""Every kind of source through `find` and `fetch`, as an ingestion uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from agno_workers.errors import SettingsError
from agno_workers.knowledge.context import build
from agno_workers.knowledge.sources.resolve import Allowed, fetch, find
from tests.fakes.bucket import Bucket, bucket
from tests.fakes.site import Request, Site, page, site

ALLOWED = Allowed(allow=("127.0.0.1",), roots=("/",), databases=("ARTICLES_URL",), objects=("s3://library",))


@pytest.fixture
def here() -> Iterator[Site]:
    def changing(request: Request) -> bytes:
        return (
            page(status=304) if request.headers.get("if-none-match") == '"1"' else page("A page", etag='"1"')
        )

    with site(
        {"/page": changing, "/list": page(json.dumps({"items": [{"id": 1, "body": "An item"}]}))}
    ) as started:
        started.answers["/sitemap.xml"] = page(
            f"<urlset><url><loc>{started.url('/page')}</loc></url></urlset>"
        )
        yield started


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with bucket({"a.md": b"An object"}) as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        yield started


def test_sources_of_every_kind_can_be_fetched_and_have_the_metadata(
    here: Site, library: Bucket, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE article AS SELECT 1 AS id, 'A row' AS body")
    monkeypatch.setenv("ARTICLES_URL", database_url)
    cases: list[tuple[Any, str, bytes]] = [
        (here.url("/page"), here.url("/page"), b"A page"),
        (here.url("/sitemap.xml"), here.url("/page"), b"A page"),
        ({"sitemap": here.url("/sitemap.xml"), "robots": False}, here.url("/page"), b"A page"),
        ("s3://library/", "s3://library/a.md", b"An object"),
        ({"objects": "s3://library", "glob": "*.md"}, "s3://library/a.md", b"An object"),
        ({"database": "ARTICLES_URL", "query": "SELECT * FROM article", "id": "id", "text": "body"}, "db:ARTICLES_URL/1", b"A row"),
        ({"api": here.url("/list"), "items": "items", "id": "id", "text": "body", "name": "list"}, "api:list/1", b"An item"),
        ({"url": here.url("/list"), "items": "items", "id": "id", "text": "body", "name": "list"}, "api:list/1", b"An item"),
    ]  # fmt: skip
    for given, uri, content in cases:
        (source,) = find(given, {"metadata": {"team": "docs"}}, allowed=ALLOWED)
        assert (source.uri, source.metadata) == (uri, {"team": "docs"})
        assert fetch(source, 10, 1000, allowed=ALLOWED).content == content


def test_a_page_that_did_not_change_is_not_read_again(here: Site) -> None:
    (source,) = find(here.url("/page"), allowed=ALLOWED)
    first = fetch(source, 10, 1000, allowed=ALLOWED)
    (again,) = find(here.url("/page"), allowed=ALLOWED)
    raw = fetch(replace(again, fingerprint=first.fingerprint), 10, 1000, allowed=ALLOWED)
    assert (raw.unchanged, raw.content, raw.fingerprint) == (True, b"", first.fingerprint)


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (Allowed(allow=("10.0.0.1/8",)), r"source_allow.*'10\.0\.0\.1/8'"),
        (Allowed(roots=("/no/such/folder",)), r"source_roots.*'/no/such/folder'"),
        (Allowed(roots=("documents",)), r"source_roots.*'documents'"),
        (Allowed(variables=("KEY", "KEY@https://api.example.com")), r"source_variables.*entry 2"),
        (Allowed(databases=("postgresql://ann:secret@db/docs",)), r"source_databases.*entry 1(?!.*secret)"),
        (Allowed(objects=("documents",)), r"source_objects.*'documents'"),
    ],
)
def test_invalid_list_is_a_wrong_setting(allowed: Allowed, said: str) -> None:
    nothing: Any = None
    with pytest.raises(SettingsError, match=said):
        build(nothing, nothing, nothing, nothing, nothing, fetch_timeout_s=1, document_max_bytes=1, allowed=allowed, model=nothing)  # fmt: skip
