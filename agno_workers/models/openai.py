"""OpenAI's two dialects: `Responses`, and `Chat` (chat completions), which many other servers speak too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from agno_workers.core.messages import (
    AnyPart,
    Audio,
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
from agno_workers.models.faults import ErrorEvent, explanation
from agno_workers.models.reply import TRUNCATED, arguments, data_url, finished, plain_id, unsupported
from agno_workers.models.transport import Connect, ProviderTransport, Send, sender

if TYPE_CHECKING:
    import httpx2

NOT_REASONING = ("gpt-3", "gpt-4", "chatgpt")
"""Models whose names begin like this refuse requests for encrypted reasoning."""

CHAT_STOPS = {"length": StopReason.LENGTH, "content_filter": StopReason.REFUSAL}
"""Any other reason is END, or TOOL_CALLS with calls."""


# ---- Responses --------------------------------------------------------------------------------------------


class Responses:
    """A model behind OpenAI's Responses API.

    OpenAI stores nothing (`store` is false): reasoning comes back encrypted and stays in our transcript.
    """

    def __init__(self, model: str, *, api_key: str, base_url: str | None = None) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._transport = ProviderTransport(self.name, api_key, connect(api_key, base_url))

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        body = self.body(request)
        return self._transport.ask(
            "/responses", body, _ResponsesFold(request), request.settings.timeout_s, emit
        )

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """Return the JSON to send. `thinking_budget_tokens` has no counterpart here and is left out."""
        settings = request.settings
        body = {
            "model": self._model,
            "input": [item for message in request.messages for item in self._items(message)],
            "instructions": request.system or None,
            "store": False,
            "stream": True,
            "include": None if self._model.startswith(NOT_REASONING) else ["reasoning.encrypted_content"],
            "max_output_tokens": settings.max_output_tokens,
            "reasoning": settings.reasoning_effort and {"effort": settings.reasoning_effort},
            "tools": [{"type": "function", **_function(tool)} for tool in request.tools] or None,
            "text": request.output and {"format": {"type": "json_schema", **_schema(request.output)}},
            **_sampling(request),
        }
        return without_none(body) | settings.extra

    def _items(self, message: Message) -> list[dict[str, Any]]:
        """Return the message as input items; adjacent content parts share one item."""
        items: list[dict[str, Any]] = []
        for part in message.parts:
            match part:
                case ToolCall():
                    items.append(
                        {"type": "function_call", "call_id": plain_id(part.id), "name": part.name,
                         "arguments": json.dumps(arguments(part))}
                    )  # fmt: skip
                case ToolResult():
                    call_id = plain_id(part.call_id)
                    items.append(
                        {"type": "function_call_output", "call_id": call_id, "output": _result(part)}
                    )
                case Reasoning():
                    if part.provider == "openai" and part.opaque:
                        items.append(part.opaque)
                case _:
                    if not items or items[-1].get("role") != message.role:
                        items.append({"type": "message", "role": message.role, "content": []})
                    items[-1]["content"].append(self._content(message, part))
        while items and items[-1]["type"] == "reasoning":
            items.pop()  # OpenAI refuses reasoning without its result
        return items

    def _content(self, message: Message, part: AnyPart) -> dict[str, Any]:
        match part:
            case Text():
                return {
                    "type": "output_text" if message.role == "assistant" else "input_text",
                    "text": part.text,
                }
            case Image():
                return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
            case File(url=url) if url:
                return {"type": "input_file", "file_url": url}
            case File():
                return {"type": "input_file", "filename": part.name or "file", "file_data": data_url(part)}
            case _:
                raise unsupported(self.name, part)


class _ResponsesFold:
    """Collects output items: each from its deltas, until the provider sends it whole."""

    def __init__(self, request: ModelRequest) -> None:
        self.complete = False
        self._request = request
        self._items: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}
        self._response: dict[str, Any] = {}

    def add(self, event: dict[str, Any]) -> Delta | None:
        match event["type"]:
            case "response.output_text.delta" | "response.refusal.delta":
                self._piece(event)
                return Delta(text=event["delta"])
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._piece(event)
                return Delta(reasoning=event["delta"])
            case "response.function_call_arguments.delta":
                self._piece(event)
            case "response.output_item.added":
                self._items[event["output_index"]] = event["item"]
            case "response.output_item.done":
                self._items[event["output_index"]] = event["item"]
                self._pieces.pop(event["output_index"], None)
            case "response.completed" | "response.incomplete":
                self.complete, self._response = True, event["response"]
            case "response.failed":
                raise ErrorEvent(*explanation(event["response"]))
            case "error":
                raise ErrorEvent(*explanation(event))
        return None

    def reply(self) -> Reply:
        if not self.complete:
            raise ValueError(TRUNCATED)
        items = dict(enumerate(self._response.get("output") or [])) | self._items
        return finished(
            (
                part
                for index in sorted(items)
                for part in _output_parts(items[index], self._pieces.get(index))
            ),
            stop=self._stop(items),
            usage=_usage(self._response.get("usage") or {}, "input", "output"),
            model=self._response.get("model") or "",
            response_id=self._response.get("id") or "",
            request=self._request,
        )

    def _piece(self, event: dict[str, Any]) -> None:
        self._pieces.setdefault(event["output_index"], []).append(event["delta"])

    def _stop(self, items: dict[int, dict[str, Any]]) -> StopReason:
        content = [part["type"] for item in items.values() for part in item.get("content") or ()]
        reason = (self._response.get("incomplete_details") or {}).get("reason")
        if "refusal" in content or reason == "content_filter":
            return StopReason.REFUSAL
        return StopReason.LENGTH if reason else StopReason.END


def _output_parts(item: dict[str, Any], pieces: list[str] | None) -> Iterator[AnyPart]:
    """Yield the parts of an output item; `pieces` are the deltas of an unfinished one."""
    unfinished = "".join(pieces or ())
    match item["type"]:
        case "message":
            for part in item["content"]:
                yield Text(part.get("text") or part.get("refusal") or "")
            yield Text(unfinished)
        case "function_call":
            yield ToolCall(item["call_id"], item["name"], unfinished or item["arguments"])
        case "reasoning":
            shown = item.get("summary") or item.get("content") or ()
            text = "\n\n".join(part["text"] for part in shown) or unfinished
            opaque = (
                {k: v for k, v in item.items() if k != "status"} if item.get("encrypted_content") else None
            )
            if text or opaque:
                yield Reasoning(text, "openai", opaque)


# ---- Chat completions -------------------------------------------------------------------------------------


class Chat:
    """A model behind chat completions, at OpenAI or at a server that speaks the same dialect.

    Reasoning is shown if the server sends it, and never sent back: this dialect has no field for it.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str,
        base_url: str | None = None,
        provider: str = "openai-chat",
        dialect: Literal["openai", "local"] = "openai",
    ) -> None:
        """`dialect` is local for servers that know only the old name of the output limit."""
        self.name = f"{provider}:{model}"
        self._model = model
        self._limit = "max_completion_tokens" if dialect == "openai" else "max_tokens"
        self._transport = ProviderTransport(self.name, api_key, connect(api_key, base_url))

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        fold = _ChatFold(self.name.partition(":")[0], request)
        return self._transport.ask(
            "/chat/completions", self.body(request), fold, request.settings.timeout_s, emit
        )

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """Return the JSON to send. `thinking_budget_tokens` has no counterpart here and is left out."""
        settings = request.settings
        system = [{"role": "system", "content": request.system}] if request.system else []
        body = {
            "model": self._model,
            "messages": system + [entry for message in request.messages for entry in self._entries(message)],
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit: settings.max_output_tokens,
            "reasoning_effort": settings.reasoning_effort,
            "tools": [{"type": "function", "function": _function(tool)} for tool in request.tools] or None,
            "response_format": request.output
            and {"type": "json_schema", "json_schema": _schema(request.output)},
            **_sampling(request),
        }
        return without_none(body) | settings.extra

    def _entries(self, message: Message) -> Iterator[dict[str, Any]]:
        """Yield the message as chat messages: one for each tool result, one for the rest."""
        for part in message.parts:
            if isinstance(part, ToolResult):
                yield {"role": "tool", "tool_call_id": plain_id(part.call_id), "content": _result(part)}
        shown = [part for part in message.parts if not isinstance(part, ToolCall | ToolResult | Reasoning)]
        content = [self._content(part) for part in shown]
        calls = [_call(call) for call in message.tool_calls]
        if content or calls:
            plain = message.text if all(isinstance(part, Text) for part in shown) else content
            yield {"role": message.role, "content": plain or None} | ({"tool_calls": calls} if calls else {})

    def _content(self, part: AnyPart) -> dict[str, Any]:
        match part:
            case Text():
                return {"type": "text", "text": part.text}
            case Image():
                return {"type": "image_url", "image_url": {"url": data_url(part)}}
            case Audio(data=data) if data:
                kind = (
                    "mp3"
                    if part.media_type in ("audio/mpeg", "audio/mp3")
                    else part.media_type.split("/")[-1]
                )
                return {"type": "input_audio", "input_audio": {"data": data, "format": kind}}
            case File(data=data) if data:
                return {
                    "type": "file",
                    "file": {"filename": part.name or "file", "file_data": data_url(part)},
                }
            case _:
                raise unsupported(self.name, part, " by URL")


class _ChatFold:
    """Collects the first choice of the chunks. Complete only at `[DONE]`, since the usage follows the stop reason."""

    complete = False

    def __init__(self, provider: str, request: ModelRequest) -> None:
        self._provider = provider
        self._request = request
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._refused = False
        self._reason = ""
        self._usage: dict[str, Any] = {}
        self._model = self._id = ""

    def add(self, event: dict[str, Any]) -> Delta | None:
        if event.get("error"):
            raise ErrorEvent(*explanation(event))
        self._usage = event.get("usage") or self._usage
        self._model, self._id = event.get("model") or self._model, event.get("id") or self._id
        for choice in event["choices"][:1]:
            self._reason = choice.get("finish_reason") or self._reason
            return self._delta(choice.get("delta") or {})
        return None

    def _delta(self, delta: dict[str, Any]) -> Delta | None:
        for piece in delta.get("tool_calls") or ():
            self._call_of(piece).add(piece.get("function") or {})
        refusal = delta.get("refusal") or ""
        self._refused = self._refused or bool(refusal)
        text = (delta.get("content") or "") + refusal
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if not text and not reasoning:
            return None
        self._text.append(text)
        self._reasoning.append(reasoning)
        return Delta(text=text, reasoning=reasoning)

    def _call_of(self, piece: dict[str, Any]) -> _Call:
        """The call that a piece belongs to. Some servers give no index, or 0 to all calls of an answer."""
        index, call_id = piece.get("index"), piece.get("id") or ""
        for call in reversed(self._calls):
            if (
                call.index == index
                and (not call_id or call.id == call_id)
                and (index is not None or not call_id)
            ):
                return call
        self._calls.append(_Call(index, call_id))
        return self._calls[-1]

    def reply(self) -> Reply:
        if not self._reason:
            raise ValueError(TRUNCATED)
        parts: list[AnyPart] = [Text("".join(self._text))]
        if reasoning := "".join(self._reasoning):
            parts.insert(0, Reasoning(reasoning, self._provider))
        parts += [ToolCall(call.id, call.name, "".join(call.arguments)) for call in self._calls]
        return finished(
            parts,
            stop=StopReason.REFUSAL if self._refused else CHAT_STOPS.get(self._reason, StopReason.END),
            usage=_usage(self._usage, "prompt", "completion"),
            model=self._model,
            response_id=self._id,
            request=self._request,
        )


class _Call:
    """A tool call that is still arriving."""

    def __init__(self, index: int | None, call_id: str) -> None:
        self.index = index
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []

    def add(self, function: dict[str, Any]) -> None:
        self.name = self.name or function.get("name") or ""
        self.arguments.append(function.get("arguments") or "")


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(arguments(call))}
    return {"id": plain_id(call.id), "type": "function", "function": function}


# ---- shared by both --------------------------------------------------------------------------------------


def connect(api_key: str, base_url: str | None) -> Connect:
    """Make OpenAI SDK clients with this key, for models and embedders; a base URL of None is OpenAI's own."""

    def connected(http: httpx2.Client) -> Send:
        from openai import OpenAI, Stream  # noqa: PLC0415 - takes a second to import

        sdk = OpenAI(api_key=api_key, base_url=base_url, http_client=http, max_retries=0)
        return sender(http, sdk, Stream)

    return connected


def _usage(usage: dict[str, Any], sent: str, made: str) -> Usage:
    """Return the tokens of an answer; `sent` and `made` are the dialect's words for input and output."""
    sent_details, made_details = (usage.get(f"{word}_tokens_details") or {} for word in (sent, made))
    return Usage(
        input_tokens=usage.get(f"{sent}_tokens") or 0,
        output_tokens=usage.get(f"{made}_tokens") or 0,
        cached_tokens=sent_details.get("cached_tokens") or 0,
        cache_write_tokens=sent_details.get("cache_write_tokens") or 0,
        reasoning_tokens=made_details.get("reasoning_tokens") or 0,
    )


def _sampling(request: ModelRequest) -> dict[str, Any]:
    settings = request.settings
    return {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "tool_choice": settings.tool_choice if request.tools else None,
        "parallel_tool_calls": settings.parallel_tool_calls if request.tools else None,
    }


def _function(tool: ToolSpec) -> dict[str, Any]:
    parameters = strict.closed(tool.parameters) if tool.strict else tool.parameters
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": tool.strict,
    }


def _schema(output: OutputSpec) -> dict[str, Any]:
    """Use strict mode if it can express the schema."""
    if strict.can_be_closed(output.schema):
        return {"name": output.name, "schema": strict.closed(output.schema), "strict": True}
    return {"name": output.name, "schema": output.schema, "strict": False}


def _result(result: ToolResult) -> str:
    """Mark an error in the text: OpenAI has no flag for it."""
    return f"Error: {result.content}" if result.is_error else result.content
