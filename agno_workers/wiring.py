"""The one place that builds things: settings in, everything that a process needs out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import import_module

import redis
from celery import Celery

from agno_workers import settings as settings_module
from agno_workers.broker.app import AgnoCelery, create
from agno_workers.broker.checks import redis_problems
from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.keeper import Keeper
from agno_workers.broker.quarantine import Quarantine
from agno_workers.broker.signing import Signer, sign
from agno_workers.broker.verify import MessageVerifier
from agno_workers.core.ports import Model
from agno_workers.core.run import StepKind
from agno_workers.database import migrate
from agno_workers.database.pool import Pool
from agno_workers.engine.active_steps import ActiveSteps
from agno_workers.engine.registry import Registry
from agno_workers.engine.tool import bury, expire
from agno_workers.engine.turn import Engine
from agno_workers.errors import SettingsError
from agno_workers.knowledge.embedders.resolve import resolve as embedder
from agno_workers.knowledge.service import KnowledgeService
from agno_workers.knowledge.sources.resolve import check
from agno_workers.knowledge.steps import IngestContext
from agno_workers.knowledge.steps import bury as bury_ingesting
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.store.ingest import Ingest, IngestLimits
from agno_workers.models.resolve import resolve
from agno_workers.runs.batch import Batches
from agno_workers.runs.journal import CommitResult, ExhaustedStep, Journal
from agno_workers.runs.queries import RunQueries
from agno_workers.runs.results import Results
from agno_workers.runs.workers import Workers
from agno_workers.settings import Settings
from agno_workers.streams import Streams


@dataclass(frozen=True)
class Services:
    """What one process works with. No connection is opened before it is needed."""

    settings: Settings
    app: Celery
    pool: Pool
    journal: Journal
    look: RunQueries
    results: Results
    redis: redis.Redis
    streams: Streams
    dispatch: Dispatch
    bulk: Batches
    workers: Workers

    @cached_property
    def engine(self) -> Engine:
        """What carries steps. Only workers want it: it imports the agents (SettingsError where that fails)."""
        return Engine(
            self.journal,
            self.pool,
            Registry.importing(self.settings.imports),
            self.streams,
            partial(_model, self.settings),
            agent_queue=self.settings.agent_queue,
            tool_queue=self.settings.tool_queue,
            held=self.held,
            library=self.library,
        )

    @cached_property
    def held(self) -> ActiveSteps:
        """The steps that this process carries."""
        return ActiveSteps(self.journal.is_held)

    @cached_property
    def knowledges(self) -> KnowledgeBases:
        return KnowledgeBases(self.pool, self.journal, queue=self.settings.knowledge_queue)

    @cached_property
    def ingest(self) -> Ingest:
        """The transactions of ingestions."""
        settings = self.settings
        windows = IngestLimits(
            ingest_window=settings.ingest_window,
            embed_window=settings.embed_window,
            batch_bytes=settings.batch_bytes,
            batch_documents=settings.batch_documents,
            embed_tokens=settings.embed_tokens,
            attempts=settings.ingest_attempts,
            publish_after_s=settings.publish_after_s,
        )
        return Ingest(self.pool, worker=self.journal.worker, lease_s=settings.lease_s, windows=windows)

    @cached_property
    def intake(self) -> IngestContext:
        """What carries the steps of ingestions. Only workers want it: it loads what reads documents and makes vectors."""
        intake: IngestContext = import_module("agno_workers.knowledge.context").build(
            self.pool,
            self.ingest,
            self.knowledges,
            self.journal,
            self.held,
            fetch_timeout_s=self.settings.fetch_timeout_s,
            document_max_bytes=self.settings.document_max_bytes,
            allow=_listed(self.settings.source_allow),
            roots=_listed(self.settings.source_roots),
            model=partial(_model, self.settings),
        )
        return intake

    @cached_property
    def library(self) -> KnowledgeService:
        """What asks knowledge bases."""
        return KnowledgeService.on(self.pool, self.knowledges, embedder)

    @cached_property
    def gate(self) -> MessageVerifier:
        """What a message has to pass before this process works on it."""
        keys = self.settings.signing_key.get_secret_value()
        quarantine = Quarantine(self.pool, worker=self.journal.worker)
        return MessageVerifier(
            quarantine, self.redis, Signer(keys) if keys else None, self.settings.signing_max_age_s
        )

    def keeper(self) -> Keeper:
        return Keeper(
            self.journal,
            self.dispatch,
            self.redis,
            self._bury,
            partial(expire, self.engine),
            self.bulk.cancel_forsaken,
            self.ingest,
            lease_s=self.settings.keeper_lease_s,
            resend_after_s=self.settings.resend_after_s,
        )

    def _bury(self, step: ExhaustedStep) -> CommitResult:
        if step.kind in (StepKind.SCAN, StepKind.INGEST, StepKind.EMBED, StepKind.FINALIZE):
            return bury_ingesting(self.ingest, step)
        return bury(self.engine, step)

    def close(self) -> None:
        self.pool.close()
        self.redis.close()


def build(settings: Settings, app: Celery, *, worker: str = "") -> Services:
    """Everything from settings. Raises SettingsError where an address is missing."""
    pool = Pool(
        required(settings, "database_url"),
        size=settings.db_pool_size,
        timeout_s=settings.db_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
    )
    journal = Journal(
        pool,
        inline_max_bytes=settings.inline_max_bytes,
        lease_s=settings.lease_s,
        publish_after_s=settings.publish_after_s,
        turn_attempts=settings.turn_attempts,
        worker=worker,
    )
    look, results = RunQueries(pool), Results(pool)
    client = redis_client(settings)
    watching = redis_client(
        settings, timeout_s=min(1.0, settings.broker_timeout_s)
    )  # nobody waits long to be watched
    streams = Streams(watching, max_events=settings.stream_max_events, ttl_s=settings.stream_ttl_s)
    dispatch = Dispatch(app, journal, results, look)
    bulk = Batches(
        pool, journal, inline_max_bytes=settings.inline_max_bytes, turn_attempts=settings.turn_attempts
    )
    workers = Workers(pool, publish_after_s=settings.publish_after_s)
    return Services(settings, app, pool, journal, look, results, client, streams, dispatch, bulk, workers)


def attach(app: Celery, settings: Settings | None = None) -> Celery:
    """Let a Celery app of your own keep its results and chords in Postgres: sets its `result_backend`.

    With a `signing_key`, it signs what it sends.
    """
    given = settings or settings_module.load()
    services = _PerProcess(lambda worker: build(given, app, worker=worker))
    app.dispatch = lambda: services.get().dispatch
    app.conf.update(
        result_backend="agno_workers.broker.backend:PostgresBackend", result_backend_thread_safe=True
    )
    _sign(app, given)
    return app


def celery_app() -> AgnoCelery:
    """The Celery app of this process; `agno_workers.tasks` adds the task bodies to it, in a worker."""
    return _default().app


def services() -> Services:
    """What this process works with, built on first use, and anew after a fork."""
    return _default().services.get()


def upkeep() -> Services:
    """Services with connections of their own, for the threads that must never wait for a tool to give one back."""
    here = services()
    settings = here.settings.model_copy(update={"db_pool_size": 3})
    return build(settings, here.app, worker=here.journal.worker)


def name_worker(name: str) -> None:
    """Say which worker this process, and the children that it forks, are; before the first use of `services`."""
    _default().services.name(name)


def problems(queues: Collection[str] = ()) -> list[str]:
    """Why this process must not work on its servers, from these queues, a sentence each. Raises Unavailable where one does not answer,
    SettingsError and InvalidTool where the agents, or what ingestions may read, can't be used.
    """
    here = services()
    if here.settings.knowledge_queue in queues:
        check(_listed(here.settings.source_allow), _listed(here.settings.source_roots))
    found = redis_problems(here.redis)
    url = required(here.settings, "database_url")
    revision, wanted = migrate.current(url), migrate.newest()
    if revision is None or revision < wanted:
        found.append(
            f"the database is at revision {revision}, this code needs {wanted}: run `agno-workers db upgrade`."
        )
    for agent in here.engine.registry.all():
        here.engine.prepare(agent.name)  # a tool that can't be offered to a model is better known now
    return found


def redis_client(settings: Settings, timeout_s: float | None = None) -> redis.Redis:
    """A client for the broker's Redis, with time-outs (default: the settings' `broker_timeout_s`)."""
    url = (
        required(settings, "broker_url").replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    )
    wait = timeout_s or settings.broker_timeout_s
    client: redis.Redis = redis.Redis.from_url(
        url, socket_timeout=wait, socket_connect_timeout=wait, health_check_interval=30
    )
    return client


def required(settings: Settings, key: str) -> str:
    """An address that must be set. Raises SettingsError."""
    value: str = getattr(settings, key).get_secret_value()
    if not value:
        raise SettingsError(
            f"{key} is not set: set AGNO_{key.upper()}, or start everything here with `./run up`.", key=key
        )
    return value


def _listed(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _sign(app: Celery, settings: Settings) -> None:
    if keys := settings.signing_key.get_secret_value():
        sign(app, keys)


def _model(settings: Settings, model: str | Model) -> Model:
    if not isinstance(model, str):
        return model
    return (
        resolve(model, base_url=settings.local_base_url or None)
        if model.startswith("local:")
        else resolve(model)
    )


def forget() -> None:
    """Close what this process built, so that the next use reads the settings anew."""
    if _default.cache_info().currsize:
        _default().services.close()
        _default.cache_clear()


class _PerProcess:
    """Services that are built once in each process: connections don't survive a fork."""

    def __init__(self, make: Callable[[str], Services]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._built: tuple[int, Services] | None = None
        self._worker = ""

    def name(self, worker: str) -> None:
        if self._built is not None:
            raise RuntimeError(
                "services were built before their worker had a name: its leases would be nobody's"
            )
        self._worker = worker

    def get(self) -> Services:
        built = self._built
        if built is None or built[0] != os.getpid():
            with self._lock:
                if self._built is None or self._built[0] != os.getpid():
                    self._built = (os.getpid(), self._make(self._worker))
                built = self._built
        return built[1]

    def close(self) -> None:
        if self._built is not None and self._built[0] == os.getpid():
            self._built[1].close()


class _Default:
    """The app and the services that `AGNO_*` describes."""

    def __init__(self) -> None:
        self.settings = settings_module.load()
        self.app = create(
            required(self.settings, "broker_url"),
            agent_queue=self.settings.agent_queue,
            tool_queue=self.settings.tool_queue,
            knowledge_queue=self.settings.knowledge_queue,
            broker_timeout_s=self.settings.broker_timeout_s,
        )
        self.services = _PerProcess(lambda worker: build(self.settings, self.app, worker=worker))
        self.app.dispatch = lambda: self.services.get().dispatch
        self.app.gate = lambda: self.services.get().gate
        _sign(self.app, self.settings)


@cache
def _default() -> _Default:
    return _Default()
