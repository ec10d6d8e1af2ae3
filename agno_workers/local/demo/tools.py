"""Read-only tools over the text files of the demo's folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from agno_workers.core.tool import Effect
from agno_workers.errors import ToolError
from agno_workers.local.demo.documents import SUFFIXES
from agno_workers.tools import Toolkit, tool

_FENCE = re.compile(r" {0,3}(?:```|~~~)")
_LINK = re.compile(r"(?<!!)\[[^\[\]]{0,500}\]\(([^\[)\s]{1,2000}+)[^)]{0,500}\)")
_MAX_LISTED = 100


class FolderTools(Toolkit):
    """Tools over the text files below `root`, by their paths in it; a path outside does not exist."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root).resolve()
        super().__init__("files")

    @tool(effect=Effect.PURE)
    def list_files(self) -> list[str]:
        """List the files of the folder and its subfolders, sorted."""
        return self._names()

    @tool(effect=Effect.PURE)
    def search_text(self, query: str) -> list[str]:
        """Find the lines that contain a text, as PATH:LINE: TEXT."""
        lines = ((name, number, line) for name in self._names() for number, line in self._lines(name))
        found = (
            f"{name}:{number}: {line[:200]}" for name, number, line in lines if query.lower() in line.lower()
        )
        return [line for line, _ in zip(found, range(_MAX_LISTED), strict=False)]

    @tool(effect=Effect.PURE)
    def word_count(self, path: str) -> int:
        """Count the words of a file."""
        return len(self._read(path).split())

    @tool(effect=Effect.PURE)
    def headings(self, path: str) -> list[str]:
        """List the headings of a Markdown file."""
        return [line for _, line in self._prose(path) if re.match(r"#{1,6}\s", line)]

    @tool(effect=Effect.PURE)
    def longest_line(self, path: str) -> str:
        """Return the longest line of a file."""
        return max(self._read(path).splitlines(), key=len, default="")[:500]

    @tool(effect=Effect.PURE)
    def count_code_blocks(self, path: str) -> int:
        """Count the fenced code blocks of a Markdown file."""
        return (sum(bool(_FENCE.match(line)) for _, line in self._lines(path)) + 1) // 2

    @tool(effect=Effect.PURE)
    def most_common_words(self, path: str) -> dict[str, int]:
        """Return the ten most frequent words of a file with their counts."""
        return dict(Counter(re.findall(r"[^\W_]+", self._read(path).lower())).most_common(10))

    @tool(effect=Effect.PURE)
    def links(self, path: str) -> list[str]:
        """List the targets of the links of a Markdown file."""
        return [match[1] for _, line in self._prose(path) for match in _LINK.finditer(line)]

    def _names(self) -> list[str]:
        names = (path.relative_to(self._root).as_posix() for path in self._root.rglob("*"))
        return sorted(name for name in names if self._file(name))[:_MAX_LISTED]

    def _prose(self, path: str) -> Iterator[tuple[int, str]]:
        """Yield the numbered lines outside code blocks."""
        is_code = False
        for number, line in self._lines(path):
            if _FENCE.match(line):
                is_code = not is_code
            elif not is_code:
                yield number, line

    def _lines(self, path: str) -> Iterator[tuple[int, str]]:
        return enumerate(self._read(path).splitlines(), start=1)

    def _read(self, path: str) -> str:
        if (file := self._file(path)) is None:
            raise ToolError(f"There is no file {path!r}. Use a path that list_files shows.")
        return file.read_text(encoding="utf-8-sig", errors="replace")

    def _file(self, path: str) -> Path | None:
        file = (self._root / path).resolve()
        is_inside = file.is_relative_to(self._root) and file.suffix in SUFFIXES and file.is_file()
        return file if is_inside else None
