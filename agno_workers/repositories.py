"""One Postgres database, and the repositories on it."""

from __future__ import annotations

import os
from functools import cached_property, partial
from typing import Any

from agno_workers.database.identity import Home
from agno_workers.database.pool import Pool
from agno_workers.forks import renew_locks
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.store.feedback import FeedbackStore
from agno_workers.knowledge.store.ingest import Ingest, IngestLimits
from agno_workers.knowledge.store.stats import KnowledgeStats
from agno_workers.runs.agents import Agents
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.batch import Batches
from agno_workers.runs.dead import DeadLetters
from agno_workers.runs.fork import Forks
from agno_workers.runs.journal import RunJournal
from agno_workers.runs.maintain import Maintenance
from agno_workers.runs.outbox import Outbox
from agno_workers.runs.queries import RunQueries
from agno_workers.runs.results import Results
from agno_workers.runs.submit import Submissions
from agno_workers.runs.workers import Workers
from agno_workers.sessions.consent import Consents
from agno_workers.sessions.history import HistoryStore
from agno_workers.sessions.memory_store import MemoryStore
from agno_workers.sessions.state import StateStore
from agno_workers.sessions.steering import Steering
from agno_workers.sessions.store import Sessions


class Database:
    """A connection pool and the repositories on it, each built when it is first used.

    It connects when a connection is first needed. Threads may share it. Call `close()`, or use it as a context manager.
    """

    def __init__(
        self, url: str, *, size: int = 4, timeout_s: float = 10.0, statement_timeout_s: float = 30.0, name: str = "agno-workers",
        worker: str = "", tenant: str = "default", numbers: RunNumbers = RunNumbers(), ingest_limits: IngestLimits = IngestLimits(),  # noqa: B008 - frozen values
        knowledge_queue: str = "knowledge", direct_url: str | None = None,
    ) -> None:  # fmt: skip
        self.pool = Pool(
            url,
            size=size,
            timeout_s=timeout_s,
            statement_timeout_s=statement_timeout_s,
            name=name,
            direct_url=direct_url,
            check=Home() if worker else lambda _: None,
        )
        self.worker = worker
        self.tenant = tenant
        self.numbers = numbers
        self._ingest_limits = ingest_limits
        self._knowledge_queue = knowledge_queue

    # Runs.

    @cached_property
    def submissions(self) -> Submissions:
        return Submissions(self.pool, self.numbers, self.worker)

    @cached_property
    def journal(self) -> RunJournal:
        return RunJournal(self.pool, self.numbers, self.worker)

    @cached_property
    def outbox(self) -> Outbox:
        return Outbox(self.pool, self.numbers, self.worker)

    @cached_property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.pool, self.numbers, self.worker)

    @cached_property
    def agents(self) -> Agents:
        return Agents(self.pool, self.numbers, self.worker)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.pool, self.journal, self.numbers)

    @cached_property
    def queries(self) -> RunQueries:
        return RunQueries(self.pool, self.tenant)

    @cached_property
    def forks(self) -> Forks:
        return Forks(self.queries, self.journal)

    @cached_property
    def results(self) -> Results:
        return Results(self.pool)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        return DeadLetters(self.pool)

    @cached_property
    def workers(self) -> Workers:
        return Workers(self.pool, publish_after_s=self.numbers.publish_after_s)

    # Sessions.

    @cached_property
    def history(self) -> HistoryStore:
        return HistoryStore(self.pool)

    @cached_property
    def sessions(self) -> Sessions:
        return Sessions(self.pool, self.journal, self.tenant)

    @cached_property
    def memories(self) -> MemoryStore:
        return MemoryStore(self.pool, self.tenant)

    @cached_property
    def steering(self) -> Steering:
        return Steering(self.pool)

    @cached_property
    def consents(self) -> Consents:
        return Consents(self.pool, self.tenant)

    @cached_property
    def states(self) -> StateStore:
        return StateStore(self.pool, self.tenant)

    # Knowledge.

    @cached_property
    def knowledge(self) -> KnowledgeBases:
        return KnowledgeBases(self.pool, self.submissions, self.journal, queue=self._knowledge_queue)

    @cached_property
    def ingest(self) -> Ingest:
        return Ingest(self.pool, self.journal, self._ingest_limits)

    @cached_property
    def feedback(self) -> FeedbackStore:
        return FeedbackStore(self.pool)

    @cached_property
    def knowledge_stats(self) -> KnowledgeStats:
        return KnowledgeStats(self.pool)

    def close(self) -> None:
        self.pool.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


os.register_at_fork(after_in_child=partial(renew_locks, Database))
