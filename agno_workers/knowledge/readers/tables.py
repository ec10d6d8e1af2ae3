"""Format a table as a block: one line per row, `a | b | c`, the header first."""

from __future__ import annotations

from collections.abc import Iterable

from agno_workers.knowledge.readers.unreadable import MAX_CHARS, too_long
from agno_workers.knowledge.types import Block


def table(rows: Iterable[Iterable[str]], page: int | None = None) -> Block | None:
    """Return the block, or None if all cells are empty. Raises Unreadable if the text is too long."""
    lines: list[str] = []
    chars = 0
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            lines.append(" | ".join(cells))
            chars += len(lines[-1]) + 1
            if chars > MAX_CHARS:
                raise too_long(chars)
    return Block("table", "\n".join(lines), page=page) if lines else None
