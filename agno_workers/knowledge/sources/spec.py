"""Reading what a caller wrote to describe a source: all of it is understood, or it is refused with a hint. No IO."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agno_workers.errors import InvalidInput, SourceRejected

T = TypeVar("T", bound=msgspec.Struct)
_OURS = re.compile(r"AGNO_.*|(OPENAI|ANTHROPIC)_API_KEY", re.IGNORECASE | re.DOTALL)


def read(kind: type[T], given: Mapping[str, Any], what: str) -> T:
    """The description as a value. Raises InvalidInput, which names an unknown key's nearest, the missing key or the wrong type."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise InvalidInput(
                f"{what} has the unknown key {key!r}: did you mean {near!r}? It knows {', '.join(known)}."
            )
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{what} can't be used: {error}. Correct it.") from error


def from_environment(variable: str, what: str) -> str:
    """The value that a worker's environment has under this name. No message repeats it.

    Raises InvalidInput where there is none, and for what the workers themselves live by: a description says where the value is sent.
    """
    if _OURS.fullmatch(variable):
        raise InvalidInput(
            f"{what}: the environment variable {variable!r} is the workers' own, and no source gets it: put what it needs into another one."
        )
    if value := os.environ.get(variable, ""):
        return value
    raise InvalidInput(
        f"{what}: the environment variable {variable!r} is not set where the workers run. Set it there; "
        "a description holds its name, never its value."
    )


def too_large(uri: str, max_bytes: int) -> SourceRejected:
    """Return the error for a document above the limit."""
    return SourceRejected(
        f"{uri} has more than {max_bytes:,} bytes: split it, or raise document_max_bytes.",
        uri=uri,
        code="too_large",
    )


def patterns(given: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """`glob`, as one or several."""
    return (given,) if isinstance(given, str) else tuple(given or ())
