"""Source code: a heading and a block for each class and function, with the numbers of its lines.

Python is parsed. Other languages are split where a line at the margin follows an empty one, and named by the declaration in it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agno_workers.knowledge.readers.decode import charset_of, decode
from agno_workers.knowledge.readers.detect import path_of
from agno_workers.knowledge.types import Block, Parsed, Place

_CODING = re.compile(rb"(?:[^\n]{0,200}\n)?[^\n]{0,200}?(?:coding[:=]|@charset)[ \t]*[\"']?([\w.-]{1,40})")
"""The declaration of Python, Ruby and CSS, in the first or second line."""
_LINE_END = re.compile(r"\r\n?")
_NO_LINE_END = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # editors don't count them
_MAX_DEPTH = 20
_DECLARED = re.compile(
    r"(?:(?:export|default|public|private|protected|internal|static|abstract|final|async|pub(?:\(\w{1,20}\))?|unsafe|extern|inline|virtual|open"
    r"|override|data|sealed|suspend|partial|readonly|local|declare|create|or|replace)\s{1,9}){0,6}"
    r"(function|func|fn|fun|def|class|struct|enum|interface|trait|impl|type|module|namespace|object|record|protocol|extension|sub|proc"
    r"|procedure|table|view|trigger|package)\b\*?\s{0,9}(?:if\s+not\s+exists\s+)?(?:\([^)]{0,100}\)\s{0,9})?([A-Za-z_$][\w.:$]{0,99})?",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"(?:export\s{1,9}(?:default\s{1,9})?)?(?:const|let|var)\s{1,9}([\w$]{1,99})\s{0,9}=.{0,300}(?:=>|\bfunction\b)"
)
_CALLABLE = re.compile(r"[A-Za-z_][\w*&:<>, ~]{0,200}?[\s*&]([A-Za-z_~][\w:~]{0,99})\s{0,9}\([^;=]{0,300}$")
_SECTION = re.compile(r"\[{1,2}([^\]\n]{1,100})\]{1,2}\s*$")
_CLOSING = re.compile(r"[)\]}]|end\b|fi\b|done\b|else\b|elif\b|catch\b|except\b|finally\b", re.IGNORECASE)
_NO_NAMES = {"if", "for", "while", "switch", "return", "else", "catch", "sizeof"}


class _Part(NamedTuple):
    """Lines from `first` to `last`, from 1, below a heading; an empty heading is that of the file."""

    heading: str
    level: int
    first: int
    last: int


def read(content: bytes, media_type: str, name: str) -> Parsed:
    """Read the file's name as title."""
    declared = _CODING.match(content)
    text = decode(content, declared[1].decode() if declared else charset_of(media_type))
    lines = _NO_LINE_END.sub("", _LINE_END.sub("\n", text)).split("\n")
    file = path_of(name).name
    parts = _python(lines) if file.endswith((".py", ".pyi")) else None
    return Parsed(
        tuple(_blocks(lines, list(_by_margin(lines)) if parts is None else parts, file)), file or None
    )


def _blocks(lines: Sequence[str], parts: Sequence[_Part], file: str) -> Iterator[Block]:
    last = ""
    for part in parts:
        numbers = [
            number
            for number in range(part.first, part.last + 1)
            if lines[number - 1].strip() or (number > part.first and lines[number - 2].strip())
        ]
        while numbers and not lines[numbers[-1] - 1].strip():
            numbers.pop()
        if not numbers:
            continue
        place = Place("line", numbers[0], numbers[-1])
        if part.heading != last:
            last = part.heading
            yield Block("heading", part.heading or file or "Other code", level=part.level, place=place)
        text = "\n".join(lines[number - 1] for number in numbers)
        yield Block("code", text, place=place, lines=tuple(numbers))


# Python.


def _python(lines: Sequence[str]) -> list[_Part] | None:
    """Return the parts of a module; None if it can't be parsed."""
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return list(_members(tree.body, "", 1, 1, len(lines), lines))


def _members(
    body: list[ast.stmt], name: str, level: int, first: int, last: int, lines: Sequence[str]
) -> Iterator[_Part]:
    """Yield the classes and functions of a body, and the lines between them."""
    heading = f"class {name}" if name else ""
    at = first
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        begin = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        while begin - 1 >= at and lines[begin - 2].lstrip().startswith("#"):
            begin -= 1
        end = node.end_lineno or node.lineno
        if at < begin:
            yield _Part(heading, max(level - 1, 1), at, begin - 1)
        full = f"{name}.{node.name}" if name else node.name
        if isinstance(node, ast.ClassDef) and level < _MAX_DEPTH:
            yield from _members(node.body, full, level + 1, max(begin, at), end, lines)
        else:
            yield _Part(full, level, max(begin, at), end)
        at = max(end + 1, at)
    if at <= last:
        yield _Part(heading, max(level - 1, 1), at, last)


# Other languages.


def _by_margin(lines: Sequence[str]) -> Iterator[_Part]:
    starts = [
        number
        for number, line in enumerate(lines, 1)
        if line[:1].strip() and (number == 1 or not lines[number - 2].strip()) and not _CLOSING.match(line)
    ]
    for first, following in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        yield _Part(_declared(lines[first - 1 : min(following - 1, first + 30)]), 1, first, following - 1)


def _declared(lines: Sequence[str]) -> str:
    """Return what is declared at the margin of these lines, above which comments and annotations may stand; empty if nothing is."""
    for line in lines:
        if not line[:1].strip():
            continue
        head = line[:500]
        if (found := _DECLARED.match(head)) and found[2]:
            return f"{found[1].lower()} {found[2]}"
        if found := _SECTION.match(head):
            return found[1].strip()
        if (found := _ASSIGNED.match(head) or _CALLABLE.match(head)) and found[1] not in _NO_NAMES:
            return found[1]
        if not head.startswith(("#", "//", "/*", "*", "--", "@", "[", ";", '"""')):
            return ""
    return ""
