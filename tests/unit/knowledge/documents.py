"""Documents made up by Hypothesis, as readers give them."""

from __future__ import annotations

from hypothesis import strategies as st

from agno_workers.knowledge.types import Block, Parsed

# Words, long and short, with what is awkward in them: no blanks, accents, emoji, wide letters, control characters.
_words = st.sampled_from(
    [
        "a",
        "The",
        "end.",
        "Is",
        "it?",
        "e.g.",
        "no",
        "Übermut",
        "x" * 90,
        "é́",
        "👩‍👩‍👧",
        "漢字。漢字",
        "\u200b",
        "\x00",
        "\xa0",
        "---",
        "12",
    ]
)
_lines = st.lists(_words, max_size=40).map(" ".join)
_texts = st.one_of(_lines, st.lists(_lines, max_size=12).map("\n".join), st.text(max_size=80))
_blocks = st.builds(
    Block,
    kind=st.sampled_from(["heading", "paragraph", "paragraph", "list", "table", "code"]),
    text=_texts,
    level=st.integers(0, 4),
)
parsed = st.builds(
    Parsed,
    blocks=st.lists(_blocks, max_size=14).map(tuple),
    title=st.one_of(st.none(), _lines),
)


def paragraphs(*texts: str, title: str | None = None) -> Parsed:
    return Parsed(tuple(Block("paragraph", text) for text in texts), title)


def outline(source: str, title: str | None = None) -> Parsed:
    """Headings as Markdown has them, a block a paragraph; a table begins with `|`, code with four blanks, a list with `*`."""
    kinds = {"#": "heading", "|": "table", " ": "code", "*": "list"}
    blocks = []
    for text in source.strip("\n").split("\n\n"):
        kind = kinds.get(text[0], "paragraph")
        level = len(text) - len(text.lstrip("#")) if kind == "heading" else 0
        blocks.append(Block(kind, text.lstrip("# ") if level else text, level))  # type: ignore[arg-type]  # one of the kinds
    return Parsed(tuple(blocks), title)
