"""Anthropic's Messages API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from agno_workers.core.messages import (
    AnyPart,
    Delta,
    Emit,
    File,
    Image,
    Message,
    ModelRequest,
    OutputSpec,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
    Usage,
)
from agno_workers.core.words import without_none
from agno_workers.models import strict
from agno_workers.models.faults import error_event, explanation, has_error
from agno_workers.models.reply import arguments, finished, plain_id, plain_name, stop_of, unsupported
from agno_workers.models.transport import Body, ProviderTransport, Write, written
from agno_workers.models.wire import fields, identifier, json_text, objects, text, tokens

if TYPE_CHECKING:
    from agno_workers.net.pool import Request

DEFAULT_MAX_TOKENS = 16_384
"""The default for `max_output_tokens`, which the API requires; a thinking budget is added to it."""

WORDLESS = "The call failed without a message."

EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}
CHOICES = {"auto": "auto", "none": "none", "required": "any"}
STOPS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "tool_use": StopReason.TOOL_CALLS,
    "max_tokens": StopReason.LENGTH,
    "refusal": StopReason.REFUSAL,
    "pause_turn": StopReason.PAUSED,
    "model_context_window_exceeded": StopReason.CONTEXT_WINDOW,
}


class Anthropic:
    """A model behind the Messages API.

    Signed thinking goes back unchanged. So does every other block without a part of ours (calls and results of tools
    that Anthropic runs): it is kept as a Reasoning part without text.
    """

    def __init__(self, model: str, *, api_key: str, base_url: str | None = None) -> None:
        self.name = f"anthropic:{model}"
        self._model = model
        self._transport = ProviderTransport(self.name, api_key, writer(api_key, base_url))

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        fold = _Fold(request)
        return self._transport.ask("/v1/messages", self.body(request), fold, request.settings.timeout_s, emit)

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """Return the JSON to send. System messages of the transcript join the single system text."""
        settings = request.settings
        budget = settings.thinking_budget_tokens
        system = [request.system, *(message.text for message in request.messages if message.role == "system")]
        system.append(_asked_for(request.output))
        body = {
            "model": self._model,
            "messages": self._messages(request.messages),
            "system": "\n\n".join(text for text in system if text) or None,
            "max_tokens": settings.max_output_tokens or DEFAULT_MAX_TOKENS + (budget or 0),
            "stream": True,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "thinking": {"type": "enabled", "budget_tokens": budget} if budget else None,
            "output_config": _output_config(request),
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _tool_choice(request),
        }
        return _as_it_began(without_none(body) | settings.extra)

    def _messages(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Alternate user and assistant: tool results belong to the user, and neighbours of one role are merged."""
        turns: list[dict[str, Any]] = []
        for message in messages:
            role = "assistant" if message.role == "assistant" else "user"
            blocks = [block for part in message.parts if (block := self._block(part)) is not None]
            if message.role == "system" or not blocks:
                continue
            if not turns or turns[-1]["role"] != role:
                turns.append({"role": role, "content": []})
            turns[-1]["content"] += blocks
        return turns

    def _block(self, part: AnyPart) -> dict[str, Any] | None:
        match part:
            case Text():  # the API refuses blank text
                return {"type": "text", "text": part.text} if part.text.strip() else None
            case Reasoning():
                return part.opaque if part.provider == "anthropic" else None
            case ToolCall():
                return {
                    "type": "tool_use",
                    "id": plain_id(part.id),
                    "name": plain_name(part.name),
                    "input": arguments(part),
                }
            case ToolResult():
                said = (
                    part.content if part.content.strip() else ""
                )  # the API refuses blank text, and an error without any
                result = {
                    "type": "tool_result",
                    "tool_use_id": plain_id(part.call_id),
                    "content": said or (WORDLESS if part.is_error else ""),
                }
                return result | ({"is_error": True} if part.is_error else {})
            case Image():
                return {"type": "image", "source": _source(part)}
            case File(media_type="application/pdf" | "text/plain"):
                return {"type": "document", "source": _source(part)} | (
                    {"title": part.name} if part.name else {}
                )
            case _:
                raise unsupported(self.name, part)


def _as_it_began(body: dict[str, Any]) -> dict[str, Any]:
    """Turn thinking off for calls that began without it, as those of an agent that has handed over: the API refuses to begin in their middle."""
    is_on = fields(body.get("thinking")).get("type") == "enabled"
    answers = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
    results = body["messages"][-1:] if is_on and answers else []
    is_middle = any(block["type"] == "tool_result" for message in results for block in message["content"])
    if is_middle and answers[-1][0]["type"] not in ("thinking", "redacted_thinking"):
        return {name: value for name, value in body.items() if name != "thinking"}
    return body


class _Block:
    """A content block that is still arriving: as it began, and the deltas of its text or input."""

    def __init__(self, begun: dict[str, Any]) -> None:
        self.begun = begun
        self.pieces: list[str] = []


class _Fold:
    """Collects blocks and their deltas, or a whole message, which some servers send in place of a stream.

    Some servers also number all blocks 0, or begin none: a delta belongs to the last block of its index.
    """

    def __init__(self, request: ModelRequest) -> None:
        self.complete = False
        self._request = request
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._reason = ""
        self._blocks: list[_Block] = []
        self._by_index: dict[str, _Block] = {}

    def add(self, event: dict[str, Any]) -> Delta | None:
        match event.get("type"):
            case "content_block_delta":
                return self._delta(identifier(event.get("index")), fields(event.get("delta")))
            case "content_block_start":
                self._begin(identifier(event.get("index")), fields(event.get("content_block")))
            case "message_start":
                self._message = fields(event.get("message"))
                self._count(self._message)
            case "message_delta":
                delta = fields(event.get("delta"))
                self._reason = text(delta.get("stop_reason")) or self._reason
                self._count(delta)
                self._count(event)
            case "message_stop":
                self.complete = True
            case "message":
                self._whole(event)
            case kind if has_error(event) or (kind is None and explanation(event)[1]):
                raise error_event(event)
        return None

    def _count(self, counted: dict[str, Any]) -> None:
        self._usage |= {
            key: value for key, value in fields(counted.get("usage")).items() if value is not None
        }

    def _begin(self, index: str, begun: dict[str, Any]) -> _Block:
        block = self._by_index.get(index)
        if block and block.begun == begun and not block.pieces:  # it has begun before
            return block
        block = self._by_index[index] = _Block(begun)
        self._blocks.append(block)
        return block

    def _whole(self, message: dict[str, Any]) -> None:
        self._message, self._reason = message, text(message.get("stop_reason"))
        self._count(message)
        content = message.get("content")
        for begun in objects(content) or [{"type": "text", "text": text(content)}]:
            self._begin("", begun).pieces.append("")  # so that an empty input counts as written
        self.complete = True

    def _delta(self, index: str, delta: dict[str, Any]) -> Delta | None:
        kind = delta.get("type")
        block = self._by_index.get(index) or (self._blocks[-1] if self._blocks else self._begin(index, {}))
        begun, wanted = block.begun.get("type"), _BEGUN_BY.get(str(kind))
        if begun != wanted and wanted:
            if begun in _BEGUN_BY.values():
                block = self._begin(index, {})
            block.begun["type"] = block.begun.get("type") or wanted
        match kind:
            case "text_delta":
                block.pieces.append(text(delta.get("text")))
                return Delta(text=block.pieces[-1])
            case "thinking_delta":
                block.pieces.append(text(delta.get("thinking")))
                return Delta(reasoning=block.pieces[-1])
            case "input_json_delta":
                block.pieces.append(json_text(delta.get("partial_json")))
            case "signature_delta":
                block.begun["signature"] = text(delta.get("signature"))
        return None

    def reply(self) -> Reply:
        stop = stop_of(self._reason, STOPS)
        return finished(
            [part for block in self._blocks if (part := _part(block)) is not None],
            stop=stop,
            usage=_tokens(self._usage),
            model=text(self._message.get("model")),
            response_id=identifier(self._message.get("id")),
            request=self._request,
        )


_BEGUN_BY = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "tool_use"}


def _part(block: _Block) -> AnyPart | None:
    begun, written = block.begun, "".join(block.pieces)
    match begun.get("type"):
        case "text":
            return Text(text(begun.get("text")) + written)
        case "tool_use":
            if not written and (given := begun.get("input")):
                written = json_text(given)
            elif not written and block.pieces:
                written = "{}"  # without any delta, the arguments never arrived
            return ToolCall(identifier(begun.get("id")), identifier(begun.get("name")), written)
        case "thinking":
            thought = text(begun.get("thinking")) + written
            return Reasoning(thought, "anthropic", {**begun, "thinking": thought})
        case str() if written:
            return Reasoning("", "anthropic", {**begun, "input": arguments(ToolCall("", "", written))})
        case str():
            return Reasoning("", "anthropic", begun)
        case _:
            return None


def _tokens(usage: dict[str, Any]) -> Usage:
    """Include cached tokens in the input tokens: Anthropic counts them separately."""
    cached = tokens(usage.get("cache_read_input_tokens"))
    written = tokens(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=tokens(usage.get("input_tokens")) + cached + written,
        output_tokens=tokens(usage.get("output_tokens")),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=tokens(fields(usage.get("output_tokens_details")).get("thinking_tokens")),
    )


def _source(part: Image | File) -> dict[str, Any]:
    if part.url:
        return {"type": "url", "url": part.url}
    if part.media_type == "text/plain":
        text = base64.b64decode(part.data).decode("utf-8", "replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "base64", "media_type": part.media_type, "data": part.data}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    entry = {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
    if not tool.strict or not _can_be_closed(tool.parameters):
        return entry
    return entry | {"strict": True, "input_schema": _closed(tool.parameters)}


def _tool_choice(request: ModelRequest) -> dict[str, Any] | None:
    choice, parallel = request.settings.tool_choice, request.settings.parallel_tool_calls
    if not request.tools or (choice is None and parallel is not False):
        return None
    one_at_a_time = {"disable_parallel_tool_use": True} if parallel is False and choice != "none" else {}
    return {"type": CHOICES[choice or "auto"], **one_at_a_time}


def _output_config(request: ModelRequest) -> dict[str, Any] | None:
    config: dict[str, Any] = {}
    if request.settings.reasoning_effort:
        config["effort"] = EFFORTS[request.settings.reasoning_effort]
    if request.output and _can_be_closed(request.output.schema):
        config["format"] = {"type": "json_schema", "schema": _closed(request.output.schema)}
    return config or None


def _asked_for(output: OutputSpec | None) -> str:
    """Return the sentence that asks for an answer whose schema Anthropic does not take."""
    if output is None or _can_be_closed(output.schema):
        return ""
    schema = json.dumps(output.schema, ensure_ascii=False)
    return f"Answer with JSON that fits this schema, and nothing else:\n{schema}"


def _can_be_closed(schema: dict[str, Any]) -> bool:
    return strict.can_be_closed(schema) and not strict.is_recursive(schema)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    from anthropic import transform_schema  # noqa: PLC0415 - takes two seconds to import

    return transform_schema(schema)


def writer(api_key: str, base_url: str | None) -> Write:
    """Write requests with this key as Anthropic's SDK does; a base URL of None is Anthropic's own."""

    def write(path: str, body: Body | None) -> Request:
        from anthropic import Anthropic as Sdk  # noqa: PLC0415 - takes two seconds to import
        from anthropic import Stream  # noqa: PLC0415

        from agno_workers.net.pool import Writer  # noqa: PLC0415

        http = Writer()
        # The SDK's tracing would send a traceparent header.
        sdk = Sdk(api_key=api_key, base_url=base_url, http_client=http, max_retries=0, open_telemetry=False)
        return written(http, sdk, Stream, path, body)

    return write
