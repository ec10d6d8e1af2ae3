"""A large knowledge base out of nothing: texts of a word model, and vectors that lie as those of texts do.

A document has a topic, which shows in its words and its vectors. Vectors lie near a subspace of few dimensions, in clusters
within clusters (topic, document, chunk), since neighbours at equal distances all round are what no embedding model gives.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agno_workers.database.pool import Pool

DIMENSIONS = 384
PER_DOCUMENT = 10
_INNER = 96
_WORDS = 60_000
_LETTERS = np.array(list("bcdfglmnprst"))
_VOWELS = np.array(list("aeiou"))


@dataclass(frozen=True)
class Corpus:
    """`vectors` (n, 384) float32, unit length, a row a chunk; `document` is that of each row, from 0 on."""

    texts: list[str]
    vectors: NDArray[np.float32]
    document: NDArray[np.int64]
    questions: list[str]
    asked: NDArray[np.float32]

    def share(self, one_in: int) -> NDArray[np.bool_]:
        """The chunks whose document has `in_<one_in>` 0: so many by chance, all over the topics."""
        chosen: NDArray[np.bool_] = _part(self.document, one_in) == 0
        return chosen


def corpus(chunks: int, questions: int, seed: int = 7) -> Corpus:
    rng = np.random.default_rng(seed)
    documents = chunks // PER_DOCUMENT
    topics = max(20, documents // 50)
    document = np.repeat(np.arange(documents), PER_DOCUMENT)
    topic = rng.integers(topics, size=documents)
    inner = (
        rng.standard_normal((topics, _INNER))[topic][document]
        + 0.8 * rng.standard_normal((documents, _INNER))[document]
        + 0.7 * rng.standard_normal((chunks, _INNER))
    )
    basis = rng.standard_normal((_INNER, DIMENSIONS)) * np.linspace(1.0, 0.3, _INNER)[:, None]
    vectors = _unit(inner @ basis + 0.8 * rng.standard_normal((chunks, DIMENSIONS)))
    words = np.array(["".join(w) for w in _syllables(rng)])
    own = rng.integers(300, _WORDS, size=(topics, 60))
    texts = [" ".join(words[_speak(rng, own[topic[d]], 65)]) for d in document]
    chosen = rng.choice(chunks, questions, replace=False)
    noise = rng.standard_normal((questions, _INNER)) @ basis
    asked = _unit(
        inner[chosen] @ basis + 0.9 * noise * np.linalg.norm(inner[chosen], axis=1, keepdims=True) / np.sqrt(_INNER)
    )  # fmt: skip
    said = [
        " ".join(rng.permutation(np.concatenate([rng.choice(texts[i].split(), 5), words[_zipf(rng, 3)]])))
        for i in chosen
    ]
    return Corpus(texts, vectors, document, said, asked)


def store(pool: Pool, base: Corpus, knowledge_id: int, embedding_space_id: int) -> None:
    """Bring it in as an ingestion would leave it."""
    documents = int(base.document[-1]) + 1
    with pool.connection() as connection, connection.cursor() as cursor:
        with cursor.copy(
            "COPY agno.document (knowledge_id, uri, title, language, metadata, version, chunks) FROM STDIN"
        ) as copy:
            for number in range(documents):
                parts = {f"in_{n}": int(_part(np.array([number]), n)[0]) for n in (10, 100)}
                copy.write_row((knowledge_id, f"made:{number}", f"Document {number}", "en", json.dumps(parts), 1, PER_DOCUMENT))  # fmt: skip
        ids = connection.execute(
            "SELECT id FROM agno.document WHERE knowledge_id = %s ORDER BY id", [knowledge_id]
        )
        document_ids = [row["id"] for row in ids]
        with cursor.copy(
            "COPY agno.chunk (knowledge_id, document_id, version, position, live, hash, content, start_at, end_at, tokens, language) FROM STDIN"
        ) as copy:
            for place, text in enumerate(base.texts):
                digest = hashlib.sha256(f"{place}{text}".encode()).hexdigest()
                copy.write_row((knowledge_id, document_ids[place // PER_DOCUMENT], 1, place % PER_DOCUMENT, True, f"\\x{digest}", text, 0, len(text), 100, "english"))  # fmt: skip
        ids = connection.execute(
            "SELECT id FROM agno.chunk WHERE knowledge_id = %s ORDER BY id", [knowledge_id]
        )
        with cursor.copy(
            "COPY agno.chunk_embedding (embedding_space_id, chunk_id, embedding) FROM STDIN"
        ) as copy:
            for row, vector in zip(ids, base.vectors, strict=True):
                copy.write_row((embedding_space_id, row["id"], literal(vector)))
        connection.execute(
            "UPDATE agno.knowledge SET chunk_count = %s, version = version + 1, embedding_space_id = %s WHERE id = %s",
            [len(base.texts), embedding_space_id, knowledge_id],
        )
        connection.execute("VACUUM ANALYZE agno.chunk, agno.document, agno.chunk_embedding")


def literal(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{each:.5g}" for each in vector.tolist()) + "]"


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the vectors with length 1, rounded to half precision, in which Postgres keeps them."""
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rounded: NDArray[np.float32] = scaled.astype(np.float16).astype(np.float32)
    return rounded


def _part(document: NDArray[Any], one_in: int) -> NDArray[Any]:
    """A number below `one_in` for each document, alike in every run, and without a pattern."""
    part: NDArray[np.int64] = (document * 2_654_435_761 % 2**32) // 97 % one_in
    return part


def _syllables(rng: np.random.Generator) -> NDArray[Any]:
    letters, vowels = _LETTERS[rng.integers(len(_LETTERS), size=(_WORDS, 4))], _VOWELS[rng.integers(5, size=(_WORDS, 4))]  # fmt: skip
    pairs: NDArray[Any] = np.stack([letters, vowels], axis=2)
    return pairs.reshape(_WORDS, 8)


def _zipf(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """Ranks of words as texts have them, once the words are gone that no index keeps: the first stands in a chunk in seven."""
    ranks: NDArray[np.int64] = np.minimum((rng.pareto(1.0, count) * 300).astype(int), _WORDS - 1)
    return ranks


def _speak(rng: np.random.Generator, own: NDArray[Any], count: int) -> NDArray[Any]:
    """Three words in ten are the topic's."""
    common = _zipf(rng, count)
    return np.where(rng.random(count) < 0.3, rng.choice(own, count), common)
