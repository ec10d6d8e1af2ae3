"""Knowledge bases, their documents and vectors, and the ingestions that bring documents in.

    knowledge ──< embedding_space   one embedding model's vectors of a knowledge base
        ├──< document ──< chunk ──< chunk_embedding
        ├──< lexeme, review, gap; feedback on chunks, grounding of runs
        └──< ingestion (a run) ──< source, ingest_count

Lock order of an ingestion: run, step, source, texts (advisory), documents by their uri, count, knowledge. Only the transaction that
has locked a document writes its chunks and their vectors.
"""

from __future__ import annotations

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR, UUID

from agno_workers.database.tables.base import count, metadata, now, one_of, tenant, when

_SOURCE_STATUS = ("pending", "taken", "done", "unchanged", "duplicate", "failed")
_SPACE_STATUS = ("building", "current", "retired")

knowledge = sa.Table(
    "knowledge",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    tenant(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("options", JSONB, nullable=False, server_default="{}"),
    # The space that is searched.
    sa.Column("embedding_space_id", sa.Integer),
    # Every change that a search could see raises it.
    sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("chunk_count", sa.BigInteger, nullable=False, server_default="0"),
    # Lexemes per chunk; the number of chunks and the version when they were counted.
    sa.Column("avg_length", sa.Double, nullable=False, server_default="0"),
    sa.Column("stats_chunks", sa.BigInteger, nullable=False, server_default="0"),
    # An ingestion ended without some vectors: the next one makes them.
    sa.Column("vectors_missing", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("stats_version", sa.BigInteger, nullable=False, server_default="0"),
    # VERSION of knowledge/words.py that wrote the words of all chunks.
    sa.Column("words_version", sa.SmallInteger, nullable=False, server_default="2"),
    now("created_at"),
    sa.UniqueConstraint("tenant", "name", name="knowledge_name"),
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
    # Why its model makes no vectors at all: a key, a bill, a wrong name. Its chunks wait until an ingestion tries again.
    sa.Column("error", JSONB(none_as_null=True)),
    now("created_at"),
    sa.UniqueConstraint("knowledge_id", "model", name="embedding_space_model"),
    one_of("status", _SPACE_STATUS, "embedding_space_status"),
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
    # The fingerprint of the source: an equal one means that it is unchanged and need not be read.
    sa.Column("fingerprint", sa.Text),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("text_sha256", sa.LargeBinary),
    # The sha256 of the chunking and of the source's own options. When it changes, the document is read again.
    sa.Column("processing_hash", sa.LargeBinary),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    # The part of the metadata that an ingestion was given for it: later ones that are given none keep it. NULL: none was ever given.
    sa.Column("given_metadata", JSONB(none_as_null=True)),
    # 0: it has no text of its own.
    sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    sa.Column("chunks", sa.Integer, nullable=False, server_default="0"),
    # Of its text: two documents that share NEAR_BANDS of them are near-duplicates. NULL: see near_band.
    sa.Column("bands", ARRAY(sa.BigInteger)),
    # The next version, whose chunks wait for their vectors; see agno.switch_documents.
    sa.Column("pending", JSONB),
    # The ingestion that wrote it last.
    sa.Column("run_id", UUID),
    # The document that has the same text, and its chunks.
    sa.Column("duplicate_of", sa.BigInteger),
    now("created_at"),
    now("updated_at"),
    sa.UniqueConstraint("knowledge_id", "uri", name="document_uri"),
)
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


# The bands of documents that an earlier version wrote: agno.bands_of reads them; nothing writes more. A later release removes it.
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
    # False for a chunk of a next version that waits for its vectors; it is not searched.
    sa.Column("live", sa.Boolean, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    # The title and the headings above it, the highest first, one per line.
    sa.Column("heading", sa.Text, nullable=False, server_default=""),
    sa.Column("start_at", sa.Integer, nullable=False),
    sa.Column("end_at", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("language", _Regconfig, nullable=False),
    # The reason why no vector could be made.
    sa.Column("refused", sa.Text),
    # The words for keyword search: the trigger chunk_words derives them from `words`, which knowledge/words.py writes and no row keeps.
    sa.Column("tsv", TSVECTOR),
    sa.Column("words", sa.Text),
    # Its pages, slides, rows or lines: a Place of knowledge/types.py.
    sa.Column("place", JSONB(none_as_null=True)),
    # Below 1 for a list of links or page numbers, which answers no question.
    sa.Column("weight", sa.REAL, nullable=False, server_default="1"),
    # A message of a past session: the run that it is from, and when that was asked; see knowledge/talk.py.
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE")),
    when("said_at"),
)
sa.Index("chunk_run", chunk.c.run_id, postgresql_where=chunk.c.run_id.isnot(None))
sa.Index("chunk_document", chunk.c.document_id, chunk.c.position)
sa.Index("chunk_hash", chunk.c.hash)
sa.Index("chunk_knowledge", chunk.c.knowledge_id, chunk.c.language)
sa.Index("chunk_words", chunk.c.tsv, postgresql_using="gin")
sa.Index("chunk_refused", chunk.c.knowledge_id, postgresql_where=chunk.c.refused.isnot(None))

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
# Small spaces share the default partition; a large space gets its own partition and index (see search.sql).
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
    when("scanned_at"),
    # Origins that were listed completely: documents that they no longer have are removed.
    sa.Column("origins", JSONB, nullable=False, server_default="[]"),
    sa.Column("total", sa.BigInteger, nullable=False, server_default="0"),
    # What a scan left out, by reason, and the sources in which it found nothing; see knowledge/types.py, Skipped.
    sa.Column("skipped", JSONB, nullable=False, server_default="[]"),
    sa.Column("unmatched", JSONB, nullable=False, server_default="[]"),
    # No code reads it: the migration of a later release removes it.
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
    # See knowledge/types.py, Source.
    sa.Column("given", JSONB, nullable=False),
    sa.Column("processing_hash", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    # The last step that took it.
    sa.Column("step_id", UUID),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # It gets a step of its own, since a worker died in a step that had it.
    sa.Column("alone", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("document_id", sa.BigInteger),
    sa.Column("error", JSONB),
    one_of("status", _SOURCE_STATUS, "source_status"),
)
sa.Index("source_pending", source.c.run_id, source.c.position, postgresql_where=source.c.status == "pending")
sa.Index("source_taken", source.c.step_id, postgresql_where=source.c.status == "taken")
sa.Index("source_failed", source.c.run_id, source.c.position, postgresql_where=source.c.status == "failed")


# Counts are spread over several rows, so that workers do not wait for each other; add them up.
ingest_count = sa.Table(
    "ingest_count",
    metadata,
    _of_ingestion(),
    sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
    count("documents"),
    count("changed"),
    count("unchanged"),
    count("duplicates"),
    count("failed"),
    count("removed"),
    count("chunks"),
    count("embedded"),
    count("to_embed"),
    count("tokens"),
    count("bytes"),
)

# Feedback of agents and people on knowledge: see knowledge/store/feedback.py.

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
    now("created_at"),
    when("decided_at"),
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
    now("first_at"),
    now("last_at"),
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
    now("updated_at"),
)
# The search results that a run got with a message, so that a repeated turn sends the same text.
grounding = sa.Table(
    "grounding",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("hits", JSONB, nullable=False),
    now("created_at"),
)
