"""PDF: the text of each page in drawing order, split into paragraphs by the gaps between lines, with the values of form fields.

Headings are entries of the outline that occur on a page, or, without an outline, lines in clearly larger type.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from statistics import median
from typing import Any, NamedTuple

import pypdfium2  # type: ignore[import-untyped] # ships no types
import pypdfium2.raw as pdfium  # type: ignore[import-untyped] # the same

from agno_workers.knowledge.readers.line_ends import CUT, UNSPACED, joined, words
from agno_workers.knowledge.readers.pdf_fields import fields
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed, Place

_MAX_PAGES = 20_000
_MAX_OUTLINE = 10_000
_LARGER = 1.15  # times the body's type size: a heading
_GAP = 1.35  # times the usual gap: a new paragraph
_MAX_HEADING_CHARS = 120
_MAX_OFFSET = 50  # a larger difference between a page and the number in a line of text: the number of an invoice, an article ...
_SPACED = re.compile(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")
_LINE = re.compile(rf"[^\S\r\n]*(?P<text>[^\r\n{CUT}]+{CUT}?)")
_NUMBER = re.compile(r"\d{1,9}")
_BULLET = re.compile(r"[•◦▪‣●–*-]\s+\S")
_SYMBOLS = {0xF0B7: "•", 0xF0A7: "▪"}
"""Bullets of the font Symbol."""
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_INFO = {"Author": "author", "Subject": "description", "Keywords": "keywords"}


class _Line(NamedTuple):
    text: str
    page: int
    size: float
    """Type size of its first character, in points."""
    bottom: float
    """Distance from the bottom of the page, in points."""
    is_field: bool = False
    is_outer: bool = False
    """True in the upper and the lower sixth of the page, where headers and footers are."""


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Metadata: pages, author, description, keywords, date, and `unread_pages` if some are broken."""
    try:
        document = pypdfium2.PdfDocument(content)
        document.init_forms()
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
    pages, filled, unread = _pages(document)
    metadata = _metadata(document)
    if unread:
        metadata["unread_pages"] = unread[:1000]
    if document.get_formtype() == pdfium.FORMTYPE_XFA_FULL and not any(filled):
        raise Unreadable(
            "unsupported", "It is an XFA form, whose content is not in its pages: print it to a PDF."
        )
    if not any(pages) and not any(filled):
        if len(unread) == len(document):
            raise Unreadable(
                "unreadable", f"None of its {len(unread):,} pages can be read: it is a broken PDF."
            )
        raise Unreadable(
            "empty",
            f"Its {len(document):,} pages contain no text, perhaps scanned images: run OCR first.",
        )
    pages = _without_running_heads(pages)
    lines = [line for page, found in zip(pages, filled, strict=True) for line in _with_fields(page, found)]
    levels = _Outline(document).levels(lines) or _by_type(lines)
    title = (document.get_metadata_value("Title") or "").strip("\0 ") or None
    return Parsed(tuple(_blocks(lines, levels)), title, metadata)


def _pages(document: pypdfium2.PdfDocument) -> tuple[list[list[_Line]], list[list[_Line]], list[int]]:
    """Return the lines of each page, its form fields, and the numbers of unreadable pages."""
    pages: list[list[_Line]] = []
    filled: list[list[_Line]] = []
    unread: list[int] = []
    chars = 0
    for index in range(len(document)):
        try:
            page = document[index]
            try:
                lines = _lines(page.get_textpage(), index + 1, page.get_cropbox())
                values = [_Line(text, index + 1, 0.0, bottom, True) for text, bottom in fields(page)]
            finally:
                page.close()
        except pypdfium2.PdfiumError:
            unread.append(index + 1)
            continue
        pages.append(lines)
        filled.append(values)
        chars += sum(len(line.text) for line in (*lines, *values))
        if chars > MAX_CHARS:
            raise too_long(chars)
    return pages, filled, unread


def _with_fields(page: list[_Line], fields: list[_Line]) -> Iterator[_Line]:
    """Put each field behind the line of text that is nearest to its height."""
    behind: dict[int, list[_Line]] = {}
    for field in fields:
        nearest = min(range(len(page)), key=lambda at: abs(page[at].bottom - field.bottom), default=-1)
        behind.setdefault(nearest, []).append(field)
    yield from behind.get(-1, [])
    for at, line in enumerate(page):
        yield line
        yield from behind.get(at, [])


def _lines(
    textpage: pypdfium2.PdfTextPage, number: int, box: tuple[float, float, float, float]
) -> list[_Line]:
    lines: list[_Line] = []
    low, high = box[1] + (box[3] - box[1]) / 6, box[3] - (box[3] - box[1]) / 6
    try:
        for found in _LINE.finditer(textpage.get_text_range()):
            if text := found["text"].rstrip().replace(CUT, "-").translate(_SYMBOLS):
                first = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, found.start("text"))
                bottom = textpage.get_charbox(first, loose=True)[1] if first >= 0 else 0.0
                size = _type_size(textpage, max(first, 0))
                is_outer = not low < bottom < high
                lines.append(
                    _Line(
                        _unspaced(textpage, text, first),
                        number,
                        round(size * 2) / 2,
                        bottom,
                        is_outer=is_outer,
                    )
                )
    finally:
        textpage.close()
    return lines


def _type_size(textpage: pypdfium2.PdfTextPage, at: int) -> float:
    """Return the type size of a character in points: that of its font, scaled by its matrix. Some programs set all fonts to 1."""
    size = float(pdfium.FPDFText_GetFontSize(textpage, at))
    matrix = pdfium.FS_MATRIX()
    is_known = pdfium.FPDFText_GetMatrix(textpage, at, matrix)
    return size * math.hypot(matrix.c, matrix.d) if is_known else size


def _unspaced(textpage: pypdfium2.PdfTextPage, text: str, first: int) -> str:
    """Remove the blanks that pdfium puts between spaced Chinese or Japanese characters. Wider gaps separate columns."""

    def without(blank: re.Match[str]) -> str:
        at = first + blank.start()
        if first < 0 or not pdfium.FPDFText_IsGenerated(textpage, at):
            return " "
        gap = textpage.get_charbox(at + 1)[0] - textpage.get_charbox(at - 1)[2]
        return "" if gap < pdfium.FPDFText_GetFontSize(textpage, at - 1) else " "

    return _SPACED.sub(without, text)


def _metadata(document: pypdfium2.PdfDocument) -> dict[str, Any]:
    found: dict[str, Any] = {"pages": len(document)}
    for key, kept in _INFO.items():
        if value := (document.get_metadata_value(key) or "").strip("\0 ")[:2000]:
            found[kept] = value
    if date := _DATE.match(document.get_metadata_value("CreationDate") or ""):
        found["date"] = "-".join(filter(None, date.groups()))
    return found


def _without_running_heads(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Remove page headers and footers: first and last lines that many pages share, and page numbers. A number is one of the page if it
    counts with the pages; others, such as those of a table or an invoice, stay, and so does a line in the middle of its page, such as the
    only point of a slide.
    """
    shared: Counter[str] = Counter()
    counting: Counter[tuple[str, int, int]] = Counter()
    for number, page in enumerate(pages):
        for line in {line.text: line for line in (*page[:1], *page[-1:])}.values():
            shared[line.text] += 1
            counting.update(_counters(line, number))
    body = _body_size(line for page in pages for line in page)

    def runs(page: list[_Line], at: int, number: int) -> bool:
        line = page[at]
        is_number = not _without_numbers(line.text)
        if shared[line.text] >= 3 and not is_number:
            return shared[line.text] >= len(pages) * 0.3
        if line.size > body or len(page) == 1:
            return False
        if is_number:
            return any(counting[counter] >= 2 for counter in _counters(line, number))
        gap = abs(line.bottom - page[1 if at == 0 else -2].bottom)
        return (
            line.is_outer
            and gap > 2 * line.size
            and any(
                counting[counter] >= 3 and 0 <= counter[2] + number <= len(pages) + _MAX_OFFSET
                for counter in _counters(line, number)
            )
        )

    kept = []
    for number, page in enumerate(pages):
        first = 1 if page and runs(page, 0, number) else 0
        last = len(page) - 1 if len(page) > first and runs(page, -1, number) else len(page)
        kept.append(page[first:last])
    return kept


def _counters(line: _Line, page: int) -> set[tuple[str, int, int]]:
    """Return for each number of a line: the text around it, its place, and the difference between it and the page, which is the same
    on all pages if it is a page number.
    """
    found = list(_NUMBER.finditer(line.text[:200]))
    return {
        (f"{line.text[: at.start()]}#{_NUMBER.sub('', line.text[at.end() :])}", place, int(at.group()) - page)
        for place, at in enumerate(found)
    }


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
            if not line.is_field
            and len(line.text) <= _MAX_HEADING_CHARS
            and (level := self._levels.get(_key(line.text)))
        }


def _key(text: str) -> str:
    """Normalise a title: only one of the outline and the page may have its number."""
    return re.sub(r"[\W\d_]+", "", text[:300]).casefold()


def _by_type(lines: list[_Line]) -> dict[int, int]:
    """Return the indexes of short lines in larger type, with levels by size."""
    body = _body_size(lines)
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
    if sum(len(lines[place].text) for place in large) > sum(len(line.text) for line in lines) // 3:
        return {}  # a poster: so much large type is not headings
    return {place: min(sizes.index(size) + 1, 6) for place, size in large.items()}


def _body_size(lines: Iterable[_Line]) -> float:
    """Return the type size of most of the text."""
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.size] += 0 if line.is_field else len(line.text)
    return weights.most_common(1)[0][0] if weights else 0.0


def _blocks(lines: list[_Line], levels: dict[int, int]) -> Iterator[Block]:
    usual = _usual_gap(lines)
    known = words(line.text for line in lines)
    for paragraph in _paragraphs(lines, levels, usual):
        first = lines[paragraph[0]]
        pages = Place("page", first.page, lines[paragraph[-1]].page)
        texts = [lines[place].text for place in paragraph]
        if first.is_field:
            yield Block("list", "\n".join(f"- {text}" for text in texts), place=pages)
        elif level := levels.get(paragraph[0]):
            yield Block("heading", joined(texts, known), level=level, place=pages)
        else:
            text = joined(texts, known)
            yield Block("list" if _BULLET.match(first.text) else "paragraph", text, place=pages)


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
    if line.is_field or last.is_field:
        return line.page != last.page or line.is_field != last.is_field
    if level != last_level or _BULLET.match(line.text):
        return True
    if line.page != last.page:  # a word may go on there
        return not (last.text.endswith("-") and line.text[0].islower())
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
        if last.size == line.size > 0 and 0 < (gap := last.bottom - line.bottom) < 100
    ]
    counts = Counter(map(round, gaps))
    if not counts:
        return 12.0
    common = max(counts, key=lambda rounded: (counts[rounded], -rounded))
    return median(gap for gap in gaps if round(gap) == common)
