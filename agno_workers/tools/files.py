"""A ready-made toolkit: read-only tools over one folder of text and Markdown files.

Made for demos and for giving an agent a folder of notes. It never writes, never leaves its folder (symbolic
links that point outside are refused), and reads UTF-8 files of the allowed suffixes only.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
from pydantic import Field

from agno_workers.core.tool import Effect
from agno_workers.errors import InvalidInput, ToolError
from agno_workers.tools.decorate import tool
from agno_workers.tools.toolkit import Toolkit

_TEXT_SUFFIXES = (".md", ".markdown", ".txt", ".rst")
_MAX_FILE_BYTES = 10 * 1024 * 1024
_MAX_LISTED = 1000
_MAX_LINE_CHARS = 500

# A match holds the interpreter's lock, so each of these passes over a text once, whatever stands in it.
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t](.*))?")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t])#+$")
_LINK = re.compile(
    r"(?<!!)\[([^\[\]]{0,500})\]\([ \t]*<?([^\[)\s>]{1,2000}+)>?(?:[ \t][^\[)]{0,500}+)?\)"
    r"|<(https?://[^<>\s]{1,2000}+)>"
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

FilePath = Annotated[
    str, Field(description="Path of the file, relative to the folder, as list_files shows it")
]
Count = Annotated[int, Field(ge=1, le=1000)]


class Match(msgspec.Struct, frozen=True):
    """A line that holds what was searched."""

    path: str
    line: int
    """Counted from 1."""
    text: str


class Heading(msgspec.Struct, frozen=True):
    level: int
    """1 to 6."""
    text: str
    line: int


class Line(msgspec.Struct, frozen=True):
    line: int
    """Counted from 1; 0 for an empty file."""
    chars: int
    text: str


class Link(msgspec.Struct, frozen=True):
    text: str
    target: str
    line: int


class FileAge(msgspec.Struct, frozen=True):
    modified_at: datetime
    """UTC."""
    days: float


class FileTools(Toolkit):
    """Read-only tools over the text files below `root`.

    `suffixes`: which files exist for the model; files and folders whose name starts with a dot never do.
    Raises InvalidInput when `root` is not a folder.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        suffixes: Iterable[str] = _TEXT_SUFFIXES,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
    ) -> None:
        self._root = Path(root).resolve()
        self._suffixes = frozenset(suffixes)
        if not self._root.is_dir():
            raise InvalidInput(f"{str(root)!r} is not a folder: create it, or hand in the path of one.")
        super().__init__("files", include=include, exclude=exclude)

    def __repr__(self) -> str:
        return f"FileTools({str(self._root)!r})"

    @tool(effect=Effect.PURE)
    def list_files(self, pattern: str = "*") -> list[str]:
        """List the files of the folder and its subfolders, sorted; at most 1000.

        Args:
            pattern: Which paths to list, such as "*.md" or "guides/*"; * also spans subfolders.
        """
        paths = (self._relative(path) for path in self._files())
        return list(islice((path for path in paths if fnmatch.fnmatchcase(path, pattern)), _MAX_LISTED))

    @tool(effect=Effect.PURE)
    def read_file(self, path: FilePath, max_chars: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000) -> str:
        """Read a file from its beginning.

        Args:
            max_chars: How many characters to read at the most; what is left out is said at the end.
        """
        text = self._read(path)
        if len(text) <= max_chars:
            return text
        return f"{text[:max_chars]}\n[{len(text) - max_chars} more characters; raise max_chars to see them]"

    @tool(effect=Effect.PURE)
    def search_text(self, query: Annotated[str, Field(min_length=1)], max_matches: Count = 50) -> list[Match]:
        """Find the lines, in all files, that contain a text; upper and lower case count as the same.

        Args:
            query: The text to find, taken literally.
            max_matches: How many lines to return at the most.
        """
        return list(islice(self._matches(query.casefold()), max_matches))

    @tool(effect=Effect.PURE)
    def word_count(self, path: FilePath) -> int:
        """Count the words of a file."""
        return sum(1 for _ in _WORD.finditer(self._read(path)))

    @tool(effect=Effect.PURE)
    def headings(self, path: FilePath) -> list[Heading]:
        """List the headings of a Markdown file (lines that start with #, outside code blocks)."""
        found = ((number, _HEADING.fullmatch(line)) for number, line in _prose(self._read(path)))
        return [Heading(len(match[1]), _heading_text(match[2]), number) for number, match in found if match]

    @tool(effect=Effect.PURE)
    def longest_line(self, path: FilePath) -> Line:
        """Find the longest line of a file, the first of them; text past 500 characters is left out."""
        lines = enumerate(self._read(path).splitlines(), start=1)
        number, text = max(lines, key=lambda numbered: len(numbered[1]), default=(0, ""))
        return Line(number, len(text), text[:_MAX_LINE_CHARS])

    @tool(effect=Effect.PURE)
    def count_code_blocks(self, path: FilePath) -> int:
        """Count the fenced code blocks of a Markdown file (``` or ~~~); one that is never closed counts too."""
        return sum(1 for _, _, opens in _lines_with_fences(self._read(path)) if opens)

    @tool(effect=Effect.PURE)
    def most_common_words(self, path: FilePath, n: Count = 10) -> dict[str, int]:
        """Count how often each word of a file occurs, in lower case, and return the most frequent.

        Args:
            n: How many words to return.
        """
        words = Counter(match[0].lower() for match in _WORD.finditer(self._read(path)))
        return dict(sorted(words.items(), key=lambda item: (-item[1], item[0]))[:n])

    @tool(effect=Effect.PURE)
    def links(self, path: FilePath) -> list[Link]:
        """List the links of a Markdown file, in order, without images and without those in code blocks."""
        return [
            Link(match[1] or "", match[2] or match[3], number)
            for number, line in _prose(self._read(path))
            for match in _LINK.finditer(line)
        ]

    @tool(effect=Effect.PURE)
    def file_age(self, path: FilePath) -> FileAge:
        """Tell when a file was last changed (UTC), and how many days ago that is."""
        modified_at = datetime.fromtimestamp(self._file(path).stat().st_mtime, UTC)
        age = datetime.now(UTC) - modified_at
        return FileAge(modified_at, round(age.total_seconds() / 86_400, 2))

    def _matches(self, query: str) -> Iterator[Match]:
        for file in self._files():
            path = self._relative(file)
            try:
                text = self._read(path)
            except ToolError:
                continue  # too large, or no text: it can't be read by itself either, and there it says why
            for number, line in enumerate(text.splitlines(), start=1):
                if query in line.casefold():
                    yield Match(path, number, line[:_MAX_LINE_CHARS])

    def _files(self) -> list[Path]:
        return sorted(path for path in self._root.rglob("*") if self._is_offered(path))

    def _is_offered(self, path: Path) -> bool:
        """Whether a file exists for the model. Decided on where it really is, past all symbolic links."""
        real = _real(path)
        if real is None or not real.is_relative_to(self._root) or not _is_file(real):
            return False
        names = [*path.relative_to(self._root).parts, *real.relative_to(self._root).parts]
        suffixes_fit = {path.suffix, real.suffix} <= self._suffixes
        return suffixes_fit and not any(name.startswith(".") for name in names)

    def _file(self, path: str) -> Path:
        """The real path. Raises ToolError for anything outside the folder, in words that tell nothing of it."""
        real = _real(self._root / path)
        if real is not None and not real.is_relative_to(self._root):
            raise ToolError(f"{path!r} lies outside the folder. Use a path that list_files shows.")
        if real is None or not self._is_offered(real):
            raise ToolError(f"There is no file {path!r} here. Use a path that list_files shows.")
        return real

    def _read(self, path: str) -> str:
        file = self._file(path)
        try:
            if file.stat().st_size > _MAX_FILE_BYTES:
                raise ToolError(
                    f"{path!r} is larger than {_MAX_FILE_BYTES // 1024**2} MiB. Use another file."
                )
            return file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ToolError(f"{path!r} is not UTF-8 text. Use another file.") from None
        except OSError as error:
            raise ToolError(f"{path!r} can't be read ({error.strerror}). Use another file.") from error

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long
        return False


def _heading_text(text: str | None) -> str:
    """Without the `##` that may close a heading as they opened it."""
    return _CLOSING_HASHES.sub("", (text or "").strip()).strip()


def _real(path: Path) -> Path | None:
    """Past all symbolic links; None where there can't be a file: a loop of links, a NUL."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines outside code blocks."""
    return ((number, line) for number, line, opens in _lines_with_fences(text) if opens is None)


def _lines_with_fences(text: str) -> Iterator[tuple[int, str, bool | None]]:
    """Numbered lines, and for each: True where it opens a code block, False inside it and at its end, None outside."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _FENCE.fullmatch(line)
        if fence:
            yield number, line, False
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
        elif match and not (match[1][0] == "`" and "`" in match[2]):
            fence = match[1]
            yield number, line, True
        else:
            yield number, line, None
