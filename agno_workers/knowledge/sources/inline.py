"""Documents handed in as text, which the Source holds:

{"text": "...", "key": "handbook/travel", "title": "Travel", "metadata": {...}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.sources import spec
from agno_workers.knowledge.types import Source


class Text(msgspec.Struct, frozen=True):
    """A text and its description."""

    text: str
    key: str = ""
    """Its name, in `text:<key>`: a later text of the same name replaces it. Default: a hash of the text."""
    title: str | None = None
    media_type: str = "text/plain"
    """`text/markdown`, `text/html` ..."""
    metadata: dict[str, Any] = {}


def takes(given: object) -> bool:
    """Return True for a description that `find` here reads."""
    return isinstance(given, Mapping) and "text" in given and not {"database", "api", "items"} & set(given)


def find(given: Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:  # noqa: ARG001 - as every `find`
    """Return the one document. Raises InvalidInput at once for a blank text."""
    asked = spec.read(Text, given, "the description of a text")
    if not asked.text.strip():
        raise InvalidInput("the text of a document is empty: pass a text with words.")
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
