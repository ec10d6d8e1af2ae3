"""DOCX: the body in order, with headings by style and lists by numbering, without tracked deletions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import docx
from docx.document import Document
from docx.opc.exceptions import PackageNotFoundError
from docx.oxml.ns import qn

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.properties import metadata
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed

_P, _TBL, _TR, _TC = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_WORDS = {qn("w:t"): None, qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
# Hidden elements: deletions, field codes, fallback drawings.
_HIDDEN = {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr"), "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}  # fmt: skip


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the title of the file, or the paragraph with the style Title."""
    archive.check(content)
    try:
        document = docx.Document(io.BytesIO(content))
    except (PackageNotFoundError, KeyError, ValueError, SyntaxError) as error:
        raise Unreadable("unreadable", f"It is a broken DOCX file: {error}") from error
    reader = _Reader(document)
    blocks = tuple(reader.blocks(document.element.body))
    return Parsed(
        blocks, document.core_properties.title.strip() or reader.title, metadata(document.core_properties)
    )


class _Reader:
    def __init__(self, document: Document) -> None:
        self.title: str | None = None
        self._styles = {style.style_id: style.name or "" for style in document.styles}
        self._items: list[str] = []

    def blocks(self, body: Any) -> Iterator[Block]:
        """Yield paragraphs and tables, including those in content controls; paragraphs in tables belong to the table."""
        for element in _top(body, {_P, _TBL}):
            if element.tag == _TBL:
                yield from self._list()
                rows = (_top(row, {_TC}) for row in _top(element, {_TR}))
                yield from filter(None, [table((_text(cell, " ") for cell in cells) for cells in rows)])
            elif text := _text(element).strip():
                yield from self._paragraph(element, text)
        yield from self._list()

    def _paragraph(self, element: Any, text: str) -> Iterator[Block]:
        properties = element.find(qn("w:pPr"))
        style, level = self._style(properties)
        if level:
            yield from self._list()
            if style == "Title":
                self.title = self.title or text
            yield Block("heading", " ".join(text.split()), level=level)
        elif style.startswith("List") or (
            properties is not None and properties.find(qn("w:numPr")) is not None
        ):
            self._items.append(f"{'  ' * _indent(properties)}- {text}")
        else:
            yield from self._list()
            code = style.lower().startswith(("code", "html preformatted", "source", "macro text"))
            yield Block("code" if code else "paragraph", text)

    def _style(self, properties: Any) -> tuple[str, int]:
        """Return the style and its heading level, 0 for none."""
        found = properties.find(qn("w:pStyle")) if properties is not None else None
        style = self._styles.get(found.get(qn("w:val")), "") if found is not None else ""
        if style.startswith("Heading ") and style[8:].isdecimal():
            return style, min(int(style[8:9]) or 1, 9)
        outline = properties.find(qn("w:outlineLvl")) if properties is not None else None
        if outline is not None and (value := outline.get(qn("w:val"), "")) in set("012345678"):
            return style, int(value) + 1
        return style, 1 if style == "Title" else 0

    def _list(self) -> Iterator[Block]:
        if self._items:
            yield Block("list", "\n".join(self._items))
            self._items.clear()


def _top(root: Any, tags: set[str]) -> Iterator[Any]:
    """Yield the outermost visible elements of these tags."""
    element = next(iter(root), None)
    while element is not None:
        below = None
        if element.tag in tags:
            yield element
        elif element.tag not in _HIDDEN:
            below = next(iter(element), None)
        element = below if below is not None else _after(element, root)


def _after(element: Any, root: Any) -> Any:
    """Return the next element outside of this one."""
    while element is not None and element is not root:
        following = element.getnext()
        if following is not None:
            return following
        element = element.getparent()
    return None


def _text(root: Any, between: str = "\n") -> str:
    """Return the text of an element, with its paragraphs separated."""
    parts: list[str] = []
    element = next(iter(root), None)
    while element is not None:
        tag = element.tag
        if tag in _WORDS:
            parts.append(_WORDS[tag] or element.text or "")
        elif tag == _P and parts:
            parts.append(between)
        below = None if tag in _HIDDEN else next(iter(element), None)
        element = below if below is not None else _after(element, root)
    return "".join(parts)


def _indent(properties: Any) -> int:
    level = properties.find(f".//{qn('w:ilvl')}") if properties is not None else None
    value = level.get(qn("w:val"), "0") if level is not None else "0"
    return int(value) if value in set("012345678") else 0
