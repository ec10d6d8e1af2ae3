"""Turn the result of a reader into a document with chunks. Runs in a child process, without IO."""

from __future__ import annotations

import hashlib
from urllib.parse import unquote, urlsplit

from agno_workers.knowledge.chunk import split
from agno_workers.knowledge.language import language_of
from agno_workers.knowledge.minhash import bands
from agno_workers.knowledge.normalise import MAX_TITLE_CHARS, Normal, json_object, line, normalise
from agno_workers.knowledge.quality import refusal
from agno_workers.knowledge.types import Chunking, Parsed, Prepared, Refusal, Source

_FILES = ("file", "s3", "gs", "az", "http", "https")


def prepare(
    parsed: Parsed, content: bytes, media_type: str, source: Source, chunking: Chunking
) -> Prepared | Refusal:
    """Return the document and its chunks, or a refusal.

    Title, metadata and `language` of the source take precedence over those of the format.
    Raises InvalidInput if the chunking strategy can't be loaded or fails.
    """
    normal = _titled(normalise(parsed), source)
    if refused := refusal(normal):
        return refused
    text, chunks = split(normal, chunking)
    if not chunks:
        return Refusal("empty", "All its chunks are empty: a search could not find it.")
    metadata = normal.parsed.metadata | json_object(source.metadata)
    return Prepared(
        title=normal.parsed.title or _file_name(source.uri),
        media_type=media_type,
        language=language_of(normal.parsed.blocks, metadata.get("language")),
        bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
        text_sha256=hashlib.sha256(text.encode()).digest(),
        bands=bands(text),
        metadata=metadata,
        chunks=chunks,
    )


def _titled(normal: Normal, source: Source) -> Normal:
    """Set the title: from the source, the format, or the first heading; see also `_file_name`."""
    parsed = normal.parsed
    title = line(source.title, MAX_TITLE_CHARS) or parsed.title or _first_heading(parsed)
    return Normal(
        normal.text, Parsed(parsed.blocks, title, parsed.metadata), normal.starts, normal.unreadable
    )


def _file_name(uri: str) -> str | None:
    """Return the name of a file or an object, for people. It is not in the headings of chunks, so it does not take part in searches."""
    parts = urlsplit(uri)
    name = unquote(parts.path.rpartition("/")[2])
    is_named = parts.scheme in _FILES and "." in name.strip(".") and not parts.fragment
    return line(name, MAX_TITLE_CHARS) if is_named else None


def _first_heading(parsed: Parsed) -> str | None:
    return next((block.text for block in parsed.blocks if block.kind == "heading"), None)
