"""Readers, one per format: convert bytes to the blocks of a document. They read untrusted files, in a child process.

A reader is a module with `read(content, media_type, name) -> Parsed`, which raises Unreadable. It is imported with the first
document of its format, because some libraries take a second to load.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from agno_workers.core.words import safe_text
from agno_workers.knowledge.readers import detect as formats
from agno_workers.knowledge.readers.dates import iso
from agno_workers.knowledge.readers.detect import detect as detect
from agno_workers.knowledge.readers.titles import best
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed, Source

_HERE = "agno_workers.knowledge.readers"
_READERS = {
    "text/plain": "plain",
    "text/x-code": "code",
    "text/html": "hypertext",
    "application/xml": "hypertext",
    "image/svg+xml": "hypertext",
    "text/markdown": "markdown",
    "text/csv": "delimited",
    "text/tab-separated-values": "delimited",
    "application/json": "records",
    "application/jsonl": "records",
    "message/rfc822": "mail",
    formats.MBOX: "mail",
    "application/pdf": "pdf",
    formats.DOCX: "word",
    formats.PPTX: "slides",
    formats.ODT: "open_document",
    formats.ODP: "open_document",
    formats.EPUB: "book",
    formats.RTF: "rich_text",
    **dict.fromkeys((formats.XLSX, formats.XLSB, formats.XLS, formats.ODS), "sheets"),
    **dict.fromkeys(
        ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff"), "picture"
    ),
}


def read(content: bytes, media_type: str, name: str) -> Parsed:
    """Read a document of this media type (see `detect`). The text is valid for msgpack and Postgres.

    Raises Unreadable. Any other exception is a bug of a parser.
    """
    reader = _READERS.get(media_type.partition(";")[0])
    if reader is None:
        raise Unreadable("unsupported", f"No reader supports {media_type!r}.")
    find: Callable[[bytes, str, str], Parsed] = importlib.import_module(f"{_HERE}.{reader}").read
    parsed = find(content, media_type, name)
    chars = sum(len(block.text) for block in parsed.blocks)
    if chars > MAX_CHARS:
        raise too_long(chars)
    metadata = {safe_text(key): _clean_value(value) for key, value in parsed.metadata.items()}
    if isinstance(date := metadata.get("date"), str):
        metadata["date"] = iso(date)
    return Parsed(
        tuple(block for block in map(_clean_block, parsed.blocks) if block.text.strip()),
        best(safe_text(parsed.title or "").strip()[:1000]),
        metadata,
    )


def read_rows(content: bytes, media_type: str, source: Source) -> tuple[Source, ...]:
    """Return the rows of a file as sources. Raises InvalidInput for its columns and ids, and Unreadable."""
    found: Callable[[bytes, str, Source], tuple[Source, ...]] = importlib.import_module(f"{_HERE}.rows").read
    return tuple(
        replace(
            row,
            uri=safe_text(row.uri),
            text=row.text and safe_text(row.text),
            title=row.title and safe_text(row.title),
            metadata=_clean_value(row.metadata),
        )
        for row in found(content, media_type, source)
    )


def _clean_block(block: Block) -> Block:
    text = safe_text(block.text)
    return block if text is block.text else msgspec.structs.replace(block, text=text)


def _clean_value(value: Any) -> Any:
    match value:
        case str():
            return safe_text(value)
        case dict():
            return {safe_text(key): _clean_value(item) for key, item in value.items()}
        case list():
            return [_clean_value(item) for item in value]
        case _:
            return value
