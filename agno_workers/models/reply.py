"""What every provider's answer goes through at its end, and what every transcript needs on its way out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agno_workers.core.messages import (
    AnyPart,
    Audio,
    File,
    Image,
    Message,
    ModelRequest,
    Reply,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from agno_workers.errors import ModelRejected

TRUNCATED = "ended its answer without the final event"
EMPTY = "sent an empty answer"


def finished(
    parts: Iterable[AnyPart],
    *,
    stop: StopReason,
    usage: Usage,
    model: str,
    response_id: str,
    request: ModelRequest,
) -> Reply:
    """The Reply of these parts, with its tool calls' ids made unique and its stop reason agreeing with them.

    Raises ValueError when the model said that it is done and gave neither text nor a call.
    """
    kept = distinct(tuple(part for part in parts if part != Text("")), request.messages, response_id)
    message = Message("assistant", kept)
    if stop in (StopReason.END, StopReason.TOOL_CALLS):
        stop = StopReason.TOOL_CALLS if message.tool_calls else StopReason.END
        if not message.tool_calls and not message.text:
            raise ValueError(EMPTY)
    return Reply(message, stop, usage, model, response_id)


def distinct(
    parts: tuple[AnyPart, ...], messages: Sequence[Message], response_id: str
) -> tuple[AnyPart, ...]:
    """The parts with every tool call's id unique among them and in the transcript before them.

    A second `x` becomes `x_2`, a third `x_3`; a call without an id gets one from the response's id. The same
    answer to the same transcript gives the same ids.
    """
    taken = {call.id for message in messages for call in message.tool_calls}
    result: list[AnyPart] = []
    for part in parts:
        if isinstance(part, ToolCall):
            first = wanted = part.id or f"call_{response_id}"
            number = 1
            while wanted in taken:
                number += 1
                wanted = f"{first}_{number}"
            taken.add(wanted)
            part = part if wanted == part.id else msgspec.structs.replace(part, id=wanted)  # noqa: PLW2901
        result.append(part)
    return tuple(result)


def arguments(call: ToolCall) -> dict[str, Any]:
    """A call's arguments as an object, which is what providers want back: broken JSON goes as a text within one."""
    try:
        value = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": call.arguments}


def data_url(part: Image | Audio | File) -> str:
    """The part as a URL: its own, or one that holds its data."""
    return part.url or f"data:{part.media_type};base64,{part.data}"


def unsupported(name: str, part: AnyPart, why: str = "") -> ModelRejected:
    """The error for a part that this model's provider does not take as input."""
    provider, _, model = name.partition(":")
    kind = type(part).__name__.lower()
    details = f" of type {part.media_type!r}" if isinstance(part, Image | Audio | File) else ""
    return ModelRejected(
        f"{name} does not take {kind} parts{details} as input{why}: leave them out or take another model.",
        provider=provider, model=model, status=None, code="unsupported_input",
    )  # fmt: skip


def plain_id(call_id: str) -> str:
    """The id in the characters that every provider accepts, as calls may come from another provider's answer."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id) or "call"
