"""JSON and JSON lines: one paragraph per record, with its fields as `path: value` lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed

_LINE_END = re.compile(
    r"\r\n?|\n"
)  # strings contain what str.splitlines() takes for line ends, too: U+2028, U+0085 ...


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Read the title from `title` or `name` of a single record. JSON lines declared as JSON are accepted."""
    text = decode(content, charset_of(media_type))
    if media_type.startswith("application/jsonl"):
        records = _lines(text)
    else:
        try:
            value = _loads(text)
            records = value if isinstance(value, list) else [value]
        except ValueError as error:
            records = _lines(text, error)
        except RecursionError as error:
            raise Unreadable("unreadable", "It is JSON that is nested too deeply.") from error
    title = None
    if len(records) == 1 and isinstance(records[0], dict):
        title = next(
            (v for k in ("title", "name") if isinstance(v := records[0].get(k), str) and v.strip()), None
        )
    return Parsed(tuple(_blocks(records)), title, {"records": len(records)})


def _loads(text: str) -> Any:
    """Accept line ends within strings, and keep the digits of fractions."""
    return json.loads(text, strict=False, parse_float=str)


def _lines(text: str, whole: ValueError | None = None) -> list[Any]:
    """Read one record per line. `whole` is the error of reading it as one JSON value, reported if the first line is invalid, too."""
    records: list[Any] = []
    for number, line in enumerate(_LINE_END.split(text), 1):
        if line := line.strip().removeprefix("\x1e"):  # the mark of RFC 7464
            try:
                records.append(_loads(line))
            except (ValueError, RecursionError) as error:
                reason = whole if whole and not records else f"line {number}: {error}"
                raise Unreadable("unreadable", f"It is broken JSON: {reason}.") from error
    return records


def _blocks(records: list[Any]) -> Iterator[Block]:
    chars = 0
    for record in records:
        lines = []
        for path, value in _fields(record):
            lines.append(f"{path}: {value}" if path else value)
            chars += len(lines[-1]) + 1
            if chars > MAX_CHARS:
                raise too_long(chars)
        if text := "\n".join(lines).strip():
            yield Block("paragraph", text)


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
