"""Transactions of an ingestion: claim a step, commit its result, schedule the next steps.

    scan      find the sources                                             ▶ ingest steps, in a window
    ingest    read a batch of sources: documents, chunks, embed steps      ▶ embed steps, in a window
    embed     store vectors; switch edited documents that have all theirs
    finalize  when nothing is open: remove vanished documents, end the run

Each result is one transaction, and the first commit wins. `schedule_next` runs after the commit, because only then is the last
step known. If a worker dies in between, the keeper calls it (rule 6).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from uuid6 import uuid7

from agno_workers.core.run import RunStatus, StepKind
from agno_workers.core.step import CommitResult, ExhaustedStep, RunEnd, StepMessage
from agno_workers.core.words import without_none
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
from agno_workers.knowledge import words
from agno_workers.knowledge.store.bases import AGENT
from agno_workers.knowledge.store.documents import Count, DocumentWriter, configurations, removal
from agno_workers.knowledge.types import Skipped, Source, SourceStatus
from agno_workers.knowledge.versions import (
    Failed,
    MissingVector,
    Outcome,
    Read,
    RetryLater,
    SourceItem,
    Unchanged,
    batch_missing,
    batched,
)
from agno_workers.runs.journal import RunJournal

_SQL = statements("knowledge/store/ingest")
T = TypeVar("T")
_SHARDS = 16
_PORTION = 500
"""Documents to remove in one transaction."""
_RETIRED_PORTION = 20_000
_LOOKED_UP = 10_000
"""Uris in one query."""
_MAX_FINALIZE_ROUNDS = 3
_COPY_HEAD, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


class IngestLimits(msgspec.Struct, frozen=True):
    """Sizes of steps, and how many are sent at a time; see settings.py."""

    ingest_window: int = 4
    embed_window: int = 8
    batch_bytes: int = 4 * 1024 * 1024
    batch_documents: int = 50
    embed_tokens: int = 64_000
    embed_texts: int = 256
    unknown_bytes: int = 64 * 1024
    """Assumed size of a source of unknown size."""
    attempts: int = 3
    """Worker crashes after which a step is split. A step that can't be split has twice as many, since a crash may have another cause;
    the death of a child process that its worker observes counts double."""
    publish_after_s: float = 0.5


class WorkClaim(msgspec.Struct, frozen=True):
    """A claimed step of an ingestion."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    attempt: int
    tries: int
    knowledge_id: int
    knowledge: str
    settings: dict[str, Any]
    """Options of the knowledge base."""
    options: dict[str, Any]
    """Options of the ingestion; see `ingest_request` in bases.py."""
    call: dict[str, Any] | None = None
    canvas: dict[str, Any] | None = None
    model: str | None = None
    """The embedding model of an embed step. None: it was given up, or makes no vectors."""
    dimensions: int | None = None

    @property
    def agent(self) -> str:
        return f"{AGENT}{self.knowledge}"


class Text(msgspec.Struct, frozen=True):
    """A chunk that needs a vector."""

    id: int
    heading: str
    content: str
    tokens: int
    known: bytes | None = None
    """The vector of an equal text: its dimensions in 4 bytes, then in the format of `finish_embed`."""


class Ingest:
    """Raises Unavailable if Postgres can't be reached; then a transaction committed completely or not at all."""

    def __init__(self, pool: Pool, journal: RunJournal, windows: IngestLimits = IngestLimits()) -> None:  # noqa: B008 - a frozen value
        self._pool = pool
        self._journal = journal
        self.windows = windows
        self._configurations: dict[str, str] | None = None

    def claim(self, kind: StepKind, run_id: str, step_id: str, generation: int) -> WorkClaim | None:
        """Take a step for `lease_s`; None: it is a duplicate, over, cancelled or paused."""
        step = self._journal.claim(kind, run_id, step_id, generation)
        if step is None:
            return None
        embedding_space_id = (step.call or {}).get("embedding_space")
        (row,) = self._pool.run(_SQL["context"], {"run_id": run_id, "embedding_space_id": embedding_space_id})
        return _as(
            WorkClaim,
            row
            | {
                "step_id": step.step_id, "run_id": step.run_id, "generation": step.generation, "kind": step.kind, "attempt": step.attempt,
                "tries": step.tries, "call": step.call, "canvas": step.canvas,
            },
        )  # fmt: skip

    def items(self, claim: WorkClaim) -> list[SourceItem]:
        """Return the sources of an ingest step with the stored state of their documents."""
        asked = {"step_id": claim.step_id, "knowledge_id": claim.knowledge_id}
        return [
            _as(SourceItem, row | {"source": row["given"]}) for row in self._pool.run(_SQL["items"], asked)
        ]

    def texts(self, claim: WorkClaim) -> list[Text]:
        """Return the chunks of an embed step that still need a vector."""
        call = claim.call or {}
        asked = {"chunk_ids": call["chunks"], "embedding_space_id": call["embedding_space"]}
        return [_as(Text, row) for row in self._pool.run(_SQL["texts"], asked)]

    def unfinished_sources(self, run_id: str) -> Iterator[Source]:
        """Stream the failed and unfinished sources of another ingestion."""
        with self._pool.connection() as connection, connection.transaction():
            cursor = connection.cursor(name="unfinished_sources")
            cursor.execute(_SQL["unfinished_sources"], {"run_id": run_id})
            for row in cursor:
                yield _as(Source, row["given"])

    def update_call(self, claim: WorkClaim, more: dict[str, Any]) -> bool:
        """Store data with a running step. Returns False if this attempt no longer owns it."""
        asked = {"step_id": claim.step_id, "attempt": claim.attempt, "more": jsonb(more)}
        return bool(self._pool.run(_SQL["update_call"], asked))

    def call(self, step: ExhaustedStep) -> dict[str, Any]:
        """Return the payload of an embed step."""
        call: dict[str, Any] = self._pool.run(_SQL["call"], {"step_id": step.step_id})[0]["call"]
        return call

    def with_given_metadata(self, claim: WorkClaim, sources: Sequence[Source]) -> list[Source]:
        """Add the metadata that documents were given before to sources that are given none now. A new document of an origin gets those of
        the last one there.
        """
        asked = [source for source in sources if source.given is None]
        known: dict[str, dict[str, Any]] = {}
        for few in batched([source.uri for source in asked], _LOOKED_UP):
            rows = self._pool.run(_SQL["given_metadata"], {"knowledge_id": claim.knowledge_id, "uris": few})
            known |= {row["uri"]: row["metadata"] for row in rows}
        origins = sorted({source.origin for source in asked if source.uri not in known} - {""})
        of_origins = {"knowledge_id": claim.knowledge_id, "origins": origins}
        rows = self._pool.run(_SQL["given_metadata_of"], of_origins) if origins else []
        by_origin = {row["origin"]: row["metadata"] for row in rows}

        def given(source: Source) -> Source:
            metadata = known.get(source.uri, by_origin.get(source.origin)) if source.given is None else None
            if metadata is None:
                return source
            return msgspec.structs.replace(source, metadata=metadata | source.metadata, given=metadata)

        return [given(source) for source in sources]

    # Results of steps.

    def finish_scan(
        self, claim: WorkClaim, sources: Iterable[tuple[Source, bytes]], origins: Sequence[str], skipped: Sequence[Skipped] = (),
        unmatched: Sequence[str] = (),
    ) -> CommitResult:  # fmt: skip
        """Store the sources with their processing hashes, in reading order. `origins` are those that were listed completely, `skipped`
        and `unmatched` those of Progress.

        The first source of a uri wins. Sources with an unchanged fingerprint end here.
        """
        first: dict[str, tuple[Source, bytes]] = {}
        for source, processing_hash in sources:
            first.setdefault(source.uri, (source, processing_hash))
        listed = {
            "origins": jsonb(list(origins)), "total": len(first), "skipped": jsonb(list(skipped)), "unmatched": jsonb(list(unmatched))
        }  # fmt: skip
        return retry_while_unavailable(self._finish_scan, claim, list(first.values()), listed)

    def _finish_scan(
        self, claim: WorkClaim, sources: Sequence[tuple[Source, bytes]], listed: Mapping[str, Any]
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
            self._ask(connection, "scanned", claim, **listed)
            missing = self._missing(connection, claim)
            self._write_embeds(connection, claim, step, missing)
            self._count(connection, claim, Count(unchanged=len(unchanged), to_embed=len(missing)))
        return self._committed(claim)

    def finish_ingest(self, claim: WorkClaim, outcomes: Sequence[tuple[SourceItem, Outcome]]) -> CommitResult:
        """Store the outcomes of the sources of a step. Documents that were read become searchable by keyword."""
        return retry_while_unavailable(self._finish_ingest, claim, outcomes)

    def _finish_ingest(
        self, claim: WorkClaim, outcomes: Sequence[tuple[SourceItem, Outcome]]
    ) -> CommitResult:
        reads = [(item, found) for item, found in outcomes if isinstance(found, Read)]
        retries = [(item, found) for item, found in outcomes if isinstance(found, RetryLater)]
        failed = [(item, found) for item, found in outcomes if isinstance(found, Failed)]
        same = [(item, found) for item, found in outcomes if isinstance(found, Unchanged)]
        with self._end(claim) as (connection, step):
            if step is None:
                return CommitResult(False)
            writer = DocumentWriter(connection, claim.run_id, claim.knowledge_id, self._languages(connection))
            writer.run(reads)
            self._touch(connection, claim, same)
            self._write_embeds(connection, claim, step, writer.missing)
            busy = [(item, RetryLater({"type": "Busy", "message": "another ingestion was writing it", "ids": {}}, 0.0)) for item in writer.busy]  # fmt: skip
            self._write_retry(connection, claim, step, [*retries, *busy])
            ended = [
                _ended(each.item, "done" if each.original is None else "duplicate", each.id)
                for each in writer.documents
            ]
            ended += [_ended(item, "unchanged") for item, _ in same]
            ended += [_ended(item, "failed", error=found.error) for item, found in failed]
            self._ask(connection, "end_sources", claim, sources=jsonb(ended))
            tokens = sum(found.tokens for _, found in reads)
            count = msgspec.structs.replace(
                writer.count, unchanged=len(same), failed=len(failed), tokens=tokens
            )
            self._count(connection, claim, count)
            if writer.documents:
                self._ask(connection, "raise_version", claim, more=writer.more)
        return self._committed(claim)

    def finish_embed(
        self, claim: WorkClaim, vectors: Mapping[int, bytes], *, tokens: int = 0
    ) -> CommitResult:
        """Store vectors by chunk: float16, big-endian. Chunks that are deleted or have a vector are skipped."""
        return retry_while_unavailable(self._finish_embed, claim, claim.call or {}, vectors, tokens)

    def refuse_embed(
        self, step: WorkClaim | ExhaustedStep, error: dict[str, Any], call: dict[str, Any]
    ) -> CommitResult:
        """Record why the chunks of a step have no vector."""
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
        return self._committed(claim)

    def split_embed(
        self, claim: WorkClaim | ExhaustedStep, error: dict[str, Any], call: dict[str, Any]
    ) -> CommitResult:
        """Split an embed step into two halves, because one text may make all of them fail."""
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
        return self._committed(claim)

    def stop_model(self, claim: WorkClaim, error: dict[str, Any]) -> CommitResult:
        """Record that the model of an embed step makes no vectors at all: its other steps end without a call, and documents get in by
        their words. The next ingestion tries again; for a model that is not searched yet, the next reindexing.
        """
        call = claim.call or {}
        with self._end(claim, step_status="dead", error=error) as (connection, step):
            if step is None:
                return CommitResult(False)
            self._ask(
                connection,
                "stop_model",
                claim,
                embedding_space_id=call["embedding_space"],
                error=jsonb(error),
            )
            self._count(connection, claim, Count(to_embed=-len(call["chunks"])))
        return self._committed(claim)

    def free_sources(self, claim: WorkClaim | ExhaustedStep, error: dict[str, Any]) -> CommitResult:
        """Release the sources of a failed ingest step, to be retried in steps of one; a source that was alone fails."""
        with self._end(claim, step_status="dead", error=error) as (connection, step):
            if step is None:
                return CommitResult(False)
            rows = self._ask(connection, "free_sources", claim, error=jsonb(error))
            self._count(connection, claim, Count(failed=sum(row["status"] == "failed" for row in rows)))
        return self._committed(claim)

    def remove_vanished(self, claim: WorkClaim) -> bool:
        """Remove documents that their origins no longer list. Returns False if some are locked: call again. Safe to repeat."""
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
        """Merge documents that got the same text concurrently: one keeps its chunks. Safe to repeat."""
        with self._pool.connection() as connection, connection.transaction():
            if self._ask(connection, "lock_run", claim):
                (row,) = self._ask(connection, "merge_duplicates", claim)
                if row["less"]:
                    self._ask(connection, "raise_version", claim, more=-row["less"])

    def finish_finalize(self, claim: WorkClaim) -> CommitResult:
        """End an ingestion, or schedule embed steps first if vectors are missing. It fails if its model can make none, or all its
        documents failed."""
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
                change = self._outcome(connection, claim)
                self._end_run(connection, claim, change)
        return self._committed(claim) if missing else _over(claim, change)

    def _outcome(self, connection: Connection, claim: WorkClaim) -> dict[str, Any]:
        """Return how a complete ingestion ends."""
        if stopped := self._ask(connection, "stopped_model", claim, building="all_vectors" in claim.options):
            return {"status": "failed", "reason": "model_rejected", "error": stopped[0]["error"]}
        if made_none := self._ask(connection, "no_vectors", claim):
            return _without_vectors(claim, made_none[0])
        if all_failed := self._ask(connection, "no_documents", claim):
            return _without_documents(claim, all_failed[0])
        return {"status": "done", "reason": "end"}

    def has_changed(self, claim: WorkClaim) -> bool:
        """Return whether the search index must be refreshed."""
        asked = {"run_id": claim.run_id, "knowledge_id": claim.knowledge_id, "words_version": words.VERSION}
        return bool(self._pool.run(_SQL["has_changed"], asked)[0]["changed"])

    def drop_retired(self, claim: WorkClaim) -> None:
        """Delete vectors of retired embedding spaces in portions."""
        asked = {"knowledge_id": claim.knowledge_id, "limit": _RETIRED_PORTION}
        while len(self._pool.run(_SQL["drop_retired"], asked)) == _RETIRED_PORTION:
            pass

    def fail(self, claim: WorkClaim | ExhaustedStep, error: dict[str, Any], reason: str) -> CommitResult:
        """End an ingestion as `failed`, with its open steps; stored documents stay."""
        with self._end(claim, step_status="dead", error=error, alone=True) as (connection, step):
            if step is None:
                return CommitResult(False)
            change = {"status": "failed", "reason": reason, "error": error, "raise_generation": True}
            self._end_run(connection, claim, change)
            self._ask(connection, "end_open_steps", claim, reason=reason)
        return _over(claim, change)

    # Next steps.

    def schedule_next(self, run_id: str) -> tuple[StepMessage, ...]:
        """Create the next steps of an ingestion and return their messages."""
        rows = self._pool.run(_SQL["schedule_next"], {"run_id": run_id, "how": jsonb(self.windows)})
        return tuple(_as(StepMessage, row) for row in rows)

    def stalled(self, limit: int) -> list[str]:
        """Rule 6: return ingestions without a step under way, because nobody scheduled the next one."""
        return [row["id"] for row in self._pool.run(_SQL["stalled"], {"limit": limit})]

    def _committed(self, claim: WorkClaim | ExhaustedStep) -> CommitResult:
        return CommitResult(True, self.schedule_next(claim.run_id))

    @contextmanager
    def _end(
        self, claim: WorkClaim | ExhaustedStep, *, step_status: str = "done", error: dict[str, Any] | None = None, alone: bool = False
    ) -> Iterator[tuple[Connection, Row | None]]:  # fmt: skip
        """One transaction, which begins with the end of the step; None: another one was first, or the run is over. `alone`: it waits for
        the other transactions of the run, which it is to end.
        """
        result = {"status": step_status, "error": error, "late_only": isinstance(claim, ExhaustedStep)}
        shown = jsonb(without_none(result))
        with self._pool.connection() as connection, connection.transaction():
            rows = self._ask(connection, "end_step", claim, kind=claim.kind, result=shown, moves_run=alone)
            yield connection, rows[0] if rows else None

    def _end_run(
        self, connection: Connection, claim: WorkClaim | ExhaustedStep, change: dict[str, Any]
    ) -> None:
        """End the run; a trigger adds the sums of the ingestion (see functions/ingest.sql)."""
        self._ask(connection, "move_run", claim, change=jsonb(change | {"ended": True}))

    def _touch(
        self, connection: Connection, claim: WorkClaim, same: Sequence[tuple[SourceItem, Unchanged]]
    ) -> None:
        """Update fingerprint and origin of unchanged documents. Documents that are locked elsewhere are skipped."""
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
        """Return the documents that need not be read, by uri."""
        told = [
            (source, processing_hash) for source, processing_hash in sources if source.fingerprint is not None
        ]
        rows = self._ask(
            connection, "unchanged", claim, uris=[source.uri for source, _ in told], processing_hashes=[processing_hash for _, processing_hash in told],
            fingerprints=[source.fingerprint for source, _ in told], origins=[source.origin for source, _ in told],
        )  # fmt: skip
        return {row["uri"]: row["id"] for row in rows}

    def _missing(self, connection: Connection, claim: WorkClaim) -> list[MissingVector]:
        """Return chunks without a vector that no other ingestion makes."""
        everything = bool(claim.options.get("all_vectors"))
        first = claim.kind is StepKind.SCAN
        if not (everything and first):
            (row,) = self._ask(connection, "clear_vectors_missing", claim)
            if not (row["all"] or row["some"]):
                return []
            everything = row["all"]
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

    def _write_retry(
        self,
        connection: Connection,
        claim: WorkClaim,
        step: Row,
        retries: Sequence[tuple[SourceItem, RetryLater]],
    ) -> None:
        if retries:
            sources = [{"position": item.position, "error": found.error} for item, found in retries]
            own = {"attempts": self.windows.attempts, "queue": step["queue"], "priority": step["priority"]}
            after_s = max(found.after_s for _, found in retries)
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


def _over(claim: WorkClaim | ExhaustedStep, change: dict[str, Any]) -> CommitResult:
    """Return the result of a run that ended, with its canvas continuation."""
    canvas = claim.canvas if isinstance(claim, WorkClaim) else None
    continues = (claim.run_id, canvas.get("group_id")) if canvas else None
    ended = RunEnd(
        claim.run_id, claim.agent, RunStatus(change["status"]), change["reason"], change.get("error")
    )
    return CommitResult(True, continues=continues, ended=ended)


def _without_vectors(claim: WorkClaim, row: Row) -> dict[str, Any]:
    """Return the end of an ingestion that could make no vector."""
    chunks = "its only chunk" if row["refused"] == 1 else f"any of its {row['refused']:,} chunks"
    text = f"no vector could be made for {chunks}, so only keyword search finds them: {row['reason']}"
    error = {
        "type": "no_vectors",
        "message": text,
        "ids": {"knowledge": claim.knowledge, "run_id": claim.run_id},
    }
    return {"status": "failed", "reason": "no_vectors", "error": error}


def _without_documents(claim: WorkClaim, row: Row) -> dict[str, Any]:
    """Return the end of an ingestion whose documents all failed."""
    what = (
        "its only document could not"
        if row["failed"] == 1
        else f"none of its {row['failed']:,} documents could"
    )
    error = {
        "type": "no_documents",
        "message": f"{what} be ingested: {row['reason']}",
        "ids": {"knowledge": claim.knowledge, "run_id": claim.run_id},
    }
    return {"status": "failed", "reason": "no_documents", "error": error}


def _ended(
    item: SourceItem, status: str, document_id: int | None = None, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"position": item.position, "status": status, "document_id": document_id, "error": error}


def _binary(embedding_space_id: int, ids: Sequence[int], vectors: Mapping[int, bytes]) -> bytes:
    """Encode rows of chunk_embedding for COPY: a halfvec is its dimension, a 0, and its numbers."""
    rows = [
        struct.pack(
            f">hiiiqihh{len(vectors[each])}s", 3, 4, embedding_space_id, 8, each, len(vectors[each]) + 4, len(vectors[each]) // 2, 0, vectors[each]
        )
        for each in ids
    ]  # fmt: skip
    return b"".join([_COPY_HEAD, *rows, _COPY_END])


def _as(kind: type[T], row: Any) -> T:
    return msgspec.convert(row, kind)
