"""PPTX: for each slide a heading (its title or number), then its texts, lists, tables, descriptions of pictures, and notes; each has the
number of its slide.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from pptx.exc import PackageNotFoundError
from pptx.oxml.ns import qn
from pptx.package import Package
from pptx.parts.presentation import PresentationPart

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.equations import EQUATION, equation
from agno_workers.knowledge.readers.office_xml import alternative_text, walk
from agno_workers.knowledge.readers.properties import metadata
from agno_workers.knowledge.readers.tables import Cell, spread, table
from agno_workers.knowledge.readers.titles import best
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed, Place

_SHAPE, _TABLE, _PARAGRAPH, _PROPERTIES = map(qn, ("p:sp", "a:tbl", "a:p", "p:cNvPr"))
_WORDS = {qn("a:t"): None, qn("a:br"): "\n"}


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the title of the file, or of the first slide."""
    archive.check(content)
    try:
        part = Package.open(io.BytesIO(content)).main_document_part
    except (PackageNotFoundError, KeyError, ValueError, SyntaxError) as error:
        raise Unreadable("unreadable", f"It is a broken PPTX file: {error}") from error
    if not isinstance(part, PresentationPart):
        raise Unreadable("unreadable", "It is a broken PPTX file: its main part is not a presentation.")
    presentation = part.presentation
    slides = list(presentation.slides)
    blocks = tuple(block for number, slide in enumerate(slides, 1) for block in _slide(slide, number))
    properties = presentation.core_properties
    heading = next((block.text for block in blocks if block.kind == "heading"), None)
    return Parsed(
        blocks, best(properties.title.strip(), heading), {**metadata(properties), "pages": len(slides)}
    )


def _slide(slide: Any, number: int) -> Iterator[Block]:
    at = Place("slide", number)
    tree = slide._element.cSld.spTree
    title = next(
        (shape for shape in walk(tree, {_SHAPE, _TABLE}) if _kind(shape) in ("title", "ctrTitle")), None
    )
    words = _line(title) if title is not None else ""
    below = [*_shapes(tree, title, at), *_notes(slide, at)]
    if words or below:
        yield Block("heading", words or f"Slide {number}", level=2 if number > 1 else 1, place=at)
        yield from below


def _shapes(tree: Any, title: Any, at: Place) -> Iterator[Block]:
    """Walk the shapes, also those in groups."""
    for element in walk(tree, {_TABLE}):
        if element.tag == _TABLE:
            yield from filter(None, [_table(element, at)])
        elif element.tag == _SHAPE and element is not title and _kind(element) != "sldNum":
            yield from _texts(element, at)
        elif element.tag == _PROPERTIES and (text := alternative_text(element)):
            yield Block("paragraph", f"Image: {text}", place=at)


def _kind(shape: Any) -> str | None:
    """Return the kind of a placeholder: `title`, `sldNum` ...; None for other elements."""
    found = shape.find(f"{qn('p:nvSpPr')}/{qn('p:nvPr')}/{qn('p:ph')}")
    return None if found is None else found.get("type", "obj")


def _lines(root: Any) -> list[tuple[int, str]]:
    """Return the levels and the texts of the paragraphs."""
    lines = []
    for paragraph in walk(root, {_PARAGRAPH}):
        if paragraph.tag == _PARAGRAPH and (text := _text(paragraph).strip()):
            properties = paragraph.find(qn("a:pPr"))
            level = properties.get("lvl", "0") if properties is not None else "0"
            lines.append((int(level) if level in set("012345678") else 0, text))
    return lines


def _text(paragraph: Any) -> str:
    parts: list[str] = []
    for element in walk(paragraph, {EQUATION}):
        if element.tag in _WORDS:
            parts.append(_WORDS[element.tag] or element.text or "")
        elif element.tag == EQUATION:
            parts.append(equation(element))
    return "".join(parts).replace("\v", "\n")


def _texts(shape: Any, at: Place) -> Iterator[Block]:
    lines = _lines(shape)
    if len(lines) == 1:
        yield Block("paragraph", lines[0][1], place=at)
    elif lines:
        yield Block("list", "\n".join(f"{'  ' * level}- {text}" for level, text in lines), place=at)


def _table(element: Any, at: Place) -> Block | None:
    rows = (
        [Cell(_line(cell), cell.gridSpan, cell.rowSpan) for cell in row.tc_lst if not cell.is_spanned]
        for row in element.tr_lst
    )
    return table(spread(rows), at)


def _line(root: Any) -> str:
    return " ".join(" ".join(text for _, text in _lines(root)).split())


def _notes(slide: Any, at: Place) -> Iterator[Block]:
    frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if frame is not None and (text := "\n".join(text for _, text in _lines(frame._txBody))):
        yield Block("paragraph", text, place=at)
