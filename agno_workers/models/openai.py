"""OpenAI's two dialects: `Responses`, and `Chat` (chat completions), which many other servers speak too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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
from agno_workers.models.calls import Calls
from agno_workers.models.faults import error_event, explanation, has_error
from agno_workers.models.reply import (
    TRUNCATED,
    arguments,
    data_url,
    finished,
    plain_id,
    plain_name,
    stop_of,
    unsupported,
)
from agno_workers.models.transport import Body, ProviderTransport, Write, written
from agno_workers.models.wire import fields, identifier, json_text, objects, text, tokens

if TYPE_CHECKING:
    from agno_workers.net.pool import Request

NOT_REASONING = ("gpt-3", "gpt-4", "chatgpt")
"""Models whose names begin like this refuse requests for encrypted reasoning."""

CHAT_STOPS = {
    "stop": StopReason.END,
    "tool_calls": StopReason.TOOL_CALLS,
    "function_call": StopReason.TOOL_CALLS,
    "length": StopReason.LENGTH,
    "content_filter": StopReason.REFUSAL,
    # Documented by other servers: Together, Hugging Face's TGI, Z.ai, the gateway of Bedrock.
    "eos": StopReason.END,
    "eos_token": StopReason.END,
    "stop_sequence": StopReason.END,
    "model_context_window_exceeded": StopReason.CONTEXT_WINDOW,
    "end_turn": StopReason.END,
    "tool_use": StopReason.TOOL_CALLS,
    "max_tokens": StopReason.LENGTH,
}
RESPONSES_STOPS = {
    "completed": StopReason.END,
    "max_output_tokens": StopReason.LENGTH,
    "max_messages": StopReason.LENGTH,
    "steered": StopReason.LENGTH,
    "content_filter": StopReason.REFUSAL,
}
REASONING = ("reasoning_content", "reasoning", "thinking")
"""The names under which servers send reasoning; some send it under two."""


# ---- Responses --------------------------------------------------------------------------------------------


class Responses:
    """A model behind OpenAI's Responses API.

    OpenAI stores nothing (`store` is false): reasoning comes back encrypted and stays in our transcript.
    """

    def __init__(self, model: str, *, api_key: str, base_url: str | None = None) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._transport = ProviderTransport(self.name, api_key, writer(api_key, base_url))

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
                        {"type": "function_call", "call_id": plain_id(part.id), "name": plain_name(part.name),
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
        self._done: set[int] = set()
        self._pieces: dict[int, list[str]] = {}
        self._places: dict[str, int] = {}
        """The place of each item by its id: some servers leave `output_index` out, or number all items 0."""
        self._response: dict[str, Any] = {}
        self._end = ""
        self._refused = False

    def add(self, event: dict[str, Any]) -> Delta | None:
        match kind := text(event.get("type")):
            case "response.output_text.delta" | "response.refusal.delta":
                self._refused = self._refused or kind == "response.refusal.delta"
                return Delta(text=self._piece(event, "message"))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return Delta(reasoning=self._piece(event, "reasoning"))
            case "response.function_call_arguments.delta":
                self._piece(event, "function_call")
            case "response.output_item.added":
                self._items[self._begin(event)] = fields(event.get("item"))
            case "response.output_item.done" if item := fields(event.get("item")):
                place = self._place(event)
                begun = self._items.get(place, {})
                self._items[place] = begun | {
                    name: value for name, value in item.items() if value or name not in begun
                }
                self._done.add(place)
            case "response.completed" | "response.incomplete":
                self.complete, self._response = True, fields(event.get("response"))
                self._end = kind.removeprefix("response.")
            case "response.failed" | "response.error" | "error":
                raise error_event(fields(event.get("response")) or event)
            case "" if has_error(event) or explanation(event)[1]:
                raise error_event(event)
            case "" if event.get("object") == "response":  # the whole response in place of a stream
                self.complete, self._response = True, event
        return None

    def reply(self) -> Reply:
        if not self.complete:
            raise ValueError(TRUNCATED)
        items = self._whole()
        return finished(
            (
                part
                for place in sorted(items)
                for part in _output_parts(items[place], "".join(self._pieces.get(place, ())))
            ),
            stop=self._stop(items),
            usage=_usage(fields(self._response.get("usage")), "input", "output"),
            model=text(self._response.get("model")),
            response_id=identifier(self._response.get("id")),
            request=self._request,
        )

    def _whole(self) -> dict[int, dict[str, Any]]:
        """Return the items of the stream; those of the last event, by id or place, where the stream has nothing."""
        last = enumerate(objects(self._response.get("output")))
        items = {self._places.get(identifier(item.get("id")), place): item for place, item in last}
        streamed = {
            place: item for place, item in self._items.items() if place in self._done or place in self._pieces
        }
        return self._items | items | streamed

    def _piece(self, event: dict[str, Any], kind: str) -> str:
        place, piece = self._place(event), json_text(event.get("delta"))
        self._items.setdefault(place, {"type": kind})
        self._pieces.setdefault(place, []).append(piece)
        return piece

    def _begin(self, event: dict[str, Any]) -> int:
        """Return a free place for a new item, that of its index if it can be, or the place where it has begun before."""
        item_id, place = identifier(fields(event.get("item")).get("id")), _index(event)
        begun = self._places.get(item_id)
        if begun is not None and begun not in self._pieces and begun not in self._done:
            return begun
        if place is None or place in self._items:
            place = max(self._items, default=-1) + 1
        if item_id:
            self._places[item_id] = place
        return place

    def _place(self, event: dict[str, Any]) -> int:
        """Return the place of an event's item: by its id, its index, or the last one."""
        item_id = identifier(event.get("item_id")) or identifier(fields(event.get("item")).get("id"))
        index = _index(event)
        if index is None:
            index = max(self._items, default=0)
        return self._places.get(item_id, index)

    def _stop(self, items: dict[int, dict[str, Any]]) -> StopReason:
        content = [part.get("type") for item in items.values() for part in objects(item.get("content"))]
        status = text(self._response.get("status"))
        if self._end and status not in ("incomplete", "failed", "cancelled"):
            status = self._end
        stop = stop_of(
            text(fields(self._response.get("incomplete_details")).get("reason")) or status, RESPONSES_STOPS
        )
        return StopReason.REFUSAL if self._refused or "refusal" in content else stop


def _index(event: dict[str, Any]) -> int | None:
    index = identifier(event.get("output_index"))
    return int(index) if index.isdecimal() else None


def _output_parts(item: dict[str, Any], pieces: str) -> Iterator[AnyPart]:
    """Yield the parts of an output item; `pieces` are its deltas, for one that did not arrive whole."""
    match item.get("type"):
        case "message":
            yield Text(text(item.get("content")) or pieces)
        case "function_call":
            written = json_text(item.get("arguments"))
            if written in ("", "{}"):
                written = pieces or written
            yield ToolCall(identifier(item.get("call_id")), identifier(item.get("name")), written)
        case "reasoning":
            shown = item.get("summary") or item.get("content")
            words = "\n\n".join(text(part) for part in shown) if isinstance(shown, list) else text(shown)
            opaque = (
                {k: v for k, v in item.items() if k != "status"} if item.get("encrypted_content") else None
            )
            if words or pieces or opaque:
                yield Reasoning(words or pieces, "openai", opaque)


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
        self._transport = ProviderTransport(self.name, api_key, writer(api_key, base_url))

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
            "messages": system
            + _joined(entry for message in request.messages for entry in self._entries(message)),
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


def _joined(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighbours of the user: the templates of some local models refuse two in a row."""
    found: list[dict[str, Any]] = []
    for entry in entries:
        if not (found and entry["role"] == found[-1]["role"] == "user"):
            found.append(entry)
            continue
        one, two = found[-1]["content"], entry["content"]
        are_texts = isinstance(one, str) and isinstance(two, str)
        found[-1] = entry | {
            "content": f"{one}\n\n{two}" if are_texts else [*_parts_of(one), *_parts_of(two)]
        }
    return found


def _parts_of(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


class _ChatFold:
    """Collects the first choice of the chunks, or of a whole completion, which some servers send in place of a stream.

    Complete only at `[DONE]` or the usage, which follows the stop reason.
    """

    complete = False

    def __init__(self, provider: str, request: ModelRequest) -> None:
        self._provider = provider
        self._request = request
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls = Calls()
        self._refused = False
        self._reason = self._choice = ""
        self._usage: dict[str, Any] = {}
        self._model = self._id = ""

    def add(self, event: dict[str, Any]) -> Delta | None:
        choices, usage = objects(event.get("choices")), fields(event.get("usage"))
        is_chunk = usage or event.get("choices") is not None
        if has_error(event) or (not is_chunk and explanation(event)[1]):
            raise error_event(event)
        self._usage = usage or self._usage
        self._model = self._model or text(event.get("model"))
        self._id = self._id or identifier(event.get("id"))
        if self._reason and usage and not choices:
            self.complete = True  # some servers neither send `[DONE]` nor close the connection
        for choice in choices:
            index = identifier(choice.get("index")) or "0"
            self._choice = self._choice or index
            if index != self._choice:
                continue
            if has_error(choice):
                raise error_event(choice)
            self._reason = identifier(choice.get("finish_reason")) or self._reason
            delta = choice.get("delta")
            if not (delta and isinstance(delta, dict)):
                has_begun = self._text or self._reasoning or self._calls
                delta = {} if has_begun else fields(choice.get("message"))  # else it repeats what has arrived
            return self._delta(delta)
        return None

    def _delta(self, delta: dict[str, Any]) -> Delta | None:
        for piece in objects(delta.get("tool_calls")) or objects(delta.get("function_call")):
            self._calls.add(piece)
        thought, said = _spoken(delta.get("content"))
        if refusal := delta.get("refusal"):
            self._refused = True
            said += text(refusal)
        for name in REASONING:
            if (words := delta.get(name)) and (words := text(words)):
                thought += words
                break
        if not said and not thought:
            return None
        self._text.append(said)
        self._reasoning.append(thought)
        return Delta(text=said, reasoning=thought)

    def reply(self) -> Reply:
        stop = stop_of(self._reason, CHAT_STOPS)
        parts: list[AnyPart] = [Text("".join(self._text)), *self._calls.parts()]
        if reasoning := "".join(self._reasoning):
            parts.insert(0, Reasoning(reasoning, self._provider))
        return finished(
            parts,
            stop=StopReason.REFUSAL if self._refused else stop,
            usage=_usage(self._usage, "prompt", "completion"),
            model=self._model,
            response_id=self._id,
            request=self._request,
        )


def _spoken(content: object) -> tuple[str, str]:
    """Return the thinking and the text of a chunk's content, which is a text or a list of parts of both kinds."""
    if not isinstance(content, list):
        return "", text(content)
    thought = [part for part in content if fields(part).get("type") in ("thinking", "reasoning")]
    return text(thought), text([part for part in content if part not in thought])


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": plain_name(call.name), "arguments": json.dumps(arguments(call))}
    return {"id": plain_id(call.id), "type": "function", "function": function}


# ---- shared by both --------------------------------------------------------------------------------------


def writer(api_key: str, base_url: str | None) -> Write:
    """Write requests with this key as OpenAI's SDK does, for models and embedders; a base URL of None is OpenAI's own."""

    def write(path: str, body: Body | None) -> Request:
        from openai import OpenAI, Stream  # noqa: PLC0415 - takes a second to import

        from agno_workers.net.pool import Writer  # noqa: PLC0415

        http = Writer()
        sdk = OpenAI(api_key=api_key, base_url=base_url, http_client=http, max_retries=0)
        return written(http, sdk, Stream, path, body)

    return write


def _usage(usage: dict[str, Any], sent: str, made: str) -> Usage:
    """Return the tokens of an answer; `sent` and `made` are the dialect's words for input and output."""
    sent_details, made_details = (fields(usage.get(f"{word}_tokens_details")) for word in (sent, made))
    return Usage(
        input_tokens=tokens(usage.get(f"{sent}_tokens")),
        output_tokens=tokens(usage.get(f"{made}_tokens")),
        cached_tokens=tokens(sent_details.get("cached_tokens")),
        cache_write_tokens=tokens(sent_details.get("cache_write_tokens")),
        reasoning_tokens=tokens(made_details.get("reasoning_tokens")),
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
    is_strict = tool.strict and strict.can_be_closed(tool.parameters)
    parameters = strict.closed(tool.parameters) if is_strict else tool.parameters
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": is_strict,
    }


def _schema(output: OutputSpec) -> dict[str, Any]:
    """Use strict mode if it can express the schema."""
    if strict.can_be_closed(output.schema):
        return {"name": output.name, "schema": strict.closed(output.schema), "strict": True}
    return {"name": output.name, "schema": output.schema, "strict": False}


def _result(result: ToolResult) -> str:
    """Mark an error in the text: OpenAI has no flag for it."""
    return f"Error: {result.content}" if result.is_error else result.content
