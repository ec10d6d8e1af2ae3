"""The quality of searches by people's judgements: Cranfield's questions, with the chunks and vectors that an ingestion makes.

The environment variable CRANFIELD names a folder (else it is benchmarks/data/cranfield) with `docs.jsonl.gz`, `queries.jsonl` and `qrels.tsv`.
"""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from agno_workers.database.pool import Pool
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.prepare import prepare
from agno_workers.knowledge.store.search import Search
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.types import Block, Chunk, Chunking, Parsed, Refusal, SearchType, Source
from agno_workers.knowledge.words import words
from benchmarks.made_base import literal
from benchmarks.stage import data_folder

FOLDER = data_folder("cranfield")
SEARCH_TYPES: tuple[SearchType, ...] = ("keyword", "vector", "hybrid")


def is_here() -> bool:
    return (FOLDER / "docs.jsonl.gz").exists()


def quality(pool: Pool, folder: Path = FOLDER) -> dict[SearchType, tuple[float, float]]:
    """nDCG@10 of each search type, over the even and over the odd questions: the best chunk of each document counts."""
    embedder = resolve("local")
    knowledge_id = _store(pool, folder)
    SearchIndex(pool).refresh_index(knowledge_id)
    questions = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    relevant: dict[int, set[str]] = defaultdict(set)
    for line in (folder / "qrels.tsv").read_text().splitlines():
        question, document, _ = line.split()
        relevant[int(question)].add(f"cranfield:{document}")
    vectors = embedder.embed([each["text"] for each in questions], "query").tolist()
    search = Search(pool, cached=0)
    found: dict[SearchType, tuple[float, float]] = {}
    for search_type in SEARCH_TYPES:
        scores = [
            _ndcg(
                [hit.uri for hit in search.search(knowledge_id, each["text"], vector, search_type=search_type, max_results=10, per_document=1)],
                relevant[each["id"]],
            )
            for each, vector in zip(questions, vectors, strict=True)
        ]  # fmt: skip
        found[search_type] = (sum(scores[::2]) / len(scores[::2]), sum(scores[1::2]) / len(scores[1::2]))
    return found


def _ndcg(uris: list[str], relevant: set[str]) -> float:
    gain = sum(1 / math.log2(place + 2) for place, uri in enumerate(uris[:10]) if uri in relevant)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))


def _store(pool: Pool, folder: Path) -> int:
    embedder = resolve("local")
    with pool.connection() as connection, connection.transaction():
        (base,) = connection.execute("INSERT INTO agno.knowledge (name) VALUES ('cranfield') RETURNING id").fetchall()  # fmt: skip
        (space,) = connection.execute(
            "INSERT INTO agno.embedding_space (knowledge_id, model, dimensions, status) VALUES (%s, 'local', %s, 'current') RETURNING id",
            [base["id"], embedder.dimensions],
        ).fetchall()
        chunks: list[tuple[int, Chunk]] = []
        for uri, title, own in _documents(folder):
            (document,) = connection.execute(
                "INSERT INTO agno.document (knowledge_id, uri, title, language, version, chunks) VALUES (%s, %s, %s, 'en', 1, %s) RETURNING id",
                [base["id"], uri, title, len(own)],
            ).fetchall()
            chunks += [(document["id"], chunk) for chunk in own]
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "COPY agno.chunk (id, knowledge_id, document_id, version, position, live, hash, content, heading, start_at, end_at, tokens, language, words) FROM STDIN"
            ) as copy,
        ):
            for number, (document_id, chunk) in enumerate(chunks, 1_000_000_000):
                copy.write_row(
                    (number, base["id"], document_id, 1, chunk.position, True, chunk.hash, chunk.content, "\n".join(chunk.heading), chunk.start, chunk.end, chunk.tokens, "english", words(chunk.embedded))
                )  # fmt: skip
        vectors = embedder.embed([chunk.embedded for _, chunk in chunks])
        with connection.cursor() as cursor, cursor.copy("COPY agno.chunk_embedding (embedding_space_id, chunk_id, embedding) FROM STDIN") as copy:  # fmt: skip
            for number, vector in enumerate(vectors, 1_000_000_000):
                copy.write_row((space["id"], number, literal(vector)))
        connection.execute(
            "UPDATE agno.knowledge SET chunk_count = %s, embedding_space_id = %s, version = 1 WHERE id = %s",
            [len(chunks), space["id"], base["id"]],
        )
    return int(base["id"])


def _documents(folder: Path) -> Iterator[tuple[str, str, tuple[Chunk, ...]]]:
    for line in gzip.decompress((folder / "docs.jsonl.gz").read_bytes()).decode().splitlines():
        document = json.loads(line)
        uri, title, text = f"cranfield:{document['id']}", document["title"], document["text"]
        parsed = Parsed((Block("paragraph", text),), title)
        prepared = prepare(parsed, text.encode(), "text/plain", Source(uri), Chunking())
        if not isinstance(prepared, Refusal):
            yield uri, title, prepared.chunks
