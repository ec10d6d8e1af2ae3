"""The one place that builds the services of a process from its settings."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from functools import cache, cached_property, partial
from typing import Any, Literal

import msgspec
import redis
from celery import Celery
from kombu import pools

from agno_workers import extras
from agno_workers import settings as settings_module
from agno_workers.broker.app import AgnoCelery, create
from agno_workers.broker.backend import unreadable
from agno_workers.broker.canvas import store_collected
from agno_workers.broker.checks import owner_problem, redis_problems, redis_refusal
from agno_workers.broker.control import cancelling_control
from agno_workers.broker.delayed import DelayedTasks
from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.home import broker_problem, lead_home
from agno_workers.broker.keeper import Duties, Keeper
from agno_workers.broker.quarantine import Quarantine
from agno_workers.broker.queues import open_client
from agno_workers.broker.signing import Signer, sign
from agno_workers.broker.start import described, start_check
from agno_workers.broker.submit import MakeRequest, register_run
from agno_workers.broker.verify import MessageVerifier
from agno_workers.core.agent import Agent
from agno_workers.core.ports import Model
from agno_workers.core.run import StepKind
from agno_workers.core.runnable import Program, Runnable
from agno_workers.core.step import CommitResult, ExhaustedStep
from agno_workers.database.checks import database_problems
from agno_workers.discovery import load_settings
from agno_workers.engine.active_steps import ActiveSteps
from agno_workers.engine.calls import StepCalls
from agno_workers.engine.handlers import Handler
from agno_workers.engine.plan import AgentPlan
from agno_workers.engine.program import definition_of
from agno_workers.engine.run_turn import run_turn
from agno_workers.engine.tool import expire, fail_exhausted, run_tool
from agno_workers.engine.turn import Engine
from agno_workers.errors import SettingsError
from agno_workers.forks import after_fork, renew_locks
from agno_workers.knowledge.embedders.resolve import resolve as embedder
from agno_workers.knowledge.service import KnowledgeService, extension
from agno_workers.knowledge.sources.resolve import Allowed, check
from agno_workers.knowledge.steps import IngestContext
from agno_workers.knowledge.steps import handlers as ingestion_handlers
from agno_workers.knowledge.store.bases import AGENT, ingestion_request
from agno_workers.knowledge.store.ingest import IngestLimits
from agno_workers.knowledge.talk import TalkIndex
from agno_workers.models.resolve import lacking, resolve
from agno_workers.registry import Registry
from agno_workers.repositories import Database
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.reports import Reports
from agno_workers.sessions import context, history, index, offload, summary
from agno_workers.sessions.background import Background, Worker
from agno_workers.sessions.compaction import decline_exhausted, run_compaction
from agno_workers.sessions.context import ContextResolver
from agno_workers.sessions.history_tools import HistoryTools
from agno_workers.sessions.memory import LEARN, MemoryService
from agno_workers.sessions.memory_consolidate import CONSOLIDATE, consolidator
from agno_workers.sessions.memory_learn import learner
from agno_workers.sessions.search import SessionSearch
from agno_workers.sessions.state import reader
from agno_workers.sessions.window import ContextWindows
from agno_workers.settings import KnowledgeSection, Settings
from agno_workers.streams import Streams
from agno_workers.teams.roster import Roster

log = logging.getLogger(__name__)

REQUESTS: Mapping[str, MakeRequest] = {AGENT.rstrip(":"): ingestion_request}
"""Makers of requests for other kinds of runs, by the prefix of their agents."""


class Services:
    """The services of one process, each built when it is first used."""

    def __init__(self, settings: Settings, app: Celery, *, worker: str = "") -> None:
        """Raises SettingsError when an address is missing."""
        self.settings = settings
        self.app = app
        self.worker = worker
        self.database = database(settings, worker=worker)
        self.redis = redis_client(settings)

    @cached_property
    def streams(self) -> Streams:
        timeout_s = min(1.0, self.settings.broker.timeout_s)  # live events must not delay a step for long
        client, limits = redis_client(self.settings, timeout_s=timeout_s), self.settings.streams
        return Streams(
            client,
            max_events=limits.max_events,
            ttl_s=limits.ttl_s,
            key_prefix=self.settings.broker.key_prefix,
        )

    @cached_property
    def dispatch(self) -> Dispatch:
        here = self.database
        return Dispatch(
            self.app, submissions=here.submissions, claims=here.journal, control=here.journal, outbox=here.outbox, results=here.results, queries=here.queries,
            delayed=DelayedTasks(self.app, here.pool),
        )  # fmt: skip

    @cached_property
    def active(self) -> ActiveSteps:
        """The steps that this process executes."""
        return ActiveSteps(self.database.journal.is_held)

    @cached_property
    def registry(self) -> Registry:
        """The agents of `imports`. Raises SettingsError when a module cannot be imported."""
        return Registry.importing(*self.settings.imports)

    @cached_property
    def engine(self) -> Engine:
        """The engine of agents' steps; only workers need it."""
        return Engine(
            self.database.journal,
            self.registry.get,
            self.streams,
            partial(_model, self.settings),
            agent_queue=self.settings.queues.agents,
            tool_queue=self.settings.queues.tools,
            active=self.active,
            calls=StepCalls({name.partition(".")[0] for name in self.settings.imports}),
            extensions=(
                extension(self.knowledge),
                history.extension(
                    self.database.history,
                    self.search_past,
                    HistoryTools(self.database.pool, self.search_past),
                ),
                MemoryService(self.database.memories).extension(),
                context.extension(ContextResolver(self.database.pool)),
                summary.extension(),
                index.extension(lambda agent: agent.history.tools or agent.history.search_past_sessions > 0),
                offload.extension(self.database.queries.stored_result),
                Roster(self.database.pool, self.registry.all).extension(),
            ),
            state_reader=partial(reader, self.database.pool),
            reports=Reports(self.database.pool).of,
            ask_model=ContextWindows().ask,
        )

    @cached_property
    def background(self) -> Background:
        """The code for each kind of background work; only workers need it."""
        pool, memories = self.database.pool, self.database.memories
        workers: dict[str, Worker] = {
            summary.KIND: summary.Summaries(pool),
            index.KIND: index.worker(pool, self.talk),
            LEARN: learner(memories),
            CONSOLIDATE: consolidator(memories),
        }
        return Background(self.engine, pool, workers)

    @cached_property
    def ingest_context(self) -> IngestContext:
        """The services of ingestion steps; only workers need them, since they load readers and embedders."""
        from agno_workers.knowledge.context import build  # noqa: PLC0415 - loads readers and embedders

        settings = self.settings.knowledge
        return build(
            self.database.pool,
            self.database.ingest,
            self.database.knowledge,
            self.database.journal,
            self.active,
            fetch_timeout_s=settings.fetch_timeout_s,
            document_max_bytes=settings.document_max_bytes,
            allowed=_allowed(settings),
            model=partial(_model, self.settings),
        )

    @cached_property
    def knowledge(self) -> KnowledgeService:
        return KnowledgeService.on(self.database.pool, self.database.knowledge, embedder)

    @cached_property
    def talk(self) -> TalkIndex:
        """The index of past sessions."""
        return TalkIndex(self.database.pool, embedder)

    @cached_property
    def search_past(self) -> history.SearchPast:
        """The search over exchanges of past sessions."""
        return SessionSearch(self.database.pool, self.talk)

    @cached_property
    def verifier(self) -> MessageVerifier:
        """The check of each message before this process executes it."""
        signing = self.settings.signing
        signer = Signer(signing.text) if signing.keys else None
        quarantine = Quarantine(self.database.pool, worker=self.worker)
        return MessageVerifier(
            quarantine, self.redis, signer, signing.max_age_s, self.settings.broker.key_prefix
        )

    @cached_property
    def handlers(self) -> Mapping[StepKind, Handler]:
        """The code for each kind of step; see `core.step.STEP_TYPES`."""
        return {
            # Built in a lambda: the engine imports the agents, and a process without their steps does not need it.
            StepKind.TURN: Handler(lambda *ids: run_turn(self.engine, *ids), self._fail_exhausted),
            StepKind.TOOL: Handler(lambda *ids: run_tool(self.engine, *ids), self._fail_exhausted),
            StepKind.BACKGROUND: Handler(lambda *ids: self.background.run(*ids), self._fail_exhausted),  # noqa: PLW0108 - as above
            StepKind.COMPACT: Handler(
                lambda *ids: run_compaction(self.engine, *ids),
                lambda step: decline_exhausted(self.engine, step),
            ),
            **ingestion_handlers(lambda: self.ingest_context, self.database.ingest),
        }

    def keeper(self, on_other_owner: Callable[[str], object] = log.error) -> Keeper:
        here = self.database
        duties = Duties(
            lambda step: self.handlers[step.kind].on_exhausted(step), partial(expire, self.engine), here.batches.cancel_abandoned, here.ingest.stalled, here.ingest.schedule_next
        )  # fmt: skip
        return Keeper(
            here.maintenance, here.outbox, here.journal, self.dispatch, self.redis, duties,
            lease_s=self.settings.keeper.lease_s, resend_after_s=self.settings.keeper.resend_after_s,
            key_prefix=self.settings.broker.key_prefix, on_other_owner=on_other_owner,
        )  # fmt: skip

    def _fail_exhausted(self, step: ExhaustedStep) -> CommitResult:
        return fail_exhausted(self.engine, step)

    def register_agents(self) -> None:
        """Write the agents of this process to Postgres, so that other services can submit to them by name."""
        self.database.agents.register(
            registered(
                each,
                self.engine.taken_by(each.name),
                self.engine.queue_of(each),
                self.settings.queues.background,
            )
            for each in self.registry.all()
        )

    def close(self) -> None:
        if "dispatch" in vars(self):
            self.dispatch.close()
        self.database.close()
        self.redis.close()


def registered(
    what: Runnable, compiled: AgentPlan | Program, queue: str, background_queue: str
) -> RegisteredAgent:
    """Return the row of an agent, a team or a workflow in `agno.agent`."""
    if isinstance(compiled, Program):
        definition, offered = definition_of(compiled), tuple(part.name for part in what.parts)
    else:
        definition, offered = compiled.definition, compiled.offered
    return RegisteredAgent(
        what.name, queue, background_queue=background_queue, kind=what.kind, description=what.description,
        definition=definition.content, tools=offered,
    )  # fmt: skip


def database(settings: Settings, *, worker: str = "") -> Database:
    """Return the database of these settings. Raises SettingsError when they have no address."""
    limits = msgspec.convert(settings.knowledge, IngestLimits, from_attributes=True)
    return Database(
        required(settings, "database"),
        size=settings.database.pool_size,
        timeout_s=settings.database.timeout_s,
        statement_timeout_s=settings.database.statement_timeout_s,
        worker=worker,
        numbers=msgspec.convert(settings.runs, RunNumbers, from_attributes=True),
        ingest_limits=msgspec.structs.replace(limits, publish_after_s=settings.runs.publish_after_s),
        knowledge_queue=settings.queues.knowledge,
        direct_url=settings.database.direct_url.get_secret_value(),
    )


def attach(app: Celery, settings: Settings | None = None) -> Celery:
    """Store the results and the chords of your own Celery app in Postgres, and let its `revoke` cancel runs, also when it has used
    another result backend before. With `signing.keys`, the app signs its messages. An app without a broker gets ours.

    In a canvas, its tasks go to its own queues, wherever they stand; `agno.run` without a queue goes to the agents. With
    `broker.key_prefix`, its keys in Redis begin with it. A worker of the app refuses to start where its results or messages may
    be lost. Raises SettingsError for an app with another broker, or whose messages our workers can't read.
    """
    if isinstance(app, AgnoCelery):
        return app
    given = settings or settings_module.load()
    services = _PerProcess(lambda worker: Services(given, app, worker=worker))
    app.dispatch = lambda: services.get().dispatch
    after_fork(app, _new_producers)
    app.backend_cls = "agno_workers.broker.backend:PostgresBackend"  # wins over all settings, also later ones
    app._backend_cache, app._local = (
        None,
        threading.local(),
    )  # Celery caches the backend, maybe for each thread
    app.control_cls = cancelling_control(app.control_cls)
    app.__dict__.pop("control", None)  # as above
    register_run(app)
    _sign(app, given)

    def before_send() -> None:  # also of a configuration that was loaded later
        if problem := _app_problem(app, given):
            raise SettingsError(problem)
        store_collected()

    def configure(sender: Celery, source: object = None, **_: Any) -> None:
        if source is not None:  # another configuration was loaded: routes are cached
            sender.__dict__.pop("amqp", None)
        if not sender.conf.broker_url:
            sender.conf.broker_url = required(given, "broker")
        if given.broker.key_prefix:
            prefix = {"global_keyprefix": given.broker.key_prefix}
            sender.conf.broker_transport_options = prefix | (sender.conf.broker_transport_options or {})
        lead_home(sender, given.queues.agents, before_send)

    configure(app)
    if problem := _app_problem(app, given):
        raise SettingsError(problem)
    app.on_after_configure.connect(configure, weak=False, dispatch_uid="agno-attach")
    app.steps["worker"].add(start_check(lambda _: _start_problems(services.get())))
    return app


def _app_problem(app: Celery, settings: Settings) -> str | None:
    return unreadable(app.conf) or broker_problem(
        app, required(settings, "broker"), settings.broker.key_prefix
    )


def _start_problems(here: Services) -> list[str]:
    """Return why a worker of an attached app must not start; its configuration may have changed since."""
    problem = _app_problem(here.app, here.settings)
    return [problem] if problem else server_problems(here)


def celery_app() -> AgnoCelery:
    """Return the Celery app of this process; in a worker, `agno_workers.tasks` adds the tasks."""
    return _default().app


def services() -> Services:
    """Return the services of this process; they are built on first use, and again after a fork."""
    return _default().services.get()


def upkeep() -> Services:
    """Return services with their own connections, for threads that must not wait while tools hold the other ones."""
    here = services()
    return Services(here.settings.changed(database={"pool_size": 3}), here.app, worker=here.worker)


def name_worker(name: str) -> None:
    """Set the worker name of this process and of its children, before the first use of `services`."""
    _default().services.name(name)


def problems(queues: Collection[str] = ()) -> list[str]:
    """Return the reasons, a sentence each, why this process must not consume these queues.

    Raises Unavailable when a server does not answer, SettingsError or InvalidTool for agents or ingestion settings that cannot
    be used.
    """
    here = services()
    if here.settings.queues.knowledge in queues:
        if lacking := _lacking(here.settings):
            return [lacking]
        check(_allowed(here.settings.knowledge))
    if not (found := server_problems(here)) and (problem := _queue_problem(here, queues)):
        found = [problem]
    for each in here.registry.all():
        taken_by = here.engine.taken_by(each.name)  # raises now for a tool that cannot be offered to a model
        if isinstance(taken_by, AgentPlan) and (reason := lacking_model(here.settings, taken_by.agent)):
            log.warning("%s Its runs fail on this worker until then.", reason)
    return found


def _lacking(settings: Settings) -> str | None:
    """Return why this installation can't execute the steps of ingestions, or None."""
    queue, others = settings.queues.knowledge, "or name its other queues with -Q"
    # "*", which `up` sets, permits all buckets and promises none: an ingestion of one then fails with the pip line.
    named = [place for place in settings.knowledge.source_objects if place != "*"]
    for extra in ("knowledge", *(["objects"] if named else [])):
        if problem := extras.problem(extra):
            return f"its queue {queue!r} needs the extra {extra!r}, of which {problem}, {others}."
    try:
        import agno_workers.knowledge.context  # noqa: F401, PLC0415 - loads readers
    except ImportError as error:
        repair = f"{extras.install('knowledge')} --force-reinstall"
        return f"its queue {queue!r} needs the extra 'knowledge', which can't be imported ({described(error)}): {repair}, {others}."
    return None


def _queue_problem(here: Services, queues: Collection[str]) -> str | None:
    prefix, remote_control = here.settings.broker.key_prefix, here.app.conf.worker_enable_remote_control
    return redis_refusal(here.redis, queues, remote_control=remote_control, prefix=prefix) or owner_problem(
        here.redis, prefix, here.database.maintenance.deployment()
    )


def _allowed(settings: KnowledgeSection) -> Allowed:
    """Return the operator's lists of what sources may use."""
    return Allowed(
        allow=settings.source_allow,
        roots=settings.source_roots,
        variables=settings.source_variables,
        databases=settings.source_databases,
        objects=settings.source_objects,
    )


def server_problems(here: Services) -> list[str]:
    """Return the reasons, a sentence each, why these servers may lose work. Raises Unavailable."""
    given = here.settings
    found = database_problems(
        required(given, "database"), given.database.direct_url.get_secret_value(), given.database.timeout_s, deployment=given.deployment
    )  # fmt: skip
    return redis_problems(here.redis) + found


def redis_client(settings: Settings, timeout_s: float | None = None) -> redis.Redis:
    """Return a client of the broker's Redis, with timeouts (default: `broker.timeout_s`)."""
    return open_client(required(settings, "broker"), timeout_s=timeout_s or settings.broker.timeout_s)


def required(settings: Settings, section: Literal["database", "broker"]) -> str:
    """Return the address of a section. Raises SettingsError where it is not set."""
    url: str = getattr(settings, section).url.get_secret_value()
    if not url:
        key = f"{section}.url"
        raise SettingsError(
            f"{settings_module.variable(key)} is not set: set it, or start servers and workers here with `agno-workers up`.",
            key=key,
        )
    return url


def _sign(app: Celery, settings: Settings) -> None:
    if settings.signing.keys:
        sign(app, settings.signing.text)


def _new_producers(app: Celery) -> None:
    """Let a forked process make its own producers: a thread of its parent may have held the locks of the others."""
    loaded = [module for name, module in sys.modules.items() if name.startswith(("celery.", "kombu."))]
    renew_locks(
        type(app),
        Services,
        # Celery's proxies would answer isinstance under a lock.
        *(each for module in loaded for each in vars(module).values() if issubclass(type(each), type)),
    )
    app._pool = app.amqp._producer_pool = None
    pools.connections.clear()
    pools.producers.clear()


def lacking_model(settings: Settings, agent: Agent) -> str | None:
    """Return a sentence about what this process lacks to call the agent's model, such as a key; None if nothing."""
    reason = lacking(agent.model, base_url=_base_url(settings, agent.model))
    return reason and f"agent {agent.name!r}: {reason}"


def _model(settings: Settings, model: str | Model) -> Model:
    return resolve(model, base_url=_base_url(settings, model)) if isinstance(model, str) else model


def _base_url(settings: Settings, model: str | Model) -> str | None:
    is_local = isinstance(model, str) and model.startswith("local:")
    return settings.models.local_base_url or None if is_local else None


def forget() -> None:
    """Close the services of this process; the next use reads the settings again."""
    if _default.cache_info().currsize:
        _default().services.close()
        _default.cache_clear()


class _PerProcess:
    """Services that are built once per process, since connections do not survive a fork."""

    def __init__(self, make: Callable[[str], Services]) -> None:
        self._make = make
        self._renew_lock()
        after_fork(self, _PerProcess._renew_lock)
        self._built: tuple[int, Services] | None = None
        self._worker = ""

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def name(self, worker: str) -> None:
        if self._built is not None:
            raise RuntimeError(
                "the services were built before the worker's name was set: its leases would have no owner"
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
    """The app and the services of the `AGNO_*` settings."""

    def __init__(self) -> None:
        self.settings = load_settings()
        queues = self.settings.queues
        self.app = create(
            required(self.settings, "broker"),
            queues={
                "agents": queues.agents,
                "tools": queues.tools,
                "knowledge": queues.knowledge,
                "background": queues.background,
            },
            broker_timeout_s=self.settings.broker.timeout_s,
            key_prefix=self.settings.broker.key_prefix,
        )
        if problem := broker_problem(
            self.app, required(self.settings, "broker"), self.settings.broker.key_prefix
        ):
            raise SettingsError(problem)
        self.app.request_kinds = REQUESTS
        after_fork(self.app, _new_producers)
        self.services = _PerProcess(lambda worker: Services(self.settings, self.app, worker=worker))
        self.app.dispatch = lambda: self.services.get().dispatch
        self.app.verifier = lambda: self.services.get().verifier
        _sign(self.app, self.settings)


@cache
def _default() -> _Default:
    return _Default()
