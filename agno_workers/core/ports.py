"""What the engine needs of the outside world, as small Protocols. The walls implement them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from agno_workers.core.messages import Emit, ModelRequest, Reply


class Model(Protocol):
    """One language model of one provider."""

    name: str
    """The name it resolves by, `provider:model`."""

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        """Ask once, and wait for the whole reply; `emit` is called with each piece as it arrives.

        `emit` may raise to stop the call early (the run was cancelled): the connection is closed, the
        exception goes up unchanged.

        Raises ModelUnavailable (try later, see `retry_after_s`) or ModelRejected (final). It does not
        retry by itself: retries are steps, so that they are visible, durable and bounded in one place.
        """
        ...


class Embedder(Protocol):
    """One embedding model of one provider."""

    name: str
    """The name it resolves by, `openai:text-embedding-3-small`: vectors of one name can be compared."""
    max_tokens: int
    """Of one text; more is cut off."""
    batch_texts: int
    """Texts of one call at the most."""
    batch_tokens: int
    """Tokens of one call at the most."""

    @property
    def dimensions(self) -> int:
        """Of each vector. May ask the provider, the first time; raises as `embed` does then."""
        ...

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Any:
        """One vector a text, as a numpy array `(len(texts), dimensions)` float32 of unit length.

        Raises ModelUnavailable (try later, see `retry_after_s`) or ModelRejected (final). It does not retry by itself.
        """
        ...


@runtime_checkable
class CountingEmbedder(Embedder, Protocol):
    """An embedder that knows what a call took."""

    def embed_counted(self, texts: Sequence[str]) -> tuple[Any, int]:
        """As `embed`, and the tokens that were used."""
        ...


@runtime_checkable
class BatchEmbedder(Embedder, Protocol):
    """An embedder whose provider takes texts in for later, at a lower price."""

    def start(self, texts: Sequence[str], key: str) -> str:
        """Hand in a batch, with `key` in its metadata; gives its id. Raises as `embed` does."""
        ...

    def find(self, key: str) -> str | None:
        """The id of the batch that was handed in with this key; None: there is none."""
        ...

    def poll(self, id: str) -> Any | None:
        """The vectors as `embed` gives them, in the order of the texts; None: not yet.

        What a batch that has ended did not bring, `embed` brings: raises as it does. Safe to repeat.
        """
        ...
