"""Search of a knowledge base by its name: embed the query, compile the filter, search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, get_args
from warnings import warn

from msgspec.structs import replace

from agno_workers.core.ports import Embedder
from agno_workers.database.pool import Pool
from agno_workers.errors import InvalidInput, Unavailable
from agno_workers.knowledge.filters import compile_filter, unmatched
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.store.search import Retired, Search
from agno_workers.knowledge.store.stats import KnowledgeStats, Searched
from agno_workers.knowledge.types import Rerank, SearchResult, SearchType

_QUESTIONS = 1000
"""Number of query vectors to cache: people and retrying agents repeat queries."""


_FIELDS_S, _MISSING_S = 600.0, 10.0


class FilterWarning(UserWarning):
    """A filter names a field that no document has, or compares it with a value of another type."""


class Retriever:
    """Searches knowledge bases; `embedder` resolves the name of a model."""

    def __init__(self, pool: Pool, knowledges: KnowledgeBases, embedder: Callable[[str], Embedder]) -> None:
        self._knowledges = knowledges
        self._overview = KnowledgeStats(pool)
        self._search = Search(pool)
        self._embedder = embedder
        self._vector = lru_cache(_QUESTIONS)(self._embed)
        self._known_fields: dict[int, tuple[float, dict[str, set[str]]]] = {}

    def search(
        self, knowledge: str, query: str, *, max_results: int, search_type: SearchType, filters: dict[str, Any], rerank: Rerank | None = None,
        near_duplicates: bool = True, min_score: float | None = None,
    ) -> list[SearchResult]:  # fmt: skip
        """Return the best results, best first. With `rerank` four times as many are found and ordered by its scores.

        Raises UnknownKnowledge; InvalidInput for an empty query, an unknown search type, an invalid filter or `min_score`;
        ModelUnavailable and ModelRejected from the embedder. Warns of a filter that no document can match; see `filters.unmatched`.
        """
        if search_type not in get_args(SearchType):
            raise InvalidInput(
                f"unknown search type {search_type!r}: choose one of {', '.join(get_args(SearchType))}."
            )
        if not query.strip():
            raise InvalidInput("the query is empty: pass some words.")
        options: dict[str, Any] = {"search_type": search_type, "max_results": max_results, "rerank": rerank}
        options |= {
            "filter": compile_filter(filters),
            "near_duplicates": near_duplicates,
            "min_score": min_score,
        }
        base = self._base(knowledge)
        if min_score is not None:
            _check_min_score(knowledge, base, search_type, min_score)
        for sentence in self._unmatched(knowledge, base.id, filters) if filters else ():
            warn(sentence, FilterWarning, stacklevel=4)
        text = query.encode(errors="replace").decode()
        try:
            hits = self._search_once(base, text, options)
        except Retired:  # the embedding space changed while the query was embedded
            hits = self._search_once(self._base(knowledge), text, options)
        return _named(knowledge, hits)

    def _unmatched(self, knowledge: str, knowledge_id: int, filters: dict[str, Any]) -> Sequence[str]:
        """Return the sentences to warn with. The fields are read from all documents, so known ones are kept for minutes, and a field that
        is not among them is looked for again, because a new document may have it. A search does not fail for want of a warning.
        """
        read_at, fields = self._known_fields.get(knowledge_id, (-_FIELDS_S, {}))
        age_s = monotonic() - read_at
        found = unmatched(knowledge, filters, fields)
        if age_s >= _FIELDS_S or (found and age_s >= _MISSING_S):
            try:
                fields = self._overview.fields(knowledge_id)
            except Unavailable:
                return ()
            self._known_fields[knowledge_id] = (monotonic(), fields)
            found = unmatched(knowledge, filters, fields)
        return found

    def similar(
        self, knowledge: str, uri: str, *, max_results: int, filters: dict[str, Any]
    ) -> list[SearchResult]:
        """Return the chunks of other documents that are most similar to this document. Raises UnknownKnowledge and InvalidInput."""
        base = self._base(knowledge)
        document = self._overview.document(base.id, uri)
        if document is None:
            raise InvalidInput(
                f"{knowledge!r} has no document {uri!r}: pass the uri of a document that it has."
            )
        hits = self._search.similar(
            base.id, document, filter=compile_filter(filters), max_results=max_results
        )
        return _named(knowledge, hits)

    def _search_once(self, base: Searched, query: str, options: dict[str, Any]) -> list[SearchResult]:
        keyword = options["search_type"] == "keyword" or base.model is None
        vector = None if keyword else self._vector(base.model, query)
        return self._search.search(
            base.id, query, vector, embedding_space_id=base.embedding_space_id, **options
        )

    def _base(self, name: str) -> Searched:
        base = self._overview.searched(name)
        if base is None:
            self._knowledges.get(name)  # raises UnknownKnowledge with similar names
            raise InvalidInput(f"the knowledge base {name!r} was just created: search again.")
        return base

    def _embed(self, model: str, query: str) -> tuple[float, ...]:
        (vector,) = self._embedder(model).embed([query], "query")
        return tuple(float(number) for number in vector)


def _check_min_score(knowledge: str, base: Searched, search_type: SearchType, min_score: object) -> None:
    if not isinstance(min_score, int | float) or not -1 <= min_score <= 1:
        raise InvalidInput(f"min_score is {min_score!r}: expected a cosine from -1 to 1, such as 0.3.")
    if search_type == "keyword" or base.model is None:
        why = (
            "keyword searches have no absolute score"
            if search_type == "keyword"
            else f"{knowledge!r} has no vectors"
        )
        raise InvalidInput(f"min_score needs vectors, and {why}: leave it out.")


def _named(knowledge: str, hits: list[SearchResult]) -> list[SearchResult]:
    return [replace(hit, knowledge=knowledge) for hit in hits]
