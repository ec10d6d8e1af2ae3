"""Answers of embeddings servers: the vectors of the right and of many wrong types, or an error of ours in their words."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.errors import ModelError, ModelRejected, ModelUnavailable
from agno_workers.knowledge.embedders.openai import Embeddings

VECTOR = [3.0, 4.0]
PACKED = base64.b64encode(np.array(VECTOR, "<f4").tobytes()).decode()


def embedder() -> Embeddings:
    return Embeddings("compatible:m", "m", api_key="none", base_url="http://localhost:1", dimensions=None)


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"data": [{"index": 0, "embedding": PACKED}], "usage": {"total_tokens": 5}}, 5),
        ({"data": [{"index": 0, "embedding": VECTOR}], "usage": {"total_tokens": "5"}}, 5),
        ({"data": [{"embedding": VECTOR}], "usage": None}, 0),
        ({"data": [{"index": None, "embedding": [3, 4]}], "usage": {"total_tokens": 5.0}}, 5),
        ({"data": [{"index": "0", "embedding": ["3.0", "4.0"]}], "usage": [5]}, 0),
        (
            {
                "data": [{"index": 0.0, "embedding": [VECTOR]}],
                "usage": {"total_tokens": 10**30},
                "error": None,
            },
            0,
        ),
    ],
)
def test_vectors_are_read_in_many_shapes(answer: Any, tokens: int) -> None:
    vectors, used = embedder().read(json.dumps(answer).encode(), 1)
    assert vectors.tolist() == [pytest.approx([0.6, 0.8])]
    assert used == tokens


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"error": {"message": "Model is loading."}}, ModelUnavailable, "Model is loading."),
        ({"error": {"message": "No such model.", "code": 404}}, ModelRejected, "No such model."),
        ({"object": "error", "message": "Too many inputs.", "code": 400}, ModelRejected, "Too many inputs."),
        ({"data": None, "message": "Quota is used up."}, ModelUnavailable, "Quota is used up."),
        ([{"error": "Busy"}], ModelUnavailable, "Busy."),
        ({"data": None}, ModelUnavailable, "can't be read"),
        ({"data": {}}, ModelUnavailable, "can't be read"),
        ({"data": [None]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": None}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": "not base64"}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": "AAAA"}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": {"a": 1}}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": [VECTOR, VECTOR]}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": [None, 1.0]}]}, ModelUnavailable, "without a direction"),
        ({"data": [{"index": 0, "embedding": [1e300, 1.0]}]}, ModelUnavailable, "without a direction"),
        ({"data": [{"index": 0, "embedding": [10**400]}]}, ModelUnavailable, "can't be read"),
        ({"data": [{"index": 0, "embedding": []}]}, ModelUnavailable, "without a direction"),
        ({"data": []}, ModelUnavailable, "sent 0 vectors for 1 texts, with the indexes: none"),
        ([], ModelUnavailable, "can't be read"),
        ("upstream failed", ModelUnavailable, "upstream failed"),
    ],
)
def test_other_answers_are_errors_in_the_servers_words(
    answer: Any, error: type[ModelError], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)) as caught:
        embedder().read(json.dumps(answer).encode(), 1)
    assert type(caught.value) is error


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(PACKED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "embedding"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({"data": json_values, "usage": json_values, "error": st.none() | json_values}))
def test_answer_of_any_types_has_vectors_or_is_an_error_of_ours(answer: Any) -> None:
    try:
        vectors, used = embedder().read(json.dumps(answer).encode(), 1)
    except ModelError:
        return
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0])
    assert isinstance(used, int)
