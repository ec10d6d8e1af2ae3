"""XLSX, XLSB, XLS and ODS: a heading and a table for each visible sheet with content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date, datetime

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed

_MAX_CELLS = (
    20_000_000  # empty cells take memory, too: one cell in the last corner means 17 thousand million cells
)


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read without a title: sheets have names, workbooks don't. Formulas are read as their last values."""
    if content.startswith(b"PK"):
        archive.check(content)
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        blocks = tuple(block for sheet in _sheets(workbook) for block in _sheet(sheet))
    except PasswordError as error:
        raise Unreadable(
            "encrypted", "It is a password-protected workbook: save it without a password."
        ) from error
    except CalamineError as error:
        raise Unreadable("unreadable", f"It is a broken workbook: {error}") from error
    return Parsed(blocks, None, {"sheets": len(workbook.sheet_names)})


def _sheets(workbook: CalamineWorkbook) -> Iterator[CalamineSheet]:
    for sheet in workbook.sheets_metadata:
        if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible:
            yield workbook.get_sheet_by_name(sheet.name)


def _sheet(sheet: CalamineSheet) -> Iterator[Block]:
    if sheet.height * sheet.width > _MAX_CELLS:
        raise Unreadable(
            "too_large",
            f"Sheet {sheet.name!r} spans {sheet.height:,} rows and {sheet.width:,} columns: delete the outlying cells.",
        )
    found = table(map(_cell, row) for row in sheet.iter_rows())
    if found:
        yield Block("heading", sheet.name.strip() or "Sheet", level=1)
        yield found


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float():
            return f"{value:.12g}"
        case datetime() if value.time() == datetime.min.time():
            return value.date().isoformat()
        case datetime():
            return value.isoformat(" ", "seconds")
        case date():
            return value.isoformat()
        case _:
            return str(value)
