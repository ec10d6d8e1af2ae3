"""OpenAI's embeddings endpoint, at OpenAI and at the many servers that implement it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agno_workers.errors import ModelRejected
from agno_workers.knowledge.embedders.texts import fitting, sound
from agno_workers.models import faults
from agno_workers.models.openai import writer
from agno_workers.models.transport import Body, ProviderTransport
from agno_workers.models.wire import fields, tokens

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
        self.transport = ProviderTransport(name, api_key, writer(api_key, base_url))

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
            return self.read(answer, len(texts))
        except ModelRejected as error:
            raise self._too_long(error) if error.ids.get("code") == faults.CONTEXT_WINDOW else error from None

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the JSON to send. An empty text, which servers refuse, becomes a blank."""
        given = [fitting(sound(text), self.max_tokens) or " " for text in texts]
        return {"model": self._model, "input": given, "encoding_format": "base64", **self._asked}

    def read(self, answer: bytes, count: int) -> tuple[NDArray[np.float32], int]:
        """Return the vectors in an answer to `count` texts, in their order, at unit length, and the tokens that were used."""
        sent, used = self.transport.read(answer, _read)
        found = dict(sent)
        if len(sent) != count or set(found) != set(range(count)):
            indexes = ", ".join(str(index) for index, _ in sent[:5]) or "none"
            what = f"sent {len(sent)} vectors for {count} texts, with the indexes: {indexes}"
            raise faults.unavailable(self.name, what)
        lengths = {len(vector) for vector in found.values()}
        dimensions = self._dimensions or max(lengths)
        if lengths != {dimensions}:
            raise self._other_length(sorted(lengths), dimensions)
        vectors = np.stack([found[index] for index in range(count)])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise faults.unavailable(self.name, "sent a vector without a direction")
        self._dimensions = dimensions
        return vectors / norms, used

    def _too_long(self, error: ModelRejected) -> ModelRejected:
        return ModelRejected(
            f"A text is longer than {self.name} accepts, by its own count. Ingest with shorter chunks.",
            **error.ids,
        )

    def _other_length(self, lengths: list[int], dimensions: int) -> ModelRejected:
        sent = " and ".join(map(str, lengths))
        message = (
            f"{self.name} sends vectors of {sent} dimensions, not of {dimensions}. Correct the number after the @ of "
            "its name, or the model at its address."
        )
        return faults.rejected(self.name, message, code="dimensions")


def _read(answer: dict[str, Any]) -> tuple[list[tuple[int, NDArray[np.float32]]], int]:
    """Return each vector with the index of its text, and the tokens used."""
    items = answer["data"]
    if not isinstance(items, list):
        raise TypeError(f"data is not a list but {type(items).__name__}")
    return [(_index(item, place), _floats(item["embedding"])) for place, item in enumerate(items)], tokens(
        fields(answer.get("usage")).get("total_tokens")
    )


def _index(item: dict[str, Any], place: int) -> int:
    """Return the index of a vector's text; some servers send the vectors in order without it."""
    index = item.get("index")
    return place if index is None else int(index)


def _floats(embedding: object) -> NDArray[np.float32]:
    """Return a vector from base64 of float32, as asked for, or from the numbers of servers that ignore that."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    with np.errstate(over="ignore"):  # infinity has no direction either
        vector: NDArray[np.float32] = np.array(embedding, np.float32)
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector.reshape(-1)
    if vector.ndim != 1:
        raise TypeError("an embedding is not a list of numbers")
    return vector
