"""HTML, and the text of XML: the main content without navigation. Entities of DTDs are not expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.types import Block, Parsed

_DROPPED = {
    "nav", "footer", "aside", "button", "select", "input", "textarea",
    "iframe", "object", "embed", "canvas", "audio", "video", "map", "head", "dialog", "menu", "svg",
}  # fmt: skip
_DROPPED_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alert"}
# Navigation and permalinks of Sphinx and DocBook.
_DROPPED_CLASSES = {
    "headerlink",
    "sphinxsidebar",
    "related",
    "navheader",
    "navfooter",
    "breadcrumb",
    "breadcrumbs",
}
_INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd",
    "label", "mark", "q", "ruby", "rt", "rp", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt",
    "u", "var", "wbr", "img", "picture", "source",
}  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_MAIN_ENOUGH_CHARS = 200
_META = {"description", "author", "keywords", "date", "article:published_time", "og:title", "og:description"}
_CHARSET = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,300}?(?:charset|encoding)\s{0,9}=\s{0,9}[\"']?([\w.:-]{1,40})", re.IGNORECASE
)


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Read the title from <title> or the first <h1>. Metadata: language, description, author, keywords, date."""
    declared = charset_of(media_type)
    if declared is None and (found := _CHARSET.search(content[:1024])):
        declared = found[1].decode("ascii", "ignore")
    text = decode(content, declared)
    if media_type.startswith("application/xml"):
        text = text.replace("<![CDATA[", "").replace("]]>", "")
    tree = _tree(text)
    if tree.root is None:
        return Parsed(())
    metadata = _metadata(tree)
    title = _words(tree.css_first("head > title, title")) or metadata.pop("og:title", None)
    metadata.pop("og:title", None)
    blocks = tuple(_Walk().blocks(_main(tree)))
    title = title or next((block.text for block in blocks if block.kind == "heading"), None)
    return Parsed(blocks, title, metadata)


def fragment(text: str) -> Iterator[Block]:
    """Return the blocks of an HTML fragment, such as one within Markdown."""
    tree = _tree(text)
    if tree.body is not None:
        yield from _Walk().blocks(tree.body)


def _tree(text: str) -> LexborHTMLParser:
    """Remove elements without readable text; others are dropped during the walk, depending on their place."""
    tree = LexborHTMLParser(text)
    for node in tree.css("script, style, noscript, template"):
        node.decompose()
    return tree


def _metadata(tree: LexborHTMLParser) -> dict[str, Any]:
    found: dict[str, Any] = {}
    language = tree.root.attributes.get("lang") or tree.root.attributes.get("xml:lang") if tree.root else None
    if language:
        found["language"] = language.strip()
    for meta in tree.css("meta")[:200]:
        attributes = meta.attributes
        key = (attributes.get("name") or attributes.get("property") or "").lower()
        if key in _META and (value := (attributes.get("content") or "").strip()):
            found.setdefault(key, value[:2000])
    for given, kept in (("og:description", "description"), ("article:published_time", "date")):
        if value := found.pop(given, None):
            found.setdefault(kept, value)
    return found


def _main(tree: LexborHTMLParser) -> LexborNode:
    """Return the declared main content if it has enough text, otherwise the whole page. An SVG file is one element."""
    body = tree.body or tree.root
    assert body is not None
    for query in ("main, [role=main]", "article", "body > svg"):
        found = tree.css(query)
        if len(found) == 1 and len(found[0].text()) > min(_MAIN_ENOUGH_CHARS, len(body.text()) // 2):
            return found[0]
    return body


def _words(node: LexborNode | None) -> str:
    return " ".join(node.text().split()) if node is not None else ""


class _Walk:
    """Walks the tree in reading order, without recursion: malicious pages have 100,000 levels."""

    def __init__(self) -> None:
        self._text: list[str] = []  # of the open paragraph
        self._items: list[str] = []  # of the open list
        self._lists: list[list[int | str]] = []  # open lists: kind and number
        self._mark = ""
        self._level = 0

    def blocks(self, root: LexborNode) -> Iterator[Block]:
        node: LexborNode | None = root
        depth = 0
        while node is not None:
            child = None
            tag = node.tag or ""
            if tag == "-text":
                self._text.append((node.text_content or "").replace("\n", " ").replace("\r", " "))
            elif not tag.startswith(("-", "!")) and (node is root or not _is_dropped(node, tag)):
                if tag == "pre":
                    yield from self._end_of_list()
                    if code := node.text().strip("\n"):
                        yield Block("code", code)
                elif tag == "table" and (found := _as_table(node)):
                    yield from self._end_of_list()
                    yield found
                else:
                    yield from self._enter(tag)
                    child = node.first_child
                    if child is None:
                        yield from self._leave(tag)
            if child is not None:
                node, depth = child, depth + 1
                continue
            while depth and node.next is None:
                parent = node.parent
                assert parent is not None
                node, depth = parent, depth - 1
                yield from self._leave(node.tag or "")
            node = node.next if depth else None
        yield from self._end_of_list()

    def _enter(self, tag: str) -> Iterator[Block]:
        if tag in _INLINE:
            return
        if tag == "br":
            self._text.append("\n")
        elif tag in ("ul", "ol"):
            yield from self._end_of_paragraph()
            self._lists.append([tag, 0])
        elif tag == "li" and self._lists:
            yield from self._end_of_paragraph()
            self._lists[-1][1] = number = int(self._lists[-1][1]) + 1
            mark = f"{number}." if self._lists[-1][0] == "ol" else "-"
            self._mark = f"{'  ' * min(len(self._lists) - 1, 20)}{mark} "
        elif tag in _HEADINGS:
            yield from self._end_of_list()
            self._level = _HEADINGS[tag]
        else:
            yield from self._end_of_paragraph()

    def _leave(self, tag: str) -> Iterator[Block]:
        if tag in _INLINE or tag == "br":
            return
        if tag in _HEADINGS:
            yield from self._end_of_paragraph()
            self._level = 0
        elif tag in ("ul", "ol") and self._lists:
            yield from self._end_of_paragraph()
            self._lists.pop()
            if not self._lists:
                yield from self._end_of_list()
        else:
            yield from self._end_of_paragraph()

    def _end_of_paragraph(self) -> Iterator[Block]:
        text = _flowed("".join(self._text))
        self._text.clear()
        if not text:
            return
        if self._level:
            yield Block("heading", text.replace("\n", " "), level=self._level)
        elif self._lists:
            self._items.append(self._mark + text if self._mark else "  " * min(len(self._lists), 20) + text)
            self._mark = ""
        else:
            yield Block("paragraph", text)

    def _end_of_list(self) -> Iterator[Block]:
        yield from self._end_of_paragraph()
        if self._items:
            yield Block("list", "\n".join(self._items))
            self._items.clear()


def _flowed(text: str) -> str:
    """Collapse whitespace as a browser does. Line ends come from <br>."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _is_dropped(node: LexborNode, tag: str) -> bool:
    """Return whether an element is navigation or hidden. A page that is one form is kept, and so is a header with the title."""
    if tag in _DROPPED:
        return True
    if tag in _INLINE and tag not in ("a", "span"):
        return False
    if attributes := node.attributes:
        names = attributes.get("class") or ""
        if (
            "hidden" in attributes
            or attributes.get("aria-hidden") == "true"
            or (attributes.get("role") or "").lower() in _DROPPED_ROLES
            or (names and not _DROPPED_CLASSES.isdisjoint(names.lower().split()))
            or "display:none" in (attributes.get("style") or "").lower().replace(" ", "")
        ):
            return True
    match tag:
        case "header":
            return node.css_first("h1, h2") is None
        case "form":
            return node.css_first("h1, h2, h3, p, table") is None
    return False


def _as_table(node: LexborNode) -> Block | None:
    """Return the rows; None for a layout table, which contains tables, headings or code."""
    if node.css_first("table table, h1, h2, h3, pre") is not None:
        return None
    return table((_cell(cell) for cell in row.css("th, td")) for row in node.css("tr"))


def _cell(node: LexborNode) -> str:
    return node.text(separator=" " if node.css_first("br, p, li, div") is not None else "")
