"""The context windows of models: those that are known, and what a refusal says. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_KNOWN = (
    ("anthropic:claude-3", 200_000), ("anthropic:claude-haiku-4", 200_000), ("anthropic:claude-opus-4", 200_000),
    ("anthropic:claude-sonnet-4", 200_000), ("openai:gpt-3.5", 16_385), ("openai:gpt-4-turbo", 128_000), ("openai:gpt-4.1", 1_047_576),
    ("openai:gpt-4o", 128_000), ("openai:gpt-4", 8_192), ("openai:gpt-5", 400_000), ("openai:o1", 200_000), ("openai:o3", 200_000),
    ("openai:o4", 200_000),
)  # fmt: skip
"""The beginnings of names, and the tokens of the window; the first that fits counts. Others are learned from the provider's refusal."""
_STATED = re.compile(
    r"(?:maximum context length (?:is|of)|context (?:size|window|length)(?: is| of)? \(?|tokens? > |\d \+ [\d,]+ > |n_ctx\D{1,4})\s*([\d,]{3,})",
    re.IGNORECASE,
)
_LEAST_TOKENS = 256


@lru_cache
def window_of(model: str) -> int | None:
    """Return the context window of the model `provider:model`, in tokens; None if it is not known."""
    name = model.replace("openai-chat:", "openai:", 1)
    return next((tokens for beginning, tokens in _KNOWN if name.startswith(beginning)), None)


def refused_window(words: str) -> int | None:
    """Return the context window that a provider names in its refusal of a transcript that is too long; None if it names none."""
    found = _STATED.search(words)
    tokens = int(found[1].replace(",", "")) if found and found[1].strip(",") else 0
    return tokens if tokens >= _LEAST_TOKENS else None
