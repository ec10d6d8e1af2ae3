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


def test_paths_become_absolute_and_the_rest_stays(here: Path) -> None:
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
def test_one_thing_is_a_list_of_one(here: Path, one: str | Path) -> None:
    assert given(one) == [f"{here}/docs"]


@pytest.mark.parametrize("wrong", ["nothing", "nothing/*.md", "", "  ", {"path": "nothing"}])
def test_a_path_that_is_not_here_is_refused(here: Path, wrong: str | dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        given(wrong)


def test_options_that_say_nothing_are_left_out() -> None:
    assert options() == {}
    assert options({"a": 1}, ["*.md"], batch=True) == {"metadata": {"a": 1}, "glob": ["*.md"], "batch": True}


def test_a_document_has_a_uri_of_its_own_where_it_is_given_none() -> None:
    one, other = document("text"), document("text")
    assert one.uri != other.uri
    assert one.uri.startswith("text:")
    assert document("täxt", uri="crm:1", metadata={"a": 1}).bytes == 5
    with pytest.raises(InvalidInput, match="the text is empty"):
        document(" \n")


@pytest.mark.parametrize("name", ["", " ", "a b", "../docs", "a\0b", "-k", "x" * 101])
def test_a_name_that_can_not_be_typed_is_refused_before_anything_is_stored(name: str) -> None:
    for bring_in in (Knowledge(name).add, Knowledge(name).s):
        with pytest.raises(InvalidInput, match="is not a valid name"):
            bring_in("a text")
