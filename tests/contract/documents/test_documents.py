"""Each file in files/ is read as an ingestion reads it, and compared with its entry in expected.toml.

An odd document is one file and one line:

    "name.ext" = "the text; an empty line separates blocks"

or a table with some of `text`, `title`, `metadata`, `blocks` (their kinds), `places` (of its
chunks, which are small), `refused` (words of the error), and `media_type`, if a
server sends one.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agno_workers.knowledge.chunk import split
from agno_workers.knowledge.normalise import normalise
from agno_workers.knowledge.readers import detect, read
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Chunking

SMALL = Chunking(max_chars=60, max_tokens=1000)
HERE = Path(__file__).parent
EXPECTED: dict[str, Any] = tomllib.loads((HERE / "expected.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", EXPECTED)
def test_document_is_read_as_expected(name: str) -> None:
    entry = EXPECTED[name]
    expected = dict(entry) if isinstance(entry, dict) else {"text": entry}
    media_type, refused = expected.pop("media_type", None), expected.pop("refused", None)
    if refused is None:
        found = as_read(name, media_type)
        assert {key: found[key] for key in expected} == expected
    else:
        with pytest.raises(Unreadable, match=refused):
            as_read(name, media_type)


def test_each_file_has_an_entry() -> None:
    assert {path.name for path in (HERE / "files").iterdir()} == set(EXPECTED)


def as_read(name: str, media_type: str | None) -> dict[str, Any]:
    content = (HERE / "files" / name).read_bytes()
    normal = normalise(read(content, detect(content, media_type, name), name))
    return {
        "text": normal.text,
        "title": normal.parsed.title,
        "metadata": normal.parsed.metadata,
        "blocks": [block.kind for block in normal.parsed.blocks],
        "places": [str(chunk.place) for chunk in split(normal, SMALL)[1]],
    }
