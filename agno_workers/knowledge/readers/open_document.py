"""ODT and ODP: the text in order, without tracked deletions and hidden text. Notes, comments, text boxes and descriptions of pictures follow
the paragraph, list or table that they belong to; page headers come first and footers last. Each slide is a heading and what is on it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

from agno_workers.knowledge.readers import archive, office_xml
from agno_workers.knowledge.readers.office_xml import walk
from agno_workers.knowledge.readers.tables import Cell, spread, table
from agno_workers.knowledge.readers.titles import best
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed, Place

_NAMES = {
    "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0", "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
    "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0", "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
    "style": "urn:oasis:names:tc:opendocument:xmlns:style:1.0", "meta": "urn:oasis:names:tc:opendocument:xmlns:meta:1.0",
    "presentation": "urn:oasis:names:tc:opendocument:xmlns:presentation:1.0", "dc": "http://purl.org/dc/elements/1.1/",
    "svg": "urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0",
}  # fmt: skip
_MAX_REPEATED = 1000
_PAGE_NUMBER_LETTERS = 10
_BOX = ("draw:text-box", "draw:custom-shape")


def _tag(short: str) -> str:
    space, _, local = short.partition(":")
    return f"{{{_NAMES[space]}}}{local}"


_P, _H, _LIST, _ITEM, _TABLE, _FRAME, _NOTE, _PAGE = map(
    _tag,
    (
        "text:p",
        "text:h",
        "text:list",
        "text:list-item",
        "table:table",
        "draw:frame",
        "text:note",
        "draw:page",
    ),
)
_ANNOTATION, _NOTES, _SPACES = map(_tag, ("office:annotation", "presentation:notes", "text:s"))
_BOXES = {*map(_tag, _BOX), _FRAME}
_STYLE, _CLASS, _ROW = map(_tag, ("text:style-name", "presentation:class", "table:table-row"))
_CELLS = {_tag("table:table-cell"), _tag("table:covered-table-cell")}
_SIGNS = {_tag("text:tab"): "\t", _tag("text:line-break"): "\n"}
_LEFT_OUT = {
    *map(
        _tag,
        (
            "text:tracked-changes", "text:sequence-decls", "text:table-of-content", "text:alphabetical-index", "text:illustration-index",
            "text:table-index", "text:bibliography", "text:ruby-text", "text:hidden-text", "office:forms", "draw:page-thumbnail",
            "office:annotation-end", "svg:title", "svg:desc", "text:note-citation", "dc:creator", "dc:date",
        ),
    )
}  # fmt: skip
_ON_ALL_SLIDES = {"page-number", "date-time", "header", "footer"}


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the title of the file, or the paragraph with the style Title."""
    archive.check(content)
    parts = Parts(content)
    body = parts.root("content.xml").find(".//office:body", _NAMES)
    if body is None:
        raise Unreadable("unreadable", "It is a broken OpenDocument file: it has no body.")
    reader = _Reader(parts)
    metadata = parts.metadata()
    title = metadata.pop("title", None)
    if slides := list(body.iter(_PAGE)):
        blocks = tuple(
            block for number, slide in enumerate(slides, 1) for block in reader.slide(slide, number)
        )
        return Parsed(blocks, title, {**metadata, "pages": len(slides)})
    blocks = (*reader.margins("header"), *reader.blocks(body), *reader.margins("footer"))
    return Parsed(blocks, best(title, reader.title), metadata)


class Parts:
    """The XML files of an OpenDocument file, which was checked before."""

    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self._names = set(self._zip.namelist())

    def root(self, name: str) -> Any:
        """Raises Unreadable for a file that is missing, broken or nested deeper than 256 levels."""
        return office_xml.root(self._zip, name, f"It is a broken OpenDocument file: it has no {name}.")

    def metadata(self) -> dict[str, Any]:
        """Return title, author, description, keywords, date and language, as far as they are set."""
        if "meta.xml" not in self._names:
            return {}
        root = self.root("meta.xml")
        found = {
            key: ", ".join(filter(None, (" ".join((each.text or "").split()) for each in root.iter(_tag(name)))))
            for key, name in (
                ("title", "dc:title"), ("author", "meta:initial-creator"), ("description", "dc:subject"), ("keywords", "meta:keyword"),
                ("date", "meta:creation-date"), ("language", "dc:language"),
            )
        }  # fmt: skip
        found["author"] = found["author"] or root.findtext(".//dc:creator", "", _NAMES).strip()
        return {key: value[:2000] for key, value in found.items() if value}


class _Reader:
    def __init__(self, parts: Parts) -> None:
        self.title: str | None = None
        self._master = parts.root("styles.xml") if "styles.xml" in parts._names else None
        self._parents: dict[str, str] = {}
        self._hidden: set[str] = set()
        for root in (self._master, parts.root("content.xml")):
            for style in () if root is None else root.iter(_tag("style:style")):
                name = style.get(_tag("style:name"), "")
                self._parents[name] = style.get(_tag("style:parent-style-name"), "")
                properties = style.find("style:text-properties", _NAMES)
                if properties is not None and properties.get(_tag("text:display")) == "none":
                    self._hidden.add(name)
        self._waiting: list[tuple[str, Any]] = []
        """Notes, comments, text boxes and pictures of the current paragraph: how each begins, and its element."""
        self._note_count = 0

    def blocks(self, root: Any, place: Place | None = None) -> Iterator[Block]:
        for element in root:
            if element.tag in _LEFT_OUT or not isinstance(element.tag, str):
                continue
            if element.tag in (_P, _H):
                yield from self._paragraph(element, place)
            elif element.tag == _LIST and next(element.iter(_H), None) is not None:  # numbered headings
                for item in element:
                    yield from self.blocks(item, place)
            elif element.tag == _LIST:
                if items := list(self._items(element, 0)):
                    yield Block("list", "\n".join(items), place=place)
                yield from self._follow(place)
            elif element.tag == _TABLE:
                yield from filter(None, [table(spread(self._rows(element)), place)])
                yield from self._follow(place)
            elif element.tag == _FRAME or element.tag in _BOXES:
                yield from self._frame(element, place)
            elif element.tag != _NOTES:
                yield from self.blocks(element, place)

    def slide(self, page: Any, number: int) -> Iterator[Block]:
        """Yield the slide's title or number, its contents, and its notes."""
        at = Place("slide", number)
        frames = [each for each in page if each.get(_CLASS) not in _ON_ALL_SLIDES]
        title = next((each for each in frames if each.get(_CLASS) == "title"), None)
        words = " ".join(self._inside(title).split()) if title is not None else ""
        below = list(self.blocks([each for each in frames if each is not title], at))
        for notes in page.iter(_NOTES):
            spoken = [each for each in notes if each.get(_CLASS) == "notes"]
            below += self.blocks(spoken, at)
        if words or below:
            yield Block("heading", words or f"Slide {number}", level=2 if number > 1 else 1, place=at)
            yield from below

    def margins(self, kind: str) -> Iterator[Block]:
        """Yield the lines of page headers or footers, each once, without page numbers."""
        texts: dict[str, None] = {}
        for page in self._master.iter(_tag("style:master-page")) if self._master is not None else ():
            for margin in page:
                if isinstance(margin.tag, str) and margin.tag.startswith(_tag(f"style:{kind}")):
                    for paragraph in margin.iter(_P):
                        text = self._text(paragraph).strip()
                        has_number = paragraph.find(".//text:page-number", _NAMES) is not None
                        if not has_number or sum(map(str.isalpha, text)) > _PAGE_NUMBER_LETTERS:
                            texts[text] = None
        self._waiting.clear()
        yield from (Block("paragraph", text) for text in texts if text)

    def _paragraph(self, element: Any, place: Place | None) -> Iterator[Block]:
        text = self._text(element).strip()
        style = self._style(element.get(_STYLE, ""))
        level = element.get(_tag("text:outline-level"), "1") if element.tag == _H else ""
        if text and (level or style == "Title"):
            self.title = self.title or (text if style == "Title" else None)
            yield Block(
                "heading",
                " ".join(text.split()),
                level=int(level) if level in set("123456789") else 1,
                place=place,
            )
        elif text:
            yield Block(
                "code" if style.startswith(("Preformatted", "Source")) else "paragraph", text, place=place
            )
        yield from self._follow(place)

    def _style(self, name: str) -> str:
        """Return the named style that an automatic one (`P1`) is based on."""
        parent = self._parents.get(name, "")
        return parent if parent and name[:1] in "PT" and name[1:].isdecimal() else name

    def _items(self, element: Any, depth: int) -> Iterator[str]:
        for item in element.iter(_ITEM, _tag("text:list-header")):
            if item.getparent() is not element:
                continue
            for each in item:
                if each.tag == _LIST:
                    yield from self._items(each, depth + 1)
                elif text := self._text(each).strip():
                    yield f"{'  ' * min(depth, 20)}- {text}"

    def _rows(self, element: Any) -> Iterator[list[Cell]]:
        for row in walk(element, {_ROW, _TABLE}):
            if row.tag == _ROW:
                cells = [cell for cell in row if cell.tag in _CELLS]
                yield from [list(self._cells(cells))] * _number(row, "table:number-rows-repeated", 1)

    def _cells(self, cells: Iterable[Any]) -> Iterator[Cell]:
        for cell in cells:
            if cell.tag == _tag("table:covered-table-cell"):
                continue
            text = " ".join(self._inside(cell).split())
            across, down = (_number(cell, f"table:number-{each}-spanned", 1) for each in ("columns", "rows"))
            repeated = _number(cell, "table:number-columns-repeated", 1)
            yield from [Cell(text, across, down)] * (repeated if text or repeated < 20 else 1)

    def _frame(self, element: Any, place: Place | None) -> Iterator[Block]:
        """Yield the contents of a frame or a drawing, or the description of its picture."""
        said = " ".join(
            element.findtext(f"svg:{name}", "", _NAMES).strip() for name in ("title", "desc")
        ).strip()
        if said and element.tag == _FRAME:
            yield Block("paragraph", f"Image: {said}", place=place)
        yield from self.blocks(element, place)

    def _inside(self, element: Any) -> str:
        """Return the text of all paragraphs in an element."""
        return "\n".join(
            filter(
                None,
                (
                    self._text(each).strip()
                    for each in walk(element, {_P, _H, *_LEFT_OUT})
                    if each.tag in (_P, _H)
                ),
            )
        )

    def _text(self, element: Any) -> str:
        parts = [element.text or ""]
        for child in element:
            tag = child.tag
            if tag == _SPACES:
                parts.append(" " * _number(child, "text:c", 1))
            elif tag in _SIGNS:
                parts.append(_SIGNS[tag])
            elif tag == _NOTE:
                self._note_count += 1
                self._waiting.append((f"[{self._note_count}] ", child))
                parts.append(f"[{self._note_count}]")
            elif tag == _ANNOTATION:
                author = child.findtext("dc:creator", "", _NAMES).strip()
                self._waiting.append((f"Comment ({author}): " if author else "Comment: ", child))
            elif tag in _BOXES:
                self._waiting.append(("", child))
            elif isinstance(tag, str) and tag not in _LEFT_OUT and child.get(_STYLE) not in self._hidden:
                parts.append(self._text(child))
            parts.append(child.tail or "")
        return "".join(parts)

    def _follow(self, place: Place | None) -> Iterator[Block]:
        waiting, self._waiting = self._waiting, []
        for beginning, element in waiting:
            if not beginning:
                yield from self._frame(element, place)
            elif text := self._inside(element):
                yield Block("paragraph", beginning + text, place=place)


def _number(element: Any, name: str, default: int) -> int:
    text = element.get(_tag(name), "")
    return min(int(text), _MAX_REPEATED) if text.isdecimal() and len(text) < 9 else default
