"""Hashed words: the same in every process, and never without a direction."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agno_workers.knowledge.embedders.hash import Hash


@given(st.text(), st.sampled_from([1, 2, 8, 384]))
def test_vector_of_any_text_has_a_direction(text: str, dimensions: int) -> None:
    (vector,) = Hash(dimensions).embed([text])
    assert vector.shape == (dimensions,)
    assert np.isclose(np.linalg.norm(vector), 1)


def test_vector_depends_on_words_and_not_on_order_or_case() -> None:
    first, same, other = Hash().embed(["red green blue", "Blue, RED; green!", "something else entirely"])
    assert np.array_equal(first, same)
    assert first @ other < 0.5


def test_vectors_stay_the_same_in_every_release() -> None:
    (vector,) = Hash(8).embed(["alpha beta beta"])
    assert np.allclose(vector, [0, 2 / 5**0.5, 0, 0, 0, -1 / 5**0.5, 0, 0])
