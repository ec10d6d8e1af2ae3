"""Refuse documents without meaningful text.

Users chose these documents, so the limits only reject text that can't answer anything. Filters for training data (such as
Gopher's 30 % of repeated lines) would refuse changelogs, tables, and standards with a footer on each page.
"""

from __future__ import annotations

import re
import string
from itertools import islice

from agno_workers.knowledge.normalise import Normal
from agno_workers.knowledge.types import Refusal

MIN_LETTERS = 3
"""Minimum number of letters and digits; scans without text and pages that a script fills have fewer. `R2D2` is a document."""
MAX_UNREADABLE = 0.10
"""Maximum share of unreadable characters. Icon fonts and a few wrong quotation marks stay below 2 %; fonts without a character
map, and bytes that are not text, exceed 30 %."""
MAX_SYMBOLS = 0.85
"""Maximum share of ASCII symbols among printed characters. Prose has 5 %, code 20-35 %, tables with drawn rules up to 80 %."""
MIN_DISTINCT = 0.05
"""Minimum share of characters in lines that are not repetitions, from REPEATED_LINES on. A table of few values has 10 % or more."""
MAX_WORD_CHARS = 300
"""Maximum mean length of words in ASCII: base64 has no blanks. Long URLs have 100."""

SYMBOLS_CHARS = 200
"""Minimum length for MAX_SYMBOLS: half of a short table or a formula may be symbols."""
REPEATED_LINES = 100

_LETTER = re.compile(r"[^\W_]")
_NO_SYMBOLS = (string.ascii_letters + string.digits + string.whitespace).encode() + bytes(range(128, 256))


def refusal(normal: Normal) -> Refusal | None:
    """Return the reason to refuse a document, or None."""
    text = normal.text
    if len(list(islice(_LETTER.finditer(text), MIN_LETTERS))) < MIN_LETTERS:
        return Refusal("empty", _empty(normal))
    share = min(normal.unreadable / len(text), 1.0)
    if share > MAX_UNREADABLE:
        return Refusal(
            "low_quality",
            f"{share:.0%} of its characters are unreadable: its font has no character map, or its declared encoding is wrong. "
            "Export it as text, or run OCR.",
        )
    return _symbols(text) or _endless_word(text) or _repeated(text)


def _empty(normal: Normal) -> str:
    if any(block.page for block in normal.parsed.blocks):
        return "Its pages contain no text, perhaps only images: run OCR first."
    return "It contains no text."


def _symbols(text: str) -> Refusal | None:
    if len(text) < SYMBOLS_CHARS:
        return None
    raw = text.encode()
    symbols = len(raw.translate(None, _NO_SYMBOLS))
    share = symbols / len(raw.translate(None, string.whitespace.encode()))
    if share <= MAX_SYMBOLS:
        return None
    return Refusal(
        "low_quality", f"{share:.0%} of it are symbols: it is neither text nor code. Leave it out."
    )


def _endless_word(text: str) -> Refusal | None:
    words = text.count(" ") + text.count("\n") + 1
    if not text.isascii() or len(text) <= MAX_WORD_CHARS * (words + 3):
        return None
    return Refusal(
        "low_quality",
        f"Its words have {len(text) // words:,} characters on average: it is encoded data, such as base64. Leave it out.",
    )


def _repeated(text: str) -> Refusal | None:
    if text.count("\n") < REPEATED_LINES:
        return None
    lines = text.split("\n")
    distinct = sum(map(len, set(lines))) / sum(map(len, lines))
    if distinct >= MIN_DISTINCT:
        return None
    return Refusal(
        "low_quality",
        f"{1 - distinct:.0%} of its {len(lines):,} lines repeat others. Leave it out, or ingest the distinct lines.",
    )
