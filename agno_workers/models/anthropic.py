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
from agno_workers.models.faults import ErrorEvent, explanation
from agno_workers.models.reply import TRUNCATED, arguments, finished, plain_id, unsupported
from agno_workers.models.transport import Connect, ProviderTransport, Send, sender

if TYPE_CHECKING:
    import httpx2

DEFAULT_MAX_TOKENS = 16_384
"""The default for `max_output_tokens`, which the API requires; a thinking budget is added to it."""

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
        self._transport = ProviderTransport(self.name, api_key, connect(api_key, base_url))

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        fold = _Fold(request)
        return self._transport.ask("/v1/messages", self.body(request), fold, request.settings.timeout_s, emit)

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """Return the JSON to send. System messages of the transcript join the single system text."""
        settings = request.settings
        budget = settings.thinking_budget_tokens
        system = [request.system, *(message.text for message in request.messages if message.role == "system")]
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
        return without_none(body) | settings.extra

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
                    "name": part.name,
                    "input": arguments(part),
                }
            case ToolResult():
                result = {
                    "type": "tool_result",
                    "tool_use_id": plain_id(part.call_id),
                    "content": part.content,
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


class _Fold:
    """Collects blocks by their index, and joins the deltas of each at the end."""

    def __init__(self, request: ModelRequest) -> None:
        self.complete = False
        self._request = request
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._reason = ""
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}

    def add(self, event: dict[str, Any]) -> Delta | None:
        match event["type"]:
            case "content_block_delta":
                return self._delta(event["index"], event["delta"])
            case "content_block_start":
                self._blocks[event["index"]] = event["content_block"]
                self._pieces[event["index"]] = []
            case "message_start":
                self._message = event["message"]
                self._usage = {**self._message["usage"]}
            case "message_delta":
                self._reason = event["delta"].get("stop_reason") or self._reason
                self._usage |= {key: value for key, value in event["usage"].items() if value is not None}
            case "message_stop":
                self.complete = True
            case "error":
                raise ErrorEvent(*explanation(event))
        return None

    def _delta(self, index: int, delta: dict[str, Any]) -> Delta | None:
        pieces = self._pieces[index]
        match delta["type"]:
            case "text_delta":
                pieces.append(delta["text"])
                return Delta(text=delta["text"])
            case "thinking_delta":
                pieces.append(delta["thinking"])
                return Delta(reasoning=delta["thinking"])
            case "input_json_delta":
                pieces.append(delta["partial_json"])
            case "signature_delta":
                self._blocks[index]["signature"] = delta["signature"]
        return None

    def reply(self) -> Reply:
        if not self.complete or not self._reason:
            raise ValueError(TRUNCATED)
        return finished(
            [_part(block, "".join(self._pieces[index])) for index, block in sorted(self._blocks.items())],
            stop=STOPS.get(self._reason, StopReason.END),
            usage=_tokens(self._usage),
            model=self._message.get("model") or "",
            response_id=self._message.get("id") or "",
            request=self._request,
        )


def _part(block: dict[str, Any], written: str) -> AnyPart:
    """Return a block as a part; `written` are its deltas."""
    match block["type"]:
        case "text":
            return Text(block["text"] + written)
        case "tool_use":
            return ToolCall(block["id"], block["name"], written or json.dumps(block.get("input") or {}))
        case "thinking":
            text = block["thinking"] + written
            return Reasoning(text, "anthropic", {**block, "thinking": text})
        case _:
            return Reasoning("", "anthropic", {**block, "input": json.loads(written)} if written else block)


def _tokens(usage: dict[str, Any]) -> Usage:
    """Include cached tokens in the input tokens: Anthropic counts them separately."""
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return Usage(
        input_tokens=(usage.get("input_tokens") or 0) + cached + written,
        output_tokens=usage.get("output_tokens") or 0,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=(usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
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
    return entry | {"strict": True, "input_schema": _closed(tool.parameters)} if tool.strict else entry


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
    if request.output:
        config["format"] = {"type": "json_schema", "schema": _closed(request.output.schema)}
    return config or None


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    from anthropic import transform_schema  # noqa: PLC0415 - takes two seconds to import

    return transform_schema(schema)


def connect(api_key: str, base_url: str | None) -> Connect:
    """Make Anthropic SDK clients with this key; a base URL of None is Anthropic's own."""

    def connected(http: httpx2.Client) -> Send:
        from anthropic import Anthropic as Sdk  # noqa: PLC0415 - takes two seconds to import
        from anthropic import Stream  # noqa: PLC0415

        # The SDK's tracing would send a traceparent header.
        sdk = Sdk(api_key=api_key, base_url=base_url, http_client=http, max_retries=0, open_telemetry=False)
        return sender(http, sdk, Stream)

    return connected
