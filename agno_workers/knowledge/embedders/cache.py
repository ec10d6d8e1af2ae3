"""Vectors of questions, kept in this process: people and agents ask the same again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from agno_workers.core.ports import Embedder

MAX_QUESTIONS = 1024
"""Of 384 dimensions: 1.5 MB; of 3072: 12 MB."""


@lru_cache(MAX_QUESTIONS)
def embed_query(embedder: Embedder, text: str) -> Any:
    """The vector of a question, `(dimensions,)` float32 of unit length, read-only. Raises what the embedder raises.

    Threads may share it, and it survives a fork: `lru_cache` needs no lock of ours, which a fork could leave locked for
    ever. Two threads that ask a new question at once both have it embedded, which is harmless; an error is not kept.
    """
    (vector,) = embedder.embed([text], kind="query")
    vector.flags.writeable = False
    return vector
