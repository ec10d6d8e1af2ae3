"""The words of texts; tests/integration/knowledge/test_words.py searches for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_workers.knowledge.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("The pump is red.", "the pump is red"),
        ("JIRA-5678", "jira 5678 jira5678"),
        ("a_b", "a b ab"),
        ("v2.10", "v2 2 10 v2x10 2x10"),
        ("report.pdf", "report dotpdf pdf reportpdf"),
        ("1,234 and 1,2,3", "1234 and 1 2 3"),
        ("C++ C# F# .NET", "cplusplus csharp fsharp dotnet net"),
        ("a+b C++17", "a b cplusplus 17"),
        ("List<String>", "list string"),
        ("José", "josé jose"),
        ("Jose\u0301", "josé jose"),
        ("Straße", "straße strasse"),
        ("東京都", "東 京 都 東京 京都"),
        ("Python入門", "python 入 門 入門"),
        ("ＡＢＣ", "abc"),
        ("किताब", "किताब"),
        ("U.S.A.", "u dots s dota a us sa usa"),
        ("--verbose ... -5", "verbose 5"),
    ],
)
def test_words_of_a_chunk(text: str, expected: str) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(".NET", "dotnet"), ("東京都", "東京 京都"), ("猫", "猫"), ("C#", "csharp"), ("node.js", "node js nodejs"), ("José", "josé jose")],
)  # fmt: skip
def test_words_of_a_query_leave_out_parts_with_another_meaning(text: str, expected: str) -> None:
    assert words(text, query=True) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from("aZ09éß漢กิ한.-_+#@/'’: ")))
def test_query_finds_the_same_text(text: str) -> None:
    """Each word of a query is a word of a chunk with the same text, and Postgres needs to split none of them."""
    chunk, query = words(text).split(" "), words(text, query=True).split(" ")
    assert set(query) <= set(chunk)
    assert bool("".join(query)) == bool("".join(chunk))
    assert not {each for word in chunk for each in word} & set(" .,-_+#@/'’:<>&=\"()[]")
