"""Core properties of an Office file."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol


class CoreProperties(Protocol):
    """docProps/core.xml, as python-docx and python-pptx parse it."""

    @property
    def author(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def keywords(self) -> str: ...
    @property
    def created(self) -> datetime | None: ...
    @property
    def language(self) -> str: ...


def metadata(properties: CoreProperties) -> dict[str, Any]:
    """Return author, description, keywords, date and language, as far as they are set."""
    found = {
        "author": properties.author,
        "description": properties.subject,
        "keywords": properties.keywords,
        "date": properties.created.date().isoformat() if properties.created else "",
        "language": properties.language,
    }
    return {key: value.strip()[:2000] for key, value in found.items() if value and value.strip()}
