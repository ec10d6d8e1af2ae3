"""CSV and TSV: one table. The delimiter is that of the line `sep=;`, or the most consistent one of the first rows."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Parsed, Place

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 20
_SEPARATOR = re.compile(r"\"?sep=(.)\"?[ ;,\t]*(?:\r\n?|\n)", re.IGNORECASE)  # as Excel writes and hides it

csv.field_size_limit(sys.maxsize)  # decode() has a limit of its own


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """An unclosed quote makes the rest of the file one cell."""
    found = table((texts for _, texts in _numbered(content, media_type)), Place("row", 1))
    return Parsed((found,) if found else ())


def cells(content: bytes, media_type: str) -> Iterator[tuple[int, list[tuple[Any, str]]]]:
    """Yield the number of each row, from 1, and its cells twice: as a value and as a text. Raises Unreadable."""
    for number, texts in _numbered(content, media_type):
        yield number, [(text, text) for text in map(str.strip, texts)]


def _numbered(content: bytes, media_type: str) -> Iterator[tuple[int, list[str]]]:
    text = decode(content, charset_of(media_type)).replace("\0", "").lstrip("\r\n")
    try:
        if separator := _SEPARATOR.match(text):
            rows = _rows(text[separator.end() :], separator[1])
        else:
            is_tabs = media_type.startswith("text/tab-separated-values")
            rows = _rows(text, "\t" if is_tabs else max(_DELIMITERS, key=lambda each: _agreement(text, each)))
        yield from enumerate(rows, 1)
    except csv.Error as error:
        raise Unreadable("unreadable", f"It is a broken CSV file: {error}.") from error


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)


def _agreement(text: str, delimiter: str) -> tuple[bool, int, int, int]:
    """Return how well a delimiter fits the first rows: it is in the usual row, it tears few quoted cells apart, and the number of usual
    rows and of delimiters in them.

    Replaces csv.Sniffer, whose patterns are extremely slow on some files.
    """
    rows = list(islice(filter(None, _rows(text, delimiter)), _SAMPLE_ROWS))
    counts = [len(row) - 1 for row in rows]
    usual = max(counts, key=counts.count, default=0)
    torn = sum(cell.count('"') % 2 for row in rows for cell in row)
    return usual > 0, -torn, counts.count(usual), usual
