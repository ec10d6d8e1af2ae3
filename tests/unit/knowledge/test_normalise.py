"""One spelling for the same text."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.knowledge.normalise import GAP, clean, in_order, json_object, line, normalise
from agno_workers.knowledge.types import Block, Parsed, Place
from tests.unit.knowledge.documents import paragraphs, parsed

anything = st.text(st.characters(exclude_categories=()), max_size=60)  # surrogates, too


def text_of(*texts: str, kind: Any = "paragraph") -> str:
    return normalise(Parsed(tuple(Block(kind, text) for text in texts))).text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("e\u0301tude", "étude"),
        ("e\u200b\u0301tude", "étude"),  # NFC comes after what hides from it
        ("a\x00b\x07c\x1bd\x7fe\x9ff\x1eg", "abcdefg"),
        ("Donau\xaddampf\u200bschiff\ufeff", "Donaudampfschiff"),
        ("pay\u202e gpj.exe\u2066", "pay gpj.exe"),
        ("Hello\U000e0049\U000e0067\U000e006e", "Hello"),  # "Ign...", written so that only a model reads it
        ("می‌خواهم", "می‌خواهم"),
        ("👩\u200d🔧", "👩\u200d🔧"),
        ("a \t b\xa0\u3000c", "a b c"),
        ("  one  \n\t two \n", "one\ntwo"),
        ("one\n\n\n\n\ntwo", "one\n\ntwo"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
    ],
)
def test_characters_are_normalised(given: str, expected: str) -> None:
    assert text_of(given) == expected


def test_code_keeps_its_indentation() -> None:
    assert text_of("\n\n    if x:  \r\n\t  y = 1\n", kind="code") == "    if x:\n\t  y = 1"


def test_heading_is_one_line_and_a_long_one_is_a_paragraph() -> None:
    document = normalise(
        Parsed((Block("heading", " How\n  to\tbegin ", 2), Block("heading", "bold " * 60, 2)))
    )
    assert [(block.kind, block.text) for block in document.parsed.blocks] == [
        ("heading", "How to begin"),
        ("paragraph", ("bold " * 60).strip()),
    ]


def test_empty_blocks_are_removed_and_others_are_kept() -> None:
    blocks = (
        Block("paragraph", " \u200b\n"),
        Block("list", "a", place=Place("page", 3)),
        Block("code", "\x00"),
        Block("heading", "b", 4),
    )
    assert normalise(Parsed(blocks)).parsed.blocks == (
        Block("list", "a", place=Place("page", 3)),
        Block("heading", "b", 4),
    )


@settings(deadline=None)
@given(parsed)
def test_text_consists_of_its_blocks_at_their_offsets(document: Parsed) -> None:
    normal = normalise(document)
    assert normal.text == GAP.join(block.text for block in normal.parsed.blocks)
    for block, start in zip(normal.parsed.blocks, normal.starts, strict=True):
        assert block.text
        assert normal.text[start : start + len(block.text)] == block.text


@settings(deadline=None)
@given(
    st.lists(
        st.builds(Block, st.sampled_from(["heading", "paragraph", "list", "table", "code"]), anything),
        max_size=6,
    )
)
def test_normalising_is_idempotent_and_valid_for_postgres(blocks: list[Block]) -> None:
    once = normalise(Parsed(tuple(blocks)))
    assert normalise(once.parsed).text == once.text
    assert in_order(once.parsed).text == once.text
    assert unicodedata.is_normalized("NFC", once.text)
    assert "\x00" not in once.text
    once.text.encode()  # no lone surrogates


def test_unreadable_characters_are_counted() -> None:
    assert normalise(paragraphs("a\x01b\ufffdc\ue000d", "\x02")).unreadable == 4
    assert normalise(paragraphs("Übermut tut selten gut\r\n\x0c")).unreadable == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [(" A \n  title\x00 ", "A title"), ("x" * 12, "x" * 10), (" \u200b ", None), (None, None)],
)
def test_a_title_is_one_line(given: str | None, expected: str | None) -> None:
    assert line(given, 10) == expected


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), anything),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(anything, inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(anything, json_like, max_size=4))
def test_metadata_is_valid_jsonb(metadata: dict[str, Any]) -> None:
    text = json.dumps(json_object(metadata), allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in text
    text.encode()


def test_other_metadata_becomes_text_within_limits() -> None:
    deep: dict[str, Any] = {}
    deep["self"] = deep
    made = json_object(
        {
            "pages": 3,
            "tags": ("a", "b"),
            "when": complex(1),
            "nan": float("nan"),
            "huge": 1 << 20_000,
            "deep": deep,
        }
    )
    assert made | {"deep": None} == {
        "pages": 3,
        "tags": ["a", "b"],
        "when": "(1+0j)",
        "nan": None,
        "huge": None,
        "deep": None,
    }
    assert len(json.dumps(made["deep"])) < 1_000
    assert len(json_object({"long": "x" * 20_000})["long"]) == 10_000


def test_cleaning_keeps_the_layout() -> None:
    assert clean("  a\x00\x1e  b \r\n") == "  a  b \n"


@pytest.mark.parametrize(
    "hostile",
    [" " * 200_000 + "x", "\t" * 200_000, "\n " * 100_000, "\u200b\xad" * 100_000, "e\u0301" * 100_000],
)
@pytest.mark.parametrize("kind", ["paragraph", "code", "heading"])
@pytest.mark.timeout(5)
def test_long_runs_take_linear_time(hostile: str, kind: str) -> None:
    """A pattern that tries each blank of a run anew would take minutes."""
    text_of(hostile, kind=kind)
