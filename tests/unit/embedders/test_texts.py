"""Preparation of texts for any model."""

from __future__ import annotations

import pytest
from bpe_openai import get_encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.knowledge.embedders.texts import fitting, sound


@given(st.text())
def test_sound_text_stays_as_it_is(text: str) -> None:
    assert sound(text) == text


def test_half_a_pair_is_replaced() -> None:
    assert sound("a\ud83db\udc00") == "a?b?"


@settings(deadline=None)
@given(st.text(min_size=1).map(lambda text: text * 20), st.integers(1, 40))
def test_fitting_keeps_the_beginning_within_the_limit(text: str, max_tokens: int) -> None:
    kept = fitting(text, max_tokens)
    assert text.startswith(kept)
    assert len(get_encoding("cl100k_base").encode_ordinary(kept)) <= max_tokens + 1


@pytest.mark.parametrize("text", ["", "short", "ü" * 50, "<|endoftext|>"])
def test_short_text_stays_whole(text: str) -> None:
    assert fitting(text, 100) == text
