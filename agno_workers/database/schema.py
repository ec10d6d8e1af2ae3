"""The tables, owned by SQLAlchemy. Alembic's migrations bring a database here; a test holds the two together.

    run ──< step            a run's steps, by generation
     │        │
     │        └──> barrier  the fan-in of one chord: ours (with the step it wakes) or a user's (with its body)
     └──< message           the transcript, append-only
    chord_part              what came back to a user's chord, one row a header task
    outbox                  messages owed to Celery, committed with the state that caused them
    task_result, task_group results of users' own Celery tasks
    blob                    strings over 64 KiB, once each, by sha256
    definition              what an agent was when its runs began, once each, by sha256
    batch                   runs that were submitted together
    worker                  who carries steps, and when it was last seen
    quarantine              messages that could not be read, or must not be believed
    meta                    the epoch that Redis must repeat, and who is keeper

    knowledge ──< space     a knowledge base, and one model's vectors of it
        ├──< document ──< chunk ──< chunk_embedding
        │        └──< near_band
        ├──< lexeme, review, gap; feedback on chunks, grounding of runs
        └──< ingestion (a run) ──< source, ingest_count

Lock order in every transaction: run, step, barrier; of an ingestion run, step, source, texts (advisory), documents by their uri,
count, knowledge. A chunk and its vectors are written only by who holds its document. A delegated run before the run that waits for it (its end is that run's
result). So nothing that holds a run may wait for one that it delegated to: cancel, pause and resume take a family one
transaction each. The keeper finishes a cancel that was cut short; pause and resume are to be said again. The rest is only inserted or deleted. Whoever locks many rows skips
those that are locked (renewal, keeper) or goes by their ids (the outbox): only stop, which holds the run, waits for a step
with others in hand.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR, UUID

from agno_workers.core.run import RunStatus, StepKind, StepStatus, WaitsFor
from agno_workers.knowledge.types import EmbeddingSpaceStatus, SourceStatus

SCHEMA = "agno"
metadata = sa.MetaData(schema=SCHEMA)


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()
    )


def _when(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _one_of(
    column: str,
    values: type[RunStatus | StepStatus | StepKind | WaitsFor | SourceStatus | EmbeddingSpaceStatus],
    name: str,
) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(str(v)) for v in values)})", name=name)


run = sa.Table(
    "run",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger),
    sa.Column("session_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    # Of a delegation: the run that waits for this one, and its step. `depth` 0 is a run that nobody delegated.
    sa.Column("parent_run_id", UUID),
    sa.Column("parent_step_id", UUID),
    sa.Column("depth", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("forked_from", UUID),
    sa.Column("batch_id", UUID),
    # The agent as it was when the run began, so that a deploy changes no run that is under way.
    sa.Column("definition", sa.LargeBinary),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    # Celery's own options of the task that started the run: link, link_error, chain, group, chord.
    sa.Column("canvas", JSONB),
    sa.Column("content", JSONB),
    sa.Column("reason", sa.Text),
    sa.Column("error", JSONB),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cost_usd", sa.Numeric(14, 6), nullable=False, server_default="0"),
    sa.Column("turns", sa.Integer, nullable=False, server_default="0"),
    sa.Column("tool_calls", sa.Integer, nullable=False, server_default="0"),
    _now("created_at"),
    _when("started_at"),
    _when("ended_at"),
    _when("deadline_at"),
    _when("paused_at"),
    _one_of("status", RunStatus, "run_status"),
    # Terminal and only then: an end, so that nothing can hang half-ended.
    sa.CheckConstraint(
        "(status IN ('done', 'failed', 'cancelled')) = (ended_at IS NOT NULL)", name="run_ended"
    ),
)
sa.Index(
    "run_idempotency",
    run.c.agent,
    run.c.idempotency_key,
    unique=True,
    postgresql_where=run.c.idempotency_key.isnot(None),
)
sa.Index("run_session", run.c.session_id, run.c.created_at, postgresql_where=run.c.session_id.isnot(None))
sa.Index("run_created", run.c.created_at)
sa.Index("run_batch", run.c.batch_id, run.c.ended_at, postgresql_where=run.c.batch_id.isnot(None))
sa.Index("run_failed", run.c.ended_at, postgresql_where=run.c.status == "failed")
sa.Index(
    "run_deadline",
    run.c.deadline_at,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.deadline_at.isnot(None)),
)
sa.Index(
    "run_ingesting",
    run.c.id,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.agent.like("knowledge:%")),
)
sa.Index(
    "run_children",
    run.c.parent_run_id,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.parent_run_id.isnot(None)),
)

step = sa.Table(
    "step",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="ready"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger),
    sa.Column("name", sa.Text, nullable=False, server_default=""),
    # Where in the transcript its (first) message goes; a turn reads everything below.
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("call", JSONB),
    sa.Column("effect", sa.Text),
    sa.Column("barrier_id", UUID),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column(
        "tries", sa.Integer, nullable=False, server_default="0"
    ),  # refusals of the provider, bounded by Retry
    sa.Column("worker", sa.Text),
    sa.Column("error", JSONB),
    # What a tool asks for beyond its effect: see core/tool.py, Policy.
    sa.Column("policy", JSONB),
    # Of a step that is `waiting`: for whom, and until when; and what a person said to it.
    sa.Column("waits_for", sa.Text),
    _when("expires_at"),
    sa.Column("answer", JSONB),
    sa.Column("child_run_id", UUID),
    # The next attempt asks the tool's reconcile hook first: the last one was cut short.
    sa.Column("reconciling", sa.Boolean, nullable=False, server_default="false"),
    # A timer, while it runs; `due_at` is that of the submit, and stays.
    _when("not_before"),
    _when("due_at"),
    _when("lease_until"),
    _when("sent_at"),
    _now("created_at"),
    _when("started_at"),
    _when("ended_at"),
    sa.UniqueConstraint("run_id", "generation", "key", name="step_key"),
    _one_of("status", StepStatus, "step_status"),
    _one_of("kind", StepKind, "step_kind"),
    _one_of("waits_for", WaitsFor, "step_waits_for"),
    sa.CheckConstraint("(status = 'waiting') = (waits_for IS NOT NULL)", name="step_waiting"),
    sa.CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="step_lease"),
)
# The keeper looks only at what is not over: three small indexes, whatever the size of the past.
sa.Index("step_running", step.c.lease_until, postgresql_where=step.c.status == "running")
sa.Index(
    "step_timer",
    step.c.not_before,
    postgresql_where=sa.and_(step.c.status == "ready", step.c.not_before.isnot(None)),
)
sa.Index(
    "step_sent",
    step.c.sent_at,
    postgresql_where=sa.and_(step.c.status == "ready", step.c.not_before.is_(None)),
)

sa.Index(
    "step_expires",
    step.c.expires_at,
    postgresql_where=sa.and_(step.c.status == "waiting", step.c.expires_at.isnot(None)),
)
sa.Index(
    "step_ingesting",
    step.c.run_id,
    postgresql_where=sa.and_(
        step.c.kind.in_(("scan", "ingest", "embed", "finalize")),
        step.c.status.in_(("ready", "running", "waiting")),
    ),
)
sa.Index("step_asks", step.c.created_at, postgresql_where=step.c.status == "waiting")
sa.Index("step_dead", step.c.ended_at, postgresql_where=step.c.status.in_(("dead", "unknown")))

barrier = sa.Table(
    "barrier",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE")),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    # A user's chord learns its size when its last header task is sent.
    sa.Column("size", sa.Integer),
    sa.Column("arrived", sa.Integer, nullable=False, server_default="0"),
    # Ours: the turn to write, {id, key, seq, queue, max_attempts}. A user's: Celery's signature of the body.
    sa.Column("body", JSONB, nullable=False),
    _now("created_at"),
    _when("fired_at"),
)

message = sa.Table(
    "message",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    _now("created_at"),
)

chord_part = sa.Table(
    "chord_part",
    metadata,
    sa.Column("barrier_id", UUID, sa.ForeignKey("agno.barrier.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("result", JSONB),
    _now("created_at"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # Exactly one: a step to send, a run whose canvas goes on, a user's chord whose body is due.
    sa.Column("step_id", UUID),
    sa.Column("ended_run_id", UUID),
    sa.Column("chord_id", UUID),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("num_nonnulls(step_id, ended_run_id, chord_id) = 1", name="outbox_one"),
)
sa.Index("outbox_due", outbox.c.due_at)
sa.Index("outbox_step", outbox.c.step_id, postgresql_where=outbox.c.step_id.isnot(None))
sa.Index("outbox_run", outbox.c.ended_run_id, postgresql_where=outbox.c.ended_run_id.isnot(None))
sa.Index("outbox_chord", outbox.c.chord_id, postgresql_where=outbox.c.chord_id.isnot(None))

task_result = sa.Table(
    "task_result",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("meta", JSONB, nullable=False),
    _now("updated_at"),
)
task_group = sa.Table(
    "task_group",
    metadata,
    sa.Column("group_id", sa.Text, primary_key=True),
    sa.Column("result", JSONB, nullable=False),
    _now("created_at"),
)
blob = sa.Table(
    "blob",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
)
definition = sa.Table(
    "definition",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    _now("created_at"),
)
batch = sa.Table(
    "batch",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    _now("created_at"),
    _when("cancelled_at"),
)
sa.Index("batch_cancelled", batch.c.cancelled_at, postgresql_where=batch.c.cancelled_at.isnot(None))
worker = sa.Table(
    "worker",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("queues", JSONB, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False, server_default="0"),
    _now("started_at"),
    _now("seen_at"),
    _when("stopped_at"),
)
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # `unreadable`, `unsigned`, `altered`, `replayed`, `unknown_task`
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("task", sa.Text),
    sa.Column("message_id", sa.Text),
    # The beginning of the message, as far as it can be shown as text, and how large the whole was.
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    _now("created_at"),
)
sa.Index("quarantine_created", quarantine.c.created_at)
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    _when("until"),
    # Counts the keeper's rounds. Redis repeats it, so that either of the two is seen to have gone back in time.
    sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
)

# Knowledge: what was brought in, and the ingestions that do it.

knowledge = sa.Table(
    "knowledge",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("options", JSONB, nullable=False, server_default="{}"),
    # The one that is searched.
    sa.Column("embedding_space_id", sa.Integer),
    # Raised by every change that a search could see.
    sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("chunk_count", sa.BigInteger, nullable=False, server_default="0"),
    # Lexemes a chunk, and the chunks and the version there were when they were counted.
    sa.Column("avg_length", sa.Double, nullable=False, server_default="0"),
    sa.Column("stats_chunks", sa.BigInteger, nullable=False, server_default="0"),
    # An ingestion ended before all its vectors were made: the next one makes them.
    sa.Column("vectors_missing", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("stats_version", sa.BigInteger, nullable=False, server_default="0"),
    _now("created_at"),
    sa.UniqueConstraint("name", name="knowledge_name"),
)


def _of_knowledge() -> sa.Column[int]:
    return sa.Column(
        "knowledge_id", sa.Integer, sa.ForeignKey("agno.knowledge.id", ondelete="CASCADE"), nullable=False
    )


embedding_space = sa.Table(
    "embedding_space",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    _of_knowledge(),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="building"),
    sa.Column("has_partition", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("is_indexed", sa.Boolean, nullable=False, server_default="false"),
    _now("created_at"),
    sa.UniqueConstraint("knowledge_id", "model", name="embedding_space_model"),
    _one_of("status", EmbeddingSpaceStatus, "embedding_space_status"),
)
document = sa.Table(
    "document",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _of_knowledge(),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False, server_default=""),
    sa.Column("title", sa.Text),
    sa.Column("media_type", sa.Text),
    sa.Column("language", sa.Text),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    # Of the source: equal, it is unchanged without being read.
    sa.Column("fingerprint", sa.Text),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("text_sha256", sa.LargeBinary),
    # How it was read: sha256 of the chunking, and of what its source says of it. Another one: it is read again.
    sa.Column("processing_hash", sa.LargeBinary),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    # 0: it has no text of its own yet, or any more.
    sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    sa.Column("chunks", sa.Integer, nullable=False, server_default="0"),
    # The next version, whose chunks wait for their vectors; see switch_documents in functions.sql.
    sa.Column("pending", JSONB),
    # The ingestion that wrote it last.
    sa.Column("run_id", UUID),
    # The document that has the same text, and its chunks.
    sa.Column("duplicate_of", sa.BigInteger),
    _now("created_at"),
    _now("updated_at"),
    sa.UniqueConstraint("knowledge_id", "uri", name="document_uri"),
)
sa.Index("document_sha256", document.c.knowledge_id, document.c.sha256)
sa.Index("document_text", document.c.knowledge_id, document.c.text_sha256)
sa.Index("document_origin", document.c.knowledge_id, document.c.origin)
sa.Index(
    "document_metadata",
    document.c.metadata,
    postgresql_using="gin",
    postgresql_ops={"metadata": "jsonb_path_ops"},
)
sa.Index("document_duplicates", document.c.duplicate_of, postgresql_where=document.c.duplicate_of.isnot(None))


def _of_document(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "document_id",
        sa.BigInteger,
        sa.ForeignKey("agno.document.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


near_band = sa.Table(
    "near_band",
    metadata,
    sa.Column("knowledge_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("band", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.BigInteger, primary_key=True, autoincrement=False),
    _of_document(primary_key=True),
)
sa.Index("near_band_document", near_band.c.document_id)


class _Regconfig(sa.types.UserDefinedType[str]):
    """A text search configuration by its name."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "REGCONFIG"


chunk = sa.Table(
    "chunk",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
    sa.Column("knowledge_id", sa.Integer, nullable=False),
    _of_document(),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    # Searched; false: of a next version that waits for its vectors.
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    # The headings above it, the highest first, a line each (the title, too).
    sa.Column("heading", sa.Text, nullable=False, server_default=""),
    sa.Column("start_at", sa.Integer, nullable=False),
    sa.Column("end_at", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("language", _Regconfig, nullable=False),
    # Why no vector could be made of it.
    sa.Column("refused", sa.Text),
    sa.Column(
        "tsv",
        TSVECTOR,
        sa.Computed("to_tsvector(language, heading || E'\\n' || content)", persisted=True),
    ),
)
sa.Index("chunk_document", chunk.c.document_id, chunk.c.position)
sa.Index("chunk_hash", chunk.c.hash)
sa.Index("chunk_knowledge", chunk.c.knowledge_id, chunk.c.language)
sa.Index("chunk_words", chunk.c.tsv, postgresql_using="gin")

chunk_embedding = sa.Table(
    "chunk_embedding",
    metadata,
    sa.Column("embedding_space_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column(
        "chunk_id", sa.BigInteger, sa.ForeignKey("agno.chunk.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("embedding", HALFVEC, nullable=False),
    sa.PrimaryKeyConstraint("chunk_id", "embedding_space_id"),
    postgresql_partition_by="LIST (embedding_space_id)",
)
# The small ones lie together; a large space gets a partition, and an index, of its own (see search.sql).
sa.event.listen(
    chunk_embedding,
    "after_create",
    sa.DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
        "CREATE TABLE agno.chunk_embedding_small PARTITION OF agno.chunk_embedding DEFAULT;"
        "CREATE INDEX chunk_embedding_small_space ON agno.chunk_embedding_small (embedding_space_id)"
    ),
)
_EXTENSION = sa.DDL("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")  # type: ignore[no-untyped-call]  # as above
sa.event.listen(metadata, "before_create", _EXTENSION)

lexeme = sa.Table(
    "lexeme",
    metadata,
    sa.Column(
        "knowledge_id",
        sa.Integer,
        sa.ForeignKey("agno.knowledge.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("lexeme", sa.Text, primary_key=True),
    sa.Column("documents", sa.Integer, nullable=False),
)

ingestion = sa.Table(
    "ingestion",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    _of_knowledge(),
    sa.Column("options", JSONB, nullable=False),
    _when("scanned_at"),
    # Those that were found whole: what they no longer have is removed.
    sa.Column("origins", JSONB, nullable=False, server_default="[]"),
    sa.Column("total", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("total_bytes", sa.BigInteger, nullable=False, server_default="0"),
)
sa.Index("ingestion_knowledge", ingestion.c.knowledge_id)


def _of_ingestion() -> sa.Column[str]:
    return sa.Column(
        "run_id", UUID, sa.ForeignKey("agno.ingestion.run_id", ondelete="CASCADE"), primary_key=True
    )


source = sa.Table(
    "source",
    metadata,
    _of_ingestion(),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    # As core/knowledge.py, Source.
    sa.Column("given", JSONB, nullable=False),
    sa.Column("processing_hash", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    # The step that has it, or had it last.
    sa.Column("step_id", UUID),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # In a step of its own, since a worker died of one that had it.
    sa.Column("alone", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("document_id", sa.BigInteger),
    sa.Column("error", JSONB),
    _one_of("status", SourceStatus, "source_status"),
)
sa.Index("source_pending", source.c.run_id, source.c.position, postgresql_where=source.c.status == "pending")
sa.Index("source_taken", source.c.step_id, postgresql_where=source.c.status == "taken")
sa.Index("source_failed", source.c.run_id, source.c.position, postgresql_where=source.c.status == "failed")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


# Spread over some rows, so that workers don't wait for each other; a sum is the truth.
ingest_count = sa.Table(
    "ingest_count",
    metadata,
    _of_ingestion(),
    sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
    _count("documents"),
    _count("unchanged"),
    _count("duplicates"),
    _count("failed"),
    _count("removed"),
    _count("chunks"),
    _count("embedded"),
    _count("to_embed"),
    _count("tokens"),
    _count("bytes"),
)

# What agents and people make of knowledge: see storage/learned.py.

review = sa.Table(
    "review",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    _of_knowledge(),
    sa.Column("title", sa.Text),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("source", sa.Text),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("run_id", UUID),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    sa.Column("status", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("decided_by", sa.Text),
    sa.Column("note", sa.Text),
    _now("created_at"),
    _when("decided_at"),
    sa.CheckConstraint("status IN ('waiting', 'approved', 'rejected')", name="review_status"),
)
sa.Index(
    "review_waiting",
    review.c.knowledge_id,
    review.c.created_at,
    postgresql_where=review.c.status == "waiting",
)
gap = sa.Table(
    "gap",
    metadata,
    sa.Column(
        "knowledge_id",
        sa.Integer,
        sa.ForeignKey("agno.knowledge.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("question", sa.Text, primary_key=True),
    sa.Column("asked", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("best_score", sa.Double),
    _now("first_at"),
    _now("last_at"),
)
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column(
        "chunk_id",
        sa.BigInteger,
        sa.ForeignKey("agno.chunk.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("used", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cited", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("up", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("down", sa.BigInteger, nullable=False, server_default="0"),
    _now("updated_at"),
)
# What a run was given with a message, so that a turn which is carried again asks the same.
grounding = sa.Table(
    "grounding",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("hits", JSONB, nullable=False),
    _now("created_at"),
)
