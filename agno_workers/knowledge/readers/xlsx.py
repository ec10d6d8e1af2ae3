"""Details of an XLSX file beside the values of its cells: formats of numbers, errors, and notes."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from docx.oxml import parse_xml
from lxml import etree  # type: ignore[import-untyped] # ships no types

from agno_workers.knowledge.readers.number_formats import formatted, plain

Shown = tuple[int, dict[int, str]]
"""A row and its cells that show more than their values: their columns, from 0, and their texts."""
_BUILT_IN = {2: "0.00", 4: "#,##0.00", 7: "0.00", 8: "0.00", 9: "0%", 10: "0.00%", 39: "0.00", 40: "0.00", 43: "0.00", 44: "0.00"}  # fmt: skip
_PROPERTIES = {
    "title": "title",
    "creator": "author",
    "subject": "description",
    "keywords": "keywords",
    "created": "date",
}
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


class Workbook:
    """Reads from the zip what the reader of the values leaves out. The zip was checked before."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self._names = set(self._zip.namelist())
        main = next((part for _, kind, part in self._related("") if kind == "officeDocument"), "")
        parts = {identity: part for identity, _, part in self._related(main)}
        self._sheets = {
            sheet.get("name"): parts.get(sheet.get(_ID), "") for sheet in self._elements(main, "sheet")
        }
        styles = next((part for _, kind, part in self._related(main) if kind == "styles"), "")
        self._formats = self._styles(styles)

    def properties(self) -> dict[str, str]:
        """Return title, author, description, keywords and date, as far as they are set."""
        part = next((part for _, kind, part in self._related("") if kind == "core-properties"), "")
        found = {kept: next(self._elements(part, name), None) for name, kept in _PROPERTIES.items()}
        texts = {
            kept: " ".join((each.text or "").split())[:2000]
            for kept, each in found.items()
            if each is not None
        }
        return {kept: text for kept, text in texts.items() if text}

    def rows(self, sheet: str) -> Iterator[Shown]:
        """Yield the rows of a sheet in order."""
        part = self._sheets.get(sheet, "")
        content = self._zip.read(part) if part in self._names else b""
        styles = "|".join(self._formats) or "-"
        if not re.search(rf"""\st=["']e["']|\ss=["'](?:{styles})["']""".encode(), content):
            return  # parsing takes three times as long as reading the values
        rows = etree.iterparse(io.BytesIO(content), tag="{*}row", recover=True, resolve_entities=False)
        for _, row in rows:
            cells = {_column(cell.get("r", "")): text for cell in row if (text := self._shown(cell))}
            if cells:
                yield _number(row, "r") - 1, cells
            row.clear()
            while row.getprevious() is not None:
                del row.getparent()[0]

    def notes(self, sheet: str) -> Iterator[str]:
        """Yield the notes of a sheet."""
        for _, kind, part in self._related(self._sheets.get(sheet, "")):
            for note in self._elements(part, "comment") if kind == "comments" else ():
                text = "".join(found.text or "" for found in note.iter("{*}t")).strip()
                if text.startswith("[Threaded comment]"):  # a sentence for old versions comes first
                    text = text.partition("Comment:")[2].strip()
                if text:
                    yield f"Note on {note.get('ref', '')}: {text}"

    def _shown(self, cell: Any) -> str:
        """Return the text of an error or a number with a format; empty for others."""
        is_error, is_number = cell.get("t") == "e", cell.get("t", "n") == "n"
        code = self._formats.get(cell.get("s", "")) if is_number else None
        value: str | None = cell.findtext("{*}v") if code or is_error else None
        return formatted(float(value), code) if code and value else value or ""

    def _styles(self, part: str) -> dict[str, str]:
        """Return the formats that add something to a number, by style."""
        formats = {
            _number(found, "numFmtId"): found.get("formatCode", "")
            for found in self._elements(part, "numFmt")
        }
        codes = _BUILT_IN | formats
        cells = next(self._elements(part, "cellXfs"), ())
        found = {str(at): codes.get(_number(style, "numFmtId"), "") for at, style in enumerate(cells)}
        return {
            at: code
            for at, code in found.items()
            if any(formatted(probe, code) != plain(probe) for probe in (1.0, -1.0, 0.0))
        }

    def _related(self, part: str) -> Iterator[tuple[str, str, str]]:
        """Yield the ids, the kinds and the names of related parts."""
        folder, name = posixpath.split(part)
        for found in self._elements(posixpath.join(folder, "_rels", f"{name}.rels"), "Relationship"):
            if found.get("TargetMode") != "External":
                kind = found.get("Type", "").rpartition("/")[2]
                target = posixpath.normpath(posixpath.join("/", folder, found.get("Target", "")))
                yield found.get("Id"), kind, target[1:]

    def _elements(self, part: str, name: str) -> Iterator[Any]:
        """Yield the elements with this name; none if the part is missing."""
        return parse_xml(self._zip.read(part)).iter(f"{{*}}{name}") if part in self._names else iter(())


def _number(element: Any, name: str) -> int:
    text = element.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 9 else 0


@lru_cache(maxsize=100_000)
def _column(place: str) -> int:
    """Return the column of a cell, from 0: 1 for `B7`; -1 without a place."""
    number = 0
    for letter in place.rstrip("0123456789"):
        number = number * 26 + ord(letter) - 64
    return number - 1
