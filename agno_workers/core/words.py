"""Small text helpers for errors and inputs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from uuid import UUID


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the nearest known name, or an empty string when none is near."""
    near = difflib.get_close_matches(name, [*map(str, known)], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def as_uuid(text: object) -> str | None:
    """Return a UUID in the form that Postgres prints, or None for any other text."""
    try:
        return str(UUID(str(text)))
    except ValueError:
        return None
