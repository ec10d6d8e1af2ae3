"""How a hit looks: where it stands, which of its words are marked, which part of it is shown."""

from __future__ import annotations

import pytest

from agno_workers.cli.knowledge_commands import pairs
from agno_workers.cli.search import fields, marks, place, snippet
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import SearchResult

HIT = SearchResult(1, 1, "file:///srv/docs/locks.md", "text", 1.0)


@pytest.mark.parametrize(
    ("title", "heading", "said"),
    [
        (None, (), "locks.md"),
        ("Locks", (), "Locks"),
        ("Locks", ("Leases", "Renewal"), "Locks > Leases > Renewal"),
        ("Locks", ("Locks", "Leases"), "Locks > Leases"),
        (None, ("Leases",), "Leases"),
    ],
)
def test_a_hit_is_told_by_its_headings(title: str | None, heading: tuple[str, ...], said: str) -> None:
    assert place(SearchResult(1, 1, HIT.uri, "text", 1.0, title=title, heading=heading)) == said


@pytest.mark.parametrize(
    ("question", "text", "marked"),
    [
        ("how do leases end?", "A lease ends; leases ended here.", ["lease", "ends", "leases", "ended"]),
        ("what does the keeper do with it?", "The keeper keeps within them what", ["keeper"]),
        ("C++ (templates)", "template parameters", ["template"]),
        ("is a", "is it a", []),
        ("Straße", "die STRASSE, die Straße", ["Straße"]),
    ],
)
def test_the_words_of_the_question_are_marked(question: str, text: str, marked: list[str]) -> None:
    pattern = marks(question)
    assert (pattern.findall(text) if pattern else []) == marked


def test_of_a_long_chunk_the_part_with_the_words_is_shown() -> None:
    content = f"{'before it ' * 60}the lease is renewed and the lease ends {'and so on ' * 60}"
    shown = snippet(content, marks("lease renewed"))
    assert "lease is renewed" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) < 400
    assert snippet("short\n text", None) == "short text"
    assert snippet(content, None).startswith("before it")


def test_pairs_are_json_where_they_are_and_text_elsewhere() -> None:
    given = ["lang=en", "year=2024", 'at={"gte": 3}', "draft=true", "formula=a=b", "empty="]
    assert pairs("--filter", given) == {
        "lang": "en", "year": 2024, "at": {"gte": 3}, "draft": True, "formula": "a=b", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize("wrong", ["lang", "=en", " =x"])
def test_what_is_no_pair_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="write it as --filter name=value"):
        pairs("--filter", [wrong])


def test_long_values_of_metadata_are_cut() -> None:
    metadata = {"attachments": [{"name": "prices.csv", "bytes": 9}], "year": 2024}
    assert fields(metadata, 12) == 'attachments=[{"name":"p… year=2024'
    assert fields(metadata) == 'attachments=[{"name":"prices.csv","bytes":9}] year=2024'
