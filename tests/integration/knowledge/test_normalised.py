"""What is normalised, Postgres takes as text and as jsonb, and gives back as it was."""

from __future__ import annotations

import sys
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from agno_workers.knowledge.prepare import prepare
from agno_workers.knowledge.types import Block, Chunking, Parsed, Prepared, Source

EVERY_CHARACTER = (
    "".join(map(chr, range(0x3100)))
    + "".join(map(chr, range(0xD700, 0x10000)))
    + "".join(map(chr, range(0x1F300, 0x1F700)))
)


def test_every_character_survives_postgres(database_url: str) -> None:
    words = " word".join(EVERY_CHARACTER)
    hostile = {
        "text": words[:9_000],
        "\x00key\ud800": [float("inf"), {"deep": "\ud83d\x00"}],
        "huge": 1 << sys.maxsize.bit_length() * 100,
    }
    made = prepare(
        Parsed(
            (Block("heading", EVERY_CHARACTER[:150], 1), Block("paragraph", words)), EVERY_CHARACTER, hostile
        ),
        b"",
        "text/plain",
        Source("text:all", title=f"\ud800\x00{EVERY_CHARACTER[:60]}", metadata={"own": EVERY_CHARACTER}),
        Chunking(),
    )
    assert isinstance(made, Prepared)
    with psycopg.connect(database_url) as connection:
        for text in (
            made.title,
            *(chunk.content for chunk in made.chunks),
            *("\n".join(chunk.heading) for chunk in made.chunks),
        ):
            assert _through(connection, "select %s::text", text) == text
            _through(connection, "select to_tsvector('english', %s)::text", text)
        assert _through(connection, "select %s::jsonb", Jsonb(made.metadata)) == made.metadata
        assert _through(connection, "select %s::bigint[]", list(made.bands)) == list(made.bands)


def _through(connection: psycopg.Connection, query: str, value: Any) -> Any:
    row = connection.execute(query, [value]).fetchone()
    assert row is not None
    return row[0]
