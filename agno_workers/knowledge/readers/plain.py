"""Plain text: paragraphs separated by blank lines, and recognisable headings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.wrapped import unwrapped
from agno_workers.knowledge.types import Block, Parsed

# `1.  Introduction`, `3.2.1 Terminology`: alone between blank lines, at the margin, not a sentence. One number with one
# space is excluded, because lists start like that.
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3}){1,5}\.?[ \t]{1,3}|\d{1,3}\.[ \t]{2,3})([^\W\d_][^\n]{0,80})")
_UNDERLINES = "=-~^*#"  # the first two are those of Markdown, the others of reStructuredText
_PAGE_FOOT = re.compile(r"\[Page [\divxlc]{1,6}\]\s{0,9}$")
_BULLET = re.compile(r"\s{0,12}(?:[-*•+o]|\d{1,3}[.)])\s+\S")


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Read without a title: a first line may be anything."""
    return Parsed(tuple(blocks(decode(content, charset_of(media_type)))))


def blocks(text: str) -> Iterator[Block]:
    """Return the blocks of plain text, such as that of an e-mail."""
    for lines in _paragraphs(_without_page_breaks(text)):
        yield from _block(lines)


def _without_page_breaks(text: str) -> list[str]:
    """Return the lines without page footers and headers, as in RFCs."""
    if "\f" not in text:
        return text.splitlines()
    lines: list[str] = []
    for number, page in enumerate(text.split("\f")):
        on_page = page.strip("\r\n").splitlines()
        cut = bool(lines) and bool(_PAGE_FOOT.search(lines[-1][-40:]))
        if cut:
            lines.pop()
            while lines and not lines[-1].strip():
                lines.pop()
        lines += [""] if number else []
        lines += on_page[1:] if cut else on_page
    return lines


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line.rstrip())
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph


def _block(lines: list[str]) -> Iterator[Block]:
    first = lines[0].strip()
    if len(lines) == 1 and len(first) <= 100 and first == lines[0]:
        found = _NUMBERED.fullmatch(first)
        if found and not first.endswith((".", ",", ";", ":")):
            yield Block("heading", first, level=found[1].rstrip(" \t.").count(".") + 1)
            return
    start = 0
    while len(lines) - start >= 2 and (level := _underlined(lines[start].strip(), lines[start + 1])):
        yield Block("heading", lines[start].strip(), level=level)
        start += 2
    if rest := lines[start:]:
        margin = min(len(line) - len(line.lstrip()) for line in rest)
        lines = [line[margin:] for line in rest]
        yield Block("list", "\n".join(lines)) if _is_list(lines) else Block("paragraph", unwrapped(lines))


def _is_list(lines: list[str]) -> bool:
    bullets = sum(_BULLET.match(line[:40]) is not None for line in lines)
    return _BULLET.match(lines[0][:40]) is not None and (bullets > 1 or len(lines) == 1)


def _underlined(text: str, line: str) -> int:
    """Return the level of a heading by its underline; 0 if it is not a heading."""
    mark = line[:1]
    if not mark or mark not in _UNDERLINES or line.strip(mark) or not 3 <= len(text) <= 100:
        return 0
    return _UNDERLINES.index(mark) + 1 if len(line) >= min(len(text) - 1, 8) and text.strip(mark) else 0
