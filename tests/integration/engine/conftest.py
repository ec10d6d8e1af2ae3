"""An engine on a real database, with agents whose models give scripted replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import pytest
import redis

from agno_workers.core.messages import AnyPart, Message, ModelRequest, ToolResult, user
from agno_workers.core.ports import Model
from agno_workers.core.run import Run
from agno_workers.core.runnable import Runnable
from agno_workers.core.step import StepMessage
from agno_workers.database.pool import Pool, Row, statements
from agno_workers.engine.active_steps import ActiveSteps
from agno_workers.engine.tool import expire
from agno_workers.engine.turn import Engine
from agno_workers.knowledge.service import extension
from agno_workers.local import LocalServers
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.registry import Registry
from agno_workers.runs.reports import Reports
from agno_workers.sdk.handles import RunHandle
from agno_workers.sessions import context, history, offload
from agno_workers.sessions.compose import Exchange
from agno_workers.sessions.context import ContextResolver
from agno_workers.sessions.history import HistoryStore
from agno_workers.sessions.history_tools import HistoryTools
from agno_workers.sessions.state import reader
from agno_workers.sessions.window import ContextWindows
from agno_workers.streams import Streams
from tests.database import RunDatabase, claimed, on_pool
from tests.steps import FakeKnowledge, execute_run, execute_step

_numbers = count()
_FILES = "runs/claim", "runs/commit", "runs/outbox", "sessions/history"
_NAMES = {text: name for file in _FILES for name, text in statements(file).items()}


class ScriptedReplies:
    """A model that returns `turns` one by one, and then the last one again; `asked` are its requests."""

    def __init__(self, *turns: Turn | Callable[[], Turn]) -> None:
        self.asked: list[ModelRequest] = []
        self._turns = turns
        self.model = Scripted(f"cue_{next(_numbers)}", self._next)

    def _next(self, request: ModelRequest) -> Turn:
        self.asked.append(request)
        turn = self._turns[min(len(self.asked), len(self._turns)) - 1]
        return turn() if callable(turn) else turn


class CountedPool(Pool):
    """A pool that records the names of its statements."""

    ran: list[str]

    def run(self, statement: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        self.ran.append(_NAMES.get(statement, statement))
        return super().run(statement, params)


class Scenario:
    """An engine for the test's agents, and runs whose steps the test executes."""

    def __init__(self, db: RunDatabase, pool: CountedPool, streams: Streams) -> None:
        self.db = db
        self.pool = pool
        self.queries = db.queries
        self.knowledge = FakeKnowledge(pool)
        self.searched: list[dict[str, Any]] = []
        """The searches over past sessions; they find `exchanges`."""
        self.exchanges: list[Exchange] = []
        self._streams = streams

    def engine(self, *agents: Runnable) -> Engine:
        journal = self.db.journal_of("w1", self.pool)
        return Engine(
            journal.store,
            Registry(agents).get,
            self._streams,
            _as_it_is,
            "agents",
            "tools",
            ActiveSteps(journal.is_held),
            (
                extension(self.knowledge.service),
                history.extension(HistoryStore(self.pool), self.search, HistoryTools(self.pool, self.search)),
                context.extension(ContextResolver(self.pool)),
                offload.extension(self.queries.stored_result),
            ),
            state_reader=partial(reader, self.pool),
            reports=Reports(self.pool).of,
            ask_model=ContextWindows().ask,
        )

    def search(self, **asked: Any) -> list[Exchange]:
        self.searched.append(asked)
        return self.exchanges

    def submit(self, agent: str, *content: str | AnyPart, **options: Any) -> StepMessage:
        """Submit a run, and return its first turn."""
        message = user(*content or ("hi",))
        return claimed(self.db.journal.submit(message, agent=agent, queue="agents", **options).send)

    def run(self, agent: Runnable, *content: str | AnyPart, **options: Any) -> Run:
        """Submit a run of this agent, and execute it to its end."""
        step = self.submit(agent.name, *content, **options)
        execute_run(self.engine(agent), step)
        return self.queries.run(step.run_id)

    def execute_pending(self, engine: Engine, run_id: str) -> Run:
        """Execute all pending steps of a run until there are no more."""
        while sends := self.db.journal.pending(run_id):
            for send in sends:
                assert send.outbox_id is not None
                self.db.journal.published([send.outbox_id])
                execute_step(engine, send)
        return self.queries.run(run_id)

    def execute_step_of(self, engine: Engine, run_id: str) -> None:
        """Execute the first pending step of a run."""
        send = self.db.journal.pending(run_id)[0]
        self.db.journal.published([claimed(send.outbox_id)])
        execute_step(engine, send)

    def execute_all(self, engine: Engine, step: StepMessage) -> Run:
        """Execute a run and the runs that it starts, until there are no more steps."""
        todo, runs = [step], {step.run_id: None}
        while todo:
            committed = execute_step(engine, todo.pop(0))
            todo += [*committed.sends, *committed.children]
            runs |= dict.fromkeys(send.run_id for send in todo)
            if not todo:
                todo += [send for run_id in runs for send in self.db.journal.pending(run_id)]
        return self.queries.run(step.run_id)

    def end_waits(self, engine: Engine) -> None:
        """End the waits whose time is over, as the keeper does."""
        self.db.journal.end_due_timers(100)
        for wait in self.db.journal.expired_waits(100):
            expire(engine, wait)

    def handle(self, run_id: str) -> RunHandle:
        """Return the handle of a run, as a Client does."""
        return RunHandle(run_id, on_pool(self.pool))

    def results(self, run_id: str) -> list[str]:
        """Return the tool results of a run, in the order of the calls."""
        return [
            part.content
            for message in self.queries.transcript(run_id)
            for part in message.parts
            if isinstance(part, ToolResult)
        ]

    def transcript(self, run: Run) -> list[Message]:
        return self.queries.transcript(run.id)

    def let_time_pass(self) -> None:
        """Make all timers due."""
        self.db.sql("UPDATE agno.step SET not_before = clock_timestamp() WHERE not_before IS NOT NULL")
        self.db.sql(
            "UPDATE agno.step SET expires_at = clock_timestamp() - interval '1 s' WHERE status = 'waiting' AND expires_at IS NOT NULL"
        )


def _as_it_is(model: str | Model) -> Model:
    assert not isinstance(model, str)
    return model


@pytest.fixture(scope="module")
def counted_pool(db_url: str) -> Iterator[CountedPool]:
    pool = CountedPool(db_url, size=4, timeout_s=10, statement_timeout_s=30)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def live_streams(servers: LocalServers) -> Iterator[Streams]:
    client = redis.Redis.from_url(servers.redis_url)
    yield Streams(client, max_events=100, ttl_s=60)
    client.close()


@pytest.fixture
def scenario(db: RunDatabase, counted_pool: CountedPool, live_streams: Streams) -> Scenario:
    counted_pool.ran = []
    return Scenario(db, counted_pool, live_streams)
