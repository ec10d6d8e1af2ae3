"""Estimate tokens, for decisions that need no exact count. Pure, and cheap enough for every turn."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agno_workers.core.messages import (
    Audio,
    File,
    Image,
    Message,
    ModelRequest,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)

_BYTES_A_TOKEN = 4
_A_MESSAGE = 4
"""Tokens of the role of a message and of what separates it from the next one."""
_A_MEDIUM = 1_500
"""Tokens of an image, a sound or a document: providers count pixels, seconds and pages, not bytes."""


def estimate(text: str) -> int:
    """Return about how many tokens a text has: a quarter of its bytes in UTF-8, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // _BYTES_A_TOKEN)


def estimate_message(message: Message) -> int:
    """Return about how many tokens a message has, with its calls and results."""
    tokens = _A_MESSAGE
    for part in message.parts:
        match part:
            case Text(text) | Reasoning(text):
                tokens += estimate(text)
            case ToolCall(_, name, arguments):
                tokens += estimate(name) + estimate(arguments)
            case ToolResult(_, name, content):
                tokens += estimate(name) + estimate(content)
            case Image() | Audio() | File():
                tokens += _A_MEDIUM
    return tokens


def estimate_messages(messages: Iterable[Message]) -> int:
    """Return about how many tokens messages have."""
    return sum(map(estimate_message, messages))


def estimate_request(request: ModelRequest) -> int:
    """Return about how many tokens a request has."""
    schemas = msgspec.json.encode((request.tools, request.output), enc_hook=str)
    return estimate(request.system) + estimate(schemas.decode()) + estimate_messages(request.messages)
