"""DOCX: the body in order, without tracked deletions and hidden text. Notes, comments and text boxes follow the paragraph, list or table
that they belong to; page headers come first and footers last.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from docx.document import Document
from docx.opc.exceptions import PackageNotFoundError
from docx.opc.part import PartFactory
from docx.oxml import parse_xml
from docx.oxml.ns import nsmap, qn
from docx.package import Package
from docx.parts.document import DocumentPart

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.equations import EQUATION, equation
from agno_workers.knowledge.readers.office_xml import alternative_text, walk
from agno_workers.knowledge.readers.properties import metadata
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.titles import best
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed

_VARIANTS = (  # with macros, and templates; python-docx refuses them
    "application/vnd.ms-word.document.macroEnabled.main+xml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
)
PartFactory.part_type_for.update(dict.fromkeys(_VARIANTS, DocumentPart))

_W = {"w": nsmap["w"]}
_P, _TBL, _TR, _TC, _BOX = map(qn, ("w:p", "w:tbl", "w:tr", "w:tc", "w:txbxContent"))
_TEXT, _SYMBOL, _PICTURE, _ID, _VALUE = map(qn, ("w:t", "w:sym", "wp:docPr", "w:id", "w:val"))
_SIGNS = {
    qn("w:tab"): "\t",
    qn("w:ptab"): "\t",
    qn("w:br"): "\n",
    qn("w:cr"): "\n",
    qn("w:noBreakHyphen"): "-",
}
_LIST, _DEPTH = "w:pPr/w:numPr/w:numId", "w:pPr/w:numPr/w:ilvl"
_CODE = ("code", "html preformatted", "source", "macro text")
"""The beginnings of the names of styles for code."""
_CHECKS = {"F06F": "☐", "F0A8": "☐", "F0FC": "✓", "F0FD": "☒", "F0FE": "☑"}
"""Check boxes in the font Wingdings."""
_HIDDEN = {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr"), qn("w:rt")}
"""Elements without text to be read: deletions, properties, pronunciations."""
_NOTES = {
    qn("w:footnoteReference"): "footnotes",
    qn("w:endnoteReference"): "endnotes",
    qn("w:commentReference"): "comments",
}
_PAGE_NUMBER_LETTERS = 10
"""A paragraph with a page number and at most so many letters (`Page 1 of 3`) says nothing else."""


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the title of the file, or the paragraph with the style Title."""
    archive.check(content)
    try:
        part = Package.open(io.BytesIO(content)).main_document_part
    except (PackageNotFoundError, KeyError, ValueError, SyntaxError) as error:
        raise Unreadable("unreadable", f"It is a broken DOCX file: {error}") from error
    body = part.element.find(qn("w:body")) if isinstance(part, DocumentPart) else None
    if body is None:
        raise Unreadable("unreadable", "It is a broken DOCX file: its main part is not a document.")
    reader = _Reader(part.document)
    blocks = (*reader.margins("header"), *reader.blocks(body), *reader.margins("footer"))
    properties = part.document.core_properties
    return Parsed(blocks, best(properties.title.strip(), reader.title), metadata(properties))


class _Reader:
    def __init__(self, document: Document) -> None:
        self.title: str | None = None
        self._part = document.part
        self._styles = {
            style.get(qn("w:styleId"), ""): style for style in document.styles.element.iter(qn("w:style"))
        }
        self._notes = {
            (kind, note.get(_ID, "")): note
            for kind in _NOTES.values()
            for root in _related(self._part, kind)
            for note in root
        }
        """Notes that have not been read yet, by their kind and id."""
        self._note_count = 0
        self._items: list[str] = []
        """The current list."""
        self._waiting: list[tuple[str, Any]] = []
        """Notes, comments, text boxes and pictures of the current paragraph, list or table: how each begins, and its element."""

    def blocks(self, body: Any) -> Iterator[Block]:
        """Yield paragraphs and tables, including those in content controls; paragraphs in tables belong to the table."""
        for element in _outermost(body, {_P, _TBL, EQUATION}):
            if element.tag == _TBL:
                yield from self._list()
                yield from filter(None, [self._table(element)])
                yield from self._follow()
            elif text := equation(element) if element.tag == EQUATION else self._text(element).strip():
                yield from self._paragraph(element, text)
            elif not self._items:
                yield from self._follow()
        yield from self._list()

    def margins(self, kind: str) -> Iterator[Block]:
        """Yield the lines of page headers or footers, each once, without page numbers."""
        texts: dict[str, None] = {}
        for root in _related(self._part, kind):
            for paragraph in _outermost(root, {_P}):
                if not _is_page_number(paragraph):
                    texts[self._text(paragraph).strip()] = None
                    texts |= dict.fromkeys(block.text for block in self._follow())
        yield from (Block("paragraph", text) for text in texts if text)

    def _paragraph(self, element: Any, text: str) -> Iterator[Block]:
        chain = self._chain(element)
        names = [_value(style, "w:name").lower() for style in chain]
        level = _heading_level(chain)
        is_item = any(name.startswith("list") for name in names) or _nearest(chain, _LIST) not in ("", "0")
        if is_item and not level:
            depth = _nearest(chain, _DEPTH)
            self._items.append(f"{'  ' * (int(depth) if depth in set('12345678') else 0)}- {text}")
            return
        yield from self._list()
        if level:
            if "title" in names:
                self.title = self.title or text
            yield Block("heading", " ".join(text.split()), level=level)
        else:
            yield Block("code" if any(name.startswith(_CODE) for name in names) else "paragraph", text)
        yield from self._follow()

    def _table(self, element: Any) -> Block | None:
        """Read a table. The text of a merged cell is repeated in each of its rows and columns."""
        rows: list[list[str]] = []
        for row in _outermost(element, {_TR}):
            if row.find("w:trPr/w:del", _W) is not None:
                continue
            cells = list(_outermost(row, {_TC}))
            texts = [""] * _count(row, "w:trPr/w:gridBefore")
            for cell in cells:
                merged = cell.find("w:tcPr/w:vMerge", _W)
                continues = merged is not None and merged.get(_VALUE) != "restart"
                above = rows[-1][len(texts) :] if continues and rows else []
                text = above[0] if above else self._text(cell, " ")
                texts += [text] * max(_count(cell, "w:tcPr/w:gridSpan"), 1)
            rows.append(texts if len(cells) > 1 else texts[-1:])  # a title over the whole width: once
        return table(rows)

    def _text(self, root: Any, between: str = "\n") -> str:
        """Return the text of an element, with its paragraphs separated. What follows it is put into `_waiting`."""
        parts: list[str] = []
        for element in walk(root, {*_HIDDEN, EQUATION, _BOX}):
            tag = element.tag
            if tag == _TEXT or tag in _SIGNS:
                if not _is_on(element.getparent(), "w:rPr/w:vanish"):
                    parts.append(_SIGNS.get(tag) or element.text or "")
            elif tag == _P and parts:
                parts.append(between)
            elif tag == EQUATION:
                parts.append(equation(element))
            elif tag == _SYMBOL:
                parts.append(_CHECKS.get(element.get(qn("w:char"), "").upper(), ""))
            elif tag in _NOTES:
                parts.append(self._note(element, _NOTES[tag]))
            elif tag == _BOX:
                self._waiting.append(("", element))
            elif tag == _PICTURE and (text := alternative_text(element)):
                self._waiting.append((f"Image: {text}", ()))
        return "".join(parts)

    def _note(self, reference: Any, kind: str) -> str:
        """Return the sign of a footnote or endnote; comments have none."""
        note = self._notes.pop((kind, reference.get(_ID, "")), None)
        if note is None:
            return ""
        if kind == "comments":
            author = note.get(qn("w:author"), "").strip()
            self._waiting.append((f"Comment ({author}): " if author else "Comment: ", note))
            return ""
        self._note_count += 1
        self._waiting.append((f"[{self._note_count}] ", note))
        return f"[{self._note_count}]"

    def _list(self) -> Iterator[Block]:
        if self._items:
            yield Block("list", "\n".join(self._items))
            self._items.clear()
            yield from self._follow()

    def _follow(self) -> Iterator[Block]:
        for beginning, element in self._waiting:  # which grows, if a note has a note
            if text := (beginning + self._text(element).strip()).strip():
                yield Block("paragraph", text)
        self._waiting.clear()

    def _chain(self, paragraph: Any) -> list[Any]:
        """Return the paragraph, its style, the style that this is based on ...: the first that sets a property decides."""
        chain = [paragraph]
        name = _value(paragraph, "w:pPr/w:pStyle")
        while (style := self._styles.get(name)) is not None and style not in chain:
            chain.append(style)
            name = _value(style, "w:basedOn")
        return chain


def _related(part: Any, kind: str) -> Iterator[Any]:
    """Yield the roots of the parts with this relation to a part: `comments`, `footnotes`, `header` ... Raises Unreadable."""
    for relation in part.rels.values():
        if relation.reltype.rpartition("/")[2] == kind and not relation.is_external:
            try:
                yield parse_xml(relation.target_part.blob)
            except SyntaxError as error:
                name = relation.target_part.partname
                raise Unreadable("unreadable", f"{name} in it is broken XML: {error}") from error


def _outermost(root: Any, tags: set[str]) -> Iterator[Any]:
    """Yield the outermost visible elements with these tags."""
    return (element for element in walk(root, tags | _HIDDEN) if element.tag in tags)


def _heading_level(chain: list[Any]) -> int:
    """Return the level by an outline level or the name of a style; 0 for text."""
    for element in chain:
        name = _value(element, "w:name").lower()
        outline = _value(element, "w:pPr/w:outlineLvl")
        if outline in set("0123456789"):
            return (int(outline) + 1) % 10  # 9 is text
        if name.startswith("heading ") and name[8:].isdecimal():
            return int(name[8]) or 1
        if name == "title":
            return 1
    return 0


def _nearest(chain: list[Any], path: str) -> str:
    """Return the value of the first element of a chain that sets it; empty if none does."""
    return next(filter(None, (_value(element, path) for element in chain)), "")


def _value(element: Any, path: str) -> str:
    found = element.find(path, _W)
    return "" if found is None else found.get(_VALUE, "")


def _count(element: Any, path: str) -> int:
    value = _value(element, path)
    return min(int(value), 1000) if value.isdecimal() and len(value) < 9 else 0


def _is_on(element: Any, path: str) -> bool:
    found = element.find(path, _W)
    return found is not None and found.get(_VALUE, "1") not in ("0", "false", "off")


def _is_page_number(paragraph: Any) -> bool:
    codes = [found.text or "" for found in paragraph.iter(qn("w:instrText"))]
    codes += [found.get(qn("w:instr"), "") for found in paragraph.iter(qn("w:fldSimple"))]
    letters = sum(map(str.isalpha, "".join(found.text or "" for found in paragraph.iter(_TEXT))))
    return any("PAGE" in code.upper() for code in codes) and letters <= _PAGE_NUMBER_LETTERS
