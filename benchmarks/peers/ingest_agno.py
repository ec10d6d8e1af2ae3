"""agno as its documentation sets it up: Knowledge with PgVector and its record of contents in Postgres; a file at a time."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agno.db.postgres import PostgresDb  # type: ignore[import-not-found,unused-ignore]  # the peer's environment
from agno.knowledge.chunking.recursive import RecursiveChunking  # type: ignore[import-not-found,unused-ignore]
from agno.knowledge.embedder.base import Embedder  # type: ignore[import-not-found,unused-ignore]
from agno.knowledge.knowledge import Knowledge  # type: ignore[import-not-found,unused-ignore]
from agno.knowledge.reader.text_reader import TextReader  # type: ignore[import-not-found,unused-ignore]
from agno.vectordb.pgvector import PgVector, SearchType  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).parent))
from ingest_stub import CHUNK_CHARS, DIMENSIONS, Stub, main  # type: ignore[import-not-found,unused-ignore]


@dataclass
class Stubbed(Embedder):  # type: ignore[misc,unused-ignore]
    dimensions: int = DIMENSIONS
    stub: Any = None

    def get_embedding(self, text: str) -> Any:
        return self.stub.vectors([text])[0].tolist()

    def get_embedding_and_usage(self, text: str) -> Any:
        return self.get_embedding(text), None

    async def async_get_embedding(self, text: str) -> Any:
        return self.get_embedding(text)

    async def async_get_embedding_and_usage(self, text: str) -> Any:
        return self.get_embedding(text), None


def ingest(database_url: str, files: list[Path], stub: Stub) -> None:
    logging.getLogger("agno").setLevel(logging.CRITICAL)
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    vectors = PgVector(
        table_name="bench", db_url=url, embedder=Stubbed(stub=stub), search_type=SearchType.hybrid
    )
    knowledge = Knowledge(name="bench", vector_db=vectors, contents_db=PostgresDb(db_url=url))
    reader = TextReader(chunking_strategy=RecursiveChunking(chunk_size=CHUNK_CHARS, overlap=0))
    for file in files:
        knowledge.insert(path=str(file), name=file.name, reader=reader, skip_if_exists=False, upsert=True)


if __name__ == "__main__":
    main(ingest, "SELECT count(DISTINCT name) FROM ai.bench")
