"""Submitting and following runs from a service that has none of the agents' code.

    client = Client("postgresql://...", redis_url="redis://...")
    run = client.submit("researcher", "What is new in Postgres 18?", idempotency_key="order-17")
    run.get(timeout=60)

Only Postgres is needed: the workers' keeper hears of a submit by NOTIFY and sends it on. Redis serves `events()`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import redis
from msgspec.structs import replace

from agno_workers.broker.submit import first_message, submit
from agno_workers.core.messages import Message, ToolCall, user
from agno_workers.core.run import Run, RunOutput, RunStatus, Step, StepKind
from agno_workers.database.pool import Pool
from agno_workers.errors import AgnoError, InvalidInput, NotWaiting, WaitTimeout
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.references import references
from agno_workers.knowledge.retriever import Retriever
from agno_workers.knowledge.store.bases import KnowledgeBases, SourceInput
from agno_workers.knowledge.types import Reference, SearchResult, SearchType
from agno_workers.runs.batch import Batches
from agno_workers.runs.journal import Journal
from agno_workers.runs.queries import Event, RunQueries, known_id, output
from agno_workers.runs.results import Results
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.batch import Batch, Keys, submit_many
from agno_workers.sdk.ingestion import Ingestion, Sources, document, given, options
from agno_workers.streams import Streamed, Streams


class RunHandle:
    """One run, from outside. Making one asks nothing of the database."""

    def __init__(
        self, run_id: str, journal: Journal, look: RunQueries, results: Results, streams: Streams | None
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

    @property
    def references(self) -> list[Reference]:
        """What it was given of knowledge, with its searches and its questions; `cited` once its answer names it."""
        return references(self.messages, self._look.grounded(self.id).values(), self.run.content)

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

    def pause(self) -> bool:
        """Let no further step begin, here and in the runs that it delegated to; False when it has ended or is paused."""
        return self._journal.pause(self.id)

    def resume(self) -> bool:
        """Let a paused run go on; False when it is not paused."""
        return self._journal.resume(self.id)

    @property
    def requirements(self) -> list[Requirement]:
        """What waits for a person in this run: to be approved, answered, completed or resolved."""
        return [Requirement(waiting, self._journal) for waiting in self._look.waiting(self.id)]

    def redrive(self) -> bool:
        """Send a failed run again, under its own id, from its last good turn; False when it has not failed, or was
        delegated by another one, which was told.

        What its canvas did on the failure is not undone; what follows a success runs when it comes.
        """
        return self._journal.redrive(self.id)

    def fork(
        self, at: str | None = None, *input: Any, arguments: Mapping[str, Any] | None = None, idempotency_key: str | None = None,
        metadata: dict[str, Any] | None = None, deadline_s: float | None = None,
    ) -> RunHandle:  # fmt: skip
        """A new run that begins at a step of this one and reuses all results from before it; this one stays as it was.

        `at`: a step's key or id (`runs show` lists them); None: the first turn, so the whole run again. `input`: in the place
        of the first message or, at a later turn, a further message before it. `arguments`: those that a tool is called
        with, at its step; of a delegation `{"task": ...}`, and it is a new run that is asked. The agents are those that are
        deployed now.

        Raises RunNotFound, and InvalidInput where there is no such step or nothing can begin there.
        """
        agent = self.run.agent  # raises RunNotFound
        steps = self.steps
        if any(step.kind.is_of_ingestion for step in steps):
            raise InvalidInput(
                f"run {self.id} is an ingestion, which has no transcript to be forked: ingest again, what is unchanged costs nothing.",
                run_id=self.id,
            )
        step = _step_at(steps, self.id, at)
        edited: list[tuple[int, Message]] = []
        call: ToolCall | None = None
        is_call = step.kind in (StepKind.TOOL, StepKind.DELEGATE)
        if arguments is not None and not is_call:
            raise InvalidInput(
                f"step {step.key} of run {self.id} is a turn: fork from a turn, with input, or from a tool's step, with arguments.",
                run_id=self.id, step_id=step.id,
            )  # fmt: skip
        if input and is_call:
            raise InvalidInput(
                f"step {step.key} of run {self.id} is a {'tool call' if step.kind is StepKind.TOOL else 'delegation'}, "
                "which takes arguments=..., no input.",
                run_id=self.id,
            )  # fmt: skip
        asked = first_message(input, agent) if input else None
        if arguments is not None:
            call = replace(self._look.call(step.id), arguments=msgspec.json.encode(dict(arguments)).decode())
            edited = _with_call(self.messages, call)
            asked = _task(arguments, step, self.id) if step.kind is StepKind.DELEGATE else None
        if is_call and deadline_s is None:
            limits = self._look.around(self.id).limits  # no turn comes before the call, which may wait long
            deadline_s = limits.deadline_s if limits else None
        run_id, _ = self._journal.fork(
            step.id, asked=asked, messages=edited, call=call, idempotency_key=idempotency_key, metadata=metadata,
            deadline_s=deadline_s,
        )  # fmt: skip
        return RunHandle(run_id, self._journal, self._look, self._results, self._streams)

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


def _step_at(steps: Sequence[Step], run_id: str, at: str | None) -> Step:
    """The newest step of that key, or the one of that id."""
    wanted = "turn:1" if at is None else at
    for step in reversed(steps):
        if wanted in (step.key, step.id):
            return step
    known = ", ".join(dict.fromkeys(step.key for step in steps))
    raise InvalidInput(f"run {run_id} has no step {wanted!r}: it has {known}.", run_id=run_id)


def _task(arguments: Mapping[str, Any], step: Step, run_id: str) -> Message:
    """What the run is asked that a call delegates to."""
    match dict(arguments):
        case {"task": str(task), **rest} if task.strip() and not rest:
            return user(task)
    raise InvalidInput(
        f'step {step.key} of run {run_id} is a delegation to {step.name}, which takes arguments={{"task": "..."}}: what it is '
        "to do, with all that is needed to do it, and no more.",
        run_id=run_id, step_id=step.id,
    )  # fmt: skip


def _with_call(transcript: Sequence[Message], call: ToolCall) -> list[tuple[int, Message]]:
    """The message that made a call, as if the model had made it with these arguments; with its number."""
    return [
        (seq, replace(message, parts=tuple(call if isinstance(part, ToolCall) and part.id == call.id else part for part in message.parts)))
        for seq, message in enumerate(transcript)
        if any(made.id == call.id for made in message.tool_calls)
    ]  # fmt: skip


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
        self._bulk = Batches(self._pool, self._journal, inline_max_bytes=64 * 1024, turn_attempts=5)
        self._look = RunQueries(self._pool)
        self._results = Results(self._pool)
        self._knowledges = KnowledgeBases(self._pool, self._journal, queue="knowledge")
        self._asking = Retriever(self._pool, self._knowledges, resolve)
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=timeout_s) if redis_url else None
        self._streams = Streams(self._redis, max_events=1, ttl_s=1) if self._redis else None

    def submit(
        self, agent: str, *input: Any, queue: str = "agents", task_id: str | None = None, countdown: float | None = None,
        eta: datetime | None = None, priority: int | None = None, **asked: Any,
    ) -> RunHandle:  # fmt: skip
        """Submit a run; when this returns, it is in Postgres. `asked`: session_id, user_id, idempotency_key,
        metadata, deadline_s.

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

    def submit_many(
        self, agent: str, inputs: Iterable[Any], *, queue: str = "agents", keys: Keys | None = None,
        batch_id: str | None = None, **common: Any,
    ) -> Batch:  # fmt: skip
        """Submit a run for each input, all of them or none; see `agno_workers.sdk.batch.submit_many`.

        `common` to all: priority, session_id, user_id, metadata, deadline_s.
        """
        return submit_many(self._bulk, agent, inputs, queue=queue, keys=keys, batch_id=batch_id, **common)

    def batch(self, batch_id: str) -> Batch:
        """A batch that was submitted before, or elsewhere."""
        return Batch(batch_id, self._bulk)

    def add_document(
        self, knowledge: str, uri: str, text: str, *, title: str | None = None, media_type: str = "text/plain",
        metadata: dict[str, Any] | None = None, idempotency_key: str | None = None, **asked: Any,
    ) -> Ingestion:  # fmt: skip
        """Push one document into a knowledge base; the same `uri` again takes the place of the former text. For a webhook: it
        returns once the document is in Postgres, and with an `idempotency_key` a call that comes twice counts once.

        `asked`: queue, priority, deadline_s. Raises UnknownKnowledge and InvalidInput (nothing was stored), Unavailable (safe to repeat with a key).
        """
        source = document(text, uri=uri, title=title, media_type=media_type, metadata=metadata)
        return self._ingest(knowledge, [source], idempotency_key=idempotency_key, **asked)

    def ingest(
        self, knowledge: str, sources: Sources, *, metadata: dict[str, Any] | None = None,
        glob: str | Sequence[str] | None = None, idempotency_key: str | None = None, **asked: Any,
    ) -> Ingestion:  # fmt: skip
        """Bring documents in: paths (that workers can see, too), URLs, sitemaps, `s3://...`; see `Knowledge.ingest`.

        `asked` and what it raises: as `add_document`.
        """
        return self._ingest(
            knowledge,
            given(sources),
            options=options(metadata, glob),
            idempotency_key=idempotency_key,
            **asked,
        )

    def search(
        self, knowledge: str, query: str, *, max_results: int = 8, filters: dict[str, Any] | None = None,
        search_type: SearchType = "hybrid",
    ) -> list[SearchResult]:  # fmt: skip
        """Search a knowledge base; the best results come first. `keyword` needs Postgres only; the other search types need the
        embedding model here (for `local` the extra `knowledge`, for a provider its key). Queries are not recorded as gaps.

        Raises UnknownKnowledge, InvalidInput, Unavailable; ModelUnavailable and ModelRejected of the embedder.
        """
        return self._asking.search(
            knowledge, query, max_results=max_results, search_type=search_type, filters=filters or {}
        )

    def ingestion(self, run_id: str) -> Ingestion:
        """One that was submitted before, or elsewhere."""
        return Ingestion(run_id, self._knowledges, self._journal, self._look, self._results)

    def _ingest(self, knowledge: str, sources: list[SourceInput], **asked: Any) -> Ingestion:
        submitted = self._knowledges.submit(knowledge, sources, **asked)
        self._journal.wake_keeper()
        return self.ingestion(submitted.run_id)

    def handle(self, run_id: str) -> RunHandle:
        """A run that was submitted before, or elsewhere."""
        return RunHandle(run_id, self._journal, self._look, self._results, self._streams)

    def requirements(self, limit: int = 1000) -> list[Requirement]:
        """What waits for a person in all runs, the oldest first."""
        return [Requirement(waiting, self._journal) for waiting in self._look.waiting(limit=limit)]

    def requirement(self, step_id: str) -> Requirement:
        """The one of that id. Raises NotWaiting."""
        for waiting in self._look.waiting(step_id=step_id):
            return Requirement(waiting, self._journal)
        raise NotWaiting(
            f"no step {step_id!r} waits for a person: it was answered, has expired, or never asked. "
            "`agno-workers runs waiting` lists those that do.",
            step_id=step_id,
        )

    def close(self) -> None:
        self._pool.close()
        if self._redis:
            self._redis.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
