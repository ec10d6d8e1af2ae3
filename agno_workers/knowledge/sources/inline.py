"""Documents that were handed in themselves: their text stands in the Source.

{"text": "...", "key": "handbook/travel", "title": "Travel", "metadata": {...}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agno_workers.errors import InvalidInput, SourceRejected
from agno_workers.knowledge.sources import spec
from agno_workers.knowledge.types import Raw, Source

SCHEMES = ("text",)


class Text(msgspec.Struct, frozen=True):
    """A text, and what is to be known of it."""

    text: str
    key: str = ""
    """Its name, within `text:<key>`: another text under the same name takes its place. Default: a hash of it."""
    title: str | None = None
    media_type: str = "text/plain"
    """`text/markdown`, `text/html` ..."""
    metadata: dict[str, Any] = {}


def takes(given: object) -> bool:
    """Whether this description is for `find` here."""
    return isinstance(given, Mapping) and "text" in given and not {"database", "api", "items"} & set(given)


def find(given: Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:  # noqa: ARG001 - as all of them
    """The one document. Raises InvalidInput, at once, where there is no text in it."""
    asked = spec.read(Text, given, "the description of a text")
    if not asked.text.strip():
        raise InvalidInput("the text of a document is empty: there is nothing to be found in it.")
    content = asked.text.encode(errors="replace")
    digest = hashlib.sha256(content).hexdigest()
    return iter(
        [
            Source(
                f"text:{asked.key or digest[:32]}",
                bytes=len(content),
                fingerprint=f"sha256:{digest}",
                media_type=asked.media_type,
                title=asked.title,
                metadata=asked.metadata,
                text=asked.text,
            )
        ]
    )


def fetch(source: Source, *, timeout_s: float, max_bytes: int) -> Raw:  # noqa: ARG001 - it is here
    """The text, in UTF-8. Raises SourceRejected where there is none, or too much."""
    if source.text is None:
        raise SourceRejected(
            f"{source.uri} has no text with it, and there is nowhere to fetch it from. Hand the text in.",
            uri=source.uri, code="invalid",
        )  # fmt: skip
    content = source.text.encode(errors="replace")
    if len(content) > max_bytes:
        raise spec.too_large(source.uri, max_bytes)
    return Raw(content, source.media_type or "text/plain", source.fingerprint)
