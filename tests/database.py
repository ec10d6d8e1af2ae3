"""One database for all tests of the run store, emptied for each test, and helpers that prepare runs in any state."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow

import agno_workers
from agno_workers.core.messages import Message, Text, ToolCall, ToolResult, Usage, user
from agno_workers.core.request import RunRequest
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep, CommitResult, Submitted, ToolStep, TurnRecord
from agno_workers.core.tool import Effect
from agno_workers.database.pool import Connection, Pool, Row, execute, statements
from agno_workers.database.tables import metadata
from agno_workers.repositories import Database
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.journal import RunJournal
from agno_workers.runs.maintain import Maintenance
from agno_workers.runs.outbox import Outbox
from agno_workers.runs.queries import RunQueries
from agno_workers.runs.submit import Submissions
from tests.invariants import ALWAYS

T = TypeVar("T")
TABLES = [f"agno.{table.name}" for table in metadata.sorted_tables]
FEW = Usage(input_tokens=10, output_tokens=5)
INLINE_MAX_BYTES = 64 * 1024
PACKAGE = Path(agno_workers.__file__).parent
SQL_FILES = sorted(
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.sql")
    if path.parent.name not in ("functions", "versions")
)
STATEMENTS = {f"{file}.{name}": text for file in SQL_FILES for name, text in statements(file).items()}
"""All named statements, as `runs/commit.finish`."""


class AllRepositories:
    """The repositories of runs behind one name, with short forms for tests."""

    def __init__(self, pool: Pool, worker: str, **numbers: Any) -> None:
        self.worker = worker
        own = pool, RunNumbers(**numbers), worker
        self.store, self.submissions = RunJournal(*own), Submissions(*own)
        self.outbox, self.maintenance = Outbox(*own), Maintenance(*own)

    def __getattr__(self, name: str) -> Any:
        parts: tuple[object, ...] = (self.store, self.submissions, self.outbox, self.maintenance)
        return next(getattr(part, name) for part in parts if hasattr(part, name))

    def submit(
        self, message: Message, *, agent: str, queue: str | None = None, connection: Any = None, **options: Any
    ) -> Submitted:  # fmt: skip
        if isinstance(due := options.get("not_before"), str):
            options["not_before"] = datetime.fromisoformat(due)
        request = RunRequest(agent=agent, input=message, queue=queue, **{"allow_unknown": True, **options})
        return self.submissions.submit(request, connection)

    def retry_later(self, claim: ClaimedStep, delay_s: float, error: dict[str, Any]) -> None:
        self.store.retry(claim.step_id, claim.attempt, delay_s, error)

    def claim_turn(self, run_id: str, step_id: str, generation: int) -> ClaimedStep | None:
        found: ClaimedStep | None = self.claim(StepKind.TURN, run_id, step_id, generation)
        return found

    def claim_tool(self, run_id: str, step_id: str, generation: int) -> ClaimedStep | None:
        found: ClaimedStep | None = self.claim(StepKind.TOOL, run_id, step_id, generation)
        return found

    def fan_out(
        self, claim: ClaimedStep, asked: Message, usage: Usage, calls: Sequence[ToolStep], queue: str, **kept: Any
    ) -> CommitResult:  # fmt: skip
        return self.store.fan_out(claim, record(claim, asked, usage=usage, **kept), calls, queue)

    def next_turn(
        self, claim: ClaimedStep, said: Sequence[Message], usage: Usage, queue: str, **kept: Any
    ) -> CommitResult:
        return self.store.next_turn(claim, record(claim, *said, usage=usage, **kept), queue)

    def end(
        self, claim: ClaimedStep, said: Sequence[Message], usage: Usage, content: Any, reason: str, **kept: Any
    ) -> CommitResult:  # fmt: skip
        return self.store.end(claim, record(claim, *said, usage=usage, **kept), content, reason)

    def fail(
        self, step: Any, error: dict[str, Any], reason: str, said: Sequence[Message] = (), usage: Usage | None = None,
        step_status: str = "done",
    ) -> CommitResult:  # fmt: skip
        last = record(step, *said, usage=usage) if said else TurnRecord((), usage)
        return self.store.fail(step, error, reason, last, step_status)


class RunDatabase:
    """The database of a test. `journal` is that of worker `w1`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.queries = RunQueries(pool)
        self.journal = self.journal_of("w1")

    def journal_of(self, worker: str, pool: Pool | None = None, **changed: Any) -> AllRepositories:
        """Return the journal of another worker; `pool` may be an open Transaction."""
        numbers = {
            "inline_max_bytes": INLINE_MAX_BYTES,
            "lease_s": 60.0,
            "publish_after_s": 0.0,
            "turn_attempts": 3,
        }
        return AllRepositories(pool or self.pool, worker, **(numbers | changed))

    @property
    def database(self) -> Database:
        return on_pool(self.pool)

    def sql(self, statement: str, **params: Any) -> list[Row]:
        return self.pool.run(statement, params)

    def value(self, statement: str, **params: Any) -> Any:
        """Return the one value of the one row."""
        ((value,),) = (row.values() for row in self.sql(statement, **params))
        return value

    def count(self, table: str) -> int:
        return int(self.value(f"SELECT count(*) FROM agno.{table}"))

    def step(self, step_id: str) -> Row:
        (row,) = self.sql("SELECT * FROM agno.step WHERE id = %(id)s", id=step_id)
        return row

    def run(self, run_id: str) -> Row:
        (row,) = self.sql("SELECT * FROM agno.run WHERE id = %(id)s", id=run_id)
        return row

    def empty(self) -> None:
        """Delete all rows; TRUNCATE of so many tables takes longer than most tests."""
        with self.pool.connection() as connection:
            connection.execute("; ".join(f"DELETE FROM {table}" for table in reversed(TABLES)).encode())

    def everything(self) -> dict[str, list[Any]]:
        """Return all rows of the database."""
        return {
            table: [row["row"] for row in self.sql(f"SELECT to_jsonb(t) AS row FROM {table} t ORDER BY to_jsonb(t)::text")]
            for table in TABLES
        }  # fmt: skip

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that the block changes no row."""
        before = self.everything()
        yield
        assert self.everything() == before

    def violations(self, name: str) -> list[Row]:
        """Return what violates the invariant whose name begins so."""
        (statement,) = (each for title, each in ALWAYS.items() if title.startswith(name))
        return self.sql(statement)

    # Runs in several states.

    def submit(self, text: str = "hi", agent: str = "echo", **options: Any) -> Submitted:
        return self.journal.submit(user(text), agent=agent, queue="agents", **options)

    def turn(self, **options: Any) -> ClaimedStep:
        """Submit a run, and claim its first turn for w1."""
        submitted = self.submit(**options)
        assert submitted.send is not None
        assert submitted.send.outbox_id is not None
        self.journal.published([submitted.send.outbox_id])
        return claimed(self.journal.claim_turn(submitted.run_id, submitted.send.step_id, 0))

    def fan_out(self, *names: str, effect: Effect = Effect.AT_LEAST_ONCE, **options: Any) -> CommitResult:
        """Submit a run that waits for these tools; none is claimed yet."""
        turn = self.turn(**options)
        recorded = self.journal.fan_out(
            turn, asking(*names), FEW, tool_steps(*names, effect=effect), "agents"
        )
        assert recorded.recorded
        return recorded  # fmt: skip

    def tools(self, *names: str, effect: Effect = Effect.AT_LEAST_ONCE, **options: Any) -> list[ClaimedStep]:
        """Submit a run that waits for these tools, and claim them all for w1."""
        sends = self.fan_out(*names, effect=effect, **options).sends
        self.journal.published([send.outbox_id for send in sends if send.outbox_id is not None])
        return [claimed(self.journal.claim_tool(send.run_id, send.step_id, 0)) for send in sends]

    def expire(self, step_id: str) -> None:
        """Expire the lease of a step now."""
        expired = "UPDATE agno.step SET lease_until = clock_timestamp() WHERE id = %(step_id)s AND status = 'running'"
        self.sql(expired, step_id=step_id)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Yield a connection with an open transaction, which is rolled back unless it was committed."""
        transaction = Transaction(self.pool)
        try:
            yield transaction
        finally:
            transaction.close()

    def waits(self, future: Future[Any], transaction: Transaction) -> bool:
        """Return True once the transaction waits for a lock, False once its call has ended."""
        while not future.done():
            if self.value("SELECT cardinality(pg_blocking_pids(%(pid)s))", pid=transaction.pid):
                return True
            wait([future], timeout=0.002)
        return False


class Transaction(Pool):
    """An open transaction in place of a pool; `commit` commits the calls of a journal on it."""

    def __init__(self, pool: Pool) -> None:
        self._begun = pool.dedicated()
        self._begun.autocommit = False
        self._threads = ThreadPoolExecutor(1)
        self.pid = self._begun.info.backend_pid

    def run(self, statement: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        return execute(self._begun, statement, params)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        yield self._begun

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Start a call on this connection, which may wait for a lock."""
        return self._threads.submit(call)

    def begin_and_commit(self, call: Callable[[], T]) -> Future[T]:
        """Start a call and commit after it."""

        def whole() -> T:
            value = call()
            self.commit()
            return value

        return self._threads.submit(whole)

    def commit(self) -> None:
        self._begun.commit()

    def rollback(self) -> None:
        self._begun.rollback()

    def close(self) -> None:
        self._threads.shutdown()
        self._begun.close()


class CountingPool(Pool):
    """A pool that counts the executions of each named statement and each function of the database."""

    def __init__(self, url: str) -> None:
        super().__init__(url, size=1, timeout_s=10, statement_timeout_s=30)
        self.ran: Counter[str] = Counter()
        names = {text: name for name, text in STATEMENTS.items()}
        ran = self.ran

        class Cursor(psycopg.Cursor[DictRow]):
            def execute(self, query: Any, params: Any = None, **options: Any) -> Cursor:
                ran[names.get(query, "")] += 1
                super().execute(query, params, **options)
                return self

            def executemany(self, query: Any, params_seq: Any, *, returning: bool = False) -> None:
                ran[names.get(query, "")] += 1
                super().executemany(query, params_seq, returning=returning)

        self._cursor = Cursor

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        with super().connection() as connection:
            if connection.cursor_factory is not self._cursor:
                connection.cursor_factory = self._cursor
                connection.execute("SET track_functions = 'all'")
            yield connection

    def functions(self) -> set[str]:
        """Return the names of the functions that ran."""
        self.run("SELECT pg_stat_force_next_flush()")
        return {row["funcname"] for row in self.run("SELECT funcname FROM pg_stat_user_functions")}


def on_pool(pool: Pool, worker: str = "w1", **changed: Any) -> Database:
    """Return a Database on the pool of a test."""
    numbers = RunNumbers(lease_s=60.0, publish_after_s=0.0, turn_attempts=3)
    database = Database(pool.url, worker=worker, numbers=numbers, **changed)
    database.pool = pool
    return database


def claimed(claim: T | None) -> T:
    assert claim is not None
    return claim


def asking(*names: str) -> Message:
    return Message("assistant", tuple(ToolCall(f"call_{place}", name) for place, name in enumerate(names)))


def tool_steps(*names: str, effect: Effect = Effect.AT_LEAST_ONCE) -> list[ToolStep]:
    return [ToolStep(call, "tools", effect, 3) for call in asking(*names).tool_calls]


def record(claim: ClaimedStep, *messages: Message, usage: Usage | None = FEW, **kept: Any) -> TurnRecord:
    """Return what a turn records: the messages that join it, and its own."""
    joined = [each.message for each in claim.steers]
    return TurnRecord((*joined, *messages), usage, steered=tuple(each.id for each in claim.steers), **kept)


def said(text: str) -> list[Message]:
    return [Message("assistant", (Text(text),))]


def result(claim: ClaimedStep, text: str = "ok") -> Message:
    return Message("tool", (ToolResult(claim.call_id or "", claim.name, text),))


def unknown_id() -> str:
    return str(uuid.uuid4())
