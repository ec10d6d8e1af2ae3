"""Submitting and following runs from a service that has none of the agents' code.

    client = Client("postgresql://...", redis_url="redis://...")
    run = client.submit("researcher", "What is new in Postgres 18?", idempotency_key="order-17")
    run.get(timeout=60)

Only Postgres is needed: the workers' keeper hears of a submit by NOTIFY and sends it on. Redis serves `events()`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import redis

from agno_workers.broker.submit import submit
from agno_workers.core.messages import Message
from agno_workers.core.run import Run, RunOutput, RunStatus, Step
from agno_workers.errors import AgnoError, WaitTimeout
from agno_workers.storage.journal import Journal
from agno_workers.storage.look import Event, Look, known_id, output
from agno_workers.storage.pool import Pool
from agno_workers.storage.results import Results
from agno_workers.streams import Streamed, Streams


class RunHandle:
    """One run, from outside. Making one asks nothing of the database."""

    def __init__(
        self, run_id: str, journal: Journal, look: Look, results: Results, streams: Streams | None
    ) -> None:
        self.id = known_id(run_id)
        self._journal = journal
        self._look = look
        self._results = results
        self._streams = streams

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"

    @property
    def run(self) -> Run:
        """The run's row as it stands now. Raises RunNotFound."""
        return self._look.run(self.id)

    @property
    def status(self) -> RunStatus:
        return self.run.status

    @property
    def steps(self) -> list[Step]:
        return self._look.steps(self.id)

    @property
    def messages(self) -> list[Message]:
        """The transcript as far as it goes."""
        return self._look.transcript(self.id)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the end, at most `timeout` seconds, and give the run's content.

        Raises RunFailed (or what the run failed with), RunCancelled, WaitTimeout (it goes on), RunNotFound.
        """
        return self.output(timeout).content

    def output(self, timeout: float | None = None) -> RunOutput:
        """As `get`, with status, reason and usage."""

        def look() -> Run | None:
            run = self._look.run(self.id)
            return run if run.status.is_terminal else None

        run = self._results.wait(self.id, look, timeout)
        if run is None:
            raise WaitTimeout(
                f"run {self.id} has not ended within {timeout} s; it goes on. Wait again, or cancel it.",
                run_id=self.id,
            )
        if run.error is not None:
            raise AgnoError.from_json(run.error)
        return output(run)

    def cancel(self) -> bool:
        """End the run as cancelled; False when it has ended already. Late results are refused."""
        return self._journal.cancel(self.id)

    def events(self, timeout: float | None = None) -> Iterator[Event | Streamed]:
        """What happens in the run, from its beginning to its end: structural events (rows, complete and in order)
        and, while they are there, live pieces of text. Raises WaitTimeout after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        seen: set[tuple[str, str, int]] = set()
        last = "0-0"
        while True:
            ended = self._look.run(
                self.id
            ).status.is_terminal  # before the events, so that none after it is missed
            for piece in self._streams.read(self.id, last) if self._streams else []:
                last = piece.id
                yield piece
            for event in self._look.events(self.id):
                if (key := (event.event, event.subject, event.attempt)) not in seen:
                    seen.add(key)
                    yield event
            if ended:
                return
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimeout(
                    f"run {self.id} has not ended within {timeout} s; it goes on", run_id=self.id
                )
            if self._streams:
                for piece in self._streams.read(self.id, last, wait_s=0.25):
                    last = piece.id
                    yield piece
            else:
                time.sleep(0.25)


class Client:
    """See the module. Safe to share between threads; `close()` it, or use it as a context manager."""

    def __init__(
        self, database_url: str, redis_url: str | None = None, *, timeout_s: float = 10.0, pool_size: int = 4
    ) -> None:
        self._pool = Pool(
            database_url,
            size=pool_size,
            timeout_s=timeout_s,
            statement_timeout_s=30.0,
            name="agno-workers-client",
        )
        self._journal = Journal(
            self._pool, inline_max_bytes=64 * 1024, lease_s=0, publish_after_s=0.0, turn_attempts=5
        )
        self._look = Look(self._pool)
        self._results = Results(self._pool)
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=timeout_s) if redis_url else None
        self._streams = Streams(self._redis, max_events=1, ttl_s=1) if self._redis else None

    def submit(
        self, agent: str, *input: Any, queue: str = "agents", task_id: str | None = None, countdown: float | None = None,
        eta: datetime | None = None, priority: int | None = None, **asked: Any,
    ) -> RunHandle:  # fmt: skip
        """Submit a run; when this returns, it is in Postgres. `asked`: session_id, user_id, idempotency_key, metadata.

        Raises InvalidInput (nothing was stored) or Unavailable (safe to repeat with an idempotency key).
        """
        submitted = submit(
            self._journal,
            input,
            {**asked, "agent": agent},
            queue=queue,
            task_id=task_id,
            countdown=countdown,
            eta=eta,
            priority=priority,
        )
        self._journal.wake_keeper()
        return self.handle(submitted.run_id)

    def handle(self, run_id: str) -> RunHandle:
        """A run that was submitted before, or elsewhere."""
        return RunHandle(run_id, self._journal, self._look, self._results, self._streams)

    def close(self) -> None:
        self._pool.close()
        if self._redis:
            self._redis.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
