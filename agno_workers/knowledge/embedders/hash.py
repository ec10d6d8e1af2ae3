"""`hash:DIMENSIONS`: hash words to places of a vector. For tests and benchmarks: it is free, and finds only equal words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from agno_workers.knowledge.embedders.texts import sound

_WORD = re.compile(r"\w+")


class Hash:
    """Feature hashing: a text has the same vector in every process and release."""

    max_tokens = 1_000_000
    batch_texts = 1000
    batch_tokens = 1_000_000

    def __init__(self, dimensions: int = 384) -> None:
        self.name = f"hash:{dimensions}"
        self.dimensions = dimensions

    def embed(
        self,
        texts: Sequence[str],
        kind: Literal["document", "query"] = "document",  # noqa: ARG002 - both are words
    ) -> NDArray[np.float32]:
        return self.embed_counted(texts)[0]

    def embed_counted(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Return the vectors of `embed`, and the number of tokens, which are words here."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        tokens = 0
        for vector, text in zip(vectors, texts, strict=True):
            words = _WORD.findall(sound(text).lower())
            tokens += len(words)
            hashes = np.fromiter(map(crc32, map(str.encode, words)), np.int64, len(words))
            places, signs = hashes // 2 % self.dimensions, hashes % 2 * 2 - 1
            vector[:] = np.bincount(places, signs, self.dimensions)
            if not vector.any():  # no words, or words that cancel each other out
                vector[0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors, tokens
