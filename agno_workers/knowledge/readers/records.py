"""JSON and JSON lines: one paragraph per record, with its fields as `path: value` lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed, Place

_LINE_END = re.compile(
    r"\r\n?|\n"
)  # strings contain what str.splitlines() takes for line ends, too: U+2028, U+0085 ...


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Read the title from `title` or `name` of a single record. JSON lines declared as JSON are accepted."""
    records, are_lines = _records(content, media_type)
    title = None
    if len(records) == 1 and isinstance(record := records[0][1], dict):
        title = next(
            (v for k in ("title", "name") if isinstance(v := record.get(k), str) and v.strip()), None
        )
    return Parsed(tuple(_blocks(records, are_lines)), title, {"records": len(records)})


def numbered(content: bytes, media_type: str) -> list[tuple[int, Any]]:
    """Return each record with the number of its line, or its place in the list, from 1. Fractions are floats. Raises Unreadable."""
    return _records(content, media_type, float)[0]


def text_of(value: Any) -> str:
    """Return a value as text: a list of scalars on one line, other lists and objects with a line a field."""
    return "\n".join(f"{path}: {text}" if path else text for path, text in _fields(value))


def _records(
    content: bytes, media_type: str, fraction: Callable[[str], Any] = str
) -> tuple[list[tuple[int, Any]], bool]:
    """Return the records with their numbers, and whether these count lines."""
    text = decode(content, charset_of(media_type))
    if media_type.startswith("application/jsonl"):
        return _lines(text, fraction), True
    try:
        value = _loads(text, fraction)
    except ValueError as error:
        return _lines(text, fraction, error), True
    except RecursionError as error:
        raise Unreadable("unreadable", "It is JSON that is nested too deeply.") from error
    return list(enumerate(value if isinstance(value, list) else [value], 1)), False


def _loads(text: str, fraction: Callable[[str], Any]) -> Any:
    """Accept line ends within strings. Fractions as text keep their digits."""
    return json.loads(text, strict=False, parse_float=fraction)


def _lines(
    text: str, fraction: Callable[[str], Any], whole: ValueError | None = None
) -> list[tuple[int, Any]]:
    """Read one record per line. `whole` is the error of reading it as one JSON value, reported if the first line is invalid, too."""
    records: list[tuple[int, Any]] = []
    for number, line in enumerate(_LINE_END.split(text), 1):
        if line := line.strip().removeprefix("\x1e"):  # the mark of RFC 7464
            try:
                records.append((number, _loads(line, fraction)))
            except (ValueError, RecursionError) as error:
                reason = whole if whole and not records else f"line {number}: {error}"
                raise Unreadable("unreadable", f"It is broken JSON: {reason}.") from error
    return records


def _blocks(records: list[tuple[int, Any]], are_lines: bool) -> Iterator[Block]:
    chars = 0
    for number, record in records:
        lines = []
        for path, value in _fields(record):
            lines.append(f"{path}: {value}" if path else value)
            chars += len(lines[-1]) + 1
            if chars > MAX_CHARS:
                raise too_long(chars)
        if text := "\n".join(lines).strip():
            yield Block("paragraph", text, place=Place("line", number) if are_lines else None)


def _fields(record: Any) -> Iterator[tuple[str, str]]:
    """Yield `author.name` and its value ...; a list of scalars is one field. Null and empty values are skipped."""
    waiting: list[tuple[str, Any]] = [("", record)]
    while waiting:
        path, value = waiting.pop()
        match value:
            case dict():
                waiting += [(f"{path}.{key}" if path else key, item) for key, item in reversed(value.items())]
            case list() if any(isinstance(item, dict | list) for item in value):
                waiting += [(f"{path}[{at}]", item) for at, item in reversed(list(enumerate(value)))]
            case list():
                if text := ", ".join(_plain(item) for item in value):
                    yield path, text
            case _:
                if text := _plain(value):
                    yield path, text


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value.strip()
        case _:
            return str(value)
