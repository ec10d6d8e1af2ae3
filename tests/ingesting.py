"""Ingest without workers: documents in memory, and a reader that splits at empty lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from agno_workers.core.step import CommitResult, StepMessage
from agno_workers.engine.active_steps import ActiveSteps
from agno_workers.errors import SourceRejected
from agno_workers.knowledge.readers import read_rows
from agno_workers.knowledge.steps import PROBE, IngestContext, run_step
from agno_workers.knowledge.store.bases import SourceInput
from agno_workers.knowledge.store.ingest import IngestLimits
from agno_workers.knowledge.types import Chunk, Chunking, Place, Prepared, Raw, Refusal, Source, embedded_text
from tests.database import RunDatabase, on_pool

ORIGIN = "shelf:"
BIG = IngestLimits(publish_after_s=0.0)


class Shelf:
    """Documents by name. Calls are recorded in `fetched`, `prepared` and `embedder.seen`."""

    def __init__(
        self, db: RunDatabase, windows: IngestLimits = BIG, *, worker: str = "w1", dimensions: int = 8
    ) -> None:
        self.db = db
        self.books: dict[str, str] = {}
        self.ill: dict[str, Exception] = {}
        """The exception that fetching a document raises."""
        self.fetched: list[str] = []
        self.prepared: list[str] = []
        self.embedder = Counted(dimensions)
        self.breaks: set[str] = set()
        """Documents that raise an unexpected error in the reader."""
        self.on_prepare: Callable[[], object] = lambda: None
        here = on_pool(db.pool, worker, ingest_limits=windows)
        self.ingest, self.knowledges, journal = here.ingest, here.knowledge, here.journal
        self.tidied: list[int] = []
        self.expected: list[tuple[int, int]] = []
        self.context = IngestContext(
            ingest=self.ingest,
            knowledges=self.knowledges,
            journal=journal,
            active=ActiveSteps(journal.is_held),
            find=self.find,
            fetch=self.fetch,
            prepare=self.prepare,
            rows=self.rows,
            embedder=lambda name: self.embedder,
            viewer=lambda name: lambda raw, is_lost: raw,
            refresh_index=self.tidied.append,
            expect=lambda knowledge_id, chunks: self.expected.append((knowledge_id, chunks)),
            drop_embedding_space=lambda *_: None,
            fetch_timeout_s=5,
            document_max_bytes=1 << 20,
        )

    def find(self, given: SourceInput, options: Mapping[str, Any]) -> Iterator[Source]:
        """A Source is returned as it is; a text is a prefix of names."""
        metadata = options.get("metadata") or {}
        if isinstance(given, dict) and "uri" in given:
            yield msgspec.convert(given | {"metadata": metadata | given.get("metadata", {})}, Source)
            return
        for name in sorted(self.books):
            if name.startswith(str(given)):
                yield Source(name, ORIGIN + str(given), len(self.books[name]), fingerprint=_digest(self.books[name]).hex(), metadata=metadata)  # fmt: skip

    def fetch(self, source: Source, timeout_s: float, max_bytes: int) -> Raw:
        self.fetched.append(source.uri)
        if source.uri in self.ill:
            raise self.ill[source.uri]
        text = source.text if source.text is not None else self.books.get(source.uri)
        if text is None:
            raise SourceRejected(f"{source.uri} is gone")
        return Raw(text.encode())

    def prepare(
        self, items: Sequence[tuple[Source, Raw]], chunking: Chunking
    ) -> Sequence[Prepared | Refusal]:
        self.on_prepare()
        self.prepared += [source.uri for source, _ in items]
        if self.breaks & {source.uri for source, _ in items}:
            raise ValueError("unexpected")
        return [_read(raw) for _, raw in items]

    def rows(self, source: Source, raw: Raw) -> Sequence[Source] | Refusal:
        return read_rows(raw.content, "text/csv", source)

    # Executing steps.

    def submit(self, *sources: SourceInput, **asked: Any) -> StepMessage:
        self.knowledges.ensure("docs", {"embedder": "hash"})
        send = self.knowledges.submit("docs", sources or ("",), **asked).send
        assert send is not None
        return send

    def take(self, send: StepMessage) -> CommitResult:
        if send.outbox_id is not None:
            self.db.journal.published([send.outbox_id])
        return run_step(self.context, send.kind, send.run_id, send.step_id, send.generation)

    def carry(self, *sends: StepMessage) -> None:
        """Execute these steps and all following ones."""
        todo = list(sends)
        while todo:
            todo += self.take(todo.pop(0)).sends

    def run(self, *sources: SourceInput, **asked: Any) -> dict[str, Any]:
        """Execute an ingestion and return its summary."""
        send = self.submit(*sources, **asked)
        self.carry(send)
        self.finish(send.run_id)
        content: dict[str, Any] = self.db.queries.run(send.run_id).content
        return content

    def finish(self, run_id: str) -> None:
        """Execute retries, sent steps and steps of the keeper until the run has ended."""
        while not self.db.queries.run(run_id).status.is_terminal:
            self.db.sql("UPDATE agno.step SET not_before = clock_timestamp() WHERE not_before IS NOT NULL")
            journal = self.db.journal
            due: Sequence[StepMessage] = (
                journal.take_due(100)
                or next(journal.forgotten(journal.now(), 100), [])
                or self.ingest.schedule_next(run_id)
            )
            assert due, "nothing moves"
            self.carry(*due)

    # Stored documents.

    def chunks(self, *, live: bool = True) -> dict[str, list[str]]:
        """Return the live chunks of each document in order."""
        rows = self.db.sql(
            "SELECT d.uri, c.content FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id WHERE c.live = %(live)s "
            "ORDER BY d.uri, c.position",
            live=live,
        )
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["uri"], []).append(row["content"])
        return found

    def without_vector(self) -> int:
        return int(
            self.db.value(
                "SELECT count(*) FROM agno.chunk c WHERE NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id)"
            )
        )

    def statuses(self, run_id: str) -> dict[str, str]:
        rows = self.db.sql("SELECT uri, status FROM agno.source WHERE run_id = %(id)s", id=run_id)
        return {row["uri"]: row["status"] for row in rows}


class Counted:
    """An embedder that hashes texts and records them in `seen`; `refuses` returns the error for texts, if any."""

    max_tokens = 1000
    batch_texts = 4
    batch_tokens = 1000

    def __init__(self, dimensions: int) -> None:
        self.name = f"counted:{dimensions}"
        self.dimensions = dimensions
        self.seen: list[str] = []
        self.refuses: Callable[[Sequence[str]], Exception | None] = lambda _: None
        self.unusable: Exception | None = None
        """The error of the check of a new model."""

    def embed(self, texts: Sequence[str], kind: Any = "document") -> Any:
        if list(texts) == [PROBE]:
            if self.unusable is not None:
                raise self.unusable
        elif (error := self.refuses(texts)) is not None:
            raise error
        else:
            self.seen += texts
        return np.array([vector_of(text, self.dimensions) for text in texts])


class Later(Counted):
    """A provider with a batch API, whose batches complete when `is_ready`."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self.batches: dict[str, list[str]] = {}
        self.is_ready = False
        self.on_start: Callable[[], object] = lambda: None

    def start(self, texts: Sequence[str], key: str) -> str:
        self.batches[key] = list(texts)
        self.on_start()
        return key

    def find(self, key: str) -> str | None:
        return key if key in self.batches else None

    def poll(self, id: str) -> Any | None:
        return self.embed(self.batches[id]) if self.is_ready else None


def vector_of(text: str, dimensions: int) -> Any:
    numbers = np.frombuffer(_digest(text)[:dimensions], np.uint8).astype(np.float32) + 1
    return numbers / np.linalg.norm(numbers)


def _read(raw: Raw) -> Prepared | Refusal:
    text = raw.content.decode()
    if not text.strip():
        return Refusal("empty", "there is nothing in it")
    chunks, start = [], 0
    for position, part in enumerate(text.split("\n\n")):
        chunks.append(
            Chunk(position, part, (), start, start + len(part), max(1, len(part) // 4), _digest(embedded_text((), part)), Place("page", position + 1))
        )  # fmt: skip
        start += len(part) + 2
    bands = tuple(range(16)) if "alike" in text else ()
    return Prepared(
        None, "text/plain", "en", len(raw.content), _digest(text), _digest(text), bands, {}, tuple(chunks)
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
