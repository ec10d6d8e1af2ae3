"""Join the lines of a PDF's paragraph: words cut by a hyphen are whole again, and hyphens that belong to a word stay.

Whether `well-` and `being` are one word is not written in a PDF. A hyphen stays before a capital or a digit (`Jean-Paul`, `2019-2021`),
after a capital abbreviation, a digit or one letter (`e-mail`), inside a longer compound (`state-of-the-art`), before a conjunction
(`pre- and postwar`), and where the document writes the word with a hyphen elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agno_workers.knowledge.readers.wrapped import CHARS

CUT = "\ufffe"
"""pdfium's mark for a hyphen and a line end."""
UNSPACED = rf"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff{CHARS}"
"""Characters of scripts without blanks between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010][^\W\d_]+)+|[^\W\d_]{4,}")
_FIRST = re.compile(r"[^\W\d_]+")
_HYPHENS = "-\u2010\u2011"
_SUSPENDED = re.compile(r"(?:and|und|oder|bzw\.|sowie|en|och|og)(?!\w)|(?:or|to|bis|et|ou|y|o|e|of)\s+\w+-")
"""The next line after a hyphen that stands for a part of a later word. `or` and `to` are also ends of words (`col-or`, `pho-to`)."""
_UNSPACED = re.compile(f"[{UNSPACED}]")
_QUOTES = "“”‘’…—"


def words(texts: Iterable[str]) -> set[str]:
    """Return the words of a document, to look up whether it writes a compound with a hyphen. Those cut at a line end are left out."""
    return {
        found.group().replace("\u2010", "-").lower()
        for text in texts
        for found in _WORD.finditer(text)
        if found.end() < len(text) and text[found.end()] not in _HYPHENS
    }


def joined(lines: Iterable[str], known: set[str]) -> str:
    """Return the lines as one. `known` are the words of the document."""
    parts: list[str] = []
    for line in lines:
        if parts:
            parts[-1], between = _seam(parts[-1], line, known)
            parts.append(between)
        parts.append(line)
    return "".join(parts)


def _seam(last: str, line: str, known: set[str]) -> tuple[str, str]:
    """Return the last line, without its hyphen if that was added at the line end, and what separates it from the next."""
    if len(last) > 1 and last[-1] in _HYPHENS and last[-2].isalnum():
        if _is_cut(last[:-1], line, known):
            return last[:-1], ""
        return last, " " if _is_suspended(line) else ""
    if last.endswith("\u00ad"):
        return last[:-1], ""
    if len(last) > 1 and last[-1] in "–—/" and not last[-2].isspace() and line[0].isalnum():
        return last, ""
    edges = [bool(_UNSPACED.match(edge)) for edge in (last[-1], line[0])]
    unspaced = all(edges) or (any(edges) and (last[-1] in _QUOTES or line[0] in _QUOTES))
    return last, "" if unspaced else " "


def _is_suspended(line: str) -> bool:
    """Return whether the next line goes on with a conjunction, as in `pre- and postwar`, or with no word at all."""
    return not line[0].isalnum() or bool(_SUSPENDED.match(line))


def _is_cut(text: str, line: str, known: set[str]) -> bool:
    """Return whether the hyphen was added at the line end."""
    first = _FIRST.match(line)
    head = text.rsplit(None, 1)[-1].lstrip("([{\"'“‘„«")
    if first is None or text[-1].isdigit():
        return False
    tail = first.group()
    solid = (head + tail).lower()
    if tail[0].isupper():
        return head.isupper() and tail.isupper() and solid in known
    if _is_suspended(line) or len(head) < 2 or head.isupper() or re.search(r"[\d\-\u2010/@:_.]", head):
        return False
    return solid in known or f"{head}-{tail}".lower() not in known
