"""Normalise text, so that equal documents are equal bytes and Postgres accepts them.

Removed: U+0000 and lone surrogates (text and jsonb reject them), other control characters, soft hyphens and zero-width
characters (they split words invisibly), direction marks and Unicode tags (they hide text from readers that a model would
see), runs of blanks. Kept: the zero-width joiner and non-joiner, which Persian, Indic scripts and emoji need, and the
indentation and alignment of code.
"""

from __future__ import annotations

import math
import re
import unicodedata
from itertools import accumulate
from typing import Any

import msgspec

from agno_workers.knowledge.types import Block, Parsed

MAX_HEADING_CHARS = 200
"""A longer heading becomes a paragraph."""
MAX_TITLE_CHARS = 300
GAP = "\n\n"
"""The separator of blocks in the normalised text."""

_SEAM = "\x1e"
"""Joins the blocks, so that a document is cleaned in one call."""

# A match holds the GIL, so each pattern takes linear time. Most text needs none of them, which `in` finds within microseconds.
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_BLANK = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_CONTROL = "".join(map(chr, {*range(0x20), 0x7F, *range(0x80, 0xA0)} - {*map(ord, "\t\n")} - {ord(_SEAM)}))
_CONTROL_BYTES = _CONTROL.encode("ascii", "ignore")
_CONTROLS = re.compile(f"[{re.escape(_CONTROL)}]")
_UNSEEN = re.compile(
    "[\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNKNOWN = re.compile("[\ue000-\uf8ff\ufffd\U000f0000-\U0010ffff]")  # private use, and undecodable bytes
_ODD = re.compile(
    "|".join(each.pattern for each in (_LINE_END, _BLANK, _CONTROLS, _UNSEEN, _SURROGATE, _UNKNOWN))
)
_BLANKS = re.compile(r"[ \t]{2,}|\t")
_LINE_EDGES = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{3,}")


class Normal(msgspec.Struct, frozen=True):
    """A normalised document."""

    text: str
    """The whole text, with headings. Offsets count its characters."""
    parsed: Parsed
    """Without empty blocks."""
    starts: tuple[int, ...]
    """The offset of each block in the text; GAP follows each block."""
    unreadable: int
    """Number of control, private use and replacement characters."""


def normalise(parsed: Parsed) -> Normal:
    """Normalise a document. Idempotent."""
    whole = _SEAM.join(block.text.replace(_SEAM, "") for block in parsed.blocks)
    cleaned, unreadable = _characters(whole)
    pairs = zip(parsed.blocks, cleaned.split(_SEAM), strict=True) if parsed.blocks else ()
    blocks = tuple(_block(block, text) for block, text in pairs if text and not text.isspace())
    return in_order(
        Parsed(blocks, line(parsed.title, MAX_TITLE_CHARS), json_object(parsed.metadata)), unreadable
    )


def in_order(parsed: Parsed, unreadable: int = 0) -> Normal:
    """Join blocks that are normalised already, and compute their offsets."""
    lengths = (len(block.text) + len(GAP) for block in parsed.blocks)
    starts = tuple(accumulate(lengths, initial=0))[:-1]
    return Normal(GAP.join([block.text for block in parsed.blocks]), parsed, starts, unreadable)


def line(text: str | None, max_chars: int) -> str | None:
    """Normalise a title to one line of at most `max_chars`; None if nothing is left."""
    if text is None:
        return None
    words = _characters(text)[0].split()
    return " ".join(words)[:max_chars].rstrip() or None


def json_object(value: dict[str, Any], max_chars: int = 10_000) -> dict[str, Any]:
    """Normalise metadata for jsonb: clean strings of at most `max_chars`, no NaN, at most eight levels."""
    return {clean(str(key))[:max_chars]: _json(each, max_chars, 8) for key, each in value.items()}


def clean(text: str) -> str:
    """Remove characters that Postgres rejects."""
    return _characters(text.replace(_SEAM, ""))[0]


def _block(block: Block, text: str) -> Block:
    kind = block.kind
    if kind == "heading":
        text = " ".join(text.split())
        kind = kind if len(text) <= MAX_HEADING_CHARS else "paragraph"
    elif kind == "code":
        text = "\n".join(map(str.rstrip, text.split("\n"))).strip("\n")
    else:
        text = _blanks(text).strip()
    if "\n\n\n" in text:
        text = _EMPTY_LINES.sub(GAP, text)
    return Block(kind, text, block.level, block.place, block.lines)


def _blanks(text: str) -> str:
    if "  " in text or "\t" in text:
        text = _BLANKS.sub(" ", text)
    return _LINE_EDGES.sub("\n", text) if " \n" in text or "\n " in text else text


def _characters(text: str) -> tuple[str, int]:
    """Clean the characters, and count unreadable ones."""
    if text.isascii():
        return _ascii(text)
    if _ODD.search(text) is None:
        return unicodedata.normalize("NFC", text), 0
    text, unreadable = _CONTROLS.subn("", _LINE_END.sub("\n", text))
    text = _UNSEEN.sub("", _BLANK.sub(" ", _SURROGATE.sub("\ufffd", text)))
    return unicodedata.normalize("NFC", text), unreadable + len(_UNKNOWN.findall(text))


def _ascii(text: str) -> tuple[str, int]:
    """Clean ASCII as bytes, in a tenth of the time."""
    if "\r" in text or "\x0c" in text or "\x0b" in text:
        text = _LINE_END.sub("\n", text)
    kept = text.encode("ascii").translate(None, _CONTROL_BYTES).decode("ascii")
    return kept, len(text) - len(kept)


def _json(value: Any, max_chars: int, depth: int) -> Any:
    match value:
        case str():
            return clean(value)[:max_chars]
        case None | bool():
            return value
        case int():
            return value if value.bit_length() < 1024 else None  # Python refuses to format longer ones
        case float():
            return value if math.isfinite(value) else None
        case dict() if depth:
            return {
                clean(str(key))[:max_chars]: _json(each, max_chars, depth - 1) for key, each in value.items()
            }
        case list() | tuple() if depth:
            return [_json(each, max_chars, depth - 1) for each in value]
        case _:
            return clean(str(value))[:max_chars]
