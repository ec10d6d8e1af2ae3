"""LlamaIndex as its documentation sets it up: an IngestionPipeline with a splitter, an embedder and PGVectorStore."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from llama_index.core import Document  # type: ignore[import-not-found,unused-ignore]  # the peer's environment
from llama_index.core.base.embeddings.base import BaseEmbedding  # type: ignore[import-not-found,unused-ignore]
from llama_index.core.ingestion import IngestionPipeline  # type: ignore[import-not-found,unused-ignore]
from llama_index.core.node_parser import SentenceSplitter  # type: ignore[import-not-found,unused-ignore]
from llama_index.core.storage.docstore import SimpleDocumentStore  # type: ignore[import-not-found,unused-ignore]
from llama_index.vector_stores.postgres import PGVectorStore  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).parent))
from ingest_stub import CHUNK_CHARS, DIMENSIONS, Stub, main  # type: ignore[import-not-found,unused-ignore]


class Stubbed(BaseEmbedding):  # type: ignore[misc,unused-ignore]
    stub: Any

    def _get_text_embeddings(self, texts: list[str]) -> Any:
        return self.stub.vectors(texts).tolist()

    def _get_text_embedding(self, text: str) -> Any:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> Any:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> Any:
        return self._get_text_embedding(query)


def ingest(database_url: str, files: list[Path], stub: Stub) -> None:
    store = PGVectorStore.from_params(
        connection_string=database_url.replace("postgresql://", "postgresql+psycopg2://"),
        async_connection_string=database_url.replace("postgresql://", "postgresql+asyncpg://"),
        table_name="bench", embed_dim=DIMENSIONS, hybrid_search=True,
    )  # fmt: skip
    # Its documents' hashes are kept beside the files: how it knows the next time what has changed.
    kept = files[0].parent.with_suffix(".docstore.json")
    docstore = SimpleDocumentStore.from_persist_path(str(kept)) if kept.exists() else SimpleDocumentStore()
    splitter = SentenceSplitter(chunk_size=CHUNK_CHARS, chunk_overlap=0, tokenizer=list)  # counts characters
    pipeline = IngestionPipeline(
        transformations=[splitter, Stubbed(stub=stub, embed_batch_size=100)],
        vector_store=store,
        docstore=docstore,
    )
    pipeline.run(documents=[Document(text=file.read_text(encoding="utf-8"), id_=str(file)) for file in files])
    docstore.persist(str(kept))


if __name__ == "__main__":
    main(ingest, "SELECT count(DISTINCT metadata_->>'doc_id') FROM data_bench")
