"""PDF: the text of each page in drawing order, split into paragraphs by the gaps between lines.

Headings are entries of the outline that occur on a page, or, without an outline, lines in clearly larger type.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from statistics import median
from typing import Any, NamedTuple

import pypdfium2  # type: ignore[import-untyped] # ships no types
import pypdfium2.raw as pdfium  # type: ignore[import-untyped] # the same

from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed

_MAX_PAGES = 20_000
_MAX_OUTLINE = 10_000
_LARGER = 1.15  # times the body's type size: a heading
_GAP = 1.35  # times the usual gap: a new paragraph
_MAX_HEADING_CHARS = 120
_HYPHEN = "\ufffe"  # pdfium's mark for a word that a line end cut
_BULLET = re.compile(r"[•◦▪‣●–*-]\s+\S")
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_INFO = {"Author": "author", "Subject": "description", "Keywords": "keywords"}


class _Line(NamedTuple):
    text: str
    page: int
    size: float
    """Type size of its first character, in points."""
    bottom: float
    """Distance from the bottom of the page, in points."""


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Metadata: pages, author, description, keywords, date, and `unread_pages` if some are broken."""
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise Unreadable(
                "encrypted", "It is a password-protected PDF: save it without a password."
            ) from error
        raise Unreadable("unreadable", f"It is a broken PDF: {error}") from error
    try:
        return _parsed(document)
    finally:
        document.close()


def _parsed(document: pypdfium2.PdfDocument) -> Parsed:
    if len(document) > _MAX_PAGES:
        raise Unreadable("too_large", f"It has {len(document):,} pages; the limit is {_MAX_PAGES:,}.")
    pages, unread = _pages(document)
    metadata = _metadata(document)
    if unread:
        metadata["unread_pages"] = unread[:1000]
    if not any(pages):
        if len(unread) == len(document):
            raise Unreadable(
                "unreadable", f"None of its {len(unread):,} pages can be read: it is a broken PDF."
            )
        raise Unreadable(
            "empty",
            f"Its {len(document):,} pages contain no text, perhaps scanned images: run OCR first.",
        )
    lines = [line for page in _without_running_heads(pages) for line in page]
    levels = _Outline(document).levels(lines) or _by_type(lines)
    title = (document.get_metadata_value("Title") or "").strip("\0 ") or None
    return Parsed(tuple(_blocks(lines, levels)), title, metadata)


def _pages(document: pypdfium2.PdfDocument) -> tuple[list[list[_Line]], list[int]]:
    """Return the lines of each page, and the numbers of unreadable pages."""
    pages: list[list[_Line]] = []
    unread: list[int] = []
    chars = 0
    for index in range(len(document)):
        try:
            page = document[index]
            try:
                pages.append(_lines(page.get_textpage(), index + 1))
            finally:
                page.close()
        except pypdfium2.PdfiumError:
            unread.append(index + 1)
            continue
        chars += sum(len(line.text) for line in pages[-1])
        if chars > MAX_CHARS:
            raise too_long(chars)
    return pages, unread


def _lines(textpage: pypdfium2.PdfTextPage, number: int) -> list[_Line]:
    lines: list[_Line] = []
    try:
        start = 0
        for text in textpage.get_text_range().split("\r\n"):
            if words := text.replace(_HYPHEN, "").strip():
                first = pdfium.FPDFText_GetCharIndexFromTextIndex(
                    textpage, start + len(text) - len(text.lstrip())
                )
                bottom = textpage.get_charbox(first, loose=True)[1] if first >= 0 else 0.0
                size = pdfium.FPDFText_GetFontSize(textpage, max(first, 0))
                lines.append(_Line(words, number, round(size * 2) / 2, bottom))
            start += len(text) + 2
    finally:
        textpage.close()
    return lines


def _metadata(document: pypdfium2.PdfDocument) -> dict[str, Any]:
    found: dict[str, Any] = {"pages": len(document)}
    for key, kept in _INFO.items():
        if value := (document.get_metadata_value(key) or "").strip("\0 ")[:2000]:
            found[kept] = value
    if date := _DATE.match(document.get_metadata_value("CreationDate") or ""):
        found["date"] = "-".join(filter(None, date.groups()))
    return found


def _without_running_heads(pages: list[list[_Line]]) -> Iterator[list[_Line]]:
    """Remove page headers and footers: first and last lines that many pages share, ignoring numbers, and lone page numbers."""
    shared: Counter[str] = Counter()
    for page in pages:
        shared.update({_without_numbers(line.text) for line in (*page[:1], *page[-1:])})

    def runs(line: _Line) -> bool:
        key = _without_numbers(line.text)
        if not key:
            return len(pages) > 1
        numbered = key != line.text.strip()
        return shared[key] >= 3 and (numbered or shared[key] >= len(pages) * 0.3)

    for page in pages:
        kept = page[1:] if page and runs(page[0]) else page
        yield kept[:-1] if kept and runs(kept[-1]) else kept


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "", text[:200]).strip(" -–|/.")


class _Outline:
    """The bookmarks: titles with their levels, limited in number."""

    def __init__(self, document: pypdfium2.PdfDocument) -> None:
        self._levels: dict[str, int] = {}
        for count, bookmark in enumerate(document.get_toc(max_depth=6)):
            if count >= _MAX_OUTLINE:
                break
            self._levels.setdefault(_key(bookmark.get_title()), bookmark.level + 1)
        self._levels.pop("", None)

    def levels(self, lines: list[_Line]) -> dict[int, int]:
        """Return the lines that are headings, by their index."""
        if not self._levels:
            return {}
        return {
            place: level
            for place, line in enumerate(lines)
            if len(line.text) <= _MAX_HEADING_CHARS and (level := self._levels.get(_key(line.text)))
        }


def _key(text: str) -> str:
    """Normalise a title: only one of the outline and the page may have its number."""
    return re.sub(r"[\W\d_]+", "", text[:300]).casefold()


def _by_type(lines: list[_Line]) -> dict[int, int]:
    """Return the indexes of short lines in larger type, with levels by size."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.size] += len(line.text)
    body = weights.most_common(1)[0][0] if weights else 0.0
    if body <= 0:
        return {}
    large = {
        place: line.size
        for place, line in enumerate(lines)
        if line.size > body * _LARGER
        and len(line.text) <= _MAX_HEADING_CHARS
        and any(map(str.isalpha, line.text))
    }
    sizes = sorted(set(large.values()), reverse=True)
    if sum(len(lines[place].text) for place in large) > sum(weights.values()) // 3:
        return {}  # a poster: so much large type is not headings
    return {place: min(sizes.index(size) + 1, 6) for place, size in large.items()}


def _blocks(lines: list[_Line], levels: dict[int, int]) -> Iterator[Block]:
    usual = _usual_gap(lines)
    for paragraph in _paragraphs(lines, levels, usual):
        first = lines[paragraph[0]]
        text = _joined(lines[place].text for place in paragraph)
        if level := levels.get(paragraph[0]):
            yield Block("heading", text, level=level, page=first.page)
        else:
            yield Block("list" if _BULLET.match(first.text) else "paragraph", text, page=first.page)


def _paragraphs(lines: list[_Line], levels: dict[int, int], usual: float) -> Iterator[list[int]]:
    """Group the line indexes by paragraph or heading."""
    paragraph: list[int] = []
    for place, line in enumerate(lines):
        if paragraph and _begins(line, lines[place - 1], levels.get(place), levels.get(place - 1), usual):
            yield paragraph
            paragraph = []
        paragraph.append(place)
    if paragraph:
        yield paragraph


def _begins(line: _Line, last: _Line, level: int | None, last_level: int | None, usual: float) -> bool:
    """Return whether a paragraph starts with this line. A heading may have two lines."""
    if line.page != last.page or level != last_level or _BULLET.match(line.text):
        return True
    gap = last.bottom - line.bottom
    if gap < -usual:  # the next column
        return last.text.endswith((".", "!", "?", ":"))
    return gap > usual * _GAP * max(1.0, line.size / (last.size or 1))


def _usual_gap(lines: list[_Line]) -> float:
    """Return the usual gap between lines of a paragraph: the smallest of the most frequent ones."""
    gaps = [
        gap
        for _, page in groupby(lines[:5000], key=lambda line: line.page)
        for last, line in pairwise(page)
        if last.size == line.size and 0 < (gap := last.bottom - line.bottom) < 100
    ]
    counts = Counter(map(round, gaps))
    if not counts:
        return 12.0
    common = max(counts, key=lambda rounded: (counts[rounded], -rounded))
    return median(gap for gap in gaps if round(gap) == common)


def _joined(lines: Iterable[str]) -> str:
    """Join lines, and words that were hyphenated at a line end."""
    parts: list[str] = []
    for text in lines:
        if parts and _cut(parts[-1]) and text[:1].islower():
            parts[-1] = parts[-1][:-1] + text
        else:
            parts.append(text)
    return " ".join(parts)


def _cut(text: str) -> bool:
    return len(text) > 1 and text.endswith(("-", "\u00ad", "\u2010")) and text[-2].isalpha()
