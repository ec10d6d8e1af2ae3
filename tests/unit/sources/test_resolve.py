"""Resolve descriptions to sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agno_workers.errors import InvalidInput, SourceRejected
from agno_workers.knowledge.sources import web
from agno_workers.knowledge.sources.resolve import fetch, find, scheme_of
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
        (source,) = find(given)  # type: ignore[arg-type]  # each of another type
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
        find(given)


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
    find("http://10.0.0.1/", {"allow": ["*"]}, allow=["wiki.intern"])
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
        fetch(source, 5, 1_000)
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
    with pytest.raises(InvalidInput, match="source_roots"):
        find(str(tmp_path), {"roots": ["/"]}, roots=["/srv/documents"])
    (source,) = find(str(tmp_path), {"roots": ["/srv/documents"]})
    assert fetch(source, 5, 1_000, roots=[str(tmp_path)]).content == b"A."
    (given,) = find(source, roots=["/srv/documents"])
    with pytest.raises(SourceRejected, match="source_roots"):
        fetch(given, 5, 1_000, roots=["/srv/documents"])
