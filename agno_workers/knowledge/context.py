"""Build the context of ingest steps: sources, readers and embedders. Only workers import it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial

from msgspec.structs import replace

from agno_workers.core.messages import Delta
from agno_workers.core.ports import Journal, Model
from agno_workers.database.pool import Pool
from agno_workers.engine.active_steps import ActiveSteps, Stopped
from agno_workers.knowledge.describe import describe
from agno_workers.knowledge.embedders import resolve
from agno_workers.knowledge.readers.detect import bitmap
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.reading import Reading
from agno_workers.knowledge.sources.resolve import Allowed, check, fetch, find
from agno_workers.knowledge.steps import IngestContext, IsLost, See
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.store.ingest import Ingest
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.types import Parsed, Raw

_TURN_S = 2.0
"""Seconds to wait for the lock of an index; after that the step is retried later, which frees the worker."""


def build(
    pool: Pool, ingest: Ingest, knowledges: KnowledgeBases, journal: Journal, active: ActiveSteps, *, fetch_timeout_s: float, document_max_bytes: int,
    allowed: Allowed, model: Callable[[str], Model],
) -> IngestContext:  # fmt: skip
    check(allowed)
    index, reading = SearchIndex(pool), Reading(os.cpu_count() or 1)
    return IngestContext(
        ingest=ingest,
        knowledges=knowledges,
        journal=journal,
        active=active,
        find=partial(find, allowed=allowed),
        fetch=partial(fetch, allowed=allowed),
        prepare=reading.prepare,
        rows=reading.rows,
        embedder=cache(resolve),
        viewer=partial(viewer, model),
        refresh_index=partial(index.refresh_index, wait_s=_TURN_S),
        expect=index.expect,
        drop_embedding_space=partial(index.drop_embedding_space, wait_s=_TURN_S),
        fetch_timeout_s=fetch_timeout_s,
        document_max_bytes=document_max_bytes,
    )


def viewer(model: Callable[[str], Model], name: str) -> See:
    """Resolve the vision model. Raises InvalidInput and ModelRejected."""
    return partial(seen, model(name))


def seen(model: Model, raw: Raw, is_lost: IsLost) -> Raw:
    """Add the model's description to an image. An image that can't be described gets the reason as metadata."""
    if bitmap(raw.content) is None:
        return raw

    def watch(_: Delta) -> None:
        if is_lost():
            raise Stopped

    watch(Delta())
    try:
        shown, usage = describe(raw.content, model, emit=watch)
    except Unreadable as error:
        return replace(raw, seen=Parsed((), None, {"not_described": str(error)}))
    return replace(raw, seen=shown, tokens=usage.input_tokens + usage.output_tokens)
