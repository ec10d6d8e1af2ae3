"""Puts together what ingesting needs: the sources, the readers and the embedders. Only workers load this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, partial

from agno_workers.embedders import resolve
from agno_workers.engine.control import Held
from agno_workers.engine.ingest import Intake
from agno_workers.errors import InvalidInput, SettingsError
from agno_workers.knowledge.reading import Reading
from agno_workers.sources.addresses import openings
from agno_workers.sources.resolve import fetch, find
from agno_workers.storage.ingest import Ingest
from agno_workers.storage.journal import Journal
from agno_workers.storage.knowledge import Knowledges
from agno_workers.storage.pool import Pool
from agno_workers.storage.search_index import SearchIndex


def build(
    pool: Pool, ingest: Ingest, knowledges: Knowledges, journal: Journal, held: Held, *, fetch_timeout_s: float, document_max_bytes: int,
    allow: Sequence[str],
) -> Intake:  # fmt: skip
    try:
        openings(allow)
    except InvalidInput as error:
        raise SettingsError(f"setting 'source_allow': {error}", key="source_allow") from error
    index = SearchIndex(pool)
    return Intake(
        ingest=ingest,
        knowledges=knowledges,
        journal=journal,
        held=held,
        find=partial(find, allow=allow),
        fetch=partial(fetch, allow=allow),
        prepare=Reading(os.cpu_count() or 1).prepare,
        embedder=cache(resolve),
        tidy_index=index.tidy_index,
        expect=index.expect,
        drop_space=index.drop_space,
        fetch_timeout_s=fetch_timeout_s,
        document_max_bytes=document_max_bytes,
    )
