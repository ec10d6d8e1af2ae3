"""What is done to a text before any model sees it."""

from __future__ import annotations

from functools import cache
from typing import Any


def sound(text: str) -> str:
    """The text as every tokeniser and every server takes it: half a surrogate pair, as broken files have it, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def fitting(text: str, max_tokens: int) -> str:
    """As much of the text's beginning as `max_tokens` tokens of OpenAI's cl100k_base are."""
    if len(text.encode()) <= max_tokens:
        return text  # no token is less than a byte
    encoding = _cl100k()
    tokens = encoding.encode_ordinary(text)
    if len(tokens) <= max_tokens:
        return text
    kept: bytes = encoding.decode_bytes(tokens[:max_tokens])
    return kept.decode(
        errors="ignore"
    )  # a character may be several tokens: one that was cut in two is left out


@cache
def _cl100k() -> Any:
    from bpe_openai import get_encoding  # noqa: PLC0415 - 60 MB, and chunks are hardly ever so long

    return get_encoding("cl100k_base")
