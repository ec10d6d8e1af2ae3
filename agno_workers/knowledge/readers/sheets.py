"""XLSX, XLSB, XLS and ODS: a heading and a table for each visible sheet with content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.detect import XLSX
from agno_workers.knowledge.readers.number_formats import plain
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
    """Read without a title: sheets have names, workbooks don't. Formulas are read as their last values."""
    if content.startswith(b"PK"):
        archive.check(content)
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        details = Workbook(content) if media_type == XLSX else None
        blocks = tuple(block for sheet in _sheets(workbook) for block in _sheet(sheet, details))
    except PasswordError as error:
        raise Unreadable(
            "encrypted", "It is a password-protected workbook: save it without a password."
        ) from error
    except (CalamineError, SyntaxError, ValueError) as error:
        raise Unreadable("unreadable", f"It is a broken workbook: {error}") from error
    return Parsed(blocks, None, {"sheets": len(workbook.sheet_names)})


def _sheets(workbook: CalamineWorkbook) -> Iterator[CalamineSheet]:
    for sheet in workbook.sheets_metadata:
        if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible:
            yield workbook.get_sheet_by_name(sheet.name)


def _sheet(sheet: CalamineSheet, details: Workbook | None) -> Iterator[Block]:
    if sheet.height * sheet.width > _MAX_CELLS:
        raise Unreadable(
            "too_large",
            f"Sheet {sheet.name!r} spans {sheet.height:,} rows and {sheet.width:,} columns: delete the outlying cells.",
        )
    merged = [Area(*first, *last) for first, last in (sheet.merged_cell_ranges or [])[:_MAX_MERGED]]
    shown = details.rows(sheet.name) if details else iter(())
    notes = details.notes(sheet.name) if details else ()
    part = f"sheet {sheet.name.strip()}".strip()
    blocks = [
        table(repeated(_rows(sheet, shown), merged), Place("row", 1, part=part)),
        *(Block("paragraph", note, place=Place(part=part)) for note in notes),
    ]
    if any(blocks):
        yield Block("heading", sheet.name.strip() or "Sheet", level=1, place=Place(part=part))
        yield from filter(None, blocks)


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
