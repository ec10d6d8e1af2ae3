"""Writes a batch of documents that were read, within one open transaction.

A new document is searchable at once. An edited document keeps the ids and vectors of unchanged chunks; its old version is searched
until all new chunks have a vector. A document with the text of another one becomes a duplicate without chunks; when the other one
changes or is removed, its chunks are reassigned to the duplicate.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agno_workers.database.pool import Connection, Row, execute, jsonb, statements
from agno_workers.knowledge.quality import weights
from agno_workers.knowledge.types import Chunk
from agno_workers.knowledge.versions import MissingVector, Read, SourceItem, match_chunks
from agno_workers.knowledge.words import words

_SQL = statements("knowledge/store/ingest")
_CONFIGURATIONS = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish", "eu": "basque",
    "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""Text search configurations of Postgres, by ISO 639-1."""


class Count(msgspec.Struct, frozen=True):
    """Increments for the counters of an ingestion; see Progress."""

    documents: int = 0
    changed: int = 0
    unchanged: int = 0
    duplicates: int = 0
    failed: int = 0
    removed: int = 0
    chunks: int = 0
    embedded: int = 0
    to_embed: int = 0
    tokens: int = 0
    bytes: int = 0


@dataclass
class Document:
    """A document that was read, while it is written."""

    item: SourceItem
    read: Read
    row: Row
    """From `upsert_documents`."""
    live: list[tuple[int, bytes]] = field(default_factory=list)
    original: int | None = None
    kept: list[tuple[int, Chunk]] = field(default_factory=list)
    fresh: list[Chunk] = field(default_factory=list)
    fresh_ids: list[int] = field(default_factory=list)

    @property
    def id(self) -> int:
        return int(self.row["id"])

    @property
    def is_new(self) -> bool:
        return bool(self.row["is_new"])

    @property
    def has_text(self) -> bool:
        """True if it owns the chunks of a text."""
        return not self.is_new and self.row["version"] > 0 and self.row["duplicate_of"] is None

    @property
    def is_same_text(self) -> bool:
        return self.has_text and self.row["text_sha256"] == self.read.prepared.text_sha256

    @property
    def version(self) -> int:
        return 1 if self.is_new else self.row["version"] + 1

    @property
    def waits(self) -> bool:
        """True if the old version is searched until all new chunks have a vector."""
        return self.original is None and bool(self.live)

    @property
    def columns(self) -> dict[str, Any]:
        source, prepared = self.item.source, self.read.prepared
        return {
            "uri": source.uri,
            "origin": source.origin,
            "title": source.title or prepared.title,
            "media_type": prepared.media_type,
            "language": prepared.language,
            "bytes": prepared.bytes,
            "fingerprint": self.read.fingerprint,
            "sha256": _hex(prepared.sha256),
            "text_sha256": _hex(prepared.text_sha256),
            "processing_hash": _hex(self.item.processing_hash),
            "metadata": prepared.metadata | source.metadata,
            "given_metadata": source.given,
            "bands": () if self.original is not None else prepared.bands,
        }


@dataclass
class DocumentWriter:
    """Writes one batch. After `run`, `documents` were written and `busy` ones must be retried."""

    connection: Connection
    run_id: str
    knowledge_id: int
    configurations: Mapping[str, str]
    documents: list[Document] = field(default_factory=list)
    busy: list[SourceItem] = field(default_factory=list)
    missing: list[MissingVector] = field(default_factory=list)
    spaces: list[int] = field(default_factory=list)
    copied: int = 0
    """Vectors that exist or were copied."""
    more: int = 0
    """Change in the number of searched chunks."""

    def run(self, reads: Sequence[tuple[SourceItem, Read]]) -> None:
        if not reads:
            return
        self.lock(sorted(reads, key=lambda each: each[0].source.uri))
        self.reassign_chunks()
        self.find_originals()
        self.match_chunks()
        self.copy_chunks()
        self.find_vectors()
        self.write_documents()
        self.switch()

    def lock(self, reads: Sequence[tuple[SourceItem, Read]]) -> None:
        """Insert new documents and lock the others. Documents that changed since they were claimed are busy."""
        keys = {_key(self.knowledge_id, read.prepared.text_sha256) for _, read in reads}
        self._ask("lock_texts", keys=list(keys))
        asked = {item.source.uri: Document(item, read, {}) for item, read in reads}
        rows = [
            document.columns | {"chunks": len(document.read.prepared.chunks)} for document in asked.values()
        ]
        for row in self._ask("upsert_documents", rows=jsonb(rows)):
            document = asked[row["uri"]]
            document.row = row
            if row["is_new"] or row["updated_at"] == document.item.known_at:
                self.documents.append(document)
            else:
                self.busy.append(document.item)

    def reassign_chunks(self) -> None:
        """Reassign chunks whose text changes to duplicates, and load the live chunks of known documents."""
        changed = [each.id for each in self.documents if each.has_text and not each.is_same_text]
        if changed:
            rows = self._ask("reassign_chunks", document_ids=changed)
            held = {row["id"] for row in rows if not row["is_free"]}
            self.busy += [each.item for each in self.documents if each.id in held]
            self.documents = [each for each in self.documents if each.id not in held]
        if known := [each.id for each in self.documents if not each.is_new]:
            live = defaultdict(list)
            for row in self._ask("live_chunks", document_ids=known):
                live[row["document_id"]].append((row["id"], row["hash"]))
            for each in self.documents:
                each.live = live[each.id]

    def find_originals(self) -> None:
        """Find the original of each text: the first document, stored or in this batch, that has it."""
        asked = [each for each in self.documents if not each.is_same_text]
        texts = [each.read.prepared.text_sha256 for each in asked]
        ids = [each.id for each in asked]
        originals: dict[bytes, int] = {}
        for row in self._ask("originals", knowledge_id=self.knowledge_id, texts=texts, document_ids=ids):
            originals.setdefault(row["text_sha256"], row["id"])
        for each in self.documents:
            text = each.read.prepared.text_sha256
            if each.is_same_text:
                originals.setdefault(text, each.id)
                continue
            each.original = originals.get(text)
            if each.original is None and not each.live:
                originals[text] = each.id

    def match_chunks(self) -> None:
        for each in self.documents:
            if each.original is None:
                each.kept, each.fresh = match_chunks(each.read.prepared.chunks, each.live)
        ids = [
            row["id"] for row in self._ask("chunk_ids", count=sum(len(each.fresh) for each in self.documents))
        ]
        for each in self.documents:
            each.fresh_ids, ids = ids[: len(each.fresh)], ids[len(each.fresh) :]

    def copy_chunks(self) -> None:
        with self.connection.cursor() as cursor, cursor.copy(_SQL["copy_chunks"]) as copy:
            for each in self.documents:
                language = self.configurations.get(each.read.prepared.language or "", "simple")
                by_position = weights([chunk.content for chunk in each.read.prepared.chunks])
                for chunk_id, chunk in zip(each.fresh_ids, each.fresh, strict=True):
                    copy.write_row((
                        chunk_id, self.knowledge_id, each.id, each.version, chunk.position, not each.waits, chunk.hash, chunk.content,
                        "\n".join(chunk.heading), chunk.start, chunk.end, chunk.tokens, language, words(chunk.embedded), by_position[chunk.position],
                        jsonb(chunk.place) if chunk.place else None,
                    ))  # fmt: skip
                if not each.waits:
                    self.more += len(each.fresh)

    def find_vectors(self) -> None:
        """Copy vectors of equal texts; chunks without one are `missing`."""
        self.spaces = [
            row["id"] for row in self._ask("open_embedding_spaces", knowledge_id=self.knowledge_id)
        ]
        tokens = {
            chunk_id: chunk.tokens
            for each in self.documents
            for chunk_id, chunk in zip(each.fresh_ids, each.fresh, strict=True)
        }
        if tokens and self.spaces:
            found = self._copy_vectors(list(tokens))
            self.copied = len(found)
            self.missing = [
                MissingVector(space, chunk_id, count)
                for space in self.spaces
                for chunk_id, count in tokens.items()
                if (space, chunk_id) not in found
            ]
        if kept := [chunk_id for each in self.documents for chunk_id, _ in each.kept]:
            lacking = self._ask("lacking", chunk_ids=kept)
            self.missing += [
                MissingVector(row["embedding_space_id"], row["id"], row["tokens"])
                for row in lacking
                if not row["is_refused"]
            ]
            self.copied += len(kept) * len(self.spaces) - len(lacking)

    def _copy_vectors(self, ids: Sequence[int]) -> set[tuple[int, int]]:
        """Return (embedding space, chunk) of each copy."""
        hashes = [chunk.hash for each in self.documents for chunk in each.fresh]
        rows = self._ask("copy_vectors", chunk_ids=ids, hashes=hashes)
        return {(row["embedding_space_id"], row["chunk_id"]) for row in rows}

    def write_documents(self) -> None:
        """Update known documents, and new ones that are duplicates."""
        rows = []
        for each in self.documents:
            now = {
                "id": each.id,
                "version": each.version,
                "chunks": len(each.fresh),
                "duplicate_of": each.original,
            }
            if each.waits:
                rows.append({"id": each.id, "pending": _pending(each)})
            elif each.original is not None or not each.is_new:
                rows.append(each.columns | now)
        if rows:
            self._ask("write_documents", run_id=self.run_id, rows=jsonb(rows))
        known = [each for each in self.documents if not each.is_new]
        if known:
            but = [chunk_id for each in known for chunk_id in each.fresh_ids]
            whole = [each.id for each in known if each.original is not None]
            gone = self._ask("drop_chunks", document_ids=whole, but=[], live=True) if whole else []
            self._ask("drop_chunks", document_ids=[each.id for each in known], but=but, live=False)
            self.more -= sum(row["live"] for row in gone)

    def switch(self) -> None:
        """Switch edited documents that have all their vectors."""
        if waiting := [each.id for each in self.documents if each.waits]:
            (row,) = self._ask("switch", document_ids=waiting)
            self.more += row["more"]

    @property
    def count(self) -> Count:
        own = [each for each in self.documents if each.original is None]
        return Count(
            documents=len(own),
            changed=sum(not each.is_new for each in own),
            duplicates=len(self.documents) - len(own),
            chunks=sum(len(each.read.prepared.chunks) for each in own),
            embedded=self.copied,
            to_embed=len(self.missing),
            bytes=sum(each.read.prepared.bytes for each in self.documents),
        )

    def _ask(self, name: str, **params: Any) -> list[Row]:
        return execute(
            self.connection, _SQL[name], {"run_id": self.run_id, "knowledge_id": self.knowledge_id} | params
        )


def configurations(connection: Connection) -> dict[str, str]:
    """Return the text search configuration of each language that this Postgres supports; others use `simple`."""
    there = {row["name"] for row in execute(connection, _SQL["configurations"])}
    return {language: name for language, name in _CONFIGURATIONS.items() if name in there}


class Removed(msgspec.Struct, frozen=True):
    documents: int = 0
    chunks: int = 0
    """Searched chunks."""


def removal(connection: Connection, held: Sequence[Row]) -> Removed:
    """Remove documents that the caller has locked, duplicates first; chunks of others are reassigned to their duplicates. A document
    stays if a duplicate is locked elsewhere.
    """
    duplicates = [row["id"] for row in held if row["is_duplicate"]]
    originals = [row["id"] for row in held if not row["is_duplicate"]]
    gone = [_removed(connection, duplicates)] if duplicates else []
    if originals:
        rows = execute(connection, _SQL["reassign_chunks"], {"document_ids": originals})
        gone.append(_removed(connection, [row["id"] for row in rows if row["is_free"]]))
    return Removed(sum(each.documents for each in gone), sum(each.chunks for each in gone))


def _removed(connection: Connection, ids: Sequence[int]) -> Removed:
    (row,) = execute(connection, _SQL["remove_documents"], {"document_ids": list(ids)})
    return msgspec.convert(row, Removed)


def _pending(document: Document) -> dict[str, Any]:
    keep = [
        {
            "id": chunk_id, "position": chunk.position, "start_at": chunk.start, "end_at": chunk.end, "tokens": chunk.tokens,
            "place": chunk.place,
        }
        for chunk_id, chunk in document.kept
    ]  # fmt: skip
    chunks = len(document.read.prepared.chunks)
    return {"version": document.version, "keep": keep, "chunks": chunks, "row": document.columns}


def _key(knowledge_id: int, text_sha256: bytes) -> int:
    """Return the key of an advisory lock."""
    (key,) = struct.unpack("<q", text_sha256[:8])
    return int(key) ^ knowledge_id


def _hex(digest: bytes) -> str:
    return f"\\x{digest.hex()}"
