"""Format a table as a block: one line per row, `a | b | c`, the header first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from agno_workers.knowledge.readers.unreadable import MAX_CHARS, too_long
from agno_workers.knowledge.types import Block, Place

_MAX_SPAN = 20
"""A cell over more columns is not repeated: `colspan="100%"` and 99 mean the whole width."""


class Cell(NamedTuple):
    """A cell of HTML or a slide."""

    text: str
    columns: int = 1
    rows: int = 1
    """0: all that follow."""


def table(rows: Iterable[Iterable[str]], place: Place | None = None) -> Block | None:
    """Return the block, or None if all cells are empty. Its lines are numbered if the place counts rows; its `first` is the number of the first row.

    Raises Unreadable if the text is too long.
    """
    lines: list[str] = []
    numbers: list[int] = []
    chars = 0
    for number, row in enumerate(rows, place.first if place else 1):
        cells = [" ".join(cell.split()) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            lines.append(" | ".join(cells))
            numbers.append(number)
            chars += len(lines[-1]) + 1
            if chars > MAX_CHARS:
                raise too_long(chars)
    if not lines:
        return None
    if place is None or place.unit != "row":
        return Block("table", "\n".join(lines), place=place)
    return Block("table", "\n".join(lines), place=replace(place, last=numbers[-1]), lines=tuple(numbers))


def spread(rows: Iterable[Iterable[Cell]]) -> Iterator[list[str]]:
    """Repeat the text of a merged cell in each of its columns and rows, so that each row is complete. A single cell is not repeated."""
    above: dict[
        int, tuple[float, str]
    ] = {}  # by column: the last row of a cell that reaches down, and its text
    for number, row in enumerate(rows):
        cells, line = list(row), list[str]()
        above = {column: reaching for column, reaching in above.items() if reaching[0] >= number}
        is_single = len(cells) == 1 and not above
        for cell in cells:
            while len(line) in above:
                line.append(above[len(line)][1])
            for _ in range(cell.columns if 1 < cell.columns <= _MAX_SPAN else 1):
                above[len(line)] = (number + cell.rows - 1 if cell.rows else math.inf, cell.text)
                line.append(cell.text)
        for column in sorted(above):
            if column >= len(line):
                line += [""] * (column - len(line)) + [above[column][1]]
        yield line[:1] if is_single else line


class Area(NamedTuple):
    """Merged cells of a workbook: their first and last row and column, from 0."""

    top: int
    left: int
    bottom: int
    right: int


def repeated(rows: Iterable[list[str]], areas: Iterable[Area]) -> Iterator[list[str]]:
    """Repeat the text of merged cells as `spread` does. A row without other texts, such as a title over the whole width, stays as it is."""
    waiting = sorted(areas, reverse=True)
    reaching: list[tuple[Area, str]] = []
    for number, row in enumerate(rows):
        reaching = [(area, text) for area, text in reaching if area.bottom >= number]
        texts = sum(map(bool, row))
        is_title = texts == 1 and not reaching
        while waiting and waiting[-1].top <= number:
            area = waiting.pop()
            reaching.append((area, row[area.left] if area.left < len(row) else ""))
        for area, text in reaching if texts and not is_title else ():
            for column in range(area.left, min(area.right + 1, len(row))):
                row[column] = row[column] or text
        yield row
