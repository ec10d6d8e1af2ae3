"""OpenAI's embeddings endpoint, at OpenAI and at the many servers that implement it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from agno_workers.errors import ModelRejected
from agno_workers.knowledge.embedders.texts import fitting, sound
from agno_workers.models import faults
from agno_workers.models.openai import connect
from agno_workers.models.transport import Body, ProviderTransport

TIMEOUT_S = 60.0
MAX_TOKENS = 8191
"""The limit of one text, for each of OpenAI's embedding models."""


class Embeddings:
    """One model behind the endpoint. Threads may share it, and it survives a fork."""

    batch_texts = 256
    batch_tokens = 100_000
    max_tokens = MAX_TOKENS

    def __init__(
        self,
        name: str,
        model: str,
        *,
        api_key: str,
        base_url: str | None,
        dimensions: int | None,
        shortened: bool = False,
    ) -> None:
        """`name` is ours, `model` the server's. If `dimensions` is None, a call finds them out.

        `shortened` asks a model that has more dimensions for this many.
        """
        self.name = name
        self._model = model
        self._dimensions = dimensions
        self._asked = {"dimensions": dimensions} if shortened else {}
        self.transport = ProviderTransport(name, api_key, connect(api_key, base_url))

    @property
    def dimensions(self) -> int:
        """The dimensions given, or those of one vector that is asked for; then it raises as `embed` does."""
        if self._dimensions is None:
            self.embed(["How long is a vector?"])
        assert self._dimensions is not None
        return self._dimensions

    def embed(
        self,
        texts: Sequence[str],
        kind: Literal["document", "query"] = "document",  # noqa: ARG002 - the endpoint makes no difference
    ) -> NDArray[np.float32]:
        return self.embed_counted(texts)[0]

    def embed_counted(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Return the vectors of `embed`, and the tokens that the server counted; 0 when it does not report them."""
        if not texts:
            return np.empty((0, self.dimensions), np.float32), 0
        try:
            answer = self.transport.fetch("/embeddings", TIMEOUT_S, Body(json=self.body(texts)))
        except ModelRejected as error:
            raise self._too_long(error) if error.ids.get("code") == faults.CONTEXT_WINDOW else error from None
        return self.read(answer, len(texts))

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the JSON to send. An empty text, which servers refuse, becomes a blank."""
        given = [fitting(sound(text), self.max_tokens) or " " for text in texts]
        return {"model": self._model, "input": given, "encoding_format": "base64", **self._asked}

    def read(self, answer: bytes, count: int) -> tuple[NDArray[np.float32], int]:
        """Return the vectors in an answer to `count` texts, in their order, at unit length."""
        try:
            whole = msgspec.json.decode(answer, type=_Answer)
            found = {item.index: _floats(item.embedding) for item in whole.data}
        except ValueError as error:
            raise faults.unavailable(
                self.name, f"sent an answer that can't be read ({error}): {answer[:200]!r}"
            ) from None
        if len(whole.data) != count or set(found) != set(range(count)):
            raise faults.unavailable(self.name, f"sent {len(whole.data)} vectors for {count} texts")
        lengths = {len(vector) for vector in found.values()}
        self._dimensions = self._dimensions or max(lengths)
        if lengths != {self._dimensions}:
            raise self._other_length(sorted(lengths))
        vectors = np.stack([found[index] for index in range(count)])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise faults.unavailable(self.name, "sent a vector without a direction")
        return vectors / norms, whole.usage.total_tokens if whole.usage else 0

    def _too_long(self, error: ModelRejected) -> ModelRejected:
        return ModelRejected(
            f"A text is longer than {self.name} accepts, by its own count. Ingest with shorter chunks.",
            **error.ids,
        )

    def _other_length(self, lengths: list[int]) -> ModelRejected:
        sent = " and ".join(map(str, lengths))
        message = (
            f"{self.name} sends vectors of {sent} dimensions, not of {self._dimensions}. Correct the number after the @ of "
            "its name, or the model at its address."
        )
        return faults.rejected(self.name, message, code="dimensions")


class _Item(msgspec.Struct):
    index: int
    embedding: bytes | list[float]
    """base64 of float32, as asked for; numbers from servers that ignore that."""


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


def _floats(embedding: bytes | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, bytes):
        return np.frombuffer(embedding, "<f4")
    return np.array(embedding, np.float32)
