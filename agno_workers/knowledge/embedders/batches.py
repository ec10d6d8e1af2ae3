"""OpenAI's embeddings with its batch API: half the price, for an answer within a day.

A batch is a file with a request in each line. It ends with a file of answers, in any order, and perhaps one of errors.
Ordinary calls fetch the vectors that it does not bring, because a line failed or the day was over: a batch always ends with
all vectors, or with an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.embedders.openai import TIMEOUT_S, Embeddings
from agno_workers.models import faults
from agno_workers.models.transport import Body

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
        file = self._fetch("/files", UPLOAD_S, upload)
        order = {
            "input_file_id": file["id"],
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
            "metadata": {"agno_key": key},
            "output_expires_after": expiry,
        }
        return str(self._fetch("/batches", TIMEOUT_S, Body(json=order))["id"])

    def find(self, key: str) -> str | None:
        """Return the id of the batch that was submitted with this key in the last two days, or None."""
        return next(
            (str(b["id"]) for b in self._batches() if (b.get("metadata") or {}).get("agno_key") == key), None
        )

    def poll(self, id: str) -> NDArray[np.float32] | None:
        """Return the vectors of all texts, in their order, once the batch has ended; until then None. Safe to repeat."""
        batch = self._fetch(f"/batches/{id}")
        if batch["status"] in _AT_WORK:
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

    def _line(self, number: int, text: str) -> bytes:
        request = {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/embeddings",
            "body": self.body([text]),
        }
        return msgspec.json.encode(request)

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Yield the newest first."""
        after = ""
        while True:
            page = self._fetch(f"/batches?limit={_PAGE}{after}")
            for batch in page["data"]:
                if batch["created_at"] < time.time() - FIND_S:
                    return
                yield batch
            if not page.get("has_more") or not page["data"]:
                return
            after = f"&after={page['data'][-1]['id']}"

    def _texts(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the texts as they were sent."""
        lines = self._lines(batch["input_file_id"])
        return [str(line["body"]["input"][0]) for line in lines]

    def _brought(self, batch: Mapping[str, Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for line in self._lines(batch.get("output_file_id")):
            response = line.get("response") or {}
            if response.get("status_code") == 200:
                (vector,), _ = self.read(msgspec.json.encode(response["body"]), 1)
                yield int(line["custom_id"]), vector

    def _lines(self, file_id: str | None) -> Iterator[dict[str, Any]]:
        if file_id:
            for line in self.transport.fetch(f"/files/{file_id}/content", UPLOAD_S).splitlines():
                yield msgspec.json.decode(line)

    def _fetch(self, path: str, timeout_s: float = TIMEOUT_S, body: Body | None = None) -> dict[str, Any]:
        answer = self.transport.fetch(path, timeout_s, body)
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except msgspec.DecodeError as error:
            what = f"sent an answer that can't be read ({error}): {answer[:200]!r}"
            raise faults.unavailable(self.name, what) from None


def _reason(batch: Mapping[str, Any]) -> str:
    errors = (batch.get("errors") or {}).get("data") or ()
    return "; ".join(str(error.get("message") or error.get("code")) for error in errors[:3])
