"""A client for services that have none of the agents' code.

    client = Client("postgresql://...", redis_url="redis://...")
    run = client.runs.submit("researcher", "What is new in Postgres 18?", idempotency_key="order-17")
    run.result(timeout=60)

Only Postgres is needed: the workers' keeper is notified of a submit and publishes it. Redis serves `events()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, Unpack

import redis

from agno_workers.addresses import redis_fault
from agno_workers.broker.queues import redis_url as broker_redis_url
from agno_workers.core.request import SubmitOptions, run_request
from agno_workers.core.run import Run
from agno_workers.core.state import Scope
from agno_workers.core.step import Submitted
from agno_workers.errors import InvalidInput, NotWaiting
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.retriever import Retriever
from agno_workers.knowledge.store.bases import ChunkRow, DocumentRow, SourceInput
from agno_workers.knowledge.types import Rows, SearchResult, SearchType
from agno_workers.repositories import Database
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.queries import RunFilters
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.batch import Batch, BatchOptions, Keys, submit_many
from agno_workers.sdk.consent import Consent
from agno_workers.sdk.handles import RunHandle, submit_run
from agno_workers.sdk.ingestion import Ingestion, IngestOptions, Sources, document, given, options
from agno_workers.sdk.memories import Memories
from agno_workers.sdk.sessions import Sessions
from agno_workers.sdk.states import StateHandle
from agno_workers.streams import Streams

_Runs: TypeAlias = list[Run]  # `list` is a method below
_Requirements: TypeAlias = list[Requirement]


class Client:
    """A connection to the runs of one database. Threads may share it; `close()` it, or use `with Client(...)`.

    `redis_url` serves live text in `events()`; `key_prefix` is the workers' `broker.key_prefix`. `timeout_s` bounds each statement, `pool_size` the connections to Postgres.
    `direct_url` leads to the same database without a pooler; without it, waiting polls where `database_url` leads to one. A forked
    process may use it: it opens its own connections.
    """

    def __init__(
        self, database_url: str, redis_url: str | None = None, *, timeout_s: float = 10.0, pool_size: int = 4,
        key_prefix: str = "", direct_url: str | None = None,
    ) -> None:  # fmt: skip
        """Raises SettingsError for an unusable address."""
        self._database = Database(
            database_url, size=pool_size, timeout_s=timeout_s, name="agno-workers-client", direct_url=direct_url,
            numbers=RunNumbers(publish_after_s=0.0),  # nobody but the keeper publishes
        )  # fmt: skip
        self._redis = _redis(redis_url, timeout_s) if redis_url else None
        streams = Streams(self._redis, max_events=1, ttl_s=1, key_prefix=key_prefix) if self._redis else None
        self.runs = Runs(self._database, streams)
        self.sessions = Sessions(self._database, streams)
        self.batches = Batches(self._database)
        self.approvals = Approvals(self._database)
        self.ingestions = Ingestions(self._database)
        self.memories = Memories(self._database)
        self._retriever = Retriever(self._database.pool, self._database.knowledge, resolve)

    def knowledge(self, name: str) -> KnowledgeHandle:
        """Return the handle of a knowledge base. It asks nothing of the database; its verbs raise UnknownKnowledge."""
        return KnowledgeHandle(name, self._database, self._retriever)

    def consent(self, user_id: str) -> Consent:
        """Return what a user allows and denies. It asks nothing of the database."""
        return Consent(user_id, self._database)

    def state(self, scope: Scope, owner: str = "", *, actor: str = "client") -> StateHandle:
        """Return the handle of the state of a session, a user, an agent, a team or a run, or of all runs: `client.state("global")`. `actor` is
        the name in the history of what it changes. Raises InvalidInput.
        """
        return StateHandle(self._database.states, scope, owner, actor)

    def signal(self, run_id: str, name: str, payload: Any = None, key: str | None = None) -> bool:
        """Send a signal to a run; see `RunHandle.signal`. Raises as it does."""
        return self.runs.get(run_id).signal(name, payload, key)

    def agents(self) -> list[RegisteredAgent]:
        """Return the agents that workers have registered. Raises Unavailable."""
        return self._database.agents.all()

    def close(self) -> None:
        """Close the connections; handles of this client can't be used after it."""
        self._database.close()
        if self._redis:
            self._redis.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _redis(url: str, timeout_s: float) -> redis.Redis:
    if fault := redis_fault(url, ("redis", "rediss", "unix", "redis+socket")):
        raise InvalidInput(f"redis_url: {fault}.")
    opened: redis.Redis = redis.Redis.from_url(broker_redis_url(url), socket_timeout=timeout_s)
    return opened


class Runs:
    """`client.runs`: submit, get and list runs."""

    def __init__(self, database: Database, streams: Streams | None) -> None:
        self._database = database
        self._streams = streams

    def submit(self, agent: str, *input: Any, **options: Unpack[SubmitOptions]) -> RunHandle:
        """Submit a run; when this returns, the run is in Postgres.

        `if_busy` is what happens while another run of the session has not ended. Raises UnknownAgent, InvalidInput, SessionForbidden,
        SessionEnded and SessionBusy (nothing was stored), or Unavailable (safe to repeat with an idempotency key).
        """
        return submit_run(run_request(agent, input, options), self._database, self._streams)

    def get(self, run_id: str) -> RunHandle:
        """Return the handle of a run that was submitted before, or elsewhere. Raises RunNotFound for text that is not an id."""
        return RunHandle(run_id, self._database, self._streams)

    def list(self, limit: int = 50, **filters: Unpack[RunFilters]) -> _Runs:
        """Return at most `limit` runs, the newest first; `before` the last of them is the next page.

            for run in client.runs.list(user_id="ann", since=timedelta(days=7), open=True): ...

        Raises InvalidInput for a filter that can't be used, RunNotFound for `before`, Unavailable.
        """
        return [each.run for each in self._database.queries.runs(limit, **filters)]


class Batches:
    """`client.batches`: submit and get batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self, agent: str, inputs: Iterable[Any], *, keys: Keys | None = None, batch_id: str | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:  # fmt: skip
        """Submit a run for each input, all of them or none, as `Agent.map` does. Raises UnknownAgent too."""
        return submit_many(self._database.batches, agent, inputs, keys=keys, batch_id=batch_id, **options)

    def get(self, batch_id: str) -> Batch:
        """Return a batch that was submitted before, or elsewhere. Raises RunNotFound for text that is not an id."""
        return Batch(batch_id, self._database.batches)


class Approvals:
    """`client.approvals`: the tool calls and approvals of all runs that wait for a person."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, limit: int = 1000) -> _Requirements:
        """Return at most `limit` of them, the oldest first. Raises Unavailable."""
        return [Requirement(each, self._database) for each in self._database.queries.waiting(limit=limit)]

    def get(self, step_id: str) -> Requirement:
        """Return the one of that step. Raises NotWaiting when the step is not waiting for a person."""
        for waiting in self._database.queries.waiting(step_id=step_id):
            return Requirement(waiting, self._database)
        raise NotWaiting(
            f"no step {step_id!r} waits for a person: it was answered, it expired, or it never waited. "
            "`agno-workers runs waiting` lists those that do.",
            step_id=step_id,
        )


class Ingestions:
    """`client.ingestions`: ingestions as runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> Ingestion:
        """Return an ingestion that was submitted before, or elsewhere. Raises RunNotFound for text that is not an id."""
        return Ingestion(run_id, self._database)


class KnowledgeHandle:
    """`client.knowledge(name)`: a knowledge base, for a service without the agents' code."""

    def __init__(self, name: str, database: Database, retriever: Retriever) -> None:
        self.name = name
        self._database = database
        self._retriever = retriever

    def add(
        self, uri: str, text: str, *, title: str | None = None, media_type: str = "text/plain", metadata: dict[str, Any] | None = None,
        **run_options: Unpack[IngestOptions],
    ) -> Ingestion:  # fmt: skip
        """Add one document; the same `uri` again replaces its text, and its `metadata` if some are given. When this returns, the document is in Postgres. With an
        `idempotency_key`, a webhook that is delivered twice adds it once.

        Raises UnknownKnowledge and InvalidInput (nothing was stored), Unavailable (safe to repeat with a key).
        """
        source = document(text, uri=uri, title=title, media_type=media_type)
        return self._submit([source], options(metadata), run_options)

    def ingest(
        self, sources: Sources, *, metadata: dict[str, Any] | None = None, glob: str | Sequence[str] | None = None,
        rows: Rows | None = None, **run_options: Unpack[IngestOptions],
    ) -> Ingestion:  # fmt: skip
        """Ingest documents: paths that workers can read too, URLs, sitemaps, `s3://...`; see `Knowledge.ingest`.

        Raises as `add` does.
        """
        return self._submit(given(sources), options(metadata, glob, rows=rows), run_options)

    def documents(
        self, *, filters: dict[str, Any] | None = None, after: str = "", limit: int = 100
    ) -> list[DocumentRow]:
        """Return a page of documents; see `Knowledge.documents`."""
        knowledges = self._database.knowledge
        return knowledges.documents(knowledges.get(self.name).id, filters=filters, after=after, limit=limit)

    def chunks(self, document: str | int) -> list[ChunkRow]:
        """Return the chunks of a document; see `Knowledge.chunks`."""
        return self._database.knowledge.chunks(self.name, document)

    def remove(
        self, *documents: str | int, filters: dict[str, Any] | None = None, dry_run: bool = False
    ) -> list[str]:
        """Remove documents and return their uris; see `Knowledge.remove`."""
        return self._database.knowledge.remove_documents(self.name, documents, filters, dry_run=dry_run)

    def reindex(self, embedder: str | None = None) -> Ingestion:
        """Make missing vectors, or all vectors with another embedder; see `Knowledge.reindex`. Raises UnknownKnowledge, Unavailable."""
        knowledges = self._database.knowledge
        knowledges.get(self.name)  # raises UnknownKnowledge: `prepare` would create it
        models = knowledges.prepare(self.name, {"embedder": embedder}, moves=True) if embedder else None
        return self._sent(knowledges.reindex(self.name, models))

    def stop_reindex(self) -> str | None:
        """End the move to another embedder; see `Knowledge.stop_reindex`."""
        return self._database.knowledge.stop_reindex(self.name)

    def search(
        self,
        query: str,
        *,
        max_results: int = 8,
        filters: dict[str, Any] | None = None,
        search_type: SearchType = "hybrid",
        min_score: float | None = None,
    ) -> list[SearchResult]:
        """Return the best results, best first. `keyword` needs Postgres only; the other search types need the embedding model here
        (for `local` the extra `knowledge`, for a provider its key). Queries are not recorded as gaps.

        Raises UnknownKnowledge, InvalidInput, Unavailable; ModelUnavailable and ModelRejected from the embedder.
        """
        return self._retriever.search(
            self.name,
            query,
            max_results=max_results,
            search_type=search_type,
            filters=filters or {},
            min_score=min_score,
        )

    def _submit(
        self, sources: Sequence[SourceInput], own: dict[str, Any] | None, run_options: IngestOptions
    ) -> Ingestion:
        return self._sent(self._database.knowledge.submit(self.name, sources, options=own, **run_options))

    def _sent(self, submitted: Submitted) -> Ingestion:
        self._database.submissions.wake_keeper()
        return Ingestion(submitted.run_id, self._database)
