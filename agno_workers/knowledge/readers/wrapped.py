"""Join wrapped lines: with a blank, but not between Chinese or Japanese characters, which are written without blanks."""

from __future__ import annotations

import re
from itertools import pairwise

CHARS = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
"""Chinese and Japanese characters, for a regular expression."""
_WITHOUT_BLANKS = re.compile(f"[{CHARS}]")
_BREAK = re.compile(rf"(?<=[{CHARS}])[^\S\n]*+\n\s*+(?=[{CHARS}])")
_MIN_COLUMNS = 30  # lines of poems and lists are shorter


def joined(text: str) -> str:
    """Join all lines to one, and collapse blanks."""
    return " ".join((text if text.isascii() else _BREAK.sub("", text)).split())


def unwrapped(lines: list[str]) -> str:
    """Join Chinese and Japanese lines that were wrapped at the margin, perhaps within a word, and keep other line ends."""
    columns = [len(line) + len(_WITHOUT_BLANKS.findall(line)) for line in lines]  # such a character takes two
    margin = max([*columns, _MIN_COLUMNS]) - 3
    parts = [lines[0]]
    for width, (line, following) in zip(columns, pairwise(lines), strict=False):
        is_wrapped = width >= margin and _is_within_word(line[-1]) and _is_within_word(following[0])
        parts += ["" if is_wrapped else "\n", following]
    return "".join(parts)


def _is_within_word(char: str) -> bool:
    return char.isalnum() and _WITHOUT_BLANKS.match(char) is not None
