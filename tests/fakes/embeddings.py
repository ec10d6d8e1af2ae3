"""A provider of embeddings on localhost: OpenAI's endpoints for embeddings, files and batches, in their wire format.

Its vectors are those of the `hash` embedder, three times as long, so that equal words are found. Any of the texts may ask for
a fault, as in tests/fakes/provider.py:

    fault:NAME key=value ...   one of FAULTS below, or an HTTP status: `fault:429 retry-after=2`;
                               after `times=N` faults the same text is answered
    delay=1.0                  the answer takes so many seconds

In a batch, a text with a fault is a failed line. The first text of a batch may choose its course:

    batch:failed               its end: `failed`, `expired` (with every other text done), `cancelled`
    polls=3                    the number of polls before its end (1)

`GET /requests` returns the requests, `DELETE /requests` forgets them. `python -m tests.fakes.embeddings` prints its URL when ready.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

from agno_workers.knowledge.embedders.hash import Hash
from tests.fakes import provider
from tests.fakes.provider import Chat, Provider, Recorder, reset, serve

FAULTS = {
    "reset": "reset the TCP connection in the middle of the answer",
    "never": "accept the request and never answer",
    "context": "400: a text is too long, by the server's own count",
    "html": "answer 200 with a web page",
    "cut": "answer 200 with half of the JSON",
    "count": "one vector too few",
    "index": "two vectors with the same index",
    "dimensions": "vectors longer than asked for",
    "zero": "a vector of zeros",
    "nan": "a vector that is not a number",
    "shuffled": "the vectors in another order, each with its index: allowed",
    "floats": "numbers instead of base64, from servers that ignore it",
    "no-usage": "no count of tokens",
}
DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""Any other model has 384 and can't shorten them."""
MAX_TEXTS = 2048
TOO_LONG = ("context_length_exceeded", "This model's maximum context length is 8192 tokens.")


@dataclass
class Job:
    """A batch as its owner sees it, and the polls until its end."""

    shown: dict[str, Any]
    texts: list[str]
    lines: list[dict[str, Any]]
    polls: int
    end: str


@dataclass
class Fake(Recorder):
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)

    def app(self) -> web.Application:
        app = super().app()
        app.router.add_post("/v1/embeddings", self._kept(self._embed))
        app.router.add_post("/v1/files", self._kept(self._upload))
        app.router.add_get("/v1/files/{id}/content", self._kept(self._content))
        app.router.add_post("/v1/batches", self._kept(self._create))
        app.router.add_get("/v1/batches", self._kept(self._list))
        app.router.add_get("/v1/batches/{id}", self._kept(self._look))
        return app

    def _kept(
        self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def kept(request: web.Request) -> web.StreamResponse:
            self.keep(request, await request.json() if request.content_type == "application/json" else None)
            return await answer(request)

        return kept

    # Embeddings.

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        said = next((text for text in texts if self._is_due(text)), "")
        fault = option(said, "fault", ":")
        await asyncio.sleep(max((float(option(text, "delay") or 0) for text in texts), default=0))
        if fault == "never":
            await asyncio.Event().wait()
        if fault == "context":
            return failure(400, *TOO_LONG)
        if fault.isdigit():
            return failure(int(fault), "some_error", f"You asked for a {fault}.", said)
        if refused := refusal(body, texts):
            return failure(400, *refused)
        return await self._answer(request, body, texts, fault)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], texts: list[str], fault: str
    ) -> web.StreamResponse:
        whole = json.dumps(answer(body, texts, fault)).encode()
        match fault:
            case "html":
                return web.Response(text="<html>Hello</html>", content_type="text/html")
            case "cut":
                return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
            case "reset":
                response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
                await response.prepare(request)
                await response.write(whole[: len(whole) // 2])
                reset(request)
                return response
        return web.Response(body=whole, content_type="application/json")

    def _is_due(self, text: str) -> bool:
        """Return True if the text's fault happens (again)."""
        if not option(text, "fault", ":"):
            return False
        self.faulted[text] += 1
        return self.faulted[text] <= int(option(text, "times") or 1_000_000)

    # Files and batches.

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("purpose") != "batch":
            return failure(400, "invalid_request_error", f"Invalid purpose: {form.get('purpose')!r}")
        part = form["file"]
        assert isinstance(part, web.FileField)
        return web.json_response(
            {
                "id": self._store(part.file.read()),
                "object": "file",
                "purpose": "batch",
                "filename": part.filename,
            }
        )

    async def _content(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["id"])
        if content is None:
            return failure(404, "invalid_request_error", "No such File object")
        return web.Response(body=content, content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["input_file_id"] not in self.files or body["endpoint"] != "/v1/embeddings":
            return failure(400, "invalid_request_error", "Correct the batch.")
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        texts = [line["body"]["input"][0] for line in lines]
        shown = {
            "id": f"batch_{len(self.jobs) + 1}", "object": "batch", "endpoint": body["endpoint"], "errors": None,
            "input_file_id": body["input_file_id"], "completion_window": body["completion_window"],
            "status": "validating", "output_file_id": None, "error_file_id": None, "created_at": int(time.time()),
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": body.get("metadata"),
        }  # fmt: skip
        polls, end = int(option(texts[0], "polls") or 1), option(texts[0], "batch", ":") or "completed"
        self.jobs[shown["id"]] = Job(shown, texts, lines, polls, end)
        return web.json_response(shown)

    async def _list(self, request: web.Request) -> web.Response:
        newest = [job.shown for job in reversed(self.jobs.values())]
        after, limit = request.query.get("after"), int(request.query.get("limit", "20"))
        start = next((i + 1 for i, shown in enumerate(newest) if shown["id"] == after), 0)
        page = newest[start : start + limit]
        return web.json_response({"object": "list", "data": page, "has_more": start + limit < len(newest)})

    async def _look(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return failure(404, "invalid_request_error", "No batch found with that id.")
        if job.polls > 0:
            job.polls -= 1
            job.shown["status"] = "in_progress"
        elif job.shown["status"] != job.end:
            self._end(job)
        return web.json_response(job.shown)

    def _end(self, job: Job) -> None:
        job.shown["status"] = job.end
        if job.end == "failed":
            error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None}
            job.shown["errors"] = {"object": "list", "data": [error]}
            return
        results = [self._line(number, line, job.end) for number, line in enumerate(job.lines)]
        good = [r for r in results if r["response"] and r["response"]["status_code"] == 200]
        bad = [r for r in results if r not in good]
        job.shown["request_counts"] = {"total": len(results), "completed": len(good), "failed": len(bad)}
        for name, lines in (("output_file_id", good[::-1]), ("error_file_id", bad)):
            if lines:
                job.shown[name] = self._store(b"\n".join(json.dumps(line).encode() for line in lines))

    def _line(self, number: int, line: dict[str, Any], end: str) -> dict[str, Any]:
        result: dict[str, Any] = {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "error": None}
        (text,) = line["body"]["input"]
        if end != "completed" and number % 2:
            error = {"code": "batch_expired", "message": "This request could not be executed in time."}
            return result | {"response": None, "error": error}
        if self._is_due(text):
            body = Chat().error(500, "server_error", "The server had an error.")
            return result | {"response": {"status_code": 500, "request_id": "r", "body": body}}
        body = answer(line["body"], [text], "")
        return result | {"response": {"status_code": 200, "request_id": "r", "body": body}}

    def _store(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name


def answer(body: dict[str, Any], texts: list[str], fault: str) -> dict[str, Any]:
    """Return the whole answer, with any fault that changes it."""
    dimensions = body.get("dimensions") or DIMENSIONS.get(body["model"], 384)
    vectors, tokens = Hash(dimensions + (fault == "dimensions")).embed_counted(texts)
    vectors = vectors * 3
    if fault in ("zero", "nan"):
        vectors[0] = 0.0 if fault == "zero" else np.nan
    plain = fault == "floats" or body.get("encoding_format") != "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": vector.tolist() if plain else packed(vector)}
        for index, vector in enumerate(vectors)
    ]
    if fault == "index":
        data[-1]["index"] = 0
    data = {"count": data[:-1], "shuffled": data[::-1]}.get(fault, data)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    whole = {"object": "list", "data": data, "model": body["model"]}
    return whole if fault == "no-usage" else whole | {"usage": usage}


def packed(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def refusal(body: dict[str, Any], texts: list[str]) -> tuple[str, str] | None:
    """Return the code and words with which OpenAI refuses the request, or None."""
    if body.get("dimensions", 0) > DIMENSIONS.get(body["model"], 0):
        return "invalid_request_error", "This model does not support specifying dimensions."
    if not texts or len(texts) > MAX_TEXTS or "" in texts:
        return "invalid_request_error", "'$.input' is invalid."
    if any(len(text) > 8191 and tokens(text) > 8191 for text in texts):
        return TOO_LONG
    return None


def tokens(text: str) -> int:
    from bpe_openai import get_encoding

    return len(get_encoding("cl100k_base").encode_ordinary(text))


def failure(status: int, code: str, message: str, text: str = "") -> web.Response:
    headers = {"retry-after": pause} if (pause := option(text, "retry-after")) else {}
    return web.json_response(Chat().error(status, code, message), status=status, headers=headers)


def option(text: str, name: str, sign: str = "=") -> str:
    found = re.search(rf"(?:^|\s){name}{sign}(\S+)", text)
    return found.group(1) if found else ""


def running() -> AbstractContextManager[Provider]:
    """Run this fake in a process of its own until the block ends; `env()` directs OpenAI's SDK and `compatible:` here."""
    return provider.running(module="tests.fakes.embeddings")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    try:
        asyncio.run(serve(port, "", Fake().app()))
    except KeyboardInterrupt:
        pass
