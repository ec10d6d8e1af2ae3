"""HTML, and the text of XML: the main content without navigation. Entities of DTDs are not expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, groupby
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

from agno_workers.knowledge.readers import front_matter
from agno_workers.knowledge.readers.decode import charset_of, codec, decode
from agno_workers.knowledge.readers.tables import Cell, spread, table
from agno_workers.knowledge.readers.wrapped import joined
from agno_workers.knowledge.types import Block, Parsed

_DROPPED = {
    "nav", "footer", "aside", "iframe", "object", "embed", "canvas", "audio", "video", "map", "head", "dialog", "menu", "svg",
}  # fmt: skip
_CONTROLS = {"button", "select", "input", "textarea"}
_DROPPED_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog"}
# Navigation and permalinks of Sphinx and DocBook, and numbers of lines beside code.
_DROPPED_CLASSES = {
    "linenos",
    "lineno",
    "linenodiv",
    "line-numbers-rows",
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
_FORM_CHARS = 80  # besides labels; a form for a search or a login has fewer
_META = {"description", "author", "keywords", "date", "article:published_time", "og:title", "og:description"}
_PREFORMATTED = ("pre", "listing", "xmp")
# Elements that style sheets show as lines of code.
_LINE_CLASSES = {"line", "code-line", "token-line", "view-line"}
_DECLARATIONS = re.compile(rb"<!--.*?(?:-->|$)|<(?:meta|\?xml)\s[^>]{0,500}", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(rb"\b(?:charset|encoding)\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.IGNORECASE)
_NAMED = re.compile(rb"\s(?:name|property|itemprop)\s{0,9}=", re.IGNORECASE)
_DECLARED_WITHIN_BYTES = 8192
_MATH_SIGNS = {"mfrac > :last-child": "/", "msup > :last-child": "^"}
_TAG = re.compile(r"</?([A-Za-z][\w-]*)")
_NUMBER = re.compile(r"\s{0,9}\+?(\d{1,5})")
# Marks in text; see _text.
_EDGE, _BREAK, _CODE_LINE = "\x1d", "\x1e", "\x1f"
_NO_MARKS = str.maketrans("", "", _EDGE + _BREAK + _CODE_LINE)
_BREAK_AT_EDGE = re.compile(f"{_BREAK}(?:\n?{_EDGE})+\n?")
_EDGES = re.compile(f"\n?(?:{_EDGE}\n?)+")


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Read the title from <title> or the first <h1>. Metadata: language, description, author, keywords, date."""
    said = charset_of(media_type)
    text = decode(content, said if codec(said) else _declared(content[:_DECLARED_WITHIN_BYTES]))
    if media_type.startswith("application/xml"):
        text = text.replace("<![CDATA[", "").replace("]]>", "")
    text, title, fields = front_matter.split(text) if text.startswith(("---", "+++")) else (text, None, {})
    tree = _tree(text)
    if tree.root is None:
        return Parsed(())
    metadata = _metadata(tree) | fields
    title = title or _words(tree.css_first("head > title, title")) or metadata.pop("og:title", None)
    metadata.pop("og:title", None)
    main = _main(tree)
    blocks = tuple(_Walk().blocks(main)) or tuple(_Walk(shows_all=True).blocks(main))
    title = title or next((block.text for block in blocks if block.kind == "heading"), None)
    return Parsed(blocks, title, metadata)


def _declared(head: bytes) -> str | None:
    """Return the charset of the first <meta> or XML declaration that names one. It was read as ASCII and is therefore not UTF-16."""
    for found in _DECLARATIONS.finditer(head):
        if found[0].startswith(b"<!--") or _NAMED.search(found[0]):
            continue
        label = _CHARSET.search(found[0])
        if label and (charset := codec(label[1].decode())):
            return "utf-8" if charset.startswith(("utf-16", "utf-32")) else charset
    return None


def fragment(text: str) -> Iterator[Block]:
    """Return the blocks of an HTML fragment, such as one within Markdown."""
    tree = _tree(text)
    if tree.body is not None:
        yield from _Walk().blocks(tree.body)


def links(content: bytes, query: str) -> Iterator[tuple[str, str]]:
    """Yield the targets and the texts of links of a table of contents, for which `query` is `nav a`, or `navpoint` in EPUB 2."""
    tree = LexborHTMLParser(decode(content, _declared(content[:_DECLARED_WITHIN_BYTES])))
    for node in tree.css(query):
        target, label = (
            node if node.tag == "a" else node.css_first("content"),
            node if node.tag == "a" else node.css_first("text"),
        )
        if target is not None and label is not None:
            yield target.attributes.get("href") or target.attributes.get("src") or "", _words(label)


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

    def __init__(self, shows_all: bool = False) -> None:
        self._shows_all = shows_all  # a page that consists of what is hidden until a script runs
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
                self._text.append((node.text_content or "").replace("\n", "\r"))
            elif _has_alternative(node, tag) and node is not root:
                self._text.append(_alternative(node))
            elif tag in _CONTROLS:
                self._text.append(" ")
            elif not tag.startswith(("-", "!")) and (node is root or not self._is_left_out(node, tag)):
                if tag in _PREFORMATTED:
                    yield from self._end_of_list()
                    if code := _code(node):
                        yield Block("code", code)
                elif tag == "table" and (found := _as_table(node)):
                    yield from self._end_of_list()
                    yield from found
                else:
                    yield from self._enter(tag)
                    if tag == "sup" and _is_power(node, self._text):
                        self._text.append("^")
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

    def _is_left_out(self, node: LexborNode, tag: str) -> bool:
        return tag in _DROPPED or (not self._shows_all and _is_hidden(node, tag))

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
        text = flowed("".join(self._text))
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


def flowed(text: str) -> str:
    """Collapse whitespace as a browser does. Line ends come from <br>; those of the source are carriage returns."""
    lines = (joined(line.replace("\r", "\n")) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def of_tag(tag: str) -> str:
    """Return the text in place of a single tag, such as one within Markdown: a line end for <br> and for blocks."""
    found = _TAG.match(tag)
    if found and found[1].lower() == "img":
        image = LexborHTMLParser(tag).css_first("img")
        return _alternative(image) if image is not None else ""
    return "\n" if found and found[1].lower() not in _INLINE else ""


def _has_alternative(node: LexborNode, tag: str) -> bool:
    return tag in ("img", "math") or (tag == "svg" and node.attributes.get("role") == "img")


def _alternative(node: LexborNode) -> str:
    """Return the text in place of an image or a formula."""
    attributes = node.attributes
    if attributes.get("aria-hidden") == "true" or attributes.get("role") in ("presentation", "none"):
        return ""
    source = node.css_first("annotation, title")  # a formula in TeX, or the name of a drawing
    for query, sign in _MATH_SIGNS.items() if source is None else ():
        for second in node.css(query):
            second.insert_before(sign)
    named = next(
        (attributes[name] for name in ("alttext", "alt", "aria-label", "title") if name in attributes), None
    )
    text = " ".join(((source.text() if source is not None else named) or node.text()).split())
    return f" {text} " if text else ""


def _is_power(sup: LexborNode, before: list[str]) -> bool:
    """Return whether a power follows a number, which would become one number with it."""
    return (
        bool(before) and before[-1][-1:].isdigit() and re.match(r"\s*[-+\u2212]?\d", sup.text()) is not None
    )


def _is_hidden(node: LexborNode, tag: str) -> bool:
    """Return whether an element is navigation or hidden. A page that is one form is kept, and so is a header with the title."""
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
            labels = sum(len(label.text()) for label in node.css("label, legend"))
            has_content = node.css_first("h1, h2, h3, p, table") is not None
            return not has_content and len(_line(node)) - labels < _FORM_CHARS
    return False


def _as_table(node: LexborNode) -> list[Block] | None:
    """Return the caption and the rows; None for a layout table, which contains tables, headings or code."""
    if node.css_first("table table, h1, h2, h3, pre") is not None:
        return None
    sections = groupby(node.css("tr"), lambda row: row.parent and row.parent.mem_id)
    rows = chain.from_iterable(
        spread([_cell(cell) for cell in row.css("th, td")] for row in section) for _, section in sections
    )
    if (found := table(rows)) is None:
        return None
    caption = node.css_first("caption")
    title = _line(caption) if caption is not None else ""
    return [Block("paragraph", title), found] if title else [found]


def _cell(node: LexborNode) -> Cell:
    across, down = (_NUMBER.match(node.attributes.get(name) or "") for name in ("colspan", "rowspan"))
    return Cell(_line(node), max(int(across[1]), 1) if across else 1, int(down[1]) if down else 1)


def _line(node: LexborNode) -> str:
    """Return the text below a node as one line."""
    return joined(_text(node).replace(_EDGE, " ").replace(_BREAK, " ").replace(_CODE_LINE, ""))


def _code(node: LexborNode) -> str:
    """Return preformatted text, whose line ends may be characters, <br>, or elements such as a <div> for each line."""
    text = _text(node)
    text = text.replace(_CODE_LINE, "" if "\n" in text else _EDGE)
    text = _BREAK_AT_EDGE.sub(_BREAK, text)
    return _EDGES.sub("\n", text).replace(_BREAK, "\n").strip("\n")


def _text(root: LexborNode) -> str:
    """Return the text below a node as it is written, with marks for <br>, the edges of blocks, and what may be lines of code."""
    parts: list[str] = []
    node = root.first_child
    depth = 1
    while node is not None:
        tag = node.tag or ""
        child = None
        if tag == "-text":
            parts.append((node.text_content or "").translate(_NO_MARKS))
        elif tag == "br":
            parts.append(_BREAK)
        elif _has_alternative(node, tag):
            parts.append(_alternative(node))
        elif tag in _CONTROLS:
            parts.append(" ")
        elif not (tag.startswith(("-", "!")) or tag in _DROPPED or _is_hidden(node, tag)):
            child = node.first_child
            if mark := "^" if tag == "sup" and _is_power(node, parts) else _mark(node):
                parts.append(mark)
        if child is not None:
            node, depth = child, depth + 1
            continue
        while node.next is None and depth > 1:
            parent = node.parent
            assert parent is not None
            node, depth = parent, depth - 1
            if mark := "\t" if node.tag in ("td", "th") else _mark(node):
                parts.append(mark)
        node = node.next
    return "".join(parts)


def _mark(node: LexborNode) -> str:
    if node.tag in ("td", "th"):
        return ""
    return _EDGE if node.tag not in _INLINE else _CODE_LINE if _is_code_line(node) else ""


def _is_code_line(node: LexborNode) -> bool:
    """Return whether a style sheet may show an inline element as a line: by its class or style, or because it is one of several."""
    attributes = node.attributes
    if names := attributes.get("class"):
        return not _LINE_CLASSES.isdisjoint(names.split())
    if style := attributes.get("style"):
        return "display:block" in style.lower().replace(" ", "")
    return node.tag == "code" and any(
        each is not None and each.tag == "code" for each in (node.prev, node.next)
    )
