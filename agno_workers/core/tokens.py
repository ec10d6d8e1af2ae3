"""Count tokens without a tokenizer: an estimate that needs no vocabulary, for budgets and limits.

Four bytes of UTF-8 a token is the rule of thumb of OpenAI and Anthropic for English; other scripts take more bytes a character, as
they take more tokens.
"""

from __future__ import annotations

import msgspec

from agno_workers.core.messages import Message

_BYTES_PER_TOKEN = 4
_PER_MESSAGE = 4
"""Tokens that a message costs beside its content."""


def estimate(text: str) -> int:
    """Return about how many tokens a text has."""
    return -(-len(text.encode(errors="surrogatepass")) // _BYTES_PER_TOKEN)


def estimate_message(message: Message) -> int:
    """Return about how many tokens a message has, with its calls and results. Pictures, sound and files count as their bytes in base64."""
    return _PER_MESSAGE + -(-len(msgspec.json.encode(message.parts)) // _BYTES_PER_TOKEN)
