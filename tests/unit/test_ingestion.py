"""What callers hand in to be ingested, as a worker elsewhere understands it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Source
from agno_workers.sdk.ingestion import document, given, options
from agno_workers.sdk.knowledge import Knowledge


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "a [b].md").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_become_absolute_and_other_sources_are_unchanged(here: Path) -> None:
    source = Source(uri="crm:1", text="x")
    handed_in: list[Any] = [
        "docs",
        Path("docs/deep"),
        "docs/*.md",
        "docs/**/x?.md",
        "https://a.b/c",
        "s3://bucket/x",
        {"database": "X"},
        source,
    ]
    assert given(handed_in) == [
        f"{here}/docs", f"{here}/docs/deep", f"{here}/docs/*.md", f"{here}/docs/**/x?.md", "https://a.b/c", "s3://bucket/x",
        {"database": "X"}, source,
    ]  # fmt: skip
    assert given({"path": "docs", "glob": "*.md"}) == [{"path": f"{here}/docs", "glob": "*.md"}]


@pytest.mark.parametrize("one", ["docs", Path("docs")])
def test_single_source_becomes_a_list(here: Path, one: str | Path) -> None:
    assert given(one) == [f"{here}/docs"]


@pytest.mark.parametrize("wrong", ["nothing", "nothing/*.md", "", "  ", {"path": "nothing"}])
def test_missing_path_is_refused(here: Path, wrong: str | dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        given(wrong)


def test_empty_options_are_omitted() -> None:
    assert options() == {}
    assert options({"a": 1}, ["*.md"], batch=True) == {"metadata": {"a": 1}, "glob": ["*.md"], "batch": True}


def test_document_without_a_uri_gets_a_new_one() -> None:
    one, other = document("text"), document("text")
    assert one.uri != other.uri
    assert one.uri.startswith("text:")
    assert document("täxt", uri="crm:1").bytes == 5
    with pytest.raises(InvalidInput, match="the text is empty"):
        document(" \n")


@pytest.mark.parametrize("name", ["", " ", "a b", "../docs", "a\0b", "-k", "x" * 101])
def test_invalid_name_is_refused_where_it_is_written(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a valid name"):
        Knowledge(name)


def test_invalid_embedder_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidInput, match=r"'lokal' is not an embedder's name. Did you mean local\?"):
        Knowledge("docs", embedder="lokal")


@pytest.mark.parametrize("wrong", [None, 5, [None], [5]])
def test_source_of_another_type_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=r"a source is (None|5): pass a path"):
        given(wrong)


def test_metadata_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidInput, match="metadata is 'team=docs': expected a dict"):
        options("team=docs")  # type: ignore[arg-type] # the fault
