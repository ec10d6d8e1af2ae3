"""A picture becomes text by a model that looks at it, and by none when it can't."""

from __future__ import annotations

import base64

import pytest

from agno_workers.core.messages import Image, ModelRequest
from agno_workers.errors import ModelUnavailable
from agno_workers.knowledge.describe import describe
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed
from agno_workers.models.scripted import Scripted, Turn
from tests.fakes import documents as made


def test_description_of_an_image_becomes_paragraphs() -> None:
    seen: list[ModelRequest] = []

    def look(request: ModelRequest) -> Turn:
        seen.append(request)
        return Turn(text="A blue bay.\n\nBoats lie in the mud.")

    parsed, usage = describe(made.png(), Scripted("looks", look))
    assert usage.output_tokens > 0
    assert parsed == Parsed(
        (Block("paragraph", "A blue bay."), Block("paragraph", "Boats lie in the mud.")),
        None,
        {"described_by": "scripted:looks"},
    )
    (picture,) = (part for part in seen[0].messages[0].parts if isinstance(part, Image))
    assert (base64.b64decode(picture.data), picture.media_type) == (made.png(), "image/png")


@pytest.mark.parametrize(
    ("content", "type"),
    [
        (made.every_format()["a.tiff"], "unsupported"),
        (made.pdf(), "unsupported"),
        (b"", "unsupported"),
        (made.png() + bytes(5_000_000), "too_large"),
    ],
)
def test_unsupported_image_is_not_sent(content: bytes, type: str) -> None:
    def never(_: ModelRequest) -> Turn:
        raise AssertionError("it was asked")

    with pytest.raises(Unreadable) as refused:
        describe(content, Scripted("never", never))
    assert refused.value.type == type


def test_unavailable_model_is_not_a_refusal() -> None:
    away = ModelUnavailable("Away.", provider="scripted", retry_after_s=None)
    with pytest.raises(ModelUnavailable):
        describe(made.png(), Scripted("away", (Turn(error=away),)))
