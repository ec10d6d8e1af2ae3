"""XLSX, XLSB, XLS and ODS: a heading and a table for each visible sheet with content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from typing import Any

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.detect import ODS, XLSX
from agno_workers.knowledge.readers.number_formats import plain
from agno_workers.knowledge.readers.open_document import Parts
from agno_workers.knowledge.readers.tables import Area, repeated, table
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.readers.xlsx import Shown, Workbook
from agno_workers.knowledge.types import Block, Parsed, Place

_MAX_MERGED = 10_000
_LATEST = datetime.fromisoformat("9999-12-31T23:59:59")
_MAX_CELLS = (
    20_000_000  # empty cells take memory, too: one cell in the last corner means 17 thousand million cells
)


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Formulas are read as their last values."""
    with opened(content, media_type) as book:
        blocks = tuple(block for name in book.names for block in book.blocks(name))
        return Parsed(blocks, book.properties.pop("title", None), {**book.properties, "sheets": book.count})


@contextmanager
def opened(content: bytes, media_type: str) -> Iterator[Book]:
    """Raises Unreadable, also while it is read."""
    if content.startswith(b"PK"):
        archive.check(content)
    try:
        yield Book(content, media_type)
    except PasswordError as error:
        raise Unreadable(
            "encrypted", "It is a password-protected workbook: save it without a password."
        ) from error
    except (CalamineError, SyntaxError, ValueError) as error:
        raise Unreadable("unreadable", f"It is a broken workbook: {error}") from error


class Book:
    """A workbook and its visible sheets."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self._workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        self._details = Workbook(content) if media_type == XLSX else None
        self.properties: dict[str, Any] = self._details.properties() if self._details else {}
        """Title, author, date ... as far as the format and the file have them."""
        if media_type == ODS:
            self.properties = Parts(content).metadata()
        self.count = len(self._workbook.sheet_names)
        self.names = [
            sheet.name
            for sheet in self._workbook.sheets_metadata
            if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible
        ]

    def blocks(self, name: str) -> Iterator[Block]:
        """Yield a heading and a table; nothing for an empty sheet."""
        part = f"sheet {name.strip()}".strip()
        notes = self._details.notes(name) if self._details else ()
        blocks = [
            table(self._texts(self._sheet(name)), Place("row", 1, part=part)),
            *(Block("paragraph", note, place=Place(part=part)) for note in notes),
        ]
        if any(blocks):
            yield Block("heading", name.strip() or "Sheet", level=1, place=Place(part=part))
            yield from filter(None, blocks)

    def values(self, name: str) -> Iterator[tuple[int, list[tuple[Any, str]]]]:
        """Yield the number of each row, from 1, and its cells: the value for JSON, and the text that it shows."""
        sheet = self._sheet(name)
        for number, (row, texts) in enumerate(zip(sheet.iter_rows(), self._texts(sheet), strict=True), 1):
            shown = [text.strip() for text in texts]
            yield number, [(_value(cell, text), text) for cell, text in zip(row, shown, strict=True)]

    def _sheet(self, name: str) -> CalamineSheet:
        sheet = self._workbook.get_sheet_by_name(name)
        _check(sheet)
        return sheet

    def _texts(self, sheet: CalamineSheet) -> Iterator[list[str]]:
        merged = [Area(*first, *last) for first, last in (sheet.merged_cell_ranges or [])[:_MAX_MERGED]]
        shown = self._details.rows(sheet.name) if self._details else iter(())
        return repeated(_rows(sheet, shown), merged)


def _check(sheet: CalamineSheet) -> None:
    if sheet.height * sheet.width > _MAX_CELLS:
        raise Unreadable(
            "too_large",
            f"Sheet {sheet.name!r} spans {sheet.height:,} rows and {sheet.width:,} columns: delete the outlying cells.",
        )


def _rows(sheet: CalamineSheet, shown: Iterator[Shown]) -> Iterator[list[str]]:
    """Yield the texts of the cells: what they show, or else their values."""
    following = next(shown, None)
    for number, row in enumerate(sheet.iter_rows()):
        texts = [*map(_cell, row)]
        while following and following[0] <= number:
            at, cells = following
            for column, text in cells.items():
                if at == number and 0 <= column < len(texts):
                    texts[column] = text
            following = next(shown, None)
        yield texts


def _value(value: object, text: str) -> Any:
    """Return the value of a cell for filters: a whole number is an int, a date is ISO text."""
    match value:
        case bool():
            return value
        case float():
            return int(value) if value.is_integer() else value
        case datetime():
            return text.replace(" ", "T")
        case _:
            return text


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return plain(value)
        case datetime():
            rounded = (min(value, _LATEST) + timedelta(microseconds=500_000)).replace(microsecond=0)
            return rounded.date().isoformat() if rounded.time() == time.min else rounded.isoformat(" ")
        case date():
            return value.isoformat()
        case timedelta():
            minutes, seconds = divmod(round(abs(value).total_seconds()), 60)
            return f"{'-' if value < timedelta() else ''}{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        case _:
            return str(value)
