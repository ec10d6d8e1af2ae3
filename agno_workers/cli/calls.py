"""Show the arguments of a tool call: each value by its path and with its own cut, so that a long one hides no other.

Numbers are shown as the model wrote them, and a name that occurs twice is shown twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from agno_workers.cli.screen import count
from agno_workers.core.words import printable

MAX_VALUE_CHARS = 200
_MAX_VALUES = 50
"""The most values that are shown of one argument."""
_PLAIN_NAME = re.compile(r"[\w-]+")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with its names as they were written."""


class _Number(str):
    """A number, as it was written."""


def arguments(given: str, *, full: bool = False) -> str:
    """Return the arguments as they follow a heading: in its line if they are short, else a line for each value."""
    if len(given) <= MAX_VALUE_CHARS:
        return f" {printable(given, one_line=True)}"
    return "".join(f"\n  {line}" for line in _lines(given, full=full)[0])


def hidden(given: str) -> int:
    """Return the number of values that `arguments` cuts or leaves out."""
    return 0 if len(given) <= MAX_VALUE_CHARS else _lines(given, full=False)[1]


def _lines(given: str, *, full: bool) -> tuple[list[str], int]:
    """Return a line for each value, as `amount: 12`, and the number of values that are cut or left out; `full`: none is."""
    lines: list[str] = []
    cut = 0
    for name, values in _members(given):
        for path, text in values if full else islice(values, _MAX_VALUES):
            more = 0 if full else len(text) - MAX_VALUE_CHARS
            end = f"… ({more:,} more characters)" if more > 0 else ""
            lines.append(f"{path}: {text[:MAX_VALUE_CHARS] if end else text}{end}")
            cut += more > 0
        if left := sum(1 for _ in values):
            lines.append(f"{name}: … ({count(left, 'more value')})")
            cut += left
    return lines, cut


def _members(text: str) -> list[tuple[str, Iterator[tuple[str, str]]]]:
    """Return the names of the object, each with its values. Text that is not one object is one value."""
    try:
        given = json.loads(
            text or "{}",
            object_pairs_hook=_Pairs,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
        )
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, _Pairs):
        return [("not a JSON object", iter([("not a JSON object", printable(text, one_line=True))]))]
    return [(_name(name), _values(_name(name), value)) for name, value in given]


def _values(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and the JSON of each value that is not an object or a list, as `to[0].iban`, in order. Nesting may be deep."""
    left = [(path, value)]
    while left:
        path, value = left.pop()
        match value:
            case _Pairs() if value:
                left += [(f"{path}.{_name(name)}", item) for name, item in reversed(value)]
            case list() if value:
                left += [(f"{path}[{place}]", item) for place, item in reversed([*enumerate(value)])]
            case _Number():
                yield path, value
            case _:
                yield (
                    path,
                    "{}" if isinstance(value, _Pairs) else printable(json.dumps(value, ensure_ascii=False)),
                )


def _name(name: str) -> str:
    return (
        name
        if _PLAIN_NAME.fullmatch(name) and name.isprintable()
        else printable(json.dumps(name, ensure_ascii=False))
    )
