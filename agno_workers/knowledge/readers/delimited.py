"""CSV and TSV: one table. The delimiter is the most consistent one of the first lines."""

from __future__ import annotations

import csv
import io
import sys

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Parsed

_DELIMITERS = ",;\t|"
_SAMPLE_LINES = 20

csv.field_size_limit(sys.maxsize)  # decode() has a limit of its own


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """An unclosed quote makes the rest of the file one cell."""
    text = decode(content, charset_of(media_type)).replace("\0", "")
    delimiter = "\t" if media_type.startswith("text/tab-separated-values") else _delimiter(text)
    try:
        found = table(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise Unreadable("unreadable", f"It is a broken CSV file: {error}.") from error
    return Parsed((found,) if found else ())


def _delimiter(text: str) -> str:
    """Replaces csv.Sniffer, whose patterns are extremely slow on some files."""
    lines = [line[:10_000] for line in text[:200_000].splitlines()[:_SAMPLE_LINES] if line.strip()]

    def agreement(delimiter: str) -> tuple[int, int]:
        counts = [line.count(delimiter) for line in lines]
        usual = max(counts, key=counts.count, default=0)
        return (counts.count(usual) if usual else 0, usual)

    return max(_DELIMITERS, key=agreement)
