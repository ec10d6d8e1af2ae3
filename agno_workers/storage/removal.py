"""Taking single documents out of a knowledge base, because somebody says so."""

from __future__ import annotations

from collections.abc import Sequence

from agno_workers.errors import Unavailable
from agno_workers.storage.ingest import removal
from agno_workers.storage.pool import Pool, execute, patiently, statements

_SQL = statements("ingest")


def remove_documents(pool: Pool, knowledge_id: int, uris: Sequence[str]) -> int:
    """How many there were of these uris; they are gone when this returns, with their chunks and vectors, in one transaction."""
    return patiently(_remove, pool, knowledge_id, sorted(set(uris)))


def _remove(pool: Pool, knowledge_id: int, uris: Sequence[str]) -> int:
    """Raises Unavailable where an ingestion is at work on one that is to have the text of one of these."""
    own = {"knowledge_id": knowledge_id}
    with pool.connection() as connection, connection.transaction():
        held = execute(connection, _SQL["named_documents"], own | {"uris": list(uris)})
        gone = removal(connection, held)
        if gone.documents < len(held):
            raise Unavailable("an ingestion has a duplicate of a document in its hands: try again.")
        if held:
            execute(connection, _SQL["raise_version"], own | {"more": -gone.chunks})
    return gone.documents
