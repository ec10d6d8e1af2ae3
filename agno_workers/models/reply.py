"""Steps that all providers share: finishing a reply, and preparing the parts of a transcript."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from agno_workers.core.messages import (
    AnyPart,
    Audio,
    File,
    Image,
    Message,
    ModelRequest,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from agno_workers.core.words import safe_text
from agno_workers.errors import ModelRejected
from agno_workers.models.faults import rejected
from agno_workers.models.wire import MAX_LEVELS, is_nested

TRUNCATED = "ended its answer without the final event"
EMPTY = "sent an empty answer"
NESTED = f"sent a block of more than {MAX_LEVELS} levels"
NAMELESS = "sent a tool call without a name"

_WHOLE = (StopReason.END, StopReason.TOOL_CALLS, StopReason.PAUSED)


def stop_of(reason: str, known: Mapping[str, StopReason]) -> StopReason:
    """Return the meaning of a provider's stop reason. Only documented reasons end an answer: others say that it broke off.

    Raises ValueError for any other reason, and for none.
    """
    if not reason:
        raise ValueError(TRUNCATED)
    if (stop := known.get(reason.lower())) is None:
        raise ValueError(
            f"ended its answer with the reason {reason[:200]!r}, which is not the end of a whole answer"
        )
    return stop


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

    Raises ValueError when a call has no name, and when the model ended its answer without text or a call, unless it has
    called tools or paused before: then it may have nothing to add.
    """
    kept = [safe for part in parts if (safe := _safe(part)) != Text("")]
    if any(isinstance(part, ToolCall) and not part.name for part in kept):
        if stop in _WHOLE:
            raise ValueError(NAMELESS)
        kept = [part for part in kept if not (isinstance(part, ToolCall) and not part.name)]  # cut off
    response_id = safe_text(response_id)
    message = Message("assistant", distinct(tuple(kept), request.messages, response_id))
    if stop in (StopReason.END, StopReason.TOOL_CALLS):
        stop = StopReason.TOOL_CALLS if message.tool_calls else StopReason.END
        is_first = not request.messages or request.messages[-1].role == "user"
        if is_first and not message.tool_calls and not message.text:
            raise ValueError(EMPTY)
    return Reply(message, stop, usage, safe_text(model), response_id)


def _safe(part: AnyPart) -> AnyPart:
    """Return the part with text that can be stored."""
    match part:
        case Text(text):
            return Text(safe_text(text))
        case Reasoning(opaque=opaque) if is_nested(opaque):
            raise ValueError(NESTED)
        case Reasoning(text, provider, opaque):
            return Reasoning(safe_text(text), provider, opaque)
        case ToolCall(call_id, name, written):
            return ToolCall(safe_text(call_id), safe_text(name), safe_text(written))
        case _:
            return part


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
    except (ValueError, RecursionError):
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


def plain_name(name: str) -> str:
    """Return the name of a called tool as every provider accepts it in a transcript; the model may have made it up."""
    return plain_id(name)[:64]


def plain_id(call_id: str) -> str:
    """Return the id in the characters that every provider accepts; the call may be another provider's."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id) or "call"
