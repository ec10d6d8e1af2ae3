"""Preparation of texts for any embedding model."""

from __future__ import annotations

from functools import cache
from typing import Any


def sound(text: str) -> str:
    """Return a text that every tokeniser and server accepts: half of a surrogate pair, from a broken file, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def fitting(text: str, max_tokens: int) -> str:
    """Cut the text to `max_tokens` tokens of OpenAI's cl100k_base."""
    if len(text.encode()) <= max_tokens:
        return text  # a token has at least one byte
    encoding = _cl100k()
    tokens = encoding.encode_ordinary(text)
    if len(tokens) <= max_tokens:
        return text
    kept: bytes = encoding.decode_bytes(tokens[:max_tokens])
    return kept.decode(errors="ignore")  # leaves out a character of several tokens that was cut in two


@cache
def _cl100k() -> Any:
    from bpe_openai import get_encoding  # noqa: PLC0415 - 60 MB, and few chunks are so long

    return get_encoding("cl100k_base")
