"""Resolve descriptions to sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agno_workers.errors import InvalidInput, SourceRejected
from agno_workers.knowledge.sources import api, web
from agno_workers.knowledge.sources.resolve import NOTHING, Allowed, fetch, find, scheme_of
from agno_workers.knowledge.types import Raw, Source


def test_description_selects_its_kind(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("A.")
    for given, uri in [
        (str(tmp_path), f"file://{tmp_path}/a.md"),
        (f"file://{tmp_path}/a.md", f"file://{tmp_path}/a.md"),
        ({"path": str(tmp_path / "a.md")}, f"file://{tmp_path}/a.md"),
        ({"text": "Hello.", "key": "greeting"}, "text:greeting"),
        ("https://example.com/docs", "https://example.com/docs"),
        ({"url": "https://example.com/docs", "title": "Docs"}, "https://example.com/docs"),
        (Source("https://example.com/x"), "https://example.com/x"),
        (Source("wiki:page", text="Hello."), "wiki:page"),
    ]:
        (source,) = find(given, allowed=Allowed(roots=("/",)))  # type: ignore[arg-type]  # each of another type
        assert source.uri == uri


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ftp://example.com/a", "is not a source"),
        ("htps://example.com/a", r"Did you mean https:\?"),
        ("text:greeting", "Pass a text as {'text': ...}"),
        (Source("wiki:page"), "is not a source"),
        ({"text": "  "}, "is empty"),
        ({"text": "Hello.", "titel": "x"}, "did you mean 'title'"),
        ("/no/such/path", "does not exist"),
    ],
)
def test_unknown_description_is_refused_at_once(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        find(given, allowed=Allowed(roots=("/",)))


def test_metadata_of_the_ingestion_is_the_default_of_each_source() -> None:
    given = {"text": "Hello.", "metadata": {"team": "dev"}}
    (source,) = find(given, {"metadata": {"team": "ops", "year": 2026}})
    assert source.metadata == {"team": "dev", "year": 2026}


def test_caller_can_not_allow_private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(_: Any, options: Any) -> Iterator[Source]:
        seen.append(options["allow"])
        return iter(())

    monkeypatch.setattr(web, "find", note)
    find("http://10.0.0.1/", {"allow": ["10.0.0.0/8"]})
    find("http://10.0.0.1/", {"allow": ["*"]}, allowed=Allowed(allow=("wiki.intern",)))
    assert seen == [(), ("wiki.intern",)]
    with pytest.raises(SourceRejected) as caught:
        fetch(Source("http://127.0.0.1:9/"), 5, 1_000)
    assert caught.value.code == "off_limits"


def test_a_text_is_its_own_bytes() -> None:
    (source,) = find({"text": "Grüße \ud83d", "key": "a", "media_type": "text/markdown"})
    raw = fetch(source, 5, 1_000)
    assert raw == Raw("Grüße ?".encode(), "text/markdown", source.fingerprint)
    (same,) = find({"text": "Grüße \ud83d"})
    (other,) = find({"text": "Grüße"})
    assert same.fingerprint == source.fingerprint != other.fingerprint
    assert same.uri != other.uri


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (Source("text:a", text="x" * 2_000), "too_large"),
        (Source("db:a/1"), "invalid"),
        (Source("file://server/a"), "invalid"),
        (Source("file:///no/such/file"), "gone"),
    ],
)
def test_unfetchable_source_is_rejected_alone(source: Source, code: str) -> None:
    with pytest.raises(SourceRejected) as caught:
        fetch(source, 5, 1_000, allowed=Allowed(roots=("/",)))
    assert caught.value.code == code
    assert caught.value.uri == source.uri


def test_text_of_a_source_is_used_whatever_its_uri() -> None:
    assert fetch(Source("https://example.com/", text="Hello."), 5, 1_000).content == b"Hello."


def test_source_survives_json() -> None:
    source = Source("crm:17", text="Ann prefers mail.", title="Ann", metadata={"kind": "note"})
    assert list(find(msgspec.to_builtins(source))) == [source]


@pytest.mark.parametrize(
    ("uri", "scheme"), [("HTTPS://a", "https"), ("a/b:c", ""), ("/a", ""), ("text:a", "text"), ("", "")]
)
def test_scheme_is_the_part_before_the_colon(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme


def test_caller_can_not_allow_folders(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("A.")
    elsewhere, here = Allowed(roots=("/srv/documents",)), Allowed(roots=(str(tmp_path),))
    with pytest.raises(InvalidInput, match="source_roots"):
        find(str(tmp_path), {"roots": ["/"]}, allowed=elsewhere)
    (source,) = find(str(tmp_path), {"roots": ["/srv/documents"]}, allowed=here)
    assert fetch(source, 5, 1_000, allowed=here).content == b"A."
    (given,) = find(source, allowed=elsewhere)
    with pytest.raises(SourceRejected, match="source_roots"):
        fetch(given, 5, 1_000, allowed=elsewhere)


API = {"api": "https://api.example.com/a", "id": "id", "text": "x", "headers_env": {"Authorization": "KEY"}}
QUERY = {"database": "DOCS_URL", "query": "SELECT 1", "id": "id", "text": "x"}
BROAD = Allowed(variables=("*",), databases=("*",))


@pytest.mark.parametrize(
    ("given", "allowed", "setting"),
    [
        ("/etc/passwd", NOTHING, "source_roots"),
        ("/etc/*", NOTHING, "source_roots"),
        ("/no/such/file", NOTHING, "source_roots"),
        ({"path": "/etc", "follow_links": True, "roots": ["/"]}, NOTHING, "has the unknown key 'roots'"),
        ("/srv/../etc/passwd", Allowed(roots=("/srv",)), "source_roots"),
        ("file:///srv/%2e%2e/etc/passwd", Allowed(roots=("/srv",)), "source_roots"),
        ("/srv-other", Allowed(roots=("/srv",)), "source_roots"),
        (API, NOTHING, "source_variables"),
        (API, Allowed(databases=("*",), variables=("OTHER", "KEY@example.com", "KEY@api.example.com.org")), "source_variables"),
        ({**API, "headers_env": {"X": "AGNO_DATABASE_URL"}}, BROAD, "belongs to the workers"),
        (QUERY, NOTHING, "source_databases"),
        (QUERY, Allowed(variables=("*",), databases=("DOCS",)), "source_databases"),
        ({**QUERY, "database": "AGNO_DATABASE_URL"}, BROAD, "belongs to the workers"),
        ("s3://library/a", NOTHING, "source_objects"),
        ("s3://library-2/a", Allowed(objects=("s3://library",)), "source_objects"),
        ("gs://library/a", Allowed(objects=("s3://library",)), "source_objects"),
        ("s3://library/private", Allowed(objects=("s3://library/public/",)), "source_objects"),
        ("s3://library/public/../private", Allowed(objects=("s3://library/public",)), "source_objects"),
    ],
)  # fmt: skip
def test_source_uses_only_what_the_operator_allowed(given: Any, allowed: Allowed, setting: str) -> None:
    with pytest.raises(InvalidInput, match=setting) as refused:
        list(find(given, {"variables": ["*"], "databases": ["*"], "objects": ["*"]}, allowed=allowed))
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize(
    "allowed", [("KEY@api.example.com",), ("KEY",), ("K*@api.example.com",), ("*",), ("KEY@API.example.com",)]
)
def test_variable_is_sent_to_the_host_that_the_operator_allowed(
    allowed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "Bearer 7")
    seen: list[Any] = []

    def note(*given: Any) -> Iterator[Source]:
        seen.append(given[-1])
        return iter(())

    monkeypatch.setattr(api, "_items", note)
    list(find(API, allowed=Allowed(variables=allowed)))
    assert seen == [{"Authorization": "Bearer 7"}]


def test_object_given_by_its_uri_is_refused() -> None:
    with pytest.raises(SourceRejected, match="source_objects"):
        fetch(Source("s3://library/a"), 5, 1_000, allowed=Allowed(objects=("s3://other",)))
