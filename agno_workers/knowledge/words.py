"""The words of a text for keyword search: the same for chunks and for queries, so that one finds the other.

Postgres stems words and drops stop words, but its parser takes `JIRA-5678` for a word and a negative number, a host or a path for one
word, a Chinese sentence for one word, `C++` and `C#` for `c`, and `<String>` for a tag. Therefore it gets words only:

    JIRA-5678                 jira 5678 jira5678            parts, and pairs of neighbours; a query finds either
    db1.example.com           db1 db 1 example com db1example examplecom
    v2.10.3, 3.5mm            v2 2 10 3 2x10 10x3 ...       `x` between digits: 2.10 is not 210
    AnnualReport.pdf          annualreport annual report    capitals, in names of several parts; JavaScript is one word
    U.S.A.                    u s a us sa usa
    C++, C#, .NET             cplusplus, csharp, dotnet
    José, straße              josé jose, straße strasse     as written, for the stemmer, and without diacritics
    東京都, กรุงเทพ              東 京 都 東京 京都               scripts without blanks: characters and pairs of them

A query leaves out parts that alone mean another thing: `net` of `.NET`, and the single characters of 東京都.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

VERSION = 2
"""Increment this when the words change: the next ingestion into a knowledge base then writes the words of its chunks again."""

# Scripts without blanks between words, and Korean, whose particles follow a word without one.
_DENSE = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Marks that are part of a word, and not \w: accents, vowels of Hebrew, Arabic, Indic and South-East Asian scripts.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0963\u0966-\u0dff\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc"
    "\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
)
_SYMBOL = "[\u2600-\u27bf\U0001f300-\U0001faff]"  # emoji, which people search for, too
_PIECE = rf"(?:{_SYMBOL}|[^\W_](?:[^\W_]|[{_MARKS}])*(?:\+\+|[+#](?![^\W_]))?)"
_TOKEN = re.compile(
    rf"(?:(?<![\w.])\.(?=[^\W\d]))?{_PIECE}(?:[-._/\\:@'’&=~\u2010\u2011\u200c\u200d]{{1,3}}{_PIECE})*"
)
_ASCII_PIECE = r"[A-Za-z0-9]+(?:\+\+|[+#](?![A-Za-z0-9]))?"
_ASCII_TOKEN = re.compile(
    rf"(?:(?<![\w.])\.(?=[A-Za-z]))?{_ASCII_PIECE}(?:[-._/\\:@'&=~]{{1,3}}{_ASCII_PIECE})*"
)
_PIECES = re.compile(rf"(\.?)({_PIECE})")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBERED = re.compile(r"([^\W\d_]+)(\d+)|(\d+)([^\W\d_]+)")
_CAPITALS = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{2,}(?![a-z])")
_DENSE_RUN = re.compile(f"([{_DENSE}]+)")
_CHARACTER = re.compile(rf".[{_MARKS}]*")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]+")
_LETTERS = str.maketrans(
    {
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ł": "l",
        "ħ": "h",
        "ı": "i",
        "ŋ": "n",
    }
)
"""Letters that have no decomposition."""
_SYMBOLS = {"+": "plus", "++": "plusplus", "#": "sharp"}


def words(text: str, *, query: bool = False) -> str:
    """Return the words of a chunk or of a query, separated by blanks. It takes linear time."""
    token = _ASCII_TOKEN
    if not text.isascii():
        text, token = unicodedata.normalize("NFKC", text), _TOKEN
    if "," in text:
        text = _THOUSANDS.sub("", text)
    said: list[str] = []
    for each in token.findall(text):
        if each.isalpha() and each.isascii():
            said.append(each.lower())
        else:
            said += _token(each, query)
    return " ".join(said)


@lru_cache(20_000)
def _token(token: str, query: bool) -> tuple[str, ...]:
    """Return the parts of a token, and pairs of neighbours."""
    return tuple(_parts(token, query))


def _parts(token: str, query: bool) -> Iterator[str]:
    ends: list[str] = []
    for number, (dot, piece) in enumerate(_PIECES.findall(token)):
        written = piece.rstrip("+#")
        base = written.lower()
        name = base + _SYMBOLS.get(piece[len(written) :], "")
        is_named = dot and not base[0].isdigit()
        if is_named and not (query and number):
            yield f"dot{name}"
        if name != base:
            yield name
        if (name == base or len(base) > 1) and not (query and is_named and not number):
            yield from _part(base, query)
        if piece != token and len(capitals := _CAPITALS.findall(written)) > 1:
            yield from (each.lower() for each in capitals)
        ends.append(_folded(name))
    for left, right in pairwise(ends):
        yield from _pair(left, right)
    if len(ends) > 2 and max(map(len, ends)) == 1:
        yield "".join(ends)


def _part(part: str, query: bool) -> Iterator[str]:
    """Yield a word, and its variants."""
    if part.isascii():
        yield part
        if match := _NUMBERED.fullmatch(part):
            yield from (each for each in match.groups() if each and (len(each) > 1 or each.isdigit()))
        return
    for number, run in enumerate(_DENSE_RUN.split(part)):
        if number % 2:
            yield from _dense(run, query)
        elif run:
            yield run
            if (folded := _folded(run)) != run:
                yield folded


def _dense(run: str, query: bool) -> Iterator[str]:
    """Yield pairs of characters, and in a chunk each character, for a query of one."""
    characters = _CHARACTER.findall(run)
    if not query or len(characters) == 1:
        yield from characters
    yield from map("".join, pairwise(characters))


def _pair(left: str, right: str) -> Iterator[str]:
    if _DENSE_RUN.search(left + right):
        return
    if not right[0].isdigit() or not left[-1].isdigit():
        yield left + right
        return
    yield f"{left}x{right}"
    number, unit = _NUMBERED.fullmatch(left), _NUMBERED.fullmatch(right)
    if (number and number[2]) or (unit and unit[3]):
        yield f"{(number and number[2]) or left}x{(unit and unit[3]) or right}"


def _folded(word: str) -> str:
    """Return a word without diacritics."""
    if word.isascii():
        return word
    return unicodedata.normalize(
        "NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", word.translate(_LETTERS)))
    )
