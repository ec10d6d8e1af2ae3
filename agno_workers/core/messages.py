"""What models and people say to each other: messages made of parts, and what a model call takes and gives.

Everything here is a frozen value that msgspec turns to JSON and back without loss, because messages are
stored as rows and cross processes. Bytes travel as base64 text in `data`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

import msgspec


class Part(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """One piece of a message."""


class Text(Part, frozen=True, tag="text"):
    text: str


class Image(Part, frozen=True, tag="image"):
    """An image for the model to look at: either `data` (base64) with its `media_type`, or a `url`."""

    data: str = ""
    url: str = ""
    media_type: str = "image/png"


class Audio(Part, frozen=True, tag="audio"):
    data: str = ""
    url: str = ""
    media_type: str = "audio/wav"


class File(Part, frozen=True, tag="file"):
    data: str = ""
    url: str = ""
    name: str = ""
    media_type: str = "application/pdf"


class Reasoning(Part, frozen=True, tag="reasoning"):
    """Thinking that a model showed. `opaque` is the provider's own block (signature, encrypted content):
    it goes back to the same provider untouched on the next turn, and to no other.
    """

    text: str = ""
    provider: str = ""
    opaque: dict[str, Any] | None = None


class ToolCall(Part, frozen=True, tag="tool_call"):
    """A model's wish to call a tool. `arguments` is the JSON text as the model wrote it, maybe broken."""

    id: str
    name: str
    arguments: str = "{}"


class ToolResult(Part, frozen=True, tag="tool_result"):
    """What a tool gave back, or, with `is_error`, what went wrong in words that the model can read."""

    call_id: str
    name: str
    content: str
    is_error: bool = False


AnyPart = Text | Image | Audio | File | Reasoning | ToolCall | ToolResult
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a transcript."""

    role: Role
    parts: tuple[AnyPart, ...]

    @property
    def text(self) -> str:
        """All text parts, joined as they stand."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def user(*content: str | AnyPart) -> Message:
    """A user's message from strings and parts, in order."""
    return Message("user", tuple(Text(item) if isinstance(item, str) else item for item in content))


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one call or a sum of calls. `cached_tokens` and `cache_write_tokens` are part of
    `input_tokens`; `reasoning_tokens` is part of `output_tokens`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))


class StopReason(StrEnum):
    """Why a model stopped; the providers' words are mapped to these in `models/`."""

    END = "end"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    REFUSAL = "refusal"
    PAUSED = "paused"
    CONTEXT_WINDOW = "context_window"


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as a model sees it. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False


class OutputSpec(msgspec.Struct, frozen=True):
    """The shape the final answer must have: a JSON schema and a name for it."""

    name: str
    schema: dict[str, Any]


class ModelSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a model is asked. None leaves the provider's default. Settings that a provider does not know
    belong into `extra`, which is merged into the body of its request as it stands.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    thinking_budget_tokens: int | None = None
    tool_choice: Literal["auto", "none", "required"] | None = None
    parallel_tool_calls: bool | None = None
    timeout_s: float = 300.0
    extra: dict[str, Any] = {}


class ModelRequest(msgspec.Struct, frozen=True):
    """One model call: system text and transcript in, a `Reply` out."""

    messages: tuple[Message, ...]
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    output: OutputSpec | None = None
    settings: ModelSettings = ModelSettings()


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one model call gave. `message.role` is always assistant; `model` is the name the provider reported."""

    message: Message
    stop: StopReason = StopReason.END
    usage: Usage = Usage()
    model: str = ""
    response_id: str = ""


class Delta(msgspec.Struct, frozen=True, tag_field="type", tag="delta", omit_defaults=True):
    """A piece of a reply while it is being written; for watching only, never stored as truth."""

    text: str = ""
    reasoning: str = ""


Emit = Callable[[Delta], None]
