"""The floor: one process, no checks, no restart. Read, cut, embed, and COPY BINARY into one table for text and one for vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psycopg

sys.path.insert(0, str(Path(__file__).parent))
from ingest_stub import CHUNK_CHARS, Stub, main  # type: ignore[import-not-found,unused-ignore]

_TABLES = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS floor;
CREATE TABLE IF NOT EXISTS floor.chunk (id bigint PRIMARY KEY, uri text NOT NULL, content text NOT NULL,
    tsv tsvector GENERATED ALWAYS AS (to_tsvector('english', content)) STORED);
CREATE INDEX IF NOT EXISTS chunk_words ON floor.chunk USING gin (tsv);
CREATE TABLE IF NOT EXISTS floor.embedding (chunk_id bigint PRIMARY KEY, embedding halfvec(384) NOT NULL);
"""
_BATCH = 50
_HEAD = np.array([384, 0], dtype=">u2").tobytes()


def ingest(database_url: str, files: list[Path], stub: Stub) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_TABLES)
        next_id = 0
        for place in range(0, len(files), _BATCH):
            rows = [
                (str(file), text[at : at + CHUNK_CHARS])
                for file in files[place : place + _BATCH]
                for text in [file.read_text(encoding="utf-8")]
                for at in range(0, len(text), CHUNK_CHARS)
            ]
            found = stub.vectors([content for _, content in rows]).astype(">f2")
            with connection.transaction():
                with connection.cursor().copy(
                    "COPY floor.chunk (id, uri, content) FROM STDIN BINARY"
                ) as copy:
                    copy.set_types(["int8", "text", "text"])
                    for offset, (uri, content) in enumerate(rows):
                        copy.write_row((next_id + offset, uri, content))
                with connection.cursor().copy("COPY floor.embedding FROM STDIN BINARY") as copy:
                    copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
                    for offset, vector in enumerate(found):
                        body = _HEAD + vector.tobytes()
                        copy.write(
                            (2).to_bytes(2)
                            + (8).to_bytes(4)
                            + (next_id + offset).to_bytes(8)
                            + len(body).to_bytes(4)
                            + body
                        )
                    copy.write(b"\xff\xff")
            next_id += len(rows)


if __name__ == "__main__":
    main(ingest, "SELECT count(DISTINCT uri) FROM floor.chunk JOIN floor.embedding ON chunk_id = id")
