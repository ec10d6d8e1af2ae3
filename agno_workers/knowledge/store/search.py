"""Search of a knowledge base in one round trip. Cached results are returned while the knowledge base does not change.

The search itself is `agno.search` in functions/search.sql. Filters come compiled (knowledge/filters.py), and vectors from the
model of the embedding space. For partitions and indexes see search_index.py.
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
from agno_workers.forks import after_fork
from agno_workers.knowledge.types import Filter, Rerank, SearchResult, SearchType
from agno_workers.knowledge.words import words

_SQL = statements("knowledge/store/search")
MAX_RESULTS = 1000
_QUERY_CHARS = 4000


class Effort(msgspec.Struct, frozen=True):
    """Limits of a search. Higher limits raise recall and take longer."""

    candidates: int = 40
    """Candidates from each side of a hybrid search, at least `max_results`."""
    ef: int = 200
    """`hnsw.ef_search`, 1 to 1000."""
    max_scan: int = 20_000
    """`hnsw.max_scan_tuples`: vectors to scan behind a filter."""
    exact_chunks: int = 2000
    """A filter that leaves at most this many chunks is searched exactly, without HNSW."""
    words_budget: int = 1000
    """Total number of chunks that contain the words to look up, the rarest words first; other words only add to the score.
    `keyword` uses three times as many.
    """


class Retired(InvalidInput):
    """The embedding space is no longer searched: a new model replaced it."""


class Found(msgspec.Struct, frozen=True):
    """The results of one search, the best first."""

    hits: tuple[SearchResult, ...]
    version: int
    """Version of the knowledge base."""
    how: dict[str, Any] = {}
    """Details: `search_type`, `vector` (exact or hnsw), `words`, `looked_up`, `filtered_chunks`."""


class _Answer(msgspec.Struct, frozen=True):
    version: int
    unchanged: bool = False
    retired: bool = False
    hits: tuple[SearchResult, ...] = ()
    how: dict[str, Any] = {}


class Search:
    """Raises Unavailable if Postgres can't be reached, InvalidInput for a vector of another model, Retired for a former embedding space."""

    def __init__(self, pool: Pool, *, cached: int = 500, cached_s: float = 60.0) -> None:
        """Cache `cached` results until the knowledge base changes, at most `cached_s`: feedback does not change the version."""
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
        per_document: int | None = None,
        near_duplicates: bool = True,
        min_score: float | None = None,
        effort: Effort | None = None,
        rerank: Rerank | None = None,
    ) -> list[SearchResult]:
        """Return the best chunks, best first.

        `vector` is the query's, of unit length; without it, or without vectors in the knowledge base, `hybrid` becomes
        `keyword`, and `vector` finds nothing. `per_document` limits the results of one document; without it, further chunks of a
        document score lower in a hybrid search. `near_duplicates=False` keeps only the best of documents that nearly equal each
        other, `min_score` those with at least this cosine. With `rerank` four times as many are found and ordered by its scores.
        """
        asked: dict[str, Any] = {
            "text": words(text[:_QUERY_CHARS], query=True),
            "search_type": search_type,
            "embedding_space_id": embedding_space_id,
        }
        asked |= {"per_document": per_document, "near_duplicates": near_duplicates, "min_score": min_score}
        asked["max_results"] = _checked(max_results) if rerank is None else min(max_results * 4, MAX_RESULTS)
        found = self.find(knowledge_id, vector, filter, effort, asked)
        return _reranked(rerank, text, found.hits)[:max_results] if rerank else list(found.hits)

    def similar(
        self,
        knowledge_id: int,
        document_id: int,
        *,
        filter: Filter | None = None,
        max_results: int = 8,
        per_document: int | None = 1,
    ) -> list[SearchResult]:
        """Return the chunks of other documents that are most similar to a document (the mean of its chunks)."""
        asked = {"search_type": "vector", "document_id": document_id, "per_document": per_document}
        asked["max_results"] = _checked(max_results)
        return list(self.find(knowledge_id, None, filter, None, asked).hits)

    def find(
        self,
        knowledge_id: int,
        vector: Sequence[float] | None,
        filter: Filter | None,
        effort: Effort | None,
        asked: dict[str, Any],
    ) -> Found:
        """Call agno.search with `asked`, or return the cached results."""
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
            raise InvalidInput(
                f"there is no knowledge base with id {knowledge_id}: check whether it was removed."
            )
        answer = msgspec.convert(row["found"], _Answer)
        if answer.retired:
            raise Retired(
                f"the embedding model of knowledge base {knowledge_id} has just changed: search again."
            )
        if answer.unchanged and known:
            return known
        found = Found(answer.hits, answer.version, answer.how)
        self._known.keep(key, found)
        return found


def _checked(max_results: object) -> int:
    if not isinstance(max_results, int) or not 1 <= max_results <= MAX_RESULTS:
        raise InvalidInput(f"max_results is {max_results!r}: expected 1 to {MAX_RESULTS}.")
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
    """An LRU cache of results."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._forget()
        after_fork(self, _Cache._forget)

    def _forget(self) -> None:
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
