"""Numbers as a spreadsheet shows them: with their currency, unit, percent sign and leading zeros, but never rounded."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

_TOKEN = re.compile(
    r"""
      "(?P<quoted>[^"]*)"? | \\(?P<escaped>.) | \[\$(?P<currency>[^\]-]*)[^\]]*\]
    | (?P<places>General|[0#?.,]+) | (?P<unusual>[dmyhse@/] | \[[<>=hms][^\]]*\]) | [_*]. | \[[^\]]*\] | (?P<sign>.)
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""Dates, exponents, fractions, text and conditions are unusual: such numbers are read as their plain value."""


def plain(value: float) -> str:
    """Return all digits of a number, without an exponent. Noise of binary arithmetic (0.1 + 0.2) is rounded away, as Excel does."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    if (len(text) <= 16 and "e" not in text) or not abs(value) < 1e300:
        return text
    rounded = Decimal(f"{value:.15g}")
    is_noisy = not value.is_integer() and len(rounded.normalize().as_tuple().digits) <= 12
    return _digits(rounded if is_noisy else Decimal(text))


def formatted(value: float, code: str) -> str:
    """Return the number with all its digits, and what its format shows around them."""
    sections = _sections(code)
    place = 1 if value < 0 else 2 if value == 0 else 0  # the formats of positive, negative and zero
    section = sections[place if place < len(sections) else 0]
    if section is None or not abs(value) < 1e300:
        return plain(value)
    before, places, after, percents = section
    if value < 0:  # "(1)" and "1-" are read as "-1"
        before, after = before.replace("(", "").replace("-", ""), after.replace(")", "").replace("-", "")
    number = Decimal(plain(abs(value))).scaleb(2 * percents)
    whole, _, decimals = _digits(number).partition(".")
    least, _, least_decimals = (part.count("0") for part in places.partition("."))
    whole, decimals = whole.zfill(least), decimals.ljust(least_decimals, "0")
    return f"{'-' if value < 0 else ''}{before}{whole}{'.' if decimals else ''}{decimals}{after}".strip()


@lru_cache(maxsize=1000)
def _sections(code: str) -> list[tuple[str, str, str, int] | None]:
    """Return what stands before the digits, their places (`#,##0.00`), what stands behind them, and the number of percent signs that
    multiply; None for unusual formats.
    """
    sections: list[list[tuple[str, str]]] = [[]]
    for found in _TOKEN.finditer(code):
        if found["sign"] == ";":
            sections.append([])
        elif kind := found.lastgroup:
            sections[-1].append((kind, found[kind]))
    return [_section(section) for section in sections]


def _section(parts: list[tuple[str, str]]) -> tuple[str, str, str, int] | None:
    texts = [text for _, text in parts]
    at = [place for place, (kind, _) in enumerate(parts) if kind == "places"]
    places = "".join(texts[place] for place in at)
    if not places or places.endswith(",") or any(kind == "unusual" for kind, _ in parts):
        return None  # in thousands, or a date ...
    if len(at) > 1:
        return "", places, "", 0  # of a telephone number, for example
    return "".join(texts[: at[0]]), places, "".join(texts[at[0] + 1 :]), parts.count(("sign", "%"))


def _digits(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
