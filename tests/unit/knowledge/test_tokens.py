"""Token counts, offline, as the models' own tokenisers give them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.normalise import clean
from agno_workers.knowledge.tokens import MINILM, tokens


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return Tokenizer.from_file(str(MINILM))


_texts = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            [
                "don't",
                "a\tb",
                "f(x[1],'q')",
                string.punctuation,
                "snake_case.CamelCase",
                "a" * 99 + "!b",
                "漢字",
                "\u3000",
                "x" * 200,
                "É",
                "e\u0301",
            ]
        ),
    )
).map(" ".join)


@settings(deadline=None)
@given(st.lists(_texts, max_size=4))
def test_minilm_counts_equal_those_of_the_tokenizer(minilm: Tokenizer, given: list[str]) -> None:
    texts = [clean(text) for text in given]
    assert tokens("minilm").counts(texts) == [len(minilm.encode(text)) for text in texts]


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("minilm", "The pump is checked each spring.", 9),
        ("minilm", "", 2),
        ("cl100k_base", "The pump is checked each spring.", 7),
        ("cl100k_base", "hello <|endoftext|>", 7),  # what looks like a mark of the model is text
        ("o200k_base", "Donaudampfschifffahrt", 8),
        ("o200k_base", "", 0),
    ],
)
def test_counts_equal_those_of_the_model(name: str, text: str, count: int) -> None:
    assert tokens(name).counts([text, text]) == [count, count]


def test_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match="unknown tokenizer 'gpt9': use one of minilm, cl100k_base, o200k_base"
    ):
        tokens("gpt9")


def test_cache_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tokens("minilm")
    monkeypatch.setattr(type(counter), "max_held", 20_000)
    for turn in range(50):
        text = " ".join(f"w{turn}x{number}" for number in range(40)) + " " + "y" * 5_000
        assert counter.counts([text]) == counter.counts([text])
        assert counter._held < 60_000  # type: ignore[attr-defined]  # its memory is what this is about
