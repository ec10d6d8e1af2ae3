"""Read the description of a source: every key is known, or it is refused with a hint. No IO."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec

from agno_workers.errors import InvalidInput

T = TypeVar("T", bound=msgspec.Struct)
Skip = Callable[[str, str], object]
"""Takes the reason and the uri of what a source leaves out."""
_VARIABLE = re.compile(r"[A-Za-z0-9_*]+(@[\w.:-]+)?")
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


def from_environment(variable: str, what: str, allowed: Sequence[str], setting: str) -> str:
    """Return an environment variable of the worker that the operator allowed; `*` stands for any characters. No message repeats its
    value.

    Raises InvalidInput for any other variable, for one that is not set, and for the workers' own secrets, since a description
    decides where the value is sent.
    """
    if _OURS.fullmatch(variable):
        raise InvalidInput(
            f"{what}: the environment variable {variable!r} belongs to the workers, and no source may read it: put the value that it needs into another one."
        )
    if not any(fnmatchcase(variable, name) for name in allowed):
        raise not_allowed(f"{what}: the environment variable {variable!r}", setting)
    if value := os.environ.get(variable, ""):
        return value
    raise InvalidInput(
        f"{what}: the environment variable {variable!r} is not set where the workers run. Set it there; "
        "a description holds its name, never its value."
    )


def not_allowed(what: str, setting: str) -> InvalidInput:
    """Return the refusal of a thing that no list of the operator names."""
    section, _, name = setting.partition(".")
    return InvalidInput(
        f"{what} may not be used by sources unless the operator adds it to the setting {setting} "
        f"(AGNO_{section.upper()}__{name.upper()}) of the workers."
    )


def check_variables(names: Sequence[str]) -> None:
    """Raise InvalidInput for an entry that is not `NAME` or `NAME@host`. It may be a secret, so the message has its number only."""
    for number, name in enumerate(names, 1):
        if not _VARIABLE.fullmatch(name):
            raise InvalidInput(
                f"entry {number} is not the name of an environment variable: write NAME, or NAME@api.example.com for one that is sent."
            )


def skip_of(options: Mapping[str, Any]) -> Skip:
    """Return the function that counts what a source leaves out."""
    skip: Skip = options.get("skip") or (lambda *_: None)
    return skip


def patterns(given: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return one glob or several as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())
