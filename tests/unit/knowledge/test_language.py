"""Which language a document is in."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.knowledge.language import detect, language_of, valid
from agno_workers.knowledge.types import Block

ENGLISH = "The pump is checked each spring, and the valve is turned twice before the water comes back."
GERMAN = "Die Pumpe wird jedes Frühjahr geprüft, und das Ventil wird zweimal gedreht, bevor das Wasser kommt."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        (
            "La pompe est vérifiée chaque printemps, et la vanne est tournée deux fois avant le retour de l'eau.",
            "fr",
        ),
        ("每年春天都会检查水泵，并在水回来之前将阀门转动两次。这是为了安全。", "zh"),
        ("ポンプは毎年春に点検され、水が戻る前にバルブが二回回されます。", "ja"),
        ("Насос проверяют каждую весну, а вентиль поворачивают дважды, прежде чем вернётся вода.", "ru"),
        ("ok", None),
        ("12.50 13.75 44 1,200 7 8 9 10 11 12 13 14 15", None),
        ("", None),
    ],
)
def test_language_is_detected(text: str, expected: str | None) -> None:
    assert detect(text) == expected


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("EN_us.UTF-8", "en"),
        (" fr, en", "fr"),
        ("deu", None),
        ("english", None),
        ("xx", None),
        ("", None),
        (None, None),
        (7, None),
        ("x" * 10_000, None),
    ],
)
def test_only_a_two_letter_code_is_a_valid_declaration(declared: Any, expected: str | None) -> None:
    assert valid(declared) == expected


def test_valid_declaration_wins() -> None:
    blocks = (Block("paragraph", ENGLISH),)
    assert language_of(blocks, "de") == "de"
    assert language_of(blocks, "klingon") == "en"
    assert language_of(blocks) == "en"


def test_code_tables_and_headings_are_ignored() -> None:
    english = [Block(kind, ENGLISH * 5) for kind in ("code", "table", "heading")]
    assert language_of((*english, Block("paragraph", GERMAN))) == "de"
    assert language_of(tuple(english)) is None


def test_language_of_a_page_with_a_foreign_beginning_is_the_main_one() -> None:
    """What the first few hundred characters leave open, the rest settles."""
    mixed = "Home News Shop FAQ Login " * 14 + GERMAN * 15
    assert detect(mixed) == "de"


def test_unsure_language_counts_where_another_part_of_the_text_agrees() -> None:
    """A document that is half code: each part alone leaves it open."""
    names = "GET /v1/users/{id} 200 OK X-Request-Id u_3f9c; PUT /v1/teams 409; "
    assert detect(ENGLISH + names * 5 + ENGLISH + names * 8) == "en"
