"""From what a reader made of bytes to the document that is kept."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given, settings

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.minhash import BANDS
from agno_workers.knowledge.prepare import prepare
from agno_workers.knowledge.types import Block, Chunking, Parsed, Prepared, Refusal, Source
from tests.unit.knowledge.documents import outline, paragraphs, parsed

PROSE = "The pump is checked each spring. It is filled with oil, and the valve is turned twice. "
SOURCE = Source("file:///manual.md")


def prepared(document: Parsed, source: Source = SOURCE, chunking: Chunking = Chunking()) -> Prepared:  # noqa: B008  # it is frozen
    made = prepare(document, b"raw", "text/markdown", source, chunking)
    assert isinstance(made, Prepared)
    return made


def test_prepared_document_has_all_columns() -> None:
    made = prepared(outline(f"# Manual\n\n{PROSE * 9}\n\n## Oil\n\n{PROSE * 3}"))
    assert made.title == "Manual"
    assert (made.media_type, made.language, made.bytes) == ("text/markdown", "en", 3)
    assert made.sha256 == hashlib.sha256(b"raw").digest()
    assert (
        made.text_sha256
        == hashlib.sha256(
            f"Manual\n\n{(PROSE * 9).strip()}\n\nOil\n\n{(PROSE * 3).strip()}".encode()
        ).digest()
    )
    assert len(made.bands) == BANDS
    assert [chunk.heading for chunk in made.chunks] == [("Manual",)] * 2 + [("Manual", "Oil")]


def test_equal_text_in_another_encoding_is_the_same_document() -> None:
    one = prepared(paragraphs(f"Étude\r\n{PROSE * 9}"))
    other = prepared(paragraphs(f"E\u0301tude \n {PROSE * 9}\u200b", "\x00"))
    assert one.text_sha256 == other.text_sha256
    assert [chunk.hash for chunk in one.chunks] == [chunk.hash for chunk in other.chunks]


@pytest.mark.parametrize(
    ("given", "title"),
    [
        ((Source("text:a", title="Mine"), Parsed((Block("heading", "H", 1),), "Its own")), "Mine"),
        ((Source("text:a"), Parsed((Block("heading", "H", 1),), "Its  own\n")), "Its own"),
        (
            (Source("text:a", title=" "), Parsed((Block("paragraph", "before"), Block("heading", "H", 2)))),
            "H",
        ),
        ((Source("text:a"), Parsed((Block("paragraph", "no heading"),))), None),
        (
            (Source("file:///a/Tide%20table.pdf"), Parsed((Block("paragraph", "no heading"),))),
            "Tide table.pdf",
        ),
        ((Source("file:///a/table.pdf"), Parsed((Block("heading", "H", 1),))), "H"),
        ((Source("https://example.org/tides/"), Parsed((Block("paragraph", "no heading"),))), None),
        ((Source("file:///a.csv#A1"), Parsed((Block("paragraph", "a row"),))), None),
    ],
)
def test_title_is_from_the_source_the_format_the_first_heading_or_the_file_name(
    given: tuple[Source, Parsed], title: str | None
) -> None:
    source, document = given
    assert (
        prepared(Parsed((*document.blocks, Block("paragraph", PROSE)), document.title), source).title == title
    )


def test_metadata_of_the_source_overrides_the_format() -> None:
    document = Parsed((Block("paragraph", PROSE),), metadata={"author": "tool", "pages": 3, "language": "de"})
    made = prepared(document, Source("text:a", metadata={"author": "Ada\x00", "team": "ops"}))
    assert made.metadata == {"author": "Ada", "pages": 3, "language": "de", "team": "ops"}
    assert made.language == "de"


def test_unusable_document_is_refused_with_a_reason() -> None:
    made = prepare(paragraphs("..."), b"...", "text/plain", SOURCE, Chunking())
    assert made == Refusal("empty", "It contains no text, or less than 3 letters.")


def no_pieces(document: Parsed, chunking: Chunking) -> tuple[str, list[None]]:
    return "text", []


def test_strategy_without_chunks_gives_an_empty_document() -> None:
    made = prepare(paragraphs(PROSE), b"", "text/plain", SOURCE, Chunking(f"{__name__}:no_pieces"))
    assert isinstance(made, Refusal)
    assert made.type == "empty"


def test_invalid_strategy_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="can't be loaded"):
        prepare(paragraphs(PROSE), b"", "text/plain", SOURCE, Chunking("no_such_module:cut"))


@settings(deadline=None)
@given(parsed)
def test_prepared_document_survives_encoding_and_postgres(document: Parsed) -> None:
    made = prepare(document, b"raw", "text/plain", SOURCE, Chunking(max_chars=100))
    packed = msgspec.msgpack.encode(made)
    assert msgspec.msgpack.decode(packed, type=type(made)) == made
    assert b"\x00" not in json.dumps(msgspec.to_builtins(made)).encode()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 2_000_000,
        "a. " * 700_000,
        "\n.\n" * 500_000,
        " ." * 900_000,
        "漢" * 300_000,
        '."' * 900_000,
        "e\u0301\u0300" * 500_000,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_two_megabytes_are_prepared_within_seconds(hostile: str) -> None:
    for kind in ("paragraph", "code", "table"):
        prepare(Parsed((Block(kind, hostile),)), b"", "text/plain", SOURCE, Chunking())
