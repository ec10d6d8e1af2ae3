"""The outside world as the engine sees it: small Protocols that models, embedders and the run store implement."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

from agno_workers.core.messages import Emit, Message, ModelRequest, Reply
from agno_workers.core.run import StepKind, WaitsFor
from agno_workers.core.step import (
    ClaimedStep,
    CommitResult,
    ExhaustedStep,
    ExpiredWait,
    ToolStep,
    TurnRecord,
)


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


class ToolTransaction(Protocol):
    """The open transaction of a `transactional` tool. It is rolled back unless `finish` recorded the tool's result."""

    connection: Any
    """A psycopg connection, for `ToolContext.connection`."""

    @property
    def is_lost(self) -> bool: ...
    @property
    def has_failed(self) -> bool: ...
    def close(self) -> None: ...
    def finish(self, step: ClaimedStep, message: Message) -> CommitResult: ...


class Journal(Protocol):
    """The run store, as far as the engine needs it: `runs.claim.Claims` and `runs.commit.Commits`.

    Each call is one transaction and safe to repeat. Raises Unavailable where the store cannot be reached.
    """

    def claim(self, kind: StepKind, run_id: str, step_id: str, generation: int) -> ClaimedStep | None: ...
    def retry(self, step_id: str, attempt: int, delay_s: float, error: dict[str, Any]) -> None: ...
    def set_deadline(self, run_id: str, deadline_s: float) -> datetime | None: ...
    def definition(self, sha256: str) -> dict[str, Any]: ...
    def history(self, claim: ClaimedStep, runs: int) -> tuple[Message, ...]: ...

    def fan_out(
        self, claim: ClaimedStep, record: TurnRecord, calls: Sequence[ToolStep], next_queue: str
    ) -> CommitResult: ...
    def next_turn(self, claim: ClaimedStep, record: TurnRecord, next_queue: str) -> CommitResult: ...
    def end(self, claim: ClaimedStep, record: TurnRecord, content: Any, reason: str) -> CommitResult: ...
    def fail(
        self, step: ClaimedStep | ExhaustedStep, error: dict[str, Any], reason: str, record: TurnRecord = ...,
        step_status: str = ..., content: Any = ...,
    ) -> CommitResult: ...  # fmt: skip
    def finish_tool(
        self, step: ClaimedStep | ExhaustedStep | ExpiredWait, message: Message, error: dict[str, Any] | None = ...,
        step_status: str = ..., *, answer: dict[str, Any] | None = ...,
    ) -> CommitResult: ...  # fmt: skip
    def transaction(self) -> AbstractContextManager[ToolTransaction]: ...
    def ask_person(self, step: ClaimedStep | ExhaustedStep, error: dict[str, Any]) -> bool: ...
    def answer(
        self, step_id: str, waits_for: Sequence[WaitsFor], answer: dict[str, Any], attempt: int | None = ...
    ) -> bool: ...
    def fail_unanswered(self, step: ExpiredWait, error: dict[str, Any]) -> bool: ...
