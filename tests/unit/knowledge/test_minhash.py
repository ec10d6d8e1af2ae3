"""Nearly the same documents are found by equal bands."""

from __future__ import annotations

import random
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.knowledge.minhash import BANDS, MIN_SHINGLES, ROWS, bands
from agno_workers.knowledge.types import NEAR_BANDS

TEXT = " ".join(
    f"Sentence {number} tells of pump {number * 7} and of what was found in it." for number in range(40)
)


def shared(one: str, other: str) -> int:
    return sum(a == b for a, b in zip(bands(one), bands(other), strict=True))


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (TEXT, True),
        (TEXT.upper(), True),
        (TEXT.replace(" ", "\n"), True),
        (TEXT.replace("Sentence 17 tells", "Sentence 17 speaks"), True),
        ("Printed on 3 March. " + TEXT, True),
        (TEXT + " See the next page for what was found in the others.", True),
        (" ".join(TEXT.split()[: len(TEXT.split()) // 2]), False),
        (TEXT.replace("pump", "engine"), False),
        (" ".join(sorted(TEXT.split())), False),
    ],
)
def test_small_change_keeps_documents_near(other: str, is_near: bool) -> None:
    assert _are_near(shared(TEXT, other)) is is_near


def test_a_text_without_blanks_is_compared_by_its_characters() -> None:
    rng = random.Random(2)
    text = "".join(chr(rng.randrange(0x4E00, 0x9F00)) for _ in range(2_000))
    assert _are_near(shared(text, text[:900] + "改" + text[900:]))
    assert not _are_near(shared(text, text[::-1]))


def test_a_short_text_has_no_bands() -> None:
    words = [f"word{number}" for number in range(MIN_SHINGLES + 4)]
    assert len(bands(" ".join(words))) == BANDS
    assert bands(" ".join(words[:-1])) == ()
    assert bands("") == ()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bands_fit_into_a_bigint(text: str) -> None:
    for band in bands(text * 30):
        assert -(2**63) <= band < 2**63


def test_detection_probability_is_as_documented() -> None:
    """Pairs whose likeness is known, against the binomial that the docstring tabulates."""
    rng = random.Random(1)
    for change in (0.01, 0.023, 0.04, 0.08):  # a likeness of about .9, .8, .7 and .5
        pairs = [_pair(rng, change) for _ in range(60)]
        expected = sum(_chance(likeness_) for likeness_, _ in pairs)
        assert sum(is_near for _, is_near in pairs) == pytest.approx(expected, abs=9)
    assert [round(_chance(each), 2) for each in (0.6, 0.7, 0.8, 0.9)] == [0.03, 0.28, 0.82, 1.0]


def _chance(likeness_: float) -> float:
    band = likeness_**ROWS
    return 1 - sum(comb(BANDS, k) * band**k * (1 - band) ** (BANDS - k) for k in range(NEAR_BANDS))


def _pair(rng: random.Random, change: float) -> tuple[float, bool]:
    """A text and a copy with some words replaced: the share of their runs of five words that both have, and what we say."""
    text = [f"w{rng.randrange(5_000)}" for _ in range(300)]
    copy = [f"w{rng.randrange(5_000)}" if rng.random() < change else word for word in text]
    one, other = ({tuple(words[at : at + 5]) for at in range(296)} for words in (text, copy))
    return len(one & other) / len(one | other), _are_near(shared(" ".join(text), " ".join(copy)))


def _are_near(equal: int) -> bool:
    """As ingest.sql has it."""
    return equal >= NEAR_BANDS
