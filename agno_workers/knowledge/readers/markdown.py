"""Markdown (CommonMark with tables) and its front matter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from agno_workers.knowledge.readers import front_matter, hypertext
from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.wrapped import joined
from agno_workers.knowledge.types import Block, Parsed

# Blocks only: parsing inline markup takes three times as long, and most text has none. Deeper nesting is dropped.
_PARSER = MarkdownIt("commonmark", {"maxNesting": 100}).enable("table").disable("inline")
_INSIDE = MarkdownIt("commonmark")
_HAS_MARKUP = re.compile(r"[*_`\[\]<&\\!]|  \n")


def read(content: bytes, media_type: str, _name: str) -> Parsed:
    """Read the title from the front matter, or from the only heading of level 1."""
    text, title, metadata = front_matter.split(decode(content, charset_of(media_type)))
    environment: dict[str, Any] = {}
    blocks = tuple(_blocks(_PARSER.parse(text, environment), environment))
    highest = [block.text for block in blocks if block.kind == "heading" and block.level == 1]
    return Parsed(blocks, title or (highest[0] if len(highest) == 1 else None), metadata)


def _blocks(tokens: list[Token], environment: dict[str, Any]) -> Iterator[Block]:
    """Collects blocks in one pass. A list ends when it contains something other than text."""
    items: list[str] = []
    rows: list[list[str]] = []
    depth, level, mark = 0, 0, ""
    for token in tokens:
        kind = token.type
        if kind in ("bullet_list_open", "ordered_list_open"):
            depth += 1
        elif kind in ("bullet_list_close", "ordered_list_close"):
            depth -= 1
        elif kind == "list_item_open":
            mark = f"{'  ' * (depth - 1)}{token.info + '.' if token.info else '-'} "
        elif kind == "heading_open":
            level = int(token.tag[1])
        elif kind == "heading_close":
            level = 0
        elif kind == "tr_open":
            rows.append([])
        elif kind == "inline":
            text = _inside(token.content, environment)
            if rows:
                rows[-1].append(text)
            elif depth and not level:
                items.append(mark + text if mark else "  " * depth + text)
                mark = ""
            elif text:
                yield from _list(items)
                yield Block("heading", text, level=level) if level else Block("paragraph", text)
        elif kind == "table_close":
            yield from _list(items)
            yield from filter(None, [table(rows)])
            rows = []
        elif kind in ("fence", "code_block"):
            yield from _list(items)
            if token.content.strip():
                yield Block("code", token.content.strip("\n"))
        elif kind == "html_block":
            yield from _list(items)
            yield from hypertext.fragment(token.content)
        if not depth:
            yield from _list(items)
    yield from _list(items)


def _list(items: list[str]) -> Iterator[Block]:
    """Yield the collected list and clear it."""
    if items:
        yield Block("list", "\n".join(items))
        items.clear()


def _inside(content: str, environment: dict[str, Any]) -> str:
    """Remove inline markup: keep the text of links, the alternative text of images, and code. Inline HTML separates words as in HTML."""
    if not _HAS_MARKUP.search(content):
        return joined(content)
    tokens: list[Token] = []
    _INSIDE.inline.parse(content, _INSIDE, environment, tokens)
    parts = []
    for token in tokens:
        match token.type:
            case "softbreak":
                parts.append("\r")
            case "hardbreak":
                parts.append("\n")
            case "html_inline":
                parts.append(hypertext.of_tag(token.content))
            case _:
                parts.append(token.content)
    return hypertext.flowed("".join(parts))
