"""Count tokens without a tokenizer: an estimate that needs no vocabulary, for budgets and limits.

Four bytes of UTF-8 a token is the rule of thumb of OpenAI and Anthropic for English; other scripts take more bytes a character, as
they take more tokens.
"""

from __future__ import annotations

import msgspec

from agno_workers.core.messages import Audio, File, Image, Message

_BYTES_PER_TOKEN = 4
_PER_MESSAGE = 4
"""Tokens that a message costs beside its content."""
_PER_MEDIUM = 1_000
"""Tokens of a picture, a page or some seconds of sound; providers count a large one by its size."""
_MEDIUM_BYTES_PER_TOKEN = 64


def estimate(text: str) -> int:
    """Return about how many tokens a text has."""
    return -(-len(text.encode(errors="surrogatepass")) // _BYTES_PER_TOKEN)


def estimate_message(message: Message) -> int:
    """Return about how many tokens a message has, with its calls, its results and its media."""
    media = [part for part in message.parts if isinstance(part, Image | Audio | File)]
    parts = [part for part in message.parts if part not in media] if media else message.parts
    tokens = _PER_MESSAGE + -(-len(msgspec.json.encode(parts)) // _BYTES_PER_TOKEN)
    return tokens + sum(max(_PER_MEDIUM, len(part.data) // _MEDIUM_BYTES_PER_TOKEN) for part in media)
