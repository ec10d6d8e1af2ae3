"""From a document to its pieces."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.chunk import chunk
from agno_workers.knowledge.chunking import check
from agno_workers.knowledge.normalise import Normal, normalise
from agno_workers.knowledge.tokens import tokens
from agno_workers.knowledge.types import Block, Chunk, Chunking, Parsed, Source, embedded_text
from agno_workers.sdk.knowledge import Knowledge
from tests.unit.knowledge.documents import outline, paragraphs, parsed

chunkings = st.builds(
    Chunking,
    strategy=st.sampled_from(["structure", "structure", "fixed"]),
    max_chars=st.one_of(st.integers(1, 60), st.integers(60, 600)),
    max_tokens=st.one_of(st.integers(16, 40), st.integers(40, 300)),
    tokenizer=st.sampled_from(["minilm", "minilm", "cl100k_base", "o200k_base"]),
)


@settings(deadline=None)
@given(parsed, chunkings)
def test_pieces_are_within_the_limits_and_say_what_they_are(document: Parsed, chunking: Chunking) -> None:
    normal = normalise(document)
    text, pieces = chunk(normal, check(chunking))
    counts = tokens(chunking.tokenizer).counts([piece.embedded for piece in pieces])
    for position, (piece, count) in enumerate(zip(pieces, counts, strict=True)):
        assert piece.position == position
        assert piece.content.strip()
        assert len(piece.content) <= chunking.max_chars
        assert piece.tokens == count <= chunking.max_tokens
        assert piece.hash == hashlib.sha256(piece.embedded.encode()).digest()
        assert piece.content.endswith(text[piece.start : piece.end])
        assert (
            len(piece.content) == piece.end - piece.start or "\n" in piece.content
        )  # a table's header above it


@settings(deadline=None)
@given(parsed, chunkings)
def test_pieces_cover_the_text_in_order(document: Parsed, chunking: Chunking) -> None:
    normal = normalise(document)
    text, pieces = chunk(normal, chunking)
    rest = covered = 0
    left_out = ""
    for piece in pieces:
        assert rest <= piece.start < piece.end
        left_out += text[rest : piece.start] + " "
        rest, covered = piece.end, covered + piece.end - piece.start
    left_out += text[rest:]
    headings = "" if chunking.strategy == "fixed" else "".join(_headings(normal))
    assert not set(left_out) - set(headings + " \n\t")


@settings(deadline=None)
@given(parsed)
def test_every_heading_stands_in_a_path_or_in_a_piece(document: Parsed) -> None:
    normal = normalise(document)
    _, pieces = chunk(normal, Chunking(max_chars=5_000, max_tokens=10_000))
    found = [*(name for piece in pieces for name in piece.heading), *(piece.content for piece in pieces)]
    for heading in _headings(normal):
        assert any(heading in each for each in found)


def test_a_line_that_begins_with_blanks_is_no_reason_to_say_the_one_before_it_twice() -> None:
    document = Parsed((Block("code", f"a a a\n\xa0 {'x' * 70}"),))
    _, pieces = chunk(normalise(document), Chunking("structure", 20, overlap_chars=5, max_tokens=2_000))
    assert all(before.end < piece.end for before, piece in pairwise(pieces))


@settings(deadline=None)
@given(parsed, st.integers(20, 300), st.data(), st.sampled_from(["structure", "fixed"]))
def test_with_an_overlap_every_piece_still_brings_something_new(
    document: Parsed, max_chars: int, data: st.DataObject, strategy: str
) -> None:
    overlap = data.draw(st.integers(1, max_chars // 2))
    _, pieces = chunk(
        normalise(document), Chunking(strategy, max_chars, overlap_chars=overlap, max_tokens=2_000)
    )
    for before, piece in pairwise(pieces):
        assert before.start < piece.start
        assert before.end < piece.end
        assert piece.start >= before.end - overlap
        assert len(piece.content) <= max_chars


def _headings(normal: Normal) -> list[str]:
    return [block.text for block in normal.parsed.blocks if block.kind == "heading"]


def pieces_of(document: Parsed, chunking: Chunking = Chunking()) -> tuple[Chunk, ...]:  # noqa: B008  # it is frozen
    return chunk(normalise(document), check(chunking))[1]


WORDS = "The pump is checked each spring. It is filled with oil, and the valve is turned twice. "


def test_a_piece_knows_the_headings_above_it() -> None:
    document = outline(
        f"# Manual\n\n{WORDS * 2}\n\n## Pump\n\n{WORDS * 2}\n\n### Oil\n\n{WORDS * 2}\n\n## Valve\n\n{WORDS * 2}"
    )
    assert [piece.heading for piece in pieces_of(document)] == [
        ("Manual",),
        ("Manual", "Pump"),
        ("Manual", "Pump", "Oil"),
        ("Manual", "Valve"),
    ]


@pytest.mark.parametrize(
    ("title", "source", "paths"),
    [
        ("Guide", f"# Pump\n\n{WORDS * 3}", [("Guide", "Pump")]),
        ("Guide", f"# GUIDE\n\n{WORDS * 3}", [("GUIDE",)]),
        ("Guide", f"{WORDS * 3}\n\n# Pump\n\n{WORDS * 3}", [("Guide",), ("Guide", "Pump")]),
        (None, WORDS * 3, [()]),
    ],
)
def test_the_title_is_the_first_heading_unless_one_repeats_it(
    title: str | None, source: str, paths: list[tuple[str, ...]]
) -> None:
    assert [piece.heading for piece in pieces_of(outline(source, title))] == paths


def test_a_heading_with_nothing_under_it_is_not_lost() -> None:
    document = outline(f"# Manual\n\n{WORDS * 4}\n\n## To be written\n\n# Appendix\n\n{WORDS * 4}")
    assert ("To be written", ("Manual",)) in [(piece.content, piece.heading) for piece in pieces_of(document)]


def test_tiny_sections_under_the_same_heading_become_one_piece() -> None:
    entries = "\n\n".join(f"## -{letter}\n\nSwitches {letter} on." for letter in "abc")
    (piece,) = pieces_of(outline(f"# Options\n\n{entries}"))
    assert piece.heading == ("Options",)
    assert piece.content.split("\n\n") == [
        "-a",
        "Switches a on.",
        "-b",
        "Switches b on.",
        "-c",
        "Switches c on.",
    ]


def test_sections_of_some_length_stay_apart() -> None:
    entries = "\n\n".join(f"## -{letter}\n\n{WORDS * 2}" for letter in "abc")
    assert [piece.heading[-1] for piece in pieces_of(outline(f"# Options\n\n{entries}"))] == [
        "-a",
        "-b",
        "-c",
    ]


def test_paragraphs_are_kept_whole_where_they_fit() -> None:
    texts = [f"{number}. {WORDS * 3}".strip() for number in range(6)]
    assert [piece.content for piece in pieces_of(paragraphs(*texts))] == texts


def test_long_prose_is_cut_at_sentences_only() -> None:
    pieces = pieces_of(paragraphs(WORDS * 40))
    assert len(pieces) > 5
    assert all(piece.content.startswith(("The", "It")) and piece.content.endswith(".") for piece in pieces)


@pytest.mark.parametrize("wrong", ["see e.g. the", "about 3.5 bar", "v. 2 of", "www.example.org or"])
def test_not_every_full_stop_ends_a_sentence(wrong: str) -> None:
    pieces = pieces_of(paragraphs(f"We {wrong} pump and more of it, and on it goes with words. " * 30))
    assert all(piece.content.startswith("We") for piece in pieces)


def test_code_is_cut_between_lines() -> None:
    lines = [f"    value_{number} = compute(first. Second, {number})" for number in range(60)]
    pieces = pieces_of(Parsed((Block("code", "\n".join(lines)),)))
    assert len(pieces) > 3
    assert [line for piece in pieces for line in piece.content.split("\n")] == lines


def test_a_line_of_code_longer_than_a_piece_is_cut_all_the_same() -> None:
    pieces = pieces_of(Parsed((Block("code", "x" * 1_700),)))
    assert "".join(piece.content for piece in pieces) == "x" * 1_700


def test_a_table_that_is_cut_repeats_its_header() -> None:
    rows = [f"P-{number} | pump | {number} bar" for number in range(100)]
    pieces = pieces_of(Parsed((Block("table", "\n".join(["part | what | pressure", *rows])),)))
    assert len(pieces) > 3
    assert all(piece.content.startswith("part | what | pressure\n") for piece in pieces)
    assert [row for piece in pieces for row in piece.content.split("\n")[1:]] == rows


def test_a_header_that_would_take_most_of_a_piece_is_not_repeated() -> None:
    table = "\n".join([" | ".join(["column"] * 40), *(f"row {number} | {'x' * 40}" for number in range(40))])
    pieces = pieces_of(Parsed((Block("table", table),)))
    assert sum("column" in piece.content for piece in pieces) == 1


def test_what_is_cut_for_the_model_keeps_its_headings_and_header() -> None:
    rows = [f"{number} | 漢字漢字漢字漢字漢字" for number in range(20)]
    table = Block("table", "\n".join(["no | what", *rows]))
    pieces = pieces_of(Parsed((Block("heading", "Parts", 1), table)), Chunking(max_tokens=64))
    assert len(pieces) > 3
    assert {piece.heading for piece in pieces} == {("Parts",)}
    assert all(piece.content.startswith("no | what\n") for piece in pieces)
    assert max(piece.tokens for piece in pieces) <= 64


def test_headings_never_take_more_than_half_of_what_the_model_sees() -> None:
    headings = [Block("heading", f"{level} " + "chapter " * 24, level) for level in range(1, 6)]
    pieces = pieces_of(Parsed((*headings, Block("paragraph", WORDS * 20))), Chunking(max_tokens=32))
    for piece in pieces:
        assert tokens("minilm").counts([embedded_text(piece.heading, "")])[0] <= 17


@pytest.mark.parametrize("shape", ["sections", "paragraphs", "one paragraph"])
def test_after_an_edit_nearly_all_pieces_are_the_same(shape: str) -> None:
    """With cuts at the last place that fits, pieces differ up to the end of the section: 4.6 on average in the last shape."""
    added = []
    for seed in range(20):
        rng = random.Random(seed)
        sentences = [_sentence(rng) for _ in range(400)]
        place = rng.randrange(20, 390)
        edited = [*sentences[:place], "Here a sentence was added.", *sentences[place:]]
        before = {piece.hash for piece in pieces_of(_shaped(sentences, shape))}
        added.append(len({piece.hash for piece in pieces_of(_shaped(edited, shape))} - before))
    assert sum(added) / len(added) <= 3


def _sentence(rng: random.Random) -> str:
    return "The " + " ".join(f"word{rng.randrange(900)}" for _ in range(rng.randrange(4, 18))) + "."


def _shaped(sentences: list[str], shape: str) -> Parsed:
    if shape == "one paragraph":
        return paragraphs(" ".join(sentences))
    groups = [" ".join(sentences[at : at + 5]) for at in range(0, 20, 5)]
    groups += [" ".join(group) for group in _groups(sentences[20:])]
    if shape == "paragraphs":
        return paragraphs(*groups)
    blocks = ((Block("heading", text[:20], 2), Block("paragraph", text)) for text in groups)
    return Parsed(tuple(block for pair in blocks for block in pair))


def _groups(sentences: list[str]) -> list[list[str]]:
    """A paragraph ends where its last sentence says so: adding one moves no other's end."""
    groups: list[list[str]] = [[]]
    for sentence in sentences:
        groups[-1].append(sentence)
        if len(sentence) % 5 == 0:
            groups.append([])
    return [group for group in groups if group]


# The user's own.


def by_sentence(document: Parsed, chunking: Chunking) -> tuple[str, list[Chunk]]:
    text = " ".join(block.text for block in document.blocks)
    parts = [part for part in text.split(". ") if part] + ["", "  "]
    return text, [Chunk(9, f"{part}\0", ("own",), text.find(part), 0, 0, b"") for part in parts]


def test_a_function_of_the_users_own_cuts_documents() -> None:
    chunking = Chunking(f"{__name__}:by_sentence", max_tokens=16)
    document = paragraphs("One thing. " + "many words of it " * 10 + ". Another")
    pieces = pieces_of(document, chunking)
    assert [piece.position for piece in pieces] == list(range(len(pieces)))
    assert (pieces[0].content, pieces[-1].content) == ("One thing", "Another")
    assert len(pieces) > 4
    assert max(piece.tokens for piece in pieces) <= 16
    assert all(piece.heading == ("own",) and "\0" not in piece.content for piece in pieces)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("no_such_module:cut", "can't be loaded: No module named 'no_such_module'"),
        (f"{__name__}:no_such", "can't be loaded.*no attribute 'no_such'"),
        (f"{__name__}:WORDS", "is no function"),
    ],
)
def test_a_function_that_is_none_is_told(strategy: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        pieces_of(paragraphs(WORDS), Chunking(strategy))


@pytest.mark.parametrize(
    ("chunking", "says"),
    [
        (Chunking("structur"), r"'structur' is no strategy of chunking. Did you mean 'structure'\?"),
        (Chunking("semantic"), "Use one of structure, fixed, or module:function"),
        (Chunking("shop:"), "'shop:' names no function"),
        (Chunking("shop:by product"), "names no function"),
        (Chunking(tokenizer="cl100k"), r"'cl100k' is no tokeniser. Did you mean 'cl100k_base'\?"),
        (Chunking(max_chars=0), "max_chars is 0: it must be a whole number from 1 to 100000"),
        (Chunking(max_chars=True), "max_chars is True"),
        (Chunking(max_chars=100, overlap_chars=51), "overlap_chars is 51: .* from 0 to 50"),
        (Chunking(overlap_chars=-1), "overlap_chars is -1"),
        (Chunking(max_tokens=15), "max_tokens is 15: .* from 16"),
    ],
)
def test_a_chunking_that_can_not_be_followed_is_refused(chunking: Chunking, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check(chunking)


def test_a_knowledge_base_tells_of_it_before_anything_is_sent() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'structure'"):
        Knowledge("docs", chunking=Chunking("structur")).ingest([Source("text:a", text="Hello.")])
