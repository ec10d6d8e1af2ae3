"""The transactions that move an ingestion: claim, the end of each kind of step, and what follows.

    scan     sources are known                                              ▶ ingest steps, in a window
    ingest   a batch of them was read: documents, chunks, and embed steps   ▶ embed steps, in a window
    embed    vectors are in; edited documents of which none is missing are switched
    tidy     nothing is open: what vanished is removed, the run ends

Each end is one transaction with all that it brings, and the first one counts. What follows is written by `go_on`, after the
commit: only then is it known who was last. Where nobody comes to that, the keeper does (rule 6).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from uuid6 import uuid7

from agno_workers.core.run import StepKind
from agno_workers.database.pool import (
    Connection,
    Pool,
    Row,
    execute,
    jsonb,
    retry_while_unavailable,
    statements,
    to_json,
)
from agno_workers.knowledge.store.documents import Count, DocumentWriter, configurations, removal
from agno_workers.knowledge.types import Source, SourceStatus
from agno_workers.knowledge.versions import (
    Failed,
    MissingVector,
    Outcome,
    Read,
    RetryLater,
    SourceItem,
    Unchanged,
    batch_missing,
)
from agno_workers.runs.journal import CommitResult, ExhaustedStep, StepMessage

_SQL = statements("knowledge/store/ingest")
T = TypeVar("T")
_SHARDS = 16
_PORTION = 500
"""Documents that are removed in one transaction."""
_RETIRED_PORTION = 20_000
_MAX_FINALIZE_ROUNDS = 3
_COPY_HEAD, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


class IngestLimits(msgspec.Struct, frozen=True):
    """How an ingestion is cut into steps, and how many of them are sent at a time; see settings.py."""

    ingest_window: int = 4
    embed_window: int = 8
    batch_bytes: int = 4 * 1024 * 1024
    batch_documents: int = 50
    embed_tokens: int = 32_000
    embed_texts: int = 256
    unknown_bytes: int = 64 * 1024
    """What a source counts for, of which nobody said how large it is."""
    attempts: int = 3
    """Times that a worker may die in a step, before it is cut into smaller ones. One that can't be cut has twice as many, since a worker
    may die of something else; a process whose death its own worker has seen counts double."""
    publish_after_s: float = 0.5


class WorkClaim(msgspec.Struct, frozen=True):
    """The right to carry one step of an ingestion."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    attempt: int
    max_attempts: int
    tries: int
    knowledge_id: int
    knowledge: str
    settings: dict[str, Any]
    """The options of the knowledge base."""
    options: dict[str, Any]
    """Of the ingestion: see `ingest_request` in knowledge.py."""
    call: dict[str, Any] | None = None
    canvas: dict[str, Any] | None = None
    model: str | None = None
    """Of an embed step: the one whose vectors are to be made."""


class Text(msgspec.Struct, frozen=True):
    """A chunk that needs a vector."""

    id: int
    heading: str
    content: str
    tokens: int
    known: bytes | None = None
    """The vector that the same text has elsewhere: its dimensions in 4 bytes, then as `finish_embed` takes it."""


class Ingest:
    """See the module. Raises Unavailable where Postgres can't be reached; then nothing, or all of it, happened."""

    def __init__(self, pool: Pool, *, worker: str, lease_s: float, windows: IngestLimits) -> None:
        self._pool = pool
        self._worker = worker
        self._lease_s = lease_s
        self.windows = windows
        self._configurations: dict[str, str] | None = None

    def claim(self, kind: StepKind, run_id: str, step_id: str, generation: int) -> WorkClaim | None:
        """Take a step for `lease_s`; None: a duplicate, or over, or cancelled."""
        asked = {
            "run_id": run_id,
            "step_id": step_id,
            "generation": generation,
            "kind": kind,
            "worker": self._worker,
        }
        rows = self._pool.run(_SQL["claim"], asked | {"lease_s": self._lease_s})  # fmt: skip
        return _as(WorkClaim, rows[0]) if rows else None

    def items(self, claim: WorkClaim) -> list[SourceItem]:
        """The sources of an ingest step, with what is known of their documents now."""
        asked = {"step_id": claim.step_id, "knowledge_id": claim.knowledge_id}
        return [
            _as(SourceItem, row | {"source": row["given"]}) for row in self._pool.run(_SQL["items"], asked)
        ]

    def texts(self, claim: WorkClaim) -> list[Text]:
        """The chunks of an embed step that need a vector (still)."""
        call = claim.call or {}
        asked = {"chunk_ids": call["chunks"], "embedding_space_id": call["embedding_space"]}
        return [_as(Text, row) for row in self._pool.run(_SQL["texts"], asked)]

    def unfinished_sources(self, run_id: str) -> Iterator[Source]:
        """What another ingestion did not bring in, read little by little."""
        with self._pool.connection() as connection, connection.transaction():
            cursor = connection.cursor(name="unfinished_sources")
            cursor.execute(_SQL["unfinished_sources"], {"run_id": run_id})
            for row in cursor:
                yield _as(Source, row["given"])

    def update_call(self, claim: WorkClaim, more: dict[str, Any]) -> bool:
        """Remember something with a step that is under way; False: it is not this attempt's any more."""
        asked = {"step_id": claim.step_id, "attempt": claim.attempt, "more": jsonb(more)}
        return bool(self._pool.run(_SQL["update_call"], asked))

    def call(self, step: ExhaustedStep) -> dict[str, Any]:
        """What an embed step is to do."""
        call: dict[str, Any] = self._pool.run(_SQL["call"], {"step_id": step.step_id})[0]["call"]
        return call

    # The ends of steps.

    def finish_scan(
        self, claim: WorkClaim, sources: Iterable[tuple[Source, bytes]], origins: Sequence[str]
    ) -> CommitResult:
        """Write down what was found, with the processing_hash of each, in the order in which it is to be read. `origins`: those that were found whole.

        Of one uri the first counts. What is as it was is settled here.
        """
        first: dict[str, tuple[Source, bytes]] = {}
        for source, processing_hash in sources:
            first.setdefault(source.uri, (source, processing_hash))
        return retry_while_unavailable(self._finish_scan, claim, list(first.values()), origins)

    def _finish_scan(
        self, claim: WorkClaim, sources: Sequence[tuple[Source, bytes]], origins: Sequence[str]
    ) -> CommitResult:
        with self._end(claim) as (connection, step):
            if step is None:
                return CommitResult(False)
            execute(connection, "SET LOCAL statement_timeout = '10min'")
            unchanged = self._unchanged(connection, claim, sources)
            with connection.cursor() as cursor, cursor.copy(_SQL["copy_sources"]) as copy:
                for position, (source, processing_hash) in enumerate(sources):
                    known = unchanged.get(source.uri)
                    status = SourceStatus.PENDING if known is None else SourceStatus.UNCHANGED
                    copy.write_row((
                        claim.run_id, position, source.uri, source.bytes, to_json(source).decode(), processing_hash, str(status), known
                    ))  # fmt: skip
            total = {"total": len(sources), "bytes": sum(source.bytes for source, _ in sources)}
            self._ask(connection, "scanned", claim, origins=jsonb(list(origins)), **total)
            missing = self._missing(connection, claim)
            self._write_embeds(connection, claim, step, missing)
            self._count(connection, claim, Count(unchanged=len(unchanged), to_embed=len(missing)))
        return self._followed(claim)

    def finish_ingest(self, claim: WorkClaim, outcomes: Sequence[tuple[SourceItem, Outcome]]) -> CommitResult:
        """Record what became of the sources of a step: all that was read is in, and searchable by its words."""
        return retry_while_unavailable(self._finish_ingest, claim, outcomes)

    def _finish_ingest(
        self, claim: WorkClaim, outcomes: Sequence[tuple[SourceItem, Outcome]]
    ) -> CommitResult:
        reads = [(item, found) for item, found in outcomes if isinstance(found, Read)]
        again = [(item, found) for item, found in outcomes if isinstance(found, RetryLater)]
        failed = [(item, found) for item, found in outcomes if isinstance(found, Failed)]
        same = [(item, found) for item, found in outcomes if isinstance(found, Unchanged)]
        with self._end(claim) as (connection, step):
            if step is None:
                return CommitResult(False)
            editions = DocumentWriter(
                connection, claim.run_id, claim.knowledge_id, self._languages(connection)
            )
            editions.run(reads)
            self._touch(connection, claim, same)
            self._write_embeds(connection, claim, step, editions.missing)
            busy = [(item, RetryLater({"type": "Busy", "message": "another ingestion had it", "ids": {}}, 0.0)) for item in editions.busy]  # fmt: skip
            self._write_again(connection, claim, step, [*again, *busy])
            ended = [
                _ended(each.item, "done" if each.original is None else "duplicate", each.id)
                for each in editions.documents
            ]
            ended += [_ended(item, "unchanged") for item, _ in same]
            ended += [_ended(item, "failed", error=found.error) for item, found in failed]
            self._ask(connection, "end_sources", claim, sources=jsonb(ended))
            tokens = sum(found.tokens for _, found in reads)
            count = msgspec.structs.replace(
                editions.count, unchanged=len(same), failed=len(failed), tokens=tokens
            )
            self._count(connection, claim, count)
            if editions.documents:
                self._ask(connection, "raise_version", claim, more=editions.more)
        return self._followed(claim)

    def finish_embed(
        self, claim: WorkClaim, vectors: Mapping[int, bytes], *, tokens: int = 0
    ) -> CommitResult:
        """Record vectors, by chunk: float16, big-endian. Chunks that are gone, or have one already, are left out."""
        return retry_while_unavailable(self._finish_embed, claim, claim.call or {}, vectors, tokens)

    def refuse_embed(
        self, step: WorkClaim | ExhaustedStep, error: dict[str, Any], call: dict[str, Any]
    ) -> CommitResult:
        """The chunks of a step stay without vectors, and say why."""
        return retry_while_unavailable(self._finish_embed, step, call, {}, 0, error)

    def _finish_embed(
        self, claim: WorkClaim | ExhaustedStep, call: dict[str, Any], vectors: Mapping[int, bytes], tokens: int,
        error: dict[str, Any] | None = None,
    ) -> CommitResult:  # fmt: skip
        with self._end(claim, step_status="dead" if error else "done", error=error) as (connection, step):
            if step is None:
                return CommitResult(False)
            held = self._ask(connection, "lock_documents_of", claim, chunk_ids=call["chunks"])
            self._ask(connection, "lock_chunks", claim, chunk_ids=list(vectors))
            wanting = self._ask(
                connection,
                "wanting",
                claim,
                chunk_ids=list(vectors),
                embedding_space_id=call["embedding_space"],
            )
            ids = sorted(row["id"] for row in wanting)
            if ids:
                with connection.cursor() as cursor, cursor.copy(_SQL["copy_embeddings"]) as copy:
                    copy.write(_binary(call["embedding_space"], ids, vectors))
            if mended := [row["id"] for row in wanting if row["is_refused"]]:
                self._ask(connection, "refuse", claim, chunk_ids=mended, why=None)
            if error:
                self._ask(connection, "refuse", claim, chunk_ids=call["chunks"], why=error["message"])
            more = 0
            if pending := [row["id"] for row in held if row["is_pending"]]:
                (row,) = self._ask(connection, "switch", claim, document_ids=pending)
                more = row["more"]
            count = Count(embedded=len(ids), to_embed=-len(call["chunks"]), tokens=tokens)
            self._count(connection, claim, count)
            self._ask(connection, "raise_version", claim, more=more)
        return self._followed(claim)

    def split_embed(
        self, claim: WorkClaim | ExhaustedStep, error: dict[str, Any], call: dict[str, Any]
    ) -> CommitResult:
        """Try the two halves of an embed step each by itself, since one of its texts may be what is wrong with all of them."""
        half = len(call["chunks"]) // 2
        halves = [call["chunks"][:half], call["chunks"][half:]]
        steps = [
            {"id": str(uuid7()), "call": {"embedding_space": call["embedding_space"], "chunks": chunks}}
            for chunks in halves
        ]
        with self._end(claim, step_status="dead", error=error) as (connection, step):
            if step is None:
                return CommitResult(False)
            self._embeds(connection, claim, step, steps)
        return self._followed(claim)

    def free_sources(self, claim: WorkClaim | ExhaustedStep, error: dict[str, Any]) -> CommitResult:
        """Give back the sources of an ingest step that came to no end, each to be tried alone; one that was alone has failed."""
        with self._end(claim, step_status="dead", error=error) as (connection, step):
            if step is None:
                return CommitResult(False)
            rows = self._ask(connection, "free_sources", claim, error=jsonb(error))
            self._count(connection, claim, Count(failed=sum(row["status"] == "failed" for row in rows)))
        return self._followed(claim)

    def remove_vanished(self, claim: WorkClaim) -> bool:
        """Remove what the origins of the ingestion no longer have; False: some of it is in use, ask again. Safe to repeat."""
        while True:
            with self._pool.connection() as connection, connection.transaction():
                if not self._ask(connection, "lock_run", claim):
                    return True
                rows = self._ask(connection, "vanished", claim, limit=_PORTION)
                removed = removal(connection, rows)
                if removed.documents:
                    self._count(connection, claim, Count(removed=removed.documents))
                    self._ask(connection, "raise_version", claim, more=-removed.chunks)
            if len(rows) < _PORTION or not removed.documents:
                return removed.documents == len(rows)

    def merge_duplicates(self, claim: WorkClaim) -> None:
        """Of documents that came to the same text side by side one keeps its chunks. Safe to repeat."""
        with self._pool.connection() as connection, connection.transaction():
            if self._ask(connection, "lock_run", claim):
                (row,) = self._ask(connection, "merge_duplicates", claim)
                if row["less"]:
                    self._ask(connection, "raise_version", claim, more=-row["less"])

    def finish_finalize(self, claim: WorkClaim) -> CommitResult:
        """End an ingestion; or, where vectors are missing in a space that is being built, make those first."""
        rounds = int((claim.call or {}).get("rounds", 0))
        with self._end(claim, alone=True) as (connection, step):
            if step is None:
                return CommitResult(False)
            execute(connection, "SET LOCAL statement_timeout = '10min'")
            self._ask(connection, "switch_embedding_space", claim)
            missing = self._missing(connection, claim) if rounds < _MAX_FINALIZE_ROUNDS else []
            if missing:
                self._write_embeds(connection, claim, step, missing)
                self._count(connection, claim, Count(to_embed=len(missing)))
            else:
                self._ask(connection, "end_run", claim, run_status="done", reason="end", run_error=None)
        return self._followed(claim) if missing else _over(claim)

    def has_changed(self, claim: WorkClaim) -> bool:
        """Whether an ingestion has changed anything that a search could see."""
        return bool(self._pool.run(_SQL["has_changed"], {"run_id": claim.run_id})[0]["changed"])

    def drop_retired(self, claim: WorkClaim) -> None:
        """Forget vectors that are no longer searched, little by little."""
        asked = {"knowledge_id": claim.knowledge_id, "limit": _RETIRED_PORTION}
        while len(self._pool.run(_SQL["drop_retired"], asked)) == _RETIRED_PORTION:
            pass

    def fail(self, claim: WorkClaim | ExhaustedStep, error: dict[str, Any], reason: str) -> CommitResult:
        """End an ingestion `failed`, with all its open steps; what is in stays in."""
        with self._end(claim, step_status="dead", error=error, alone=True) as (connection, step):
            if step is None:
                return CommitResult(False)
            self._ask(connection, "end_run", claim, run_status="failed", reason=reason, run_error=jsonb(error))  # fmt: skip
            self._ask(connection, "end_open_steps", claim)
            self._ask(connection, "mark_vectors_missing", claim)
        return _over(claim)

    # What follows.

    def schedule_next(self, run_id: str) -> tuple[StepMessage, ...]:
        """The next steps of an ingestion, if it is time for them."""
        rows = self._pool.run(_SQL["schedule_next"], {"run_id": run_id, "how": jsonb(self.windows)})
        return tuple(_as(StepMessage, row) for row in rows)

    def halted(self, limit: int) -> list[str]:
        """Rule 6: ingestions of which nothing is on its way."""
        return [row["id"] for row in self._pool.run(_SQL["halted"], {"limit": limit})]

    def _followed(self, claim: WorkClaim | ExhaustedStep) -> CommitResult:
        return CommitResult(True, self.schedule_next(claim.run_id))

    @contextmanager
    def _end(
        self, claim: WorkClaim | ExhaustedStep, *, step_status: str = "done", error: dict[str, Any] | None = None, alone: bool = False
    ) -> Iterator[tuple[Connection, Row | None]]:  # fmt: skip
        """One transaction, which begins with the end of the step; None: another one was first, or the run is over. `alone`: it waits for
        the other transactions of the run, which it is to end.
        """
        params = {
            "run_id": claim.run_id, "step_id": claim.step_id, "generation": claim.generation, "kind": claim.kind,
            "step_status": step_status, "error": jsonb(error), "late_only": isinstance(claim, ExhaustedStep),
        }  # fmt: skip
        with self._pool.connection() as connection, connection.transaction():
            if alone:
                execute(connection, _SQL["lock_run_exclusively"], params)
            rows = execute(connection, _SQL["end_step"], params)
            yield connection, rows[0] if rows else None

    def _touch(
        self, connection: Connection, claim: WorkClaim, same: Sequence[tuple[SourceItem, Unchanged]]
    ) -> None:
        """Documents that were read, and are as they were, but for what they are known by. One that is in use elsewhere is left."""
        news = {
            item.source.uri: {
                "fingerprint": found.fingerprint or item.fingerprint,
                "origin": item.source.origin,
            }
            for item, found in same
            if (found.fingerprint or item.fingerprint, item.source.origin) != (item.fingerprint, item.origin)
        }
        if news:
            held = self._ask(connection, "lock_unchanged", claim, uris=list(news))
            rows = [{"id": row["id"], **news[row["uri"]]} for row in held]
            self._ask(connection, "touch_documents", claim, rows=jsonb(rows))

    def _unchanged(
        self, connection: Connection, claim: WorkClaim, sources: Sequence[tuple[Source, bytes]]
    ) -> dict[str, int]:
        """The documents, by their uri, that need not be read."""
        told = [
            (source, processing_hash) for source, processing_hash in sources if source.fingerprint is not None
        ]
        rows = self._ask(
            connection, "unchanged", claim, uris=[source.uri for source, _ in told], processing_hashes=[processing_hash for _, processing_hash in told],
            fingerprints=[source.fingerprint for source, _ in told], origins=[source.origin for source, _ in told],
        )  # fmt: skip
        return {row["uri"]: row["id"] for row in rows}

    def _missing(self, connection: Connection, claim: WorkClaim) -> list[MissingVector]:
        """Chunks without a vector that nobody would think of."""
        everything = bool(claim.options.get("all_vectors"))
        first = claim.kind is StepKind.SCAN
        if not (everything and first):
            (row,) = self._ask(connection, "clear_vectors_missing", claim)
            if not row["wanted"]:
                return []
        rows = self._ask(connection, "missing_vectors", claim, refused=everything and first)
        return [MissingVector(row["embedding_space_id"], row["id"], row["tokens"]) for row in rows]

    def _write_embeds(
        self, connection: Connection, claim: WorkClaim, step: Row, missing: Sequence[MissingVector]
    ) -> None:
        windows = self.windows
        batches = batch_missing(missing, max_tokens=windows.embed_tokens, max_texts=windows.embed_texts)
        steps = [
            {"id": str(uuid7()), "call": {"embedding_space": batch[0].embedding_space_id, "chunks": [each.chunk_id for each in batch]}}
            for batch in batches
        ]  # fmt: skip
        self._embeds(connection, claim, step, steps)

    def _embeds(
        self,
        connection: Connection,
        claim: WorkClaim | ExhaustedStep,
        step: Row,
        steps: Sequence[dict[str, Any]],
    ) -> None:
        if steps:
            own = {"attempts": self.windows.attempts, "queue": step["queue"], "priority": step["priority"]}
            self._ask(connection, "write_embeds", claim, steps=jsonb(list(steps)), **own)

    def _write_again(
        self,
        connection: Connection,
        claim: WorkClaim,
        step: Row,
        again: Sequence[tuple[SourceItem, RetryLater]],
    ) -> None:
        if again:
            sources = [{"position": item.position, "error": found.error} for item, found in again]
            own = {"attempts": self.windows.attempts, "queue": step["queue"], "priority": step["priority"]}
            after_s = max(found.after_s for _, found in again)
            self._ask(
                connection, "write_retry", claim, retry_id=str(uuid7()), after_s=after_s, sources=jsonb(sources), **own
            )  # fmt: skip

    def _count(self, connection: Connection, claim: WorkClaim | ExhaustedStep, count: Count) -> None:
        shard = zlib.crc32(claim.step_id.encode()) % _SHARDS
        self._ask(connection, "count", claim, shard=shard, **msgspec.structs.asdict(count))

    def _languages(self, connection: Connection) -> dict[str, str]:
        if self._configurations is None:
            self._configurations = configurations(connection)
        return self._configurations

    def _ask(
        self, connection: Connection, name: str, claim: WorkClaim | ExhaustedStep, **params: Any
    ) -> list[Row]:
        own = {"run_id": claim.run_id, "step_id": claim.step_id, "generation": claim.generation}
        known = {"knowledge_id": claim.knowledge_id} if isinstance(claim, WorkClaim) else {}
        return execute(connection, _SQL[name], own | known | params)


def _over(claim: WorkClaim | ExhaustedStep) -> CommitResult:
    """The run has ended: what its canvas has behind it is due."""
    canvas = claim.canvas if isinstance(claim, WorkClaim) else None
    return CommitResult(True, continues=(claim.run_id, canvas.get("group_id")) if canvas else None)


def _ended(
    item: SourceItem, status: str, document_id: int | None = None, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"position": item.position, "status": status, "document_id": document_id, "error": error}


def _binary(embedding_space_id: int, ids: Sequence[int], vectors: Mapping[int, bytes]) -> bytes:
    """Rows of chunk_embedding as COPY takes them: halfvec is its dimension, a 0, and its numbers."""
    rows = [
        struct.pack(
            f">hiiiqihh{len(vectors[each])}s", 3, 4, embedding_space_id, 8, each, len(vectors[each]) + 4, len(vectors[each]) // 2, 0, vectors[each]
        )
        for each in ids
    ]  # fmt: skip
    return b"".join([_COPY_HEAD, *rows, _COPY_END])


def _as(kind: type[T], row: Any) -> T:
    return msgspec.convert(row, kind)
