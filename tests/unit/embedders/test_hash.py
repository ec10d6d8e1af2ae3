"""Hashed words: the same in every process, and never without a direction."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agno_workers.knowledge.embedders.hash import Hash


@given(st.text(), st.sampled_from([1, 2, 8, 384]))
def test_any_text_has_a_direction(text: str, dimensions: int) -> None:
    (vector,) = Hash(dimensions).embed([text])
    assert vector.shape == (dimensions,)
    assert np.isclose(np.linalg.norm(vector), 1)


def test_words_make_the_vector_whatever_their_order_and_case() -> None:
    first, same, other = Hash().embed(["red green blue", "Blue, RED; green!", "something else entirely"])
    assert np.array_equal(first, same)
    assert first @ other < 0.5


def test_a_release_changes_no_vector() -> None:
    (vector,) = Hash(8).embed(["alpha beta beta"])
    assert np.allclose(vector, [0, 2 / 5**0.5, 0, 0, 0, -1 / 5**0.5, 0, 0])
