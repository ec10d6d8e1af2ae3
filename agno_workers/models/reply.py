"""Steps that all providers share: finishing a reply, and preparing the parts of a transcript."""

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
from agno_workers.models.faults import rejected

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
    """Return the Reply of these parts, with unique ids for its tool calls and a stop reason that agrees with them.

    Raises ValueError when the model ended its answer without text or a call.
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
    """Return the parts with the ids of tool calls unique among them and in the transcript before them.

    A second `x` becomes `x_2`, a third `x_3`; a call without an id gets one from the response's id. The same
    answer to the same transcript always gets the same ids.
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
    """Return a call's arguments as an object, which providers require; broken JSON becomes a text within one."""
    try:
        value = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": call.arguments}


def data_url(part: Image | Audio | File) -> str:
    """Return the part's own URL, or a URL that holds its data."""
    return part.url or f"data:{part.media_type};base64,{part.data}"


def unsupported(name: str, part: AnyPart, why: str = "") -> ModelRejected:
    """Return the error for a part that this model's provider does not take as input."""
    kind = type(part).__name__.lower()
    details = f" of type {part.media_type!r}" if isinstance(part, Image | Audio | File) else ""
    message = (
        f"{name} does not take {kind} parts{details} as input{why}: leave them out or use another model."
    )
    return rejected(name, message, code="unsupported_input")


def plain_id(call_id: str) -> str:
    """Return the id in the characters that every provider accepts; the call may be another provider's."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id) or "call"
