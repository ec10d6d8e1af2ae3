"""OpenAI's embeddings with its batch API: half the price, for an answer within a day.

A batch is a file with a request in each line. It ends with a file of answers, in any order, and perhaps one of errors.
Ordinary calls fetch the vectors that it does not bring, because a line failed or the day was over: a batch always ends with
all vectors, or with an error.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from agno_workers.errors import InvalidInput, ModelUnavailable
from agno_workers.knowledge.embedders.openai import TIMEOUT_S, Embeddings
from agno_workers.models.transport import Body
from agno_workers.models.wire import fields, identifier, objects, text

T = TypeVar("T")

MAX_TEXTS = 50_000
"""OpenAI's limit for one batch."""
UPLOAD_S = 300.0
FIND_S = 2 * 86_400.0
"""`find` ignores older batches: they have ended."""
KEEP_S = 7 * 86_400
"""Seconds for which OpenAI keeps the texts and the vectors of a batch."""

_PAGE = 100
_AT_WORK = {"validating", "in_progress", "finalizing", "cancelling"}

log = logging.getLogger(__name__)


class OpenAI(Embeddings):
    """An embedding model of OpenAI; core.ports.BatchEmbedder describes the methods beside `embed`."""

    def start(self, texts: Sequence[str], key: str) -> str:
        """Submit a batch of at most `MAX_TEXTS` texts; return its id. Not safe to repeat: call `find` first."""
        if len(texts) > MAX_TEXTS:
            raise InvalidInput(f"A batch holds at most {MAX_TEXTS:,} texts, not {len(texts):,}: split it.")
        expiry = {"anchor": "created_at", "seconds": KEEP_S}
        lines = b"\n".join(self._line(number, text) for number, text in enumerate(texts))
        upload = Body(
            json={"purpose": "batch", "expires_after": expiry},
            files={"file": ("texts.jsonl", lines, "application/jsonl")},
        )
        order = {
            "input_file_id": self._fetch("/files", _id, UPLOAD_S, upload),
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
            "metadata": {"agno_key": key},
            "output_expires_after": expiry,
        }
        return self._fetch("/batches", _id, TIMEOUT_S, Body(json=order))

    def find(self, key: str) -> str | None:
        """Return the id of the batch that was submitted with this key in the last two days, or None."""
        return next((batch_id for batch_id, its_key in self._batches() if its_key == key), None)

    def poll(self, id: str) -> NDArray[np.float32] | None:
        """Return the vectors of all texts, in their order, once the batch has ended; until then None. Safe to repeat."""
        batch = self._fetch(f"/batches/{id}", _ended)
        if batch is None:
            return None
        texts = self._texts(batch)
        found = dict(self._brought(batch))
        missing = [number for number in range(len(texts)) if number not in found]
        if missing:
            log.warning(
                "batch ended without all vectors; fetching the rest by ordinary calls",
                extra={"batch": id, "status": batch["status"], "texts": len(texts), "missing": len(missing)}
                | {"reason": _reason(batch)},
            )
        for start in range(0, len(missing), self.batch_texts):
            few = missing[start : start + self.batch_texts]
            found |= dict(zip(few, self.embed([texts[number] for number in few]), strict=True))
        return np.stack([found[number] for number in range(len(texts))])

    def _line(self, number: int, given: str) -> bytes:
        request = {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/embeddings",
            "body": self.body([given]),
        }
        return msgspec.json.encode(request)

    def _batches(self) -> Iterator[tuple[str, str]]:
        """Yield the id and the key of each, the newest first."""
        after = ""
        while True:
            batches, has_more = self._fetch(f"/batches?limit={_PAGE}{after}", _page)
            for batch_id, key, created_at in batches:
                if created_at < time.time() - FIND_S:
                    return
                yield batch_id, key
            if not has_more or not batches:
                return
            after = f"&after={batches[-1][0]}"

    def _texts(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the texts as they were sent."""
        return list(self._lines(batch["input_file_id"], lambda line: str(line["body"]["input"][0])))

    def _brought(self, batch: Mapping[str, Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the vectors of the lines that succeeded, and that can be read."""
        for number, body in filter(None, self._lines(batch.get("output_file_id"), _success)):
            with suppress(ModelUnavailable):
                (vector,), _ = self.read(body, 1)
                yield number, vector

    def _lines(self, file_id: object, read: Callable[[dict[str, Any]], T]) -> Iterator[T]:
        if file_id:
            for line in self.transport.fetch(f"/files/{identifier(file_id)}/content", UPLOAD_S).splitlines():
                yield self.transport.read(line, read)

    def _fetch(
        self,
        path: str,
        read: Callable[[dict[str, Any]], T],
        timeout_s: float = TIMEOUT_S,
        body: Body | None = None,
    ) -> T:
        return self.transport.read(self.transport.fetch(path, timeout_s, body), read)


def _id(answer: dict[str, Any]) -> str:
    return identifier(answer["id"])


def _ended(batch: dict[str, Any]) -> dict[str, Any] | None:
    return None if batch["status"] in _AT_WORK else batch


def _page(page: dict[str, Any]) -> tuple[list[tuple[str, str, float]], bool]:
    batches = [
        (_id(batch), text(fields(batch.get("metadata")).get("agno_key")), float(batch["created_at"]))
        for batch in objects(page["data"])
    ]
    return batches, bool(page.get("has_more"))


def _success(line: dict[str, Any]) -> tuple[int, bytes] | None:
    response = fields(line.get("response"))
    if response.get("status_code") != 200:
        return None
    return int(line["custom_id"]), json.dumps(response["body"]).encode()


def _reason(batch: Mapping[str, Any]) -> str:
    errors = objects(fields(batch.get("errors")).get("data"))
    return "; ".join(text(error.get("message")) or text(error.get("code")) for error in errors[:3])
