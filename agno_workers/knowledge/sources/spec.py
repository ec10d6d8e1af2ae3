"""Read the description of a source: every key is known, or it is refused with a hint. No IO."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agno_workers.errors import InvalidInput

T = TypeVar("T", bound=msgspec.Struct)
_OURS = re.compile(r"AGNO_.*|(OPENAI|ANTHROPIC)_API_KEY", re.IGNORECASE | re.DOTALL)


def read(kind: type[T], given: Mapping[str, Any], what: str) -> T:
    """Return the description as a value. Raises InvalidInput, which names the key nearest to an unknown one, the missing key or
    the wrong type."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise InvalidInput(
                f"{what} has the unknown key {key!r}: did you mean {near!r}? Its keys are {', '.join(known)}."
            )
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{what} can't be used: {error}. Correct it.") from error


def from_environment(variable: str, what: str) -> str:
    """Return an environment variable of the worker. No message repeats its value.

    Raises InvalidInput for a variable that is not set, and for the workers' own secrets, since a description decides where
    the value is sent.
    """
    if _OURS.fullmatch(variable):
        raise InvalidInput(
            f"{what}: the environment variable {variable!r} belongs to the workers, and no source may read it: put the value that it needs into another one."
        )
    if value := os.environ.get(variable, ""):
        return value
    raise InvalidInput(
        f"{what}: the environment variable {variable!r} is not set where the workers run. Set it there; "
        "a description holds its name, never its value."
    )


def patterns(given: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return one glob or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())
