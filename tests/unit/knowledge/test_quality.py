"""What says nothing is refused, and nothing else."""

from __future__ import annotations

import base64
import inspect
import random
import string

import pytest

from agno_workers.knowledge import chunk
from agno_workers.knowledge.normalise import normalise
from agno_workers.knowledge.quality import refusal
from agno_workers.knowledge.types import Block, Parsed
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
    found = refusal(normalise(Parsed((Block("paragraph", "1", page=1), Block("paragraph", "2", page=2)))))
    assert found is not None
    assert "run OCR first" in found.message
    found = refusal(normalise(paragraphs("\ufffd" * 300 + string.ascii_letters * 4)))
    assert found is not None
    assert found.message.startswith("59% of its characters are unreadable")
