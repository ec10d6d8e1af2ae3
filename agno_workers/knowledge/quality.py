"""Refuse documents without meaningful text, and weigh down lists of links and page numbers.

Users chose these documents, so the limits only reject text that can't answer anything. Filters for training data (such as
Gopher's 30 % of repeated lines) would refuse changelogs, tables, and standards with a footer on each page.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
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

LISTING_WEIGHT = 0.4
"""Weight of a chunk in a search if it belongs to an index, a table of contents or a list of links: it has many words of a question,
and no answer. For 25 ordinary questions on PostgreSQL's manual, 42 of the first 125 results by keyword and 16 in hybrid search were such
chunks without the weight, and the first result of 11 and 3 questions; with it 2 and 0 were, and the first result of none."""
LISTING_ENTRIES = 12
"""Minimum number of entries of such a list, in a chunk and its neighbours; a shorter one is an answer, such as features, and so are
numbered steps.
Entries with numbers of pages or sections count threefold."""
NEIGHBOURS = 2
"""Chunks on each side that must mostly be entries too, since a list in a text belongs to it."""
ENTRY_CHARS = 64
ENTRY_WORDS = 6
"""Maximum mean length of an entry; lines of logs, poems and changelogs are longer."""
ENTRY_DIGITS = 7
"""Maximum mean number of digits of an entry; lists of telephone numbers, prices and measurements have more."""
SENTENCE_CHARS = 250
"""Prose ends a sentence at least this often."""
CODE_CHARS = 50
"""Code and tables have one of their symbols at least this often, and records and dialogues a colon in every second line."""
SPLIT_CHARS = 40
"""An index in one line, such as a cell of a table, has a comma or a parenthesis at least this often."""

SYMBOLS_CHARS = 200
"""Minimum length for MAX_SYMBOLS: half of a short table or a formula may be symbols."""
REPEATED_LINES = 100

_SENTENCE_END = re.compile(r"[.!?](?<=[^\W\d_]{2}.)(?=[\"')\]”’]*(?:\s|$))|[。！？]")
_NUMBERED = re.compile(r"[,.\s]\d{1,4}(?:[-–]\d{1,4})?$|^\W*\d+\.\d[\d.]*\s", re.MULTILINE)
_STEP = re.compile(r"^\s*\d{1,3}[.)]\s(?!.*\d$)", re.MULTILINE)  # without the number of a page at its end
_CODE = '={};<>|"$`\\*@'
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
    if any(block.place and block.place.unit in ("page", "slide") for block in normal.parsed.blocks):
        return "Its pages contain no text, perhaps only images: run OCR first."
    return f"It contains no text, or less than {MIN_LETTERS} letters."


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


def weights(contents: Sequence[str]) -> list[float]:
    """Return the weights of a document's chunks in a search, in order: 1, or LISTING_WEIGHT."""
    entries = [_entries(content) for content in contents]
    around = [entries[max(0, at - NEIGHBOURS) : at + NEIGHBOURS + 1] for at in range(len(entries))]
    return [
        LISTING_WEIGHT
        if many and sum(near) >= LISTING_ENTRIES and sum(map(bool, near)) >= 0.8 * len(near)
        else 1.0
        for many, near in zip(entries, around, strict=True)
    ]


def _entries(content: str) -> int:
    """Return the number of entries of a chunk without sentences, which is not code or a record; 0 for any other."""
    if len(_SENTENCE_END.findall(content)) * SENTENCE_CHARS > len(content):
        return 0
    if sum(map(content.count, _CODE)) * CODE_CHARS > len(content):
        return 0
    lines = [line for line in content.split("\n") if line]
    if content.count(":") * 2 >= len(lines) > 1 or len(_STEP.findall(content)) * 2 > len(lines):
        return 0
    if len(content) <= ENTRY_CHARS * len(lines) and len(content.split()) <= (ENTRY_WORDS + 1) * len(lines):
        if sum(map(str.isdigit, content)) > ENTRY_DIGITS * len(lines):
            return 0
        return len(lines) * (3 if len(_NUMBERED.findall(content)) * 2 > len(lines) else 1)
    splits = content.count(",") + content.count("(")
    return splits if splits * SPLIT_CHARS > len(content) and not _SENTENCE_END.search(content) else 0
