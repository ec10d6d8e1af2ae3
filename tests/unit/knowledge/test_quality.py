"""What says nothing is refused, and nothing else."""

from __future__ import annotations

import base64
import inspect
import random
import string

import pytest

from agno_workers.knowledge import chunk
from agno_workers.knowledge.normalise import normalise
from agno_workers.knowledge.quality import LISTING_WEIGHT, refusal, weights
from agno_workers.knowledge.types import Block, Parsed, Place
from tests.unit.knowledge.documents import paragraphs

RNG = random.Random(5)
PROSE = "The pump is checked each spring. It is filled with oil, and the valve is turned twice. "


def refused(document: Parsed) -> str | None:
    found = refusal(normalise(document))
    return found.type if found else None


@pytest.mark.parametrize(
    "text",
    [
        "R2D2",
        "Ada's phone: 555-0199",
        PROSE * 50,
        inspect.getsource(chunk),
        "\n".join(f"{number} | ok | {number % 3}" for number in range(500)),
        "name | state\n" + "\n".join(f"pump-{number} | ok" for number in range(300)),
        "".join(
            f"+---------+----------+\n| pump-{each:2} | 1.{each:2} bar |\n+---------+----------+\n"
            for each in range(20)
        ),
        "\n".join(f"pump {number % 30} | ok" for number in range(300)),
        "水泵每年春天检查。" * 40,
        "https://example.org/a/very/long/path/to/something?with=arguments&and=more \n" * 40,
        "Page footer, confidential\n"
        + "".join(f"{PROSE}{number}\nPage footer, confidential\n" for number in range(120)),
        "∀x ∈ A: f(x) ≤ g(x)",
        "Stra\ufffde und \ufffdbung macht den Meister, sagt man in M\ufffdnchen und anderswo. " * 5,
    ],
    ids=lambda text: text[:12],
)
def test_meaningful_text_is_kept(text: str) -> None:
    assert refused(paragraphs(text)) is None
    assert refused(Parsed((Block("code", text),))) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        (" \n\u200b\x00 ", "empty"),
        ("- * - ... 1 2", "empty"),
        ("".join(RNG.choice("\ufffd\ue001\x03a") for _ in range(900)), "low_quality"),
        ("-=" * 200 + "ab12", "low_quality"),
        (base64.b64encode(RNG.randbytes(4_000)).decode(), "low_quality"),
        ("error: no answer\n" * 4_000, "low_quality"),
    ],
    ids=["nothing", "unseen", "marks", "no character map", "rules", "base64", "one line"],
)
def test_meaningless_text_is_refused(text: str, expected: str) -> None:
    assert refused(paragraphs(text)) == expected


def test_refusal_states_the_next_move() -> None:
    found = refusal(
        normalise(
            Parsed(
                (
                    Block("paragraph", "1", place=Place("page", 1)),
                    Block("paragraph", "2", place=Place("page", 2)),
                )
            )
        )
    )
    assert found is not None
    assert "run OCR first" in found.message
    found = refusal(normalise(paragraphs("\ufffd" * 300 + string.ascii_letters * 4)))
    assert found is not None
    assert found.message.startswith("59% of its characters are unreadable")


WORDS = [
    "lease",
    "barrier",
    "keeper",
    "run",
    "step",
    "claim",
    "fence",
    "token",
    "queue",
    "worker",
    "outbox",
    "turn",
    "tool",
    "canvas",
]
LISTINGS = {
    "a book's index": "\n\n".join(f"{word}, {at}, {at + 7}–{at + 9}" for at, word in enumerate(WORDS[:6])),
    "a list of links": "\n".join(f"- [How to use a {word}](/docs/{word}.html)" for word in WORDS),
    "titles of links": "\n\n".join(f"How to use a {word}" for word in WORDS),
    "a table of contents": "\n".join(f"{at}. About a {word} ........ {at * 11}" for at, word in enumerate(WORDS[:6], 1)),
    "numbered sections": "\n\n".join(f"7.{at}. About a {word}" for at, word in enumerate(WORDS[:6], 1)),
    "an index in a cell": "append() (list method) apply() (in module pumps) arc (class in ast) args (pump attribute) argv (in module sys) array module, [1], [2] " * 3,
    "a list in Chinese": "\n".join(["水泵", "阀门", "油箱", "软管", "仪表", "电机", "轴承", "齿轮", "皮带", "油封", "螺栓", "垫圈"]),
}  # fmt: skip
TEXTS = {
    "prose": PROSE * 5,
    "prose in short lines": "\n".join(["The pump is checked", "each spring, and it is", "filled with oil. Then", "the valve is turned", "twice. Nobody else", "may touch it."] * 3),
    "steps": "\n".join(f"{at}. Use the {word}" for at, word in enumerate(WORDS, 1)),
    "features": "\n".join(f"- A {word} that survives a crash" for word in WORDS[:8]),
    "a note": "Ada's phone: 555-0199",
    "telephone numbers": "\n".join(f"{word.title()}, +49 30 12340{at}, room {at}" for at, word in enumerate(WORDS)),
    "addresses": "\n".join(f"{word.title()}, {word}@example.org" for word in WORDS),
    "changes": "\n".join(f"- Fix a {word} that was lost when a worker restarts" for word in WORDS),
    "records": "\n\n".join(f"name: {word}\nroom: {at}\nstate: in use" for at, word in enumerate(WORDS)),
    "a dialogue": "\n".join(f"Ann: is the {word} here" for word in WORDS),
    "a log": "\n".join(f"2026-01-0{at % 9} 10:00:00 INFO {word} started" for at, word in enumerate(WORDS)),
    "a poem": "\n".join(["Shall I compare thee to a summer's day", "Thou art more lovely and more temperate"] * 8),
    "code": inspect.getsource(chunk)[:2000],
    "a table": "name | state\n" + "\n".join(f"{word} | ok" for word in WORDS),
    "settings": "\n".join(f"lease_{word} = {at}" for at, word in enumerate(WORDS)),
    "prose in Chinese": "水泵每年春天检查。\n" * 20,
}  # fmt: skip


@pytest.mark.parametrize("name", LISTINGS)
def test_listing_counts_less_in_searches(name: str) -> None:
    assert weights([LISTINGS[name]]) == [LISTING_WEIGHT]
    assert weights([LISTINGS[name]] * 6) == [LISTING_WEIGHT] * 6


@pytest.mark.parametrize("name", TEXTS)
def test_text_has_its_full_weight(name: str) -> None:
    assert weights([TEXTS[name]]) == [1.0]


def test_list_in_a_text_has_its_full_weight_and_an_index_behind_it_has_not() -> None:
    (listing, *_), text = LISTINGS.values(), TEXTS["prose"]
    assert weights([text, listing, text, text]) == [1.0] * 4
    assert weights([text] * 4 + [listing] * 6) == [1.0] * 5 + [LISTING_WEIGHT] * 5
