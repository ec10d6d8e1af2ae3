"""EPUB: its chapters in reading order, each as the web page that it is. A chapter without headings gets its name in the table of contents."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from msgspec.structs import replace

from agno_workers.knowledge.readers import archive, hypertext
from agno_workers.knowledge.readers.office_xml import root
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed

_MAX_CHAPTERS = 5000
_PAGES = ("application/xhtml+xml", "text/html")
_DC = "{http://purl.org/dc/elements/1.1/}"
_FIELDS = {"creator": "author", "description": "description", "subject": "keywords", "date": "date", "language": "language", "publisher": "publisher"}  # fmt: skip


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Metadata: author, description, keywords, date, language, publisher."""
    archive.check(content, pages=True)
    book = _Book(content)
    blocks: list[Block] = []
    chars = 0
    for chapter in book.chapters():
        blocks += chapter
        chars += sum(len(block.text) for block in chapter)
        if chars > MAX_CHARS:
            raise too_long(chars)
    return Parsed(tuple(blocks), book.title, book.metadata)


class _Book:
    def __init__(self, content: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        self._names = set(self._zip.namelist())
        root = self._xml("META-INF/container.xml").find(".//{*}rootfile")
        self._package = "" if root is None else root.get("full-path", "")
        package = self._xml(self._package)
        self._items = {item.get("id", ""): item for item in package.iter("{*}item")}
        self._spine = [each.get("idref", "") for each in package.iter("{*}itemref")][:_MAX_CHAPTERS]
        fields = {
            key: ", ".join(
                filter(None, (" ".join((each.text or "").split()) for each in package.iter(_DC + key)))
            )
            for key in ("title", *_FIELDS)
        }
        self.title = fields["title"] or None
        self.metadata = {kept: fields[key][:2000] for key, kept in _FIELDS.items() if fields[key]}
        self._labels = dict(self._contents())

    def chapters(self) -> Iterator[tuple[Block, ...]]:
        locked = self._locked()
        for identity in self._spine:
            item = self._items.get(identity)
            if (
                item is None
                or item.get("media-type") not in _PAGES
                or "nav" in (item.get("properties") or "").split()
            ):
                continue
            part = self._part(self._package, item.get("href", ""))
            if part in locked:
                raise Unreadable("encrypted", "It is a book with copy protection: get it without.")
            if part in self._names:
                blocks = hypertext.read(self._zip.read(part), "text/html", part).blocks
                yield _headed(blocks, self._labels.get(part, ""))

    def _contents(self) -> Iterator[tuple[str, str]]:
        """Yield the pages and their names in the table of contents, the last first: the first of a page is its own."""
        found = []
        for item in self._items.values():
            part = self._part(self._package, item.get("href", ""))
            is_ncx, is_nav = (
                item.get("media-type") == "application/x-dtbncx+xml",
                "nav" in (item.get("properties") or "").split(),
            )
            if part not in self._names or not (is_ncx or is_nav):
                continue
            links = hypertext.links(self._zip.read(part), "navpoint" if is_ncx else "nav a")
            found += [(self._part(part, target), label) for target, label in links]
        yield from reversed(found)

    def _locked(self) -> set[str]:
        if "META-INF/encryption.xml" not in self._names:
            return set()
        root = self._xml("META-INF/encryption.xml")
        return {unquote(each.get("URI", "")) for each in root.iter("{*}CipherReference")}

    def _part(self, base: str, link: str) -> str:
        """Return the name in the zip of a link; nothing outside of the zip is ever opened."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(link.partition("#")[0])))

    def _xml(self, name: str) -> Any:
        return root(self._zip, name, f"It is a broken EPUB: it has no {name or 'package'}.")


def _headed(blocks: tuple[Block, ...], label: str) -> tuple[Block, ...]:
    """Return a chapter, with its name as a heading if it has none."""
    if not label or any(block.kind == "heading" for block in blocks):
        return blocks
    if blocks and " ".join(blocks[0].text.split()) == label:
        return (replace(blocks[0], kind="heading", level=1), *blocks[1:])
    return (Block("heading", label, level=1), *blocks) if blocks else ()
