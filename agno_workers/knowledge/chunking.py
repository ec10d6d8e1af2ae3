"""Validate a Chunking before anything is stored. Light, because the SDK and the CLI import it."""

from __future__ import annotations

from collections.abc import Iterable

from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Chunking

STRATEGIES = ("structure", "fixed")
TOKENIZERS = ("minilm", "cl100k_base", "o200k_base")
MIN_TOKENS = 16
"""One character may take four tokens, headings take up to half, and a model adds two."""
MAX_CHARS = 100_000


def check(chunking: Chunking) -> Chunking:
    """Return the chunking unchanged. Raises InvalidInput for an invalid value, with the nearest valid one."""
    if ":" not in chunking.strategy:
        _one_of(chunking.strategy, STRATEGIES, "chunking strategy", "or your own as module:function")
    elif not all(part.isidentifier() for part in chunking.strategy.replace(":", ".", 1).split(".")):
        raise InvalidInput(
            f"chunking strategy {chunking.strategy!r} does not name a function: write module:function, such as shop.chunks:by_product.",
            strategy=chunking.strategy,
        )
    _one_of(chunking.tokenizer, TOKENIZERS, "tokenizer", "the one that is closest to your embedder's")
    _within("max_chars", chunking.max_chars, 1, MAX_CHARS)
    _within("overlap_chars", chunking.overlap_chars, 0, chunking.max_chars // 2)
    _within("max_tokens", chunking.max_tokens, MIN_TOKENS, MAX_CHARS)
    return chunking


def _one_of(name: str, known: Iterable[str], what: str, advice: str) -> None:
    if name in known:
        return
    hint = did_you_mean(name, known) or f" Use one of {', '.join(known)}, {advice}."
    raise InvalidInput(f"unknown {what} {name!r}.{hint}", name=name)


def _within(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InvalidInput(f"{name} is {value!r}: use a whole number from {least} to {most}.", name=name)
