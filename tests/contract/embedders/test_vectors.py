"""Each embedder returns one vector a text, in order, of unit length, the same each time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agno_workers.core.ports import Embedder

TEXTS = [
    "The cat sat on the mat.",
    "Quarterly revenue rose by 4 %.",
    "Ein Satz auf Deutsch, mit Umlauten: äöü.",
]
ODD = {
    "empty": "",
    "blank": " \n\t ",
    "emoji": "🙂🙃🤖",
    "other scripts": "東京は日本の首都です。 Москва — столица России. القاهرة",
    "combining": "e\u0301 n\u0303 \u200b zero\u200dwidth",
    "half a pair": "broken \ud83d text",
    "control": "a\x00b\x07c",
    "markup of a tokeniser": "[CLS] [SEP] [PAD] <|endoftext|> <|im_start|>",
    "one long word": "x" * 5000,
    "10,000 characters": "All work and no play makes Jack a dull boy. " * 228,
    "many tokens": "7🙂" * 6000,
}


def check(embedder: Embedder, texts: list[str]) -> np.ndarray:
    vectors: np.ndarray = embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), embedder.dimensions)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return vectors


def test_one_vector_a_text_in_order(embedder: Embedder) -> None:
    vectors = check(embedder, TEXTS)
    backwards = check(embedder, TEXTS[::-1])[::-1]
    alone = np.concatenate([check(embedder, [text]) for text in TEXTS])
    assert np.allclose(vectors, backwards, atol=1e-6)
    assert np.allclose(vectors, alone, atol=1e-6), "a text's vector depends on its neighbours"


def test_the_same_text_gives_the_same_vector(embedder: Embedder) -> None:
    assert np.array_equal(check(embedder, TEXTS), check(embedder, TEXTS))


def test_a_question_finds_its_document(embedder: Embedder) -> None:
    documents = check(embedder, TEXTS)
    (question,) = embedder.embed(["Where did the cat sit, on the mat?"], kind="query")
    assert (documents @ question).argmax() == 0


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    check(embedder, [])


@pytest.mark.parametrize("odd", ODD)
def test_odd_texts_are_embedded(embedder: Embedder, odd: str) -> None:
    check(embedder, [TEXTS[0], ODD[odd], TEXTS[1]])


def test_300_texts_of_all_lengths(embedder: Embedder) -> None:
    texts = [f"Sentence {n} {'about the weather ' * (n % 7)}" for n in range(300)]
    vectors = check(embedder, texts)
    assert np.allclose(vectors[::60], check(embedder, texts[::60]), atol=1e-6)


def test_threads_share_it(embedder: Embedder) -> None:
    texts = [f"Text number {n}." for n in range(24)]
    with ThreadPoolExecutor(8) as threads:
        one_by_one = list(threads.map(lambda text: embedder.embed([text])[0], texts))
    assert np.allclose(one_by_one, check(embedder, texts), atol=1e-6)


def test_a_forked_process_uses_it_as_well(embedder: Embedder) -> None:
    before = check(embedder, TEXTS)
    child = os.fork()
    if not child:
        try:
            same = np.array_equal(embedder.embed(TEXTS), before)
        except BaseException:
            same = False
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(check(embedder, TEXTS), before)


def test_embedder_has_limits(embedder: Embedder) -> None:
    assert embedder.max_tokens >= 256
    assert embedder.batch_texts >= 100
    assert embedder.batch_tokens >= embedder.max_tokens
