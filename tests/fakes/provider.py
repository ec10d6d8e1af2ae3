"""A model provider on localhost: speaks the wire formats of OpenAI (chat, responses) and Anthropic (messages).

A fake of the outside world, so that the real SDK clients and the real engine can be tested over real HTTP.
The lines of the last user text choose the answer:

    call NAME {"json": 1}      call this tool; several lines are parallel calls; a line `then` starts the
                               next round of calls, made once the results of the last round are there
    say TEXT                   the final text; the default is `Echo: ...`, or `Results: ...` after tool results
    think TEXT                 reasoning before the answer (with signature or encrypted content); `redact` hides it
    delay=1.0                  the pieces of the answer are spread over so many seconds (default: --delay)
    fault:NAME key=value ...   one of FAULTS below, or an HTTP status: `fault:429 retry-after=2`;
                               after `times=N` faults the same text is answered (to test retries)
    window=N                   a request of more than N bytes is refused as too long, in the provider's words

A request for a summary, by its system text, gets one; a text with a summary ends the run.

The text chunk `Shows` of a PNG counts as a further line of the text.

`GET /requests` returns the requests (path, headers, body), `DELETE /requests` forgets them.
`python -m tests.fakes.provider [--port N | --uds PATH] [--delay S] [--no-record]` prints its URL when ready.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import socket
import struct
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from aiohttp import web

FAULTS = {
    "never": "accept the request and never answer",
    "trickle": "send SSE comments for ever, one every 20 ms",
    "bytes": "send one byte every 20 ms for ever, never a whole line",
    "reset": "reset the TCP connection in mid-stream",
    "truncated": "end the stream properly, but without its final events",
    "malformed": "send an event that is not JSON",
    "nonsense": "send an event that is JSON of the wrong shape",
    "html": "answer 200 with a web page",
    "empty": "a complete answer with nothing in it",
    "error-event": "an overload error as an event within the stream",
    "final-error-event": "an invalid-request error as an event within the stream",
    "quota": "429 that lasts: insufficient_quota",
    "context": "400: the transcript is longer than the context window",
    "context-stop": "stop in mid-answer because the context window is full",
    "length": "stop because of the token limit, in the middle of the text",
    "half-call": "stop because of the token limit, in the middle of a tool call's JSON",
    "unknown-tool": "call a tool that was not offered",
    "duplicate-ids": "two parallel calls with the same id",
    "no-ids": "two parallel calls with an empty id",
    "refusal": "refuse",
    "filter": "stop because of the content filter",
    "pause": "pause_turn, in the middle of a server tool",
    "big": "a text of `mb` megabytes (10)",
    "wire": "answer 200 with the bytes of `file`, one of tests/contract/models/wire",
    "leak": "401 whose text repeats the key of the request",
}

WIRE = Path(__file__).resolve().parents[1] / "contract" / "models" / "wire"
WIRE_TYPES = {".sse": "text/event-stream", ".json": "application/json", ".html": "text/html"}

USAGE = {"input": 20, "output": 10, "cached": 5, "cache_write": 3, "reasoning": 4}
"""The tokens of every answer; `input` and `output` include the parts that follow them."""


# ---- what to answer: from a request in any dialect to an Answer -------------------------------------------


@dataclass(frozen=True)
class Answer:
    text: str = ""
    thinking: str = ""
    redacted: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()  # id, name, JSON text
    stop: str = "end"  # end, tool_calls, length, refusal, filter, pause, context
    model: str = "fake-1"
    id: str = "answer_1"


@dataclass(frozen=True)
class Asked:
    """A request in any dialect: the last user text and what followed it."""

    text: str
    rounds: int
    """Assistant messages with tool calls since that text."""
    results: tuple[str, ...]
    """Contents of the tool results since that text."""
    model: str
    key: str
    wants_summary: bool = False

    def option(self, name: str, default: str) -> str:
        found = re.search(rf"(?:^|\s){name}=(\S+)", self.text)
        return found.group(1) if found else default

    @property
    def fault(self) -> str:
        found = re.search(r"(?:^|\s)fault:(\S+)", self.text)
        return found.group(1) if found else ""


def answer_to(asked: Asked, number: int) -> Answer:
    """Return the answer without faults: the next round of calls, or the final text."""
    if asked.wants_summary or "[A summary of" in asked.text:
        return Answer(text="The report was read.", model=asked.model, id=f"answer_{number}")
    blocks = re.split(r"(?m)^then$", asked.text)
    answer = Answer(
        thinking=_line(asked.text, "think"),
        redacted="enc-redacted" if re.search(r"(?m)^redact$", asked.text) else "",
        model=asked.model,
        id=f"answer_{number}",
    )
    wanted = re.findall(r"(?m)^call (\S+) ?(.*)$", blocks[asked.rounds]) if asked.rounds < len(blocks) else []
    if wanted:
        calls = tuple((f"call_{number}_{i}", name, args or "{}") for i, (name, args) in enumerate(wanted))
        return replace(answer, calls=calls, stop="tool_calls")
    said = _line(asked.text, "say")
    if not said:
        said = "Results: " + " | ".join(asked.results) if asked.results else f"Echo: {asked.text}"
    return replace(answer, text=said)


def twisted(answer: Answer, asked: Asked, number: int) -> Answer:
    """Apply a fault that changes the answer."""
    if asked.rounds:
        return answer
    two = (("same", "add", '{"a": 1, "b": 2}'), ("same", "add", '{"a": 3, "b": 4}'))
    match asked.fault:
        case "empty":
            return replace(answer, text="", thinking="", calls=())
        case "context-stop":
            return replace(answer, text="As far as I", stop="context")
        case "length":
            return replace(answer, text="As far as I", stop="length")
        case "half-call":
            return replace(
                answer, text="", calls=((f"call_{number}_0", "add", '{"a": 1, "b'),), stop="length"
            )
        case "unknown-tool":
            return replace(
                answer, text="", calls=((f"call_{number}_0", "no_such_tool", "{}"),), stop="tool_calls"
            )
        case "duplicate-ids":
            return replace(answer, text="", calls=two, stop="tool_calls")
        case "no-ids":
            return replace(answer, text="", calls=tuple(("", *c[1:]) for c in two), stop="tool_calls")
        case "refusal":
            return replace(answer, text="I can't help with that.", stop="refusal")
        case "filter":
            return replace(answer, text="", stop="filter")
        case "pause":
            return replace(answer, text="Searching.", stop="pause")
        case "big":
            return replace(answer, text="0123456789abcde " * (int(asked.option("mb", "10")) * 65536))
    return answer


def _line(text: str, word: str) -> str:
    found = re.search(rf"(?m)^{word} (.*)$", text)
    return found.group(1) if found else ""


def pieces(text: str) -> list[str]:
    """Split a text into pieces of some words, at most 1000."""
    words = re.findall(r"\S+\s*|\s+", text)
    size = max(1, len(words) // 1000)
    return ["".join(words[i : i + size]) for i in range(0, len(words), size)]


def halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


# ---- the three dialects -----------------------------------------------------------------------------------


class Chat:
    """POST /v1/chat/completions."""

    path = "/v1/chat/completions"
    too_long = (
        "This model's maximum context length is 2048 tokens. However, your messages resulted in 2300 tokens. Please reduce the length of "
        "the messages."
    )

    def asked(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        turns = []
        for message in body["messages"]:
            kind = {"user": "user", "tool": "result"}.get(message["role"], message["role"])
            if message.get("tool_calls"):
                kind = "calls"
            turns.append((kind, _text(message.get("content"))))
        return turns

    def whole(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.calls:
            message["tool_calls"] = [self._call(i, *call) for i, call in enumerate(answer.calls)]
        choice = {"index": 0, "message": message, "finish_reason": self._stop(answer)}
        return {
            "id": answer.id, "object": "chat.completion", "created": 1, "model": answer.model,
            "choices": [choice], "usage": self._usage(),
        }  # fmt: skip

    def events(self, answer: Answer) -> Iterator[dict[str, Any]]:
        yield self._chunk(answer, {"role": "assistant", "content": ""})
        for piece in pieces(answer.thinking):
            yield self._chunk(answer, {"reasoning_content": piece})
        for piece in pieces(answer.text):
            yield self._chunk(answer, {"refusal" if answer.stop == "refusal" else "content": piece})
        for index, (call_id, name, args) in enumerate(answer.calls):
            yield self._chunk(answer, {"tool_calls": [self._call(index, call_id, name, "")]})
            for half in halves(args):
                yield self._chunk(answer, {"tool_calls": [{"index": index, "function": {"arguments": half}}]})
        yield self._chunk(answer, {}, self._stop(answer))
        yield {**self._chunk(answer, {}), "choices": [], "usage": self._usage()}

    done = b"data: [DONE]\n\n"

    def error(self, status: int, kind: str, message: str) -> dict[str, Any]:
        codes = {
            "context": "context_length_exceeded",
            "quota": "insufficient_quota",
            "overloaded": "server_error",
        }
        types = {
            "context": "invalid_request_error",
            "quota": "insufficient_quota",
            "overloaded": "server_error",
        }
        error = {
            "message": message,
            "type": types.get(kind, kind),
            "param": None,
            "code": codes.get(kind, kind),
        }
        return {"error": error}

    def error_event(self, kind: str, message: str) -> dict[str, Any]:
        return self.error(200, kind, message)

    def _chunk(self, answer: Answer, delta: dict[str, Any], stop: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": stop}
        return {
            "id": answer.id, "object": "chat.completion.chunk", "created": 1, "model": answer.model,
            "choices": [choice],
        }  # fmt: skip

    def _call(self, index: int, call_id: str, name: str, args: str) -> dict[str, Any]:
        return {
            "index": index,
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": args},
        }

    def _stop(self, answer: Answer) -> str:
        stops = {
            "end": "stop",
            "refusal": "stop",
            "filter": "content_filter",
            "pause": "stop",
            "context": "length",
        }
        return stops.get(answer.stop, answer.stop)

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": USAGE["input"],
            "completion_tokens": USAGE["output"],
            "total_tokens": USAGE["input"] + USAGE["output"],
            "prompt_tokens_details": {
                "cached_tokens": USAGE["cached"],
                "cache_write_tokens": USAGE["cache_write"],
            },
            "completion_tokens_details": {"reasoning_tokens": USAGE["reasoning"]},
        }


class Responses:
    """POST /v1/responses."""

    path = "/v1/responses"
    too_long = "Your input exceeds the context window of this model. Please adjust your input and try again."
    done = b""

    def asked(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        if isinstance(body["input"], str):
            return [("user", body["input"])]
        turns: list[tuple[str, str]] = []
        for item in body["input"]:
            match item.get("type", "message"):
                case "message":
                    turns.append((item["role"], _text(item["content"])))
                case "function_call" if not turns or turns[-1][0] != "calls":
                    turns.append(("calls", ""))
                case "function_call_output":
                    turns.append(("result", _text(item["output"])))
        return turns

    def whole(self, answer: Answer) -> dict[str, Any]:
        status = "incomplete" if answer.stop in ("length", "filter", "context") else "completed"
        reason = {"length": "max_output_tokens", "context": "max_output_tokens", "filter": "content_filter"}
        return {
            "id": answer.id, "object": "response", "created_at": 1, "model": answer.model, "status": status,
            "output": list(self._items(answer)), "error": None, "parallel_tool_calls": True, "tools": [],
            "incomplete_details": {"reason": reason[answer.stop]} if status == "incomplete" else None,
            "usage": self._usage(),
        }  # fmt: skip

    def events(self, answer: Answer) -> Iterator[dict[str, Any]]:
        whole = self.whole(answer)
        empty = {**whole, "output": [], "usage": None, "status": "in_progress"}
        yield {"type": "response.created", "response": empty}
        yield {"type": "response.in_progress", "response": empty}
        for index, item in enumerate(whole["output"]):
            yield from self._item_events(index, item)
        yield {"type": f"response.{whole['status']}", "response": whole}

    def error(self, status: int, kind: str, message: str) -> dict[str, Any]:
        return Chat().error(status, kind, message)

    def error_event(self, kind: str, message: str) -> dict[str, Any]:
        code = {"overloaded": "server_error", "invalid_request_error": "invalid_prompt"}.get(kind, kind)
        return {"type": "error", "code": code, "message": message, "param": None}

    def _items(self, answer: Answer) -> Iterator[dict[str, Any]]:
        if answer.thinking or answer.redacted:
            summary = [{"type": "summary_text", "text": answer.thinking}] if answer.thinking else []
            yield {
                "id": f"rs_{answer.id}", "type": "reasoning", "summary": summary, "status": "completed",
                "encrypted_content": "enc-thought",
            }  # fmt: skip
        if answer.text:
            part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": []}
            if answer.stop == "refusal":
                part = {"type": "refusal", "refusal": answer.text}
            yield {
                "id": f"msg_{answer.id}", "type": "message", "role": "assistant", "content": [part],
                "status": "completed",
            }  # fmt: skip
        for index, (call_id, name, args) in enumerate(answer.calls):
            yield {
                "id": f"fc_{answer.id}_{index}", "type": "function_call", "call_id": call_id, "name": name,
                "arguments": args, "status": "incomplete" if answer.stop == "length" else "completed",
            }  # fmt: skip

    def _item_events(self, index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        where = {"item_id": item["id"], "output_index": index}
        blank: dict[str, dict[str, Any]] = {
            "reasoning": {"summary": [], "encrypted_content": None},
            "message": {"content": []},
        }
        started = {**item, **blank.get(item["type"], {"arguments": ""}), "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": started}
        match item["type"]:
            case "reasoning":
                for part in item["summary"]:
                    for piece in pieces(part["text"]):
                        kind = "response.reasoning_summary_text.delta"
                        yield {"type": kind, **where, "summary_index": 0, "delta": piece}
            case "message":
                [part] = item["content"]
                kind = "response.refusal.delta" if part["type"] == "refusal" else "response.output_text.delta"
                for piece in pieces(part.get("text") or part.get("refusal") or ""):
                    yield {"type": kind, **where, "content_index": 0, "delta": piece}
            case "function_call":
                for half in halves(item["arguments"]):
                    yield {"type": "response.function_call_arguments.delta", **where, "delta": half}
        if item["status"] != "incomplete":
            yield {"type": "response.output_item.done", "output_index": index, "item": item}

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": USAGE["input"],
            "output_tokens": USAGE["output"],
            "total_tokens": USAGE["input"] + USAGE["output"],
            "input_tokens_details": {
                "cached_tokens": USAGE["cached"],
                "cache_write_tokens": USAGE["cache_write"],
            },
            "output_tokens_details": {"reasoning_tokens": USAGE["reasoning"]},
        }


class Messages:
    """POST /v1/messages."""

    path = "/v1/messages"
    too_long = "prompt is too long: 210000 tokens > 200000 maximum"
    done = b""

    def asked(self, body: dict[str, Any]) -> list[tuple[str, str]]:
        turns = []
        for message in body["messages"]:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            kinds = {block["type"] for block in blocks}
            if "tool_use" in kinds:
                turns.append(("calls", ""))
                continue
            turns += [("result", _text(b.get("content"))) for b in blocks if b["type"] == "tool_result"]
            if kinds - {"tool_result"}:
                turns.append((message["role"], _text([b for b in blocks if b["type"] in ("text", "image")])))
        return turns

    def whole(self, answer: Answer) -> dict[str, Any]:
        stops = {
            "end": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "filter": "refusal",
            "pause": "pause_turn", "context": "model_context_window_exceeded",
        }  # fmt: skip
        return {
            "id": answer.id, "type": "message", "role": "assistant", "model": answer.model,
            "content": list(self._blocks(answer)), "stop_reason": stops.get(answer.stop, answer.stop),
            "stop_sequence": None, "usage": self._usage(),
        }  # fmt: skip

    def events(self, answer: Answer) -> Iterator[dict[str, Any]]:
        whole = self.whole(answer)
        first = {**whole["usage"], "output_tokens": 1}
        first.pop("output_tokens_details")
        yield {
            "type": "message_start",
            "message": {**whole, "content": [], "stop_reason": None, "usage": first},
        }
        yield {"type": "ping"}
        for index, block in enumerate(whole["content"]):
            yield from self._block_events(index, block, cut=answer.stop == "length")
        usage = {k: whole["usage"][k] for k in ("output_tokens", "output_tokens_details")}
        yield {
            "type": "message_delta", "usage": usage,
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
        }  # fmt: skip
        yield {"type": "message_stop"}

    def error(self, status: int, kind: str, message: str) -> dict[str, Any]:
        names = {
            401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
            400: "invalid_request_error", 422: "invalid_request_error", 529: "overloaded_error",
        }  # fmt: skip
        if kind == "context":
            message = "prompt is too long: 210000 tokens > 200000 maximum"
        return {"type": "error", "error": {"type": names.get(status, "api_error"), "message": message}}

    def error_event(self, kind: str, message: str) -> dict[str, Any]:
        name = {"overloaded": "overloaded_error"}.get(kind, kind)
        return {"type": "error", "error": {"type": name, "message": message}}

    def _blocks(self, answer: Answer) -> Iterator[dict[str, Any]]:
        if answer.thinking:
            yield {"type": "thinking", "thinking": answer.thinking, "signature": "sig-thought"}
        if answer.redacted:
            yield {"type": "redacted_thinking", "data": answer.redacted}
        if answer.text:
            yield {"type": "text", "text": answer.text}
        if answer.stop == "pause":
            yield {
                "type": "server_tool_use",
                "id": "srvtoolu_1",
                "name": "web_search",
                "input": {"query": "x"},
            }
        for call_id, name, args in answer.calls:
            yield {"type": "tool_use", "id": call_id, "name": name, "input": args}

    def _block_events(self, index: int, block: dict[str, Any], cut: bool) -> Iterator[dict[str, Any]]:
        blank: dict[str, Any] = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}}
        if "input" in block:
            blank[block["type"]] = {"input": {}}
        started = {**block, **blank.get(block["type"], {})}
        yield {"type": "content_block_start", "index": index, "content_block": started}
        deltas: list[dict[str, Any]] = []
        match block["type"]:
            case "thinking":
                deltas += [
                    {"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])
                ]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "text":
                deltas += [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
            case "tool_use" | "server_tool_use":
                args = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
                deltas += [{"type": "input_json_delta", "partial_json": half} for half in ("", *halves(args))]
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        if not cut:
            yield {"type": "content_block_stop", "index": index}

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": USAGE["input"] - USAGE["cached"] - USAGE["cache_write"],
            "cache_read_input_tokens": USAGE["cached"],
            "cache_creation_input_tokens": USAGE["cache_write"],
            "output_tokens": USAGE["output"],
            "output_tokens_details": {"thinking_tokens": USAGE["reasoning"]},
        }


Dialect = Chat | Responses | Messages


def _text(content: Any) -> str:
    """The text of a message's content in any dialect."""
    if isinstance(content, list):
        return "".join(part.get("text") or _shown(part) for part in content)
    return content or ""


def _shown(part: dict[str, Any]) -> str:
    """Return the text chunk `Shows` of a PNG, whose base64 is anywhere in the part of any dialect."""
    found = re.search(r"iVBORw0KGgo[A-Za-z0-9+/=]*", json.dumps(part))
    content = base64.b64decode(found[0]) if found else b""
    at = content.find(b"tEXtShows\0")
    size = int.from_bytes(content[at - 4 : at], "big") if at >= 0 else 0
    return "\n" + content[at + 10 : at + 4 + size].decode() if size else ""


# ---- the server -------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """A server that keeps its last 1000 requests and shows them at /requests."""

    record: bool = True
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))
    faulted: Counter[str] = field(default_factory=Counter)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_get("/requests", self._show)
        app.router.add_delete("/requests", self._forget)
        return app

    def keep(self, request: web.Request, body: Any) -> None:
        if self.record:
            headers = [[name, value] for name, value in request.headers.items()]
            peer = request.transport and request.transport.get_extra_info("peername")
            self.requests.append({"path": request.path, "headers": headers, "body": body, "peer": peer})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(list(self.requests))

    async def _forget(self, request: web.Request) -> web.Response:
        self.requests.clear()
        return web.json_response({})


@dataclass
class Fake(Recorder):
    delay_s: float = 0.0
    answered: int = 0

    def app(self) -> web.Application:
        app = super().app()
        for dialect in (Chat(), Responses(), Messages()):
            app.router.add_post(dialect.path, self._endpoint(dialect))
        return app

    def _endpoint(self, dialect: Dialect) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = json.loads(await request.read())
            self.keep(request, body)
            try:
                return await self._answer(request, dialect, body)
            except ConnectionResetError:  # the client left
                return web.Response()

        return answer

    async def _answer(
        self, request: web.Request, dialect: Dialect, body: dict[str, Any]
    ) -> web.StreamResponse:
        asked = read(dialect, body, request)
        if len(json.dumps(body)) > int(asked.option("window", "1000000000")):
            return web.json_response(dialect.error(400, "context", dialect.too_long), status=400)
        fault = self._fault(asked)
        if failure := refused(dialect, asked, fault):
            return failure
        if fault == "never":
            await asyncio.Event().wait()
        self.answered += 1
        answer = answer_to(asked, self.answered)
        if fault:
            answer = twisted(answer, asked, self.answered)
        delay_s = float(asked.option("delay", str(self.delay_s)))
        if not body.get("stream"):
            await asyncio.sleep(delay_s)
            return web.json_response(dialect.whole(answer))
        return await self._stream(request, dialect, answer, fault, delay_s)

    def _fault(self, asked: Asked) -> str:
        """Return the fault for this request; none after the text's `times`."""
        if not asked.fault:
            return ""
        self.faulted[asked.text] += 1
        return asked.fault if self.faulted[asked.text] <= int(asked.option("times", "1000000")) else ""

    async def _stream(
        self, request: web.Request, dialect: Dialect, answer: Answer, fault: str, delay_s: float
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if fault in ("trickle", "bytes"):
            while True:
                await response.write(b": keep-alive\n\n" if fault == "trickle" else b"x")
                await asyncio.sleep(0.02)
        events = list(dialect.events(answer))
        if fault == "truncated":
            events = events[: -2 if dialect.path != Responses.path else -1]
        chunks = [sse(event) for event in events]
        if fault in BREAKS:
            chunks = chunks[: len(chunks) // 2]
        await self._paced(response, chunks, delay_s)
        match fault:
            case "reset":
                reset(request)
                return response
            case "malformed":
                await response.write(b'data: {"type": "oops\n\n')
            case "nonsense":
                await response.write(b'data: {"type": ["content_block_delta"], "choices": 7}\n\n')
            case "error-event":
                await response.write(sse(dialect.error_event("overloaded", "Overloaded, come back later.")))
            case "final-error-event":
                await response.write(
                    sse(dialect.error_event("invalid_request_error", "That can't be asked."))
                )
            case "truncated":
                pass
            case _ if dialect.done:
                await response.write(dialect.done)
        await response.write_eof()
        return response

    async def _paced(self, response: web.StreamResponse, chunks: list[bytes], delay_s: float) -> None:
        """Write the chunks within `delay_s`, in at most ten steps; at once without a delay."""
        if not delay_s:
            for start in range(0, len(chunks), 50):
                await response.write(b"".join(chunks[start : start + 50]))
            return
        loop = asyncio.get_running_loop()
        began, steps = loop.time(), min(10, len(chunks))
        for step in range(steps):
            await asyncio.sleep(max(0.0, began + delay_s * (step + 1) / steps - loop.time()))
            await response.write(
                b"".join(chunks[len(chunks) * step // steps : len(chunks) * (step + 1) // steps])
            )


BREAKS = {"reset", "malformed", "nonsense", "error-event", "final-error-event"}


def read(dialect: Dialect, body: dict[str, Any], request: web.Request) -> Asked:
    turns = dialect.asked(body)
    last = max((i for i, (kind, _) in enumerate(turns) if kind == "user"), default=-1)
    after = turns[last + 1 :]
    return Asked(
        text=turns[last][1] if last >= 0 else "",
        rounds=sum(kind == "calls" for kind, _ in after),
        results=tuple(text for kind, text in after if kind == "result"),
        model=body["model"],
        key=request.headers.get("Authorization", "") + request.headers.get("X-Api-Key", ""),
        wants_summary="You summarize the beginning" in json.dumps(body),
    )


def refused(dialect: Dialect, asked: Asked, fault: str) -> web.Response | None:
    """Return the answer of a fault that is an HTTP status, else None."""
    headers = {}
    for name in ("retry-after", "retry-after-ms"):
        if value := asked.option(name, ""):
            headers[name] = value.replace("_", " ")
    if fault.isdigit():
        body = dialect.error(int(fault), "some_error", f"You asked for a {fault}.")
        return web.json_response(body, status=int(fault), headers=headers)
    if fault == "quota":
        return web.json_response(dialect.error(429, "quota", "You exceeded your current quota."), status=429)
    if fault == "context":
        body = dialect.error(400, "context", "This model's maximum context length is 8192 tokens.")
        return web.json_response(body, status=400)
    if fault == "leak":
        return web.json_response(dialect.error(401, "invalid_api_key", f"Wrong key: {asked.key}"), status=401)
    if fault == "html":
        return web.Response(text="<html>Hello</html>", content_type="text/html")
    if fault == "wire":
        file = WIRE / asked.option("file", "")
        return web.Response(body=file.read_bytes(), content_type=WIRE_TYPES[file.suffix])
    return None


def sse(event: dict[str, Any]) -> bytes:
    data = json.dumps(event).encode()
    return (
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), data)
        if "type" in event
        else b"data: %s\n\n" % data
    )


def reset(request: web.Request) -> None:
    """Close the connection with a TCP reset."""
    assert request.transport is not None
    sock = request.transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


async def serve(port: int, uds: str, app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    if uds:
        await web.UnixSite(runner, uds, backlog=4096).start()
        _ready(f"unix:{uds}")
    else:
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        _ready("http://{}:{}".format(*runner.addresses[0]))
    await asyncio.Event().wait()


def _ready(url: str) -> None:
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


# ---- for tests and benchmarks -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Provider:
    """A running fake provider."""

    url: str
    """`http://127.0.0.1:PORT`: the base URL for Anthropic's SDK."""
    pid: int

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's SDK and for `local:` models."""
        return f"{self.url}/v1"

    def env(self) -> dict[str, str]:
        """Return an environment that directs the SDKs of a process here, with made-up keys."""
        return {
            "OPENAI_API_KEY": "sk-fake-openai",
            "OPENAI_BASE_URL": self.openai_url,
            "ANTHROPIC_API_KEY": "sk-fake-anthropic",
            "ANTHROPIC_BASE_URL": self.url,
            "AGNO_MODELS__LOCAL_BASE_URL": self.openai_url,
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return the last 1000 requests: path, headers (pairs), body and the client's address."""
        with urlopen(f"{self.url}/requests", timeout=10) as answer:
            return list(json.load(answer))

    def forget(self) -> None:
        """Forget all requests."""
        urlopen(Request(f"{self.url}/requests", method="DELETE"), timeout=10).close()


@contextmanager
def running(*args: str, module: str = "tests.fakes.provider") -> Iterator[Provider]:
    """Run a fake provider in a process of its own, on a free port of localhost, until the block ends."""
    here = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", module, *args]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the fake provider ended with {process.wait()} before it was ready")
            yield Provider(url, process.pid)
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake of the model providers, for tests and benchmarks.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--uds", default="", help="listen on this Unix socket instead")
    parser.add_argument(
        "--delay", type=float, default=0.0, help="seconds for an answer without delay= in its text"
    )
    parser.add_argument("--no-record", action="store_true", help="keep no requests, for benchmarks")
    options = parser.parse_args()
    fake = Fake(delay_s=options.delay, record=not options.no_record)
    try:
        asyncio.run(serve(options.port, options.uds, fake.app()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
