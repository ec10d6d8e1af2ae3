"""Whether a document says anything at all.

What was asked for is kept: the user chose these documents, so a bar stands where a text can answer nothing, not where it is
poor. The bars that clean the text of models before training (Gopher's 30 % of repeated lines, and others) would refuse
changelogs, tables and standards with a footer on each page.
"""

from __future__ import annotations

import re
import string
from itertools import islice

from agno_workers.knowledge.normalise import Normal
from agno_workers.knowledge.types import Refusal

MIN_LETTERS = 3
"""Letters or digits in all: what has fewer was a scan without text, or a page that a script fills. `R2D2` is a document."""
MAX_UNREADABLE = 0.10
"""Of the characters. Icon fonts and a few wrong quotation marks stay below 2 %; a font without a character map, or bytes
that are no text, lie above 30 %."""
MAX_SYMBOLS = 0.85
"""Of the printed characters, for ASCII's marks. Prose has 5 %, code 20-35 %, tables with drawn rules up to 80 %."""
MIN_DISTINCT = 0.05
"""Of the characters, those in lines that don't stand there already; looked at from REPEATED_LINES on. A table of few values
has 10 % and more."""
MAX_WORD_CHARS = 300
"""On average, in ASCII: keys, images and archives as base64 have no blanks. Long URLs have 100."""

SYMBOLS_CHARS = 200
"""Below, a short table or a formula may well be half symbols."""
REPEATED_LINES = 100

_LETTER = re.compile(r"[^\W_]")
_NO_SYMBOLS = (string.ascii_letters + string.digits + string.whitespace).encode() + bytes(range(128, 256))


def refusal(normal: Normal) -> Refusal | None:
    """Why this document is not worth keeping; None where it is."""
    text = normal.text
    if len(list(islice(_LETTER.finditer(text), MIN_LETTERS))) < MIN_LETTERS:
        return Refusal("empty", _empty(normal))
    share = min(normal.unreadable / len(text), 1.0)
    if share > MAX_UNREADABLE:
        return Refusal(
            "low_quality",
            f"{share:.0%} of its characters are no text: its font has no character map, or it is not in the encoding it says. "
            "Export it again as text, or scan it with text recognition.",
        )
    return _symbols(text) or _endless_word(text) or _repeated(text)


def _empty(normal: Normal) -> str:
    if any(block.page for block in normal.parsed.blocks):
        return "Its pages hold no text, only pictures perhaps: run text recognition (OCR) over it first."
    return "It holds no text: nothing in it could be found by a search."


def _symbols(text: str) -> Refusal | None:
    if len(text) < SYMBOLS_CHARS:
        return None
    raw = text.encode()
    symbols = len(raw.translate(None, _NO_SYMBOLS))
    share = symbols / len(raw.translate(None, string.whitespace.encode()))
    if share <= MAX_SYMBOLS:
        return None
    return Refusal("low_quality", f"{share:.0%} of it are symbols: it is no text, nor code. Leave it out.")


def _endless_word(text: str) -> Refusal | None:
    words = text.count(" ") + text.count("\n") + 1
    if not text.isascii() or len(text) <= MAX_WORD_CHARS * (words + 3):
        return None
    return Refusal(
        "low_quality",
        f"Its words are {len(text) // words:,} characters long on average: it is encoded data, such as base64. Leave it out.",
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
        f"{1 - distinct:.0%} of its {len(lines):,} lines repeat others. Leave it out, or ingest what differs.",
    )
