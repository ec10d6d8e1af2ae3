"""The Protocols that models, embedders and the run store implement for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Raw

from agno_workers.core.mapping import MapOrder, MapPage
from agno_workers.core.messages import Emit, Message, ModelRequest, Reply, Usage
from agno_workers.core.program import Progress
from agno_workers.core.run import StepKind, WaitsFor
from agno_workers.core.step import (
    CallStep,
    ClaimedStep,
    CommitResult,
    CompactionOrder,
    CompactionRecord,
    ExhaustedStep,
    ExpiredWait,
    LimitMet,
    ToolStep,
    TurnRecord,
)


class Model(Protocol):
    """One language model of one provider."""

    name: str
    """The name that it resolves by, `provider:model`."""

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        """Call the model once and return the whole reply; `emit` gets each piece as it arrives.

        `emit` may raise to stop the call (the run was cancelled): the connection is closed, and the exception is raised
        unchanged. Raises ModelUnavailable (retry later, see `retry_after_s`) or ModelRejected (final). It does not retry: the
        engine does, so that retries are visible, durable and limited in one place.
        """
        ...


class Embedder(Protocol):
    """One embedding model of one provider."""

    name: str
    """The name that it resolves by, such as `openai:text-embedding-3-small`: vectors of one name can be compared."""
    max_tokens: int
    """The most tokens of one text; more are cut off."""
    batch_texts: int
    """The most texts of one call."""
    batch_tokens: int
    """The most tokens of one call."""

    @property
    def dimensions(self) -> int:
        """The length of each vector. The first read may call the provider, and raises as `embed` does."""
        ...

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Any:
        """Return one vector per text, as a numpy array `(len(texts), dimensions)` float32 of unit length.

        Raises ModelUnavailable (retry later, see `retry_after_s`) or ModelRejected (final). It does not retry.
        """
        ...


@runtime_checkable
class CountingEmbedder(Embedder, Protocol):
    """An embedder that reports the tokens of a call."""

    def embed_counted(self, texts: Sequence[str]) -> tuple[Any, int]:
        """Return the vectors of `embed`, and the tokens used."""
        ...


@runtime_checkable
class BatchEmbedder(Embedder, Protocol):
    """An embedder whose provider has a batch API, at a lower price."""

    def start(self, texts: Sequence[str], key: str) -> str:
        """Start a batch with `key` in its metadata, and return its id. Raises as `embed` does."""
        ...

    def find(self, key: str) -> str | None:
        """Return the id of the batch that was started with this key, or None."""
        ...

    def poll(self, id: str) -> Any | None:
        """Return the vectors in the order of the texts, or None while the batch is not done. Safe to repeat.

        Texts that an ended batch did not embed are embedded by `embed`; raises as it does.
        """
        ...


class ToolTransaction(Protocol):
    """The open transaction of a `transactional` tool or of background work. It is rolled back unless `finish` recorded the tool's
    result, or `end` that of the run.
    """

    connection: Any
    """A psycopg connection, for `ToolContext.connection`."""

    @property
    def is_lost(self) -> bool: ...
    @property
    def has_failed(self) -> bool: ...
    def close(self) -> None: ...
    def finish(
        self,
        step: ClaimedStep,
        message: Message,
        state: Sequence[dict[str, Any]] = ...,
        offload_tokens: int | None = ...,
    ) -> CommitResult: ...
    def end(self, claim: ClaimedStep, record: TurnRecord, content: Any, reason: str) -> CommitResult: ...


class Journal(Protocol):
    """The part of the run store that the engine uses; `runs.journal.RunJournal` implements it.

    Each call is one transaction and safe to repeat. Raises Unavailable when the store cannot be reached.
    """

    def claim(self, kind: StepKind, run_id: str, step_id: str, generation: int) -> ClaimedStep | None: ...
    def retry(self, step_id: str, attempt: int, delay_s: float, error: dict[str, Any]) -> None: ...
    def return_step(self, step_id: str, error: dict[str, Any], attempt: int | None = ...) -> int | None: ...
    def set_deadline(self, run_id: str, deadline_s: float) -> datetime | None: ...
    def definition(self, sha256: str) -> dict[str, Any]: ...
    def continue_with(self, step_id: str, known: Sequence[str]) -> str: ...

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
        step_status: str = ..., *, answer: dict[str, Any] | None = ..., state: Sequence[dict[str, Any]] = ..., offload_tokens: int | None = ...,
    ) -> CommitResult: ...  # fmt: skip
    def progress(self, claim: ClaimedStep) -> Progress: ...
    def make_calls(
        self, claim: ClaimedStep, record: TurnRecord, calls: Sequence[CallStep], next_queue: str, *, barrier_id: str | None, wake_at: int,
        cancel: Sequence[str] = ..., next_call: dict[str, Any] | None = ...,
    ) -> CommitResult: ...  # fmt: skip
    def store_items(self, run_id: str, items: Sequence[Raw]) -> str: ...
    def map_page(self, claim: ClaimedStep, order: MapOrder, next: int | None) -> MapPage: ...
    def map_results(self, run_id: str, first: int, limit: int) -> list[dict[str, Any]]: ...
    def map_summary(self, claim: ClaimedStep, max_bytes: int) -> tuple[int, bool]: ...
    def end_wait(self, step: ExpiredWait) -> CommitResult: ...
    def cancel_abandoned(self, run_id: str) -> None: ...
    def hold(self, claim: ClaimedStep, tokens: int, cost_usd: float) -> LimitMet | None: ...
    def put_off(self, claim: ClaimedStep, delay_s: float, met: LimitMet) -> None: ...
    def begin_compaction(self, turn: ClaimedStep, order: CompactionOrder, queue: str) -> CommitResult: ...
    def end_compaction(
        self, step: ClaimedStep | ExhaustedStep, outcome: CompactionRecord | str, usage: Usage = ..., cost_usd: float = ...,
        error: dict[str, Any] | None = ...,
    ) -> CommitResult: ...  # fmt: skip
    def transaction(self) -> AbstractContextManager[ToolTransaction]: ...
    def ask_person(self, step: ClaimedStep | ExhaustedStep, error: dict[str, Any]) -> bool: ...
    def answer(
        self, step_id: str, waits_for: Sequence[WaitsFor], answer: dict[str, Any], attempt: int | None = ...
    ) -> bool: ...
    def fail_unanswered(self, step: ExpiredWait, error: dict[str, Any]) -> bool: ...
