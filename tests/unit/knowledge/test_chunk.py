"""From a document to its chunks."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.chunk import split
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
def test_chunks_respect_the_limits_and_their_fields_are_correct(document: Parsed, chunking: Chunking) -> None:
    normal = normalise(document)
    text, chunks = split(normal, check(chunking))
    counts = tokens(chunking.tokenizer).counts([chunk.embedded for chunk in chunks])
    for position, (chunk, count) in enumerate(zip(chunks, counts, strict=True)):
        assert chunk.position == position
        assert chunk.content.strip()
        assert len(chunk.content) <= chunking.max_chars
        assert chunk.tokens == count <= chunking.max_tokens
        assert chunk.hash == hashlib.sha256(chunk.embedded.encode()).digest()
        assert chunk.content.endswith(text[chunk.start : chunk.end])
        assert (
            len(chunk.content) == chunk.end - chunk.start or "\n" in chunk.content
        )  # a table's header above it


@settings(deadline=None)
@given(parsed, chunkings)
def test_chunks_cover_the_text_in_order(document: Parsed, chunking: Chunking) -> None:
    normal = normalise(document)
    text, chunks = split(normal, chunking)
    rest = covered = 0
    left_out = ""
    for chunk in chunks:
        assert rest <= chunk.start < chunk.end
        left_out += text[rest : chunk.start] + " "
        rest, covered = chunk.end, covered + chunk.end - chunk.start
    left_out += text[rest:]
    headings = "" if chunking.strategy == "fixed" else "".join(_headings(normal))
    assert not set(left_out) - set(headings + " \n\t")


@settings(deadline=None)
@given(parsed)
def test_every_heading_is_in_a_path_or_a_chunk(document: Parsed) -> None:
    normal = normalise(document)
    _, chunks = split(normal, Chunking(max_chars=5_000, max_tokens=10_000))
    found = [*(name for chunk in chunks for name in chunk.heading), *(chunk.content for chunk in chunks)]
    for heading in _headings(normal):
        assert any(heading in each for each in found)


def test_line_that_starts_with_blanks_does_not_repeat_the_previous_one() -> None:
    document = Parsed((Block("code", f"a a a\n\xa0 {'x' * 70}"),))
    _, chunks = split(normalise(document), Chunking("structure", 20, overlap_chars=5, max_tokens=2_000))
    assert all(before.end < chunk.end for before, chunk in pairwise(chunks))


@settings(deadline=None)
@given(parsed, st.integers(20, 300), st.data(), st.sampled_from(["structure", "fixed"]))
def test_every_chunk_has_new_text_with_an_overlap(
    document: Parsed, max_chars: int, data: st.DataObject, strategy: str
) -> None:
    overlap = data.draw(st.integers(1, max_chars // 2))
    _, chunks = split(
        normalise(document), Chunking(strategy, max_chars, overlap_chars=overlap, max_tokens=2_000)
    )
    for before, chunk in pairwise(chunks):
        assert before.start < chunk.start
        assert before.end < chunk.end
        assert chunk.start >= before.end - overlap
        assert len(chunk.content) <= max_chars


def _headings(normal: Normal) -> list[str]:
    return [block.text for block in normal.parsed.blocks if block.kind == "heading"]


def pieces_of(document: Parsed, chunking: Chunking = Chunking()) -> tuple[Chunk, ...]:  # noqa: B008  # it is frozen
    return split(normalise(document), check(chunking))[1]


WORDS = "The pump is checked each spring. It is filled with oil, and the valve is turned twice. "


def test_chunk_has_the_headings_above_it() -> None:
    document = outline(
        f"# Manual\n\n{WORDS * 2}\n\n## Pump\n\n{WORDS * 2}\n\n### Oil\n\n{WORDS * 2}\n\n## Valve\n\n{WORDS * 2}"
    )
    assert [chunk.heading for chunk in pieces_of(document)] == [
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
def test_title_is_the_first_heading_unless_repeated(
    title: str | None, source: str, paths: list[tuple[str, ...]]
) -> None:
    assert [chunk.heading for chunk in pieces_of(outline(source, title))] == paths


def test_heading_without_text_is_kept() -> None:
    document = outline(f"# Manual\n\n{WORDS * 4}\n\n## To be written\n\n# Appendix\n\n{WORDS * 4}")
    assert ("To be written", ("Manual",)) in [(chunk.content, chunk.heading) for chunk in pieces_of(document)]


def test_tiny_sections_under_one_heading_are_merged() -> None:
    entries = "\n\n".join(f"## -{letter}\n\nSwitches {letter} on." for letter in "abc")
    (chunk,) = pieces_of(outline(f"# Options\n\n{entries}"))
    assert chunk.heading == ("Options",)
    assert chunk.content.split("\n\n") == [
        "-a",
        "Switches a on.",
        "-b",
        "Switches b on.",
        "-c",
        "Switches c on.",
    ]


def test_longer_sections_are_not_merged() -> None:
    entries = "\n\n".join(f"## -{letter}\n\n{WORDS * 2}" for letter in "abc")
    assert [chunk.heading[-1] for chunk in pieces_of(outline(f"# Options\n\n{entries}"))] == [
        "-a",
        "-b",
        "-c",
    ]


def test_paragraphs_stay_whole_if_they_fit() -> None:
    texts = [f"{number}. {WORDS * 3}".strip() for number in range(6)]
    assert [chunk.content for chunk in pieces_of(paragraphs(*texts))] == texts


def test_long_prose_is_split_at_sentences() -> None:
    chunks = pieces_of(paragraphs(WORDS * 40))
    assert len(chunks) > 5
    assert all(chunk.content.startswith(("The", "It")) and chunk.content.endswith(".") for chunk in chunks)


@pytest.mark.parametrize("wrong", ["see e.g. the", "about 3.5 bar", "v. 2 of", "www.example.org or"])
def test_not_every_full_stop_ends_a_sentence(wrong: str) -> None:
    chunks = pieces_of(paragraphs(f"We {wrong} pump and more of it, and on it goes with words. " * 30))
    assert all(chunk.content.startswith("We") for chunk in chunks)


def test_code_is_split_between_lines() -> None:
    lines = [f"    value_{number} = compute(first. Second, {number})" for number in range(60)]
    chunks = pieces_of(Parsed((Block("code", "\n".join(lines)),)))
    assert len(chunks) > 3
    assert [line for chunk in chunks for line in chunk.content.split("\n")] == lines


def test_line_of_code_longer_than_a_chunk_is_split() -> None:
    chunks = pieces_of(Parsed((Block("code", "x" * 1_700),)))
    assert "".join(chunk.content for chunk in chunks) == "x" * 1_700


def test_split_table_repeats_its_header() -> None:
    rows = [f"P-{number} | pump | {number} bar" for number in range(100)]
    chunks = pieces_of(Parsed((Block("table", "\n".join(["part | what | pressure", *rows])),)))
    assert len(chunks) > 3
    assert all(chunk.content.startswith("part | what | pressure\n") for chunk in chunks)
    assert [row for chunk in chunks for row in chunk.content.split("\n")[1:]] == rows


def test_long_table_header_is_not_repeated() -> None:
    table = "\n".join([" | ".join(["column"] * 40), *(f"row {number} | {'x' * 40}" for number in range(40))])
    chunks = pieces_of(Parsed((Block("table", table),)))
    assert sum("column" in chunk.content for chunk in chunks) == 1


def test_chunk_split_by_tokens_keeps_headings_and_header() -> None:
    rows = [f"{number} | 漢字漢字漢字漢字漢字" for number in range(20)]
    table = Block("table", "\n".join(["no | what", *rows]))
    chunks = pieces_of(Parsed((Block("heading", "Parts", 1), table)), Chunking(max_tokens=64))
    assert len(chunks) > 3
    assert {chunk.heading for chunk in chunks} == {("Parts",)}
    assert all(chunk.content.startswith("no | what\n") for chunk in chunks)
    assert max(chunk.tokens for chunk in chunks) <= 64


def test_headings_take_at_most_half_of_the_tokens() -> None:
    headings = [Block("heading", f"{level} " + "chapter " * 24, level) for level in range(1, 6)]
    chunks = pieces_of(Parsed((*headings, Block("paragraph", WORDS * 20))), Chunking(max_tokens=32))
    for chunk in chunks:
        assert tokens("minilm").counts([embedded_text(chunk.heading, "")])[0] <= 17


@pytest.mark.parametrize("shape", ["sections", "paragraphs", "one paragraph"])
def test_edit_changes_few_chunks(shape: str) -> None:
    """With cuts at the last place that fits, chunks differ up to the end of the section: 4.6 on average in the last shape."""
    added = []
    for seed in range(20):
        rng = random.Random(seed)
        sentences = [_sentence(rng) for _ in range(400)]
        place = rng.randrange(20, 390)
        edited = [*sentences[:place], "Here a sentence was added.", *sentences[place:]]
        before = {chunk.hash for chunk in pieces_of(_shaped(sentences, shape))}
        added.append(len({chunk.hash for chunk in pieces_of(_shaped(edited, shape))} - before))
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


def test_custom_strategy_splits_documents() -> None:
    chunking = Chunking(f"{__name__}:by_sentence", max_tokens=16)
    document = paragraphs("One thing. " + "many words of it " * 10 + ". Another")
    chunks = pieces_of(document, chunking)
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert (chunks[0].content, chunks[-1].content) == ("One thing", "Another")
    assert len(chunks) > 4
    assert max(chunk.tokens for chunk in chunks) <= 16
    assert all(chunk.heading == ("own",) and "\0" not in chunk.content for chunk in chunks)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("no_such_module:cut", "can't be loaded: No module named 'no_such_module'"),
        (f"{__name__}:no_such", "can't be loaded.*no attribute 'no_such'"),
        (f"{__name__}:WORDS", "is not a function"),
    ],
)
def test_invalid_custom_strategy_is_refused(strategy: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        pieces_of(paragraphs(WORDS), Chunking(strategy))


@pytest.mark.parametrize(
    ("chunking", "says"),
    [
        (Chunking("structur"), r"unknown chunking strategy 'structur'. Did you mean 'structure'\?"),
        (Chunking("semantic"), "Use one of structure, fixed, or your own as module:function"),
        (Chunking("shop:"), "'shop:' does not name a function"),
        (Chunking("shop:by product"), "does not name a function"),
        (Chunking(tokenizer="cl100k"), r"unknown tokenizer 'cl100k'. Did you mean 'cl100k_base'\?"),
        (Chunking(max_chars=0), "max_chars is 0: use a whole number from 1 to 100000"),
        (Chunking(max_chars=True), "max_chars is True"),
        (Chunking(max_chars=100, overlap_chars=51), "overlap_chars is 51: .* from 0 to 50"),
        (Chunking(overlap_chars=-1), "overlap_chars is -1"),
        (Chunking(max_tokens=15), "max_tokens is 15: .* from 16"),
    ],
)
def test_invalid_chunking_is_refused(chunking: Chunking, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check(chunking)


def test_knowledge_base_refuses_an_invalid_chunking_before_submit() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'structure'"):
        Knowledge("docs", chunking=Chunking("structur")).ingest([Source("text:a", text="Hello.")])
