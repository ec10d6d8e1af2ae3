"""Messages made of parts, and the request and reply of a model call.

All are frozen values that msgspec converts to JSON and back without loss, since messages are stored as rows. Bytes are base64
text in `data`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, get_args

import msgspec

from agno_workers.core.fields import Fields


class Part(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """One piece of a message."""


class Text(Part, frozen=True, tag="text"):
    """Text in a message."""

    text: str
    """The text."""


class Image(Part, frozen=True, tag="image"):
    """An image for the model to look at: either `data` (base64) with its `media_type`, or a `url`."""

    data: str = ""
    """Base64."""
    url: str = ""
    """An address that the provider can reach."""
    media_type: str = "image/png"
    """The type of `data`."""


class Audio(Part, frozen=True, tag="audio"):
    """Speech or other sound: either `data` (base64) with its `media_type`, or a `url`."""

    data: str = ""
    """Base64."""
    url: str = ""
    """An address that the provider can reach."""
    media_type: str = "audio/wav"
    """The type of `data`."""


class File(Part, frozen=True, tag="file"):
    """A document: either `data` (base64) with its `media_type`, or a `url`."""

    data: str = ""
    """Base64."""
    url: str = ""
    """An address that the provider can reach."""
    name: str = ""
    """The name that the model sees."""
    media_type: str = "application/pdf"
    """The type of `data`."""


class Reasoning(Part, frozen=True, tag="reasoning"):
    """The visible thinking of a model. `opaque` is the provider's own block (signature, encrypted content): the next turn sends
    it back unchanged to the same provider only.
    """

    text: str = ""
    provider: str = ""
    opaque: dict[str, Any] | None = None


class ToolCall(Part, frozen=True, tag="tool_call"):
    """A tool call that a model asks for. `arguments` is the model's JSON text, which may be invalid."""

    id: str
    name: str
    arguments: str = "{}"


class ToolResult(Part, frozen=True, tag="tool_result"):
    """The result of a tool call; with `is_error`, an error message for the model."""

    call_id: str
    name: str
    content: str
    is_error: bool = False


AnyPart = Text | Image | Audio | File | Reasoning | ToolCall | ToolResult
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a transcript."""

    role: Role
    """`system`, `user`, `assistant` or `tool`."""
    parts: tuple[AnyPart, ...]
    """The pieces of the message, in order."""
    from_history: bool = False
    """True for a message of an earlier run, or about earlier runs, that the model sees before the input."""

    @property
    def text(self) -> str:
        """All text parts, joined without a separator."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that an answer asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def stored_results(message: Message) -> list[str]:
    """Return the ids of results that are stored beside the transcript, and that a message has previews of, or names."""
    if message.role not in ("tool", "user"):
        return []
    texts = (
        part.content if isinstance(part, ToolResult) else getattr(part, "text", "") for part in message.parts
    )
    return [found for text in texts if "[Result r" in text for found in _STORED.findall(text)]


def read_message(content: object) -> Message:
    """Read a stored message. A text field with another JSON value is read as its text.

    Raises msgspec.ValidationError for anything that is not a message.
    """
    try:
        return msgspec.convert(content, Message)
    except msgspec.ValidationError:
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(parts, list):
            raise
        return msgspec.convert({**content, "parts": [_mended(part) for part in parts]}, Message)


def read_messages(text: str) -> tuple[Message, ...]:
    """Read a JSON array of stored messages, each as `read_message` does."""
    try:
        return _MESSAGES.decode(text)
    except msgspec.ValidationError:
        return tuple(read_message(content) for content in msgspec.json.decode(text))


def read_call(content: object) -> ToolCall:
    """Read a stored tool call, as `read_message` does."""
    return msgspec.convert(_mended(content), ToolCall)


def _mended(part: object) -> object:
    kind = _KINDS.get(str(part.get("type"))) if isinstance(part, dict) else None
    if kind is None or not isinstance(part, dict):
        return part
    texts = {field.encode_name for field in msgspec.structs.fields(kind) if field.type is str}
    return {name: _as_text(value) if name in texts else value for name, value in part.items()}


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


_STORED = re.compile(r"\[Result (r[0-9a-f]{8}): ")
"""The beginning of a preview, as `agno.store_result` writes it."""
_MESSAGES = msgspec.json.Decoder(tuple[Message, ...])
_KINDS = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyPart)}


def user(*content: str | AnyPart) -> Message:
    """Return a user message of these strings and parts, in order."""
    return Message("user", tuple(Text(item) if isinstance(item, str) else item for item in content))


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tokens of one call or of several. `cached_tokens` and `cache_write_tokens` are part of `input_tokens`;
    `reasoning_tokens` is part of `output_tokens`.
    """

    input_tokens: int = 0
    """Tokens that the model has read."""
    output_tokens: int = 0
    """Tokens that it has written."""
    cached_tokens: int = 0
    """Read from the provider's cache."""
    cache_write_tokens: int = 0
    """Written to the provider's cache."""
    reasoning_tokens: int = 0
    """Written as thinking."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))


class StopReason(StrEnum):
    """The reason why a model stopped; `models/` maps the providers' words to these."""

    END = "end"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    REFUSAL = "refusal"
    PAUSED = "paused"
    CONTEXT_WINDOW = "context_window"


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as the model sees it. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False


class OutputSpec(msgspec.Struct, frozen=True):
    """The JSON schema of the final answer, and its name."""

    name: str
    schema: dict[str, Any]


class ModelSettings(msgspec.Struct, metaclass=Fields, frozen=True, omit_defaults=True):
    """The options of a model call. None means the provider's default. `extra` holds options of one provider: it is merged into
    the body of the request.
    """

    temperature: float | None = None
    """From 0 (always the likeliest word) upwards."""
    top_p: float | None = None
    """Only words within this share of probability, up to 1."""
    max_output_tokens: int | None = None
    """The most tokens of one answer."""
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    """How long the model thinks, where it can be told."""
    thinking_budget_tokens: int | None = None
    """The most tokens of thinking (Anthropic)."""
    tool_choice: Literal["auto", "none", "required"] | None = None
    """`auto`: the model may call tools; `none`: it may not; `required`: it must."""
    parallel_tool_calls: bool | None = None
    """True: one answer may call several tools."""
    timeout_s: float = 300.0
    """Seconds for one call, with its answer."""
    extra: dict[str, Any] = {}
    """Further fields of the request, in the form of the provider's API."""


class ModelRequest(msgspec.Struct, frozen=True):
    """One model call: system text and transcript in, a `Reply` out."""

    messages: tuple[Message, ...]
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    output: OutputSpec | None = None
    settings: ModelSettings = ModelSettings()


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one model call. `message.role` is always assistant; `model` is the name that the provider reported."""

    message: Message
    stop: StopReason = StopReason.END
    usage: Usage = Usage()
    model: str = ""
    response_id: str = ""


class Delta(msgspec.Struct, frozen=True, tag_field="type", tag="delta", omit_defaults=True):
    """A piece of a reply while the model writes it; it is for live display and is not stored."""

    text: str = ""
    reasoning: str = ""


Emit = Callable[[Delta], None]
