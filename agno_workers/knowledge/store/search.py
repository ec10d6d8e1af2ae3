"""Searching a knowledge base: one round trip, and none of the work where the answer is known and nothing has changed.

The finding itself is `agno.search`, in search_functions.sql. Filters come compiled (knowledge/filters.py), vectors as the
space's own model made them. Partitions and indexes are another matter: see search_index.py.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic
from typing import Any

import msgspec
from psycopg import errors

from agno_workers.database.pool import Pool, jsonb, statements
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Filter, Rerank, SearchResult, SearchType

_SQL = statements("knowledge/store/search")
MAX_RESULTS = 1000


class Effort(msgspec.Struct, frozen=True):
    """How far a search looks. More finds more, and takes longer."""

    candidates: int = 40
    """Of each side of a hybrid search; fewer than `max_results` are never taken."""
    ef: int = 200
    """Of HNSW: how many nearest are held while it looks, 1 to 1000."""
    max_scan: int = 20_000
    """Of HNSW: vectors looked at where a filter leaves few, before it gives up."""
    exact_chunks: int = 2000
    """A filter that leaves at most that many chunks has all of them match_chunks, in place of HNSW."""
    words_budget: int = 1000
    """Chunks in which the words that are looked up stand, the rarest words first; the others only weigh. `keyword` takes three
    times as many.
    """


class Retired(InvalidInput):
    """Another model took the place of the one that was asked with."""


class Found(msgspec.Struct, frozen=True):
    """The hits of one search, the best first."""

    hits: tuple[SearchResult, ...]
    version: int
    """Of the knowledge base that was searched."""
    how: dict[str, Any] = {}
    """What was done: `search_type`, `vector` (exact or hnsw), `words`, `looked_up`, `filtered_chunks`."""


class _Answer(msgspec.Struct, frozen=True):
    version: int
    unchanged: bool = False
    retired: bool = False
    hits: tuple[SearchResult, ...] = ()
    how: dict[str, Any] = {}


class Search:
    """Raises Unavailable where Postgres can't be reached, InvalidInput for a vector of another model, Retired for a space that was searched before."""

    def __init__(self, pool: Pool, *, cached: int = 500, cached_s: float = 60.0) -> None:
        """Keep the last `cached` answers, each until its base changes, or for `cached_s`: feedback changes no base."""
        self._pool = pool
        self._known = _Cache(cached, cached_s)

    def search(
        self,
        knowledge_id: int,
        text: str,
        vector: Sequence[float] | None = None,
        *,
        search_type: SearchType = "hybrid",
        filter: Filter | None = None,
        max_results: int = 8,
        embedding_space_id: int | None = None,
        min_score: float | None = None,
        per_document: int | None = None,
        near_duplicates: bool = True,
        effort: Effort | None = None,
        rerank: Rerank | None = None,
    ) -> list[SearchResult]:
        """The best chunks, the best first. `vector` is the question's, of unit length; without one, and while the base has
        no vectors, `hybrid` is `keyword`, and `vector` finds nothing. `per_document` bounds the hits of one document;
        without it the further chunks of one document count less and less in a hybrid search, so that others have their say.
        `min_score` goes by `Hit.score`: a cosine (vector), a BM25 (keyword), or about a share of the best (hybrid).
        Without `near_duplicates` only the best of documents that nearly equal each other has its chunks returned.
        With `rerank` four times as many are found, and it has the last word.
        """
        asked = {
            "text": text,
            "search_type": search_type,
            "max_results": _checked(max_results) if rerank is None else min(max_results * 4, MAX_RESULTS),
        }
        if not near_duplicates:
            asked["near_duplicates"] = False
        found = self.find(
            knowledge_id, vector, filter, effort, asked | {"embedding_space_id": embedding_space_id, "min_score": min_score, "per_document": per_document}
        )  # fmt: skip
        return _reranked(rerank, text, found.hits)[:max_results] if rerank else list(found.hits)

    def similar(
        self,
        knowledge_id: int,
        *,
        document_id: int | None = None,
        chunk_id: int | None = None,
        filter: Filter | None = None,
        max_results: int = 8,
        per_document: int | None = 1,
        min_score: float | None = None,
        effort: Effort | None = None,
    ) -> list[SearchResult]:
        """Chunks of other documents that are most alike a document (the mean of its chunks), or one chunk."""
        if (document_id is None) == (chunk_id is None):
            raise InvalidInput("similar to what? Give either a document or a chunk.")
        asked = {
            "search_type": "vector",
            "max_results": _checked(max_results),
            "min_score": min_score,
            "per_document": per_document,
        }
        like = {"document_id": document_id, "chunk_id": chunk_id}
        return list(self.find(knowledge_id, None, filter, effort, asked | like).hits)

    def find(
        self,
        knowledge_id: int,
        vector: Sequence[float] | None,
        filter: Filter | None,
        effort: Effort | None,
        asked: dict[str, Any],
    ) -> Found:
        """What agno.search gives to `asked`, and how it went about it."""
        if filter is not None and filter != Filter():
            asked = asked | {"filter": msgspec.structs.asdict(filter)}
        asked = asked | {"knowledge_id": knowledge_id} | msgspec.structs.asdict(effort or Effort())
        if asked["max_results"] * 2 > asked["ef"]:
            asked["ef"] = min(asked["max_results"] * 2, 1000)
        literal = None if vector is None else msgspec.json.encode([float(each) for each in vector]).decode()
        key = hashlib.sha256(msgspec.json.encode([asked, literal])).digest()
        known = self._known.get(key)
        if known:
            asked["known_version"] = known.version
        try:
            (row,) = self._pool.run(_SQL["search"], {"asked": jsonb(asked), "vector": literal})
        except errors.DataError as error:
            raise InvalidInput(f"knowledge {knowledge_id}: {error.diag.message_primary}") from error
        if row["found"] is None:
            raise InvalidInput(f"no knowledge base has the id {knowledge_id}: was it removed?")
        answer = msgspec.convert(row["found"], _Answer)
        if answer.retired:
            raise Retired(
                f"knowledge {knowledge_id}: another model is searched since this moment: ask again."
            )
        if answer.unchanged and known:
            return known
        found = Found(answer.hits, answer.version, answer.how)
        self._known.keep(key, found)
        return found


def _checked(max_results: int) -> int:
    if not 1 <= max_results <= MAX_RESULTS:
        raise InvalidInput(f"max_results is {max_results}: expected 1 to {MAX_RESULTS}.")
    return max_results


def _reranked(rerank: Rerank, text: str, hits: Sequence[SearchResult]) -> list[SearchResult]:
    if not hits:
        return []
    scored = zip(hits, rerank(text, hits), strict=True)
    judged = [
        msgspec.structs.replace(hit, score=score, scores=hit.scores | {"rerank": score})
        for hit, score in scored
    ]
    return sorted(judged, key=lambda hit: -hit.score)


class _Cache:
    """The last answers by their questions."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[float, Found]] = OrderedDict()

    def get(self, key: bytes) -> Found | None:
        with self._lock:
            until, found = self._kept.get(key, (0.0, None))
            if found is None or until < monotonic():
                return None
            self._kept.move_to_end(key)
            return found

    def keep(self, key: bytes, found: Found) -> None:
        with self._lock:
            self._kept[key] = (monotonic() + self._seconds, found)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
