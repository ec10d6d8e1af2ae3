"""LangChain as its documentation sets it up: a splitter, PGVector, and `index()` with a record manager in Postgres."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from langchain_classic.indexes import SQLRecordManager  # type: ignore[import-not-found,unused-ignore]  # the peer's environment
from langchain_core.documents import Document  # type: ignore[import-not-found,unused-ignore]
from langchain_core.embeddings import Embeddings  # type: ignore[import-not-found,unused-ignore]
from langchain_core.indexing import index  # type: ignore[import-not-found,unused-ignore]
from langchain_postgres import PGVector  # type: ignore[import-not-found,unused-ignore]
from langchain_text_splitters import RecursiveCharacterTextSplitter  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).parent))
from ingest_stub import CHUNK_CHARS, DIMENSIONS, Stub, main  # type: ignore[import-not-found,unused-ignore]


class Stubbed(Embeddings):  # type: ignore[misc,unused-ignore]
    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def embed_documents(self, texts: list[str]) -> Any:
        return self._stub.vectors(texts).tolist()

    def embed_query(self, text: str) -> Any:
        return self._stub.vectors([text])[0].tolist()


def ingest(database_url: str, files: list[Path], stub: Stub) -> None:
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    store = PGVector(Stubbed(stub), connection=url, collection_name="bench", embedding_length=DIMENSIONS)
    records = SQLRecordManager("bench", db_url=url)
    records.create_schema()
    splitter = RecursiveCharacterTextSplitter(chunk_size=CHUNK_CHARS, chunk_overlap=0)
    documents = (Document(file.read_text(encoding="utf-8"), metadata={"source": str(file)}) for file in files)
    pieces = (piece for document in documents for piece in splitter.split_documents([document]))
    index(
        pieces,
        records,
        store,
        cleanup="incremental",
        source_id_key="source",
        key_encoder="sha256",
        batch_size=100,
    )


if __name__ == "__main__":
    main(ingest, "SELECT count(DISTINCT cmetadata->>'source') FROM langchain_pg_embedding")
