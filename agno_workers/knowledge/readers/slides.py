"""PPTX: for each slide a heading (its title or number), then its texts, lists, tables and notes; `page` is the slide."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pptx
from pptx.exc import PackageNotFoundError

from agno_workers.knowledge.readers import archive
from agno_workers.knowledge.readers.properties import metadata
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the title of the file, or of the first slide."""
    archive.check(content)
    try:
        presentation = pptx.Presentation(io.BytesIO(content))
    except (PackageNotFoundError, KeyError, ValueError, SyntaxError) as error:
        raise Unreadable("unreadable", f"It is a broken PPTX file: {error}") from error
    slides = list(presentation.slides)
    blocks = tuple(block for number, slide in enumerate(slides, 1) for block in _slide(slide, number))
    properties = presentation.core_properties
    title = properties.title.strip()
    if title in ("", "PowerPoint Presentation"):
        title = next((block.text for block in blocks if block.kind == "heading"), "")
    return Parsed(blocks, title or None, {**metadata(properties), "pages": len(slides)})


def _slide(slide: Any, number: int) -> Iterator[Block]:
    title = slide.shapes.title
    words = " ".join(title.text_frame.text.split()) if title is not None and title.has_text_frame else ""
    below = [*_shapes(slide.shapes, title, number), *_notes(slide, number)]
    if words or below:
        yield Block("heading", words or f"Slide {number}", level=2 if number > 1 else 1, page=number)
        yield from below


def _shapes(shapes: Iterable[Any], title: Any, number: int) -> Iterator[Block]:
    """Walk shapes and groups without recursion, because groups may be nested very deeply."""
    waiting = list(shapes)[::-1]
    while waiting:
        shape = waiting.pop()
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if hasattr(shape, "shapes"):
            waiting += list(shape.shapes)[::-1]
        elif getattr(shape, "has_table", False):
            # Existing cells only: `row.cells` creates as many as the grid declares.
            rows = ((cell.text for cell in row.tc_lst) for row in shape.table._tbl.tr_lst)
            yield from filter(None, [table(rows, page=number)])
        elif shape.has_text_frame:
            yield from _texts(shape.text_frame, number)


def _texts(frame: Any, number: int) -> Iterator[Block]:
    lines = [(paragraph.level, paragraph.text.replace("\v", "\n").strip()) for paragraph in frame.paragraphs]
    lines = [(level, text) for level, text in lines if text]
    if len(lines) == 1:
        yield Block("paragraph", lines[0][1], page=number)
    elif lines:
        yield Block(
            "list", "\n".join(f"{'  ' * min(level, 8)}- {text}" for level, text in lines), page=number
        )


def _notes(slide: Any, number: int) -> Iterator[Block]:
    frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if frame is not None and (text := frame.text.replace("\v", "\n").strip()):
        yield Block("paragraph", text, page=number)
