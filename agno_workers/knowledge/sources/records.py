"""Documents whose text is known when they are found: rows of a query, items of an API, texts handed in. No IO."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec

from agno_workers.knowledge.sources.failures import rejected, too_large
from agno_workers.knowledge.types import Raw, Source

MAX_TEXT_BYTES = 32 * 1024 * 1024
"""A source does not hold a longer text: that document fails alone, and the others continue."""


def document(
    name: str, key: object, text: object, *, title: object, metadata: Mapping[str, Any], updated: object, media_type: str
) -> Source:  # fmt: skip
    """Return the source `name/key` with the origin `name`. Its fingerprint is `updated`, or a hash."""
    content = as_text(text)
    size = len(content.encode("utf-8", "replace"))
    known = {field: as_json(value) for field, value in metadata.items() if value is not None}
    heading = as_text(title).strip() or None
    version = updated if updated is not None else _hash(content, heading, known)
    return Source(
        f"{name}/{quote(as_text(key), safe='')}",
        origin=name,
        bytes=size,
        fingerprint=f"{'updated' if updated is not None else 'sha256'}:{as_text(version)}",
        media_type=media_type,
        title=heading,
        metadata=known,
        text=content if size <= MAX_TEXT_BYTES else None,
    )


def fetch(source: Source, *, timeout_s: float, max_bytes: int) -> Raw:  # noqa: ARG001 - the text is here
    """Return the text that came with the source, in UTF-8. Raises SourceRejected when there is none, or too much."""
    if source.text is None:
        if source.bytes > MAX_TEXT_BYTES:
            raise too_large(source.uri, MAX_TEXT_BYTES)
        what = (
            "has no text with it and can't be fetched alone: pass the text, or ingest its query or API again."
        )
        raise rejected(source.uri, what, "invalid")
    content = source.text.encode("utf-8", "replace")
    if len(content) > max_bytes:
        raise too_large(source.uri, max_bytes)
    return Raw(content, source.media_type or "text/plain", source.fingerprint)


def as_text(value: object) -> str:
    """Return a value as text for a document or a title."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8", "replace")
        case datetime() | date() | time():
            return value.isoformat()
        case dict() | list():
            return msgspec.json.encode(as_json(value)).decode()
        case _:
            return str(value)


def as_json(value: object) -> Any:
    """Return a value as metadata that filters can compare."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else None
        case Decimal():
            return (int(value) if value == value.to_integral_value() else float(value)) if value.is_finite() else None  # fmt: skip
        case UUID():
            return str(value)
        case Mapping():
            return {as_text(key): as_json(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [as_json(item) for item in value]
        case _:
            return as_text(value)


def _hash(content: str, title: str | None, metadata: dict[str, Any]) -> str:
    head = msgspec.json.encode([title, metadata], order="deterministic")
    return hashlib.sha256(head + b"\0" + content.encode("utf-8", "replace")).hexdigest()
