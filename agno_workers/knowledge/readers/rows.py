"""Rows as documents: each row of a CSV, TSV or JSON file or of a workbook becomes a source, with the columns that `Rows` names."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from msgspec.structs import replace

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.readers import delimited, mail, records, sheets
from agno_workers.knowledge.readers.detect import ODS, XLS, XLSB, XLSX
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.sources.records import document
from agno_workers.knowledge.types import Rows, Source

_HEADER_WITHIN = 20  # rows: titles and notes may stand above the header
_SHOWN = 5
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
_CELL_CODE = re.compile(r"0\d+")


class Row(NamedTuple):
    """A row and its values by column."""

    number: int
    """Its row in the sheet, or its line in the file, from 1."""
    values: Mapping[str, Any]
    texts: Mapping[str, str]
    """The values as text. A column without a text is left out."""


def read(content: bytes, media_type: str, source: Source) -> tuple[Source, ...]:
    """Return one source a row. Raises InvalidInput for a column that is missing and for ids that are missing or repeated; Unreadable."""
    assert source.rows
    asked, what = source.rows, source.uri
    match media_type.partition(";")[0]:
        case "text/csv" | "text/tab-separated-values":
            rows = _as_numbers(_below_header(delimited.cells(content, media_type), asked, what), asked)
        case "application/json" | "application/jsonl":
            rows = _of_records(records.numbered(content, media_type), asked, what)
        case "application/mbox":
            rows = _of_records(enumerate(mail.records(content), 1), asked, what)
        case essence if essence in (XLSX, XLSB, XLS, ODS):
            with sheets.opened(content, essence) as book:
                name = _sheet(book.names, asked.sheet, what)
                rows = list(_below_header(book.values(name), asked, f"{what}, sheet {name}"))
        case essence:
            raise Unreadable(
                "unsupported",
                f"It is {essence}, which has no rows: use CSV, TSV, JSON, JSON lines, a workbook or a mailbox, or leave out the rows option.",
            )
    if not rows:
        raise InvalidInput(
            f"{what} has no rows below its header: nothing was changed. Remove its documents if it is to be empty."
        )
    _check_ids(rows, asked, what)
    return tuple(_source(row, asked, source) for row in rows)


def names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _source(row: Row, asked: Rows, file: Source) -> Source:
    used = {*names(asked.id), *names(asked.metadata), asked.title}
    texts = names(asked.text) or tuple(column for column in row.texts if column not in used)
    said = [(column, row.texts[column]) for column in texts if column in row.texts]
    labelled = len(texts) > 1
    title = row.texts.get(asked.title) if asked.title else None
    text = "\n".join(f"{column}: {text}" if labelled else text for column, text in said)
    found = document(
        file.uri,
        _id(row, asked),
        text or title,
        title=title,
        metadata={**file.metadata, **{column: row.values.get(column) for column in names(asked.metadata)}},
        updated=None,
        media_type=asked.media_type,
    )
    key = found.uri.removeprefix(f"{file.uri}/")
    return replace(found, uri=f"{file.uri}#{key}", origin=file.origin or file.uri)


def _id(row: Row, asked: Rows) -> str:
    return "/".join(row.texts.get(column, "") for column in names(asked.id))


def _check_ids(rows: Sequence[Row], asked: Rows, what: str) -> None:
    places = defaultdict[str, list[int]](list)
    for row in rows:
        for column in names(asked.id):
            if not row.texts.get(column):
                raise InvalidInput(
                    f"{what}: row {row.number} has no {column!r}, which names its document: fill it in, or choose another column."
                )
        places[_id(row, asked)].append(row.number)
    repeated = [(key, numbers) for key, numbers in places.items() if len(numbers) > 1]
    if repeated:
        shown = "; ".join(
            f"{key!r} in rows {', '.join(map(str, numbers[:_SHOWN]))}{' ...' if len(numbers) > _SHOWN else ''}"
            for key, numbers in repeated[:_SHOWN]
        )
        more = f"; and {len(repeated) - _SHOWN:,} more" if len(repeated) > _SHOWN else ""
        columns = ", ".join(names(asked.id))
        raise InvalidInput(
            f"{what}: ids in {columns!r} are repeated ({shown}{more}): each row needs its own. Correct them, or add a column to the id."
        )


def _check_columns(columns: Sequence[str], asked: Rows, what: str) -> None:
    for column in filter(None, (*names(asked.id), *names(asked.text), asked.title, *names(asked.metadata))):
        if column not in columns:
            raise InvalidInput(
                f"{what} has no column {column!r}{_near(column, columns)} Its columns are {', '.join(columns)}."
            )
        if columns.count(column) > 1:
            raise InvalidInput(f"{what} has {columns.count(column)} columns {column!r}: rename all but one.")


def _near(name: str, known: Iterable[str]) -> str:
    by_lower = {each.lower(): each for each in reversed(list(known))}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.3)
    return f": did you mean {by_lower[near[0]]!r}?" if near else "."


def _sheet(known: Sequence[str], asked: str, what: str) -> str:
    if asked and asked not in known:
        raise InvalidInput(
            f"{what} has no sheet {asked!r}{_near(asked, known)} Its sheets are {', '.join(known)}."
        )
    if not known:
        raise InvalidInput(f"{what} has no visible sheet: show one.")
    return asked or known[0]


# Tables: the header names the columns.

Cells = Iterator[tuple[int, list[tuple[Any, str]]]]
"""The number of each row and its cells: the value, and the text that it shows."""


def _below_header(cells: Cells, asked: Rows, what: str) -> Iterator[Row]:
    filled = ((number, row) for number, row in cells if any(text for _, text in row))
    first = list(islice(filled, _HEADER_WITHIN))
    headers = [[" ".join(text.split()) for _, text in row] for _, row in first]
    at = next((at for at, header in enumerate(headers) if set(names(asked.id)) <= set(header)), 0)
    columns = headers[at] if headers else []
    _check_columns([column for column in columns if column], asked, what)
    for number, row in chain(first[at + 1 :], filled):
        if any(text for _, text in row[len(columns) :]):
            raise InvalidInput(
                f"{what}: row {number} has {len(row)} cells and the header {len(columns)}: "
                "quote cells that contain the delimiter, or name the column."
            )
        named = [(column, value, text) for column, (value, text) in zip(columns, row, strict=False) if column]
        yield Row(
            number,
            {column: text if _CELL_CODE.fullmatch(text) else value for column, value, text in named if text},
            {column: text for column, _, text in named if text},
        )


def _as_numbers(rows: Iterable[Row], asked: Rows) -> list[Row]:
    """Turn columns of metadata into numbers if all their values are numbers, so that filters compare them. `01067` is a code."""
    listed = list(rows)
    numeric = [
        column
        for column in names(asked.metadata)
        if all(_NUMBER.fullmatch(text) for row in listed if (text := row.texts.get(column)))
    ]
    return [
        row._replace(
            values={
                **row.values,
                **{column: _number(row.texts[column]) for column in numeric if column in row.texts},
            }
        )
        for row in listed
    ]


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


# JSON: the keys are the columns, `author.name` that of an object within.


def _of_records(numbered: Iterable[tuple[int, Any]], asked: Rows, what: str) -> list[Row]:
    rows = []
    columns: dict[str, None] = {}
    for number, record in numbered:
        if not isinstance(record, dict):
            raise InvalidInput(
                f"{what}: record {number} is not an object: rows are a list of objects, or JSON lines with one each."
            )
        values = dict(_flat(record))
        columns |= dict.fromkeys(values)
        texts = {
            column: text
            for column, value in values.items()
            if not isinstance(value, dict) and (text := records.text_of(value))
        }
        rows.append(Row(number, values, texts))
    _check_columns(list(columns), asked, what)
    return rows


def _flat(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    waiting = [("", record)]
    while waiting:
        path, within = waiting.pop()
        for key, value in within.items():
            yield f"{path}{key}", value
            if isinstance(value, dict):
                waiting.append((f"{path}{key}.", value))
