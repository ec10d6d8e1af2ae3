"""The verbs of Client, RunHandle and their kin for programs on asyncio. Nothing is implemented twice: each verb is the blocking one,
called in a thread, under the same name and with the same arguments; a property becomes a verb.

    async with AsyncClient("postgresql://...", redis_url="redis://...") as client:
        run = await client.runs.submit("researcher", "What is new?", idempotency_key="order-17")
        async for event in run.events():
            ...
        print(await run)

At most `_THREADS` calls run at once in a process. A program may wait for any number of runs and follow any number of events: one
thread reads for all of them (`Follower`). A task that is cancelled stops waiting at once; the call that it made may still take
effect, so repeat a submit with its idempotency key.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial, update_wrapper
from itertools import islice
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from agno_workers.core.budget import TreeUsage
from agno_workers.core.checks import check_timeout
from agno_workers.core.messages import Message
from agno_workers.core.run import Run, RunOutput, RunStatus, Step
from agno_workers.core.state import Scope
from agno_workers.errors import Unavailable, WaitTimeout
from agno_workers.knowledge.types import Progress as IngestionProgress
from agno_workers.knowledge.types import Reference
from agno_workers.repositories import Database
from agno_workers.runs.batch import Progress
from agno_workers.runs.queries import Event, failure, output
from agno_workers.runs.tree import RunTree
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.batch import Batch
from agno_workers.sdk.client import Approvals, Batches, Client, Ingestions, KnowledgeHandle, Runs
from agno_workers.sdk.consent import Consent
from agno_workers.sdk.follow import POLL_S, Page, Place, read_pages
from agno_workers.sdk.handles import RunControl, RunHandle, Steer
from agno_workers.sdk.ingestion import Ingestion
from agno_workers.sdk.memories import Memories
from agno_workers.sdk.sessions import HasId, SessionHandle, Sessions
from agno_workers.sdk.states import StateHandle
from agno_workers.sessions.consent import ContextAccess
from agno_workers.sessions.memory_store import RecalledMemory
from agno_workers.sessions.store import SessionRow
from agno_workers.streams import Streamed, Streams

_THREADS = 16
P = ParamSpec("P")
T = TypeVar("T")
Made = TypeVar("Made")
Blocking = TypeVar("Blocking")
Identified = TypeVar("Identified", bound=HasId)
Control = TypeVar("Control", bound=RunControl)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks in one of this process's threads for such calls."""
    run = partial(copy_context().run, partial(call, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_executor(os.getpid()), run)


@cache
def _executor(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="agno-async")


def _verb(call: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the verb of a wrapper that calls this method of what it wraps, in a thread."""

    return _making(_same, call)


def _same(value: T) -> T:
    return value


def _making(
    make: Callable[[T], Made], call: Callable[Concatenate[Any, P], T]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Made]]:
    """Return a verb as `_verb` does, whose result is wrapped too."""

    async def verb(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Made:
        return make(await in_thread(call, self.blocking, *args, **kwargs))

    update_wrapper(verb, call)
    return verb


@dataclass(frozen=True)
class _Wrapper(Generic[Blocking]):
    """A wrapper whose verbs are those of `blocking`."""

    blocking: Blocking


class _WithId(_Wrapper[Identified]):
    @property
    def id(self) -> str:
        """Its id."""
        return self.blocking.id


# Following runs.


class Follower:
    """Reads for all tasks of one event loop that wait for runs of one database, in one thread, while there are any."""

    def __init__(self, database: Database, streams: Streams | None) -> None:
        self._read = partial(read_pages, database.queries, streams)
        self._asked: list[tuple[Place, asyncio.Future[Page | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def page(self, place: Place) -> Page | None:
        """Wait for something new at a place. None for an unknown run. Raises Unavailable."""
        future: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
        self._asked.append((place, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="agno-follower")
        return await future

    async def _serve(self) -> None:
        loop, seen = asyncio.get_running_loop(), set[int]()
        thread = ThreadPoolExecutor(1, thread_name_prefix="agno-follower")
        try:
            while asked := [each for each in self._asked if not each[1].done()]:
                self._asked = []
                # A place that is new, or that has moved, is read at once.
                wait_s = POLL_S if seen.issuperset(id(future) for _, future in asked) else 0.0
                seen = {id(future) for _, future in asked}
                began = time.monotonic()
                try:
                    pages = await loop.run_in_executor(
                        thread, self._read, [place for place, _ in asked], wait_s
                    )
                except Exception as error:
                    for _, future in asked:
                        if not future.done():
                            future.set_exception(error)
                    continue
                except BaseException:
                    for _, future in asked:
                        future.cancel()
                    raise
                for (place, future), page in zip(asked, pages, strict=True):
                    if future.done():
                        continue
                    if page is None or page.items or page.is_last:
                        future.set_result(page)
                    else:
                        self._asked.append((place, future))
                # Many runs that write at once are read together.
                await asyncio.sleep(max(0.0, _TOGETHER_S - (time.monotonic() - began)))
        finally:
            thread.shutdown(wait=False)  # it ends with its last call


_TOGETHER_S = 0.05


_followers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakKeyDictionary[Database, Follower]] = (
    WeakKeyDictionary()
)


def _follower(database: Database, streams: Streams | None) -> Follower:
    of_loop = _followers.setdefault(asyncio.get_running_loop(), WeakKeyDictionary())
    if database not in of_loop:
        of_loop[database] = Follower(database, streams)
    return of_loop[database]


# Handles.


class _Control(_WithId[Control]):
    """The verbs of all kinds of runs."""

    async def run(self) -> Run:
        """Return the run's row as it is now."""
        return await in_thread(lambda: self.blocking.run)

    cancel = _verb(RunControl.cancel)
    pause = _verb(RunControl.pause)
    resume = _verb(RunControl.resume)

    async def _until_end(self, timeout: float | None) -> Run:
        late: WaitTimeout | None = None
        try:
            async for _ in self._pages(Place(self.id, after=-1), timeout, outlasts=True):
                pass
        except WaitTimeout as error:
            late = error
        run = await self.run()  # it may have ended by now, also with a timeout of 0
        if late and not run.status.is_terminal:
            raise late
        if failed := failure(run):
            raise failed
        return run

    async def _pages(
        self, place: Place, timeout: float | None, *, outlasts: bool = False
    ) -> AsyncIterator[Page]:
        """Yield what is new until the run's end. `outlasts`: go on while Postgres does not answer. Raises WaitTimeout."""
        follower = _follower(self.blocking._database, self.blocking._streams)
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                page = await asyncio.wait_for(follower.page(place), left_s)
            except TimeoutError:
                raise self.blocking.not_ended(timeout) from None
            except Unavailable:
                if not outlasts:
                    raise
                await asyncio.sleep(POLL_S)
                continue
            if page is None:
                await self.run()  # raises RunNotFound
                continue
            yield page
            if page.is_last:
                return


class AsyncRun(_Control[RunHandle]):
    """One run. `await run` waits for its end and returns the content; `RunHandle` describes the verbs."""

    @property
    def created(self) -> bool | None:
        """See `RunHandle.created`."""
        return self.blocking.created

    @property
    def steered(self) -> AsyncSteer | None:
        """See `RunHandle.steered`."""
        return AsyncSteer(self.blocking.steered) if self.blocking.steered else None

    def __await__(self) -> Generator[Any, None, Any]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None) -> Any:
        """Wait as `wait` does, and return the content alone."""
        return (await self.wait(timeout)).content

    result = get

    async def wait(self, timeout: float | None = None) -> RunOutput:
        """Wait for the end, at most `timeout` seconds. Raises as `RunHandle.wait` does."""
        return output(await self._until_end(timeout))

    async def events(
        self, timeout: float | None = None, *, after: int = 0
    ) -> AsyncIterator[Event | Streamed]:
        """Yield the run's events until its end; see `RunHandle.events`."""
        async for page in self._pages(Place(self.id, after), timeout):
            for item in page.items:
                yield item

    async def status(self) -> RunStatus:
        """See `RunHandle.status`."""
        return (await self.run()).status

    async def tree(self) -> RunTree:
        """See `RunHandle.tree`."""
        return await in_thread(lambda: self.blocking.tree)

    async def tree_usage(self) -> TreeUsage:
        """See `RunHandle.tree_usage`."""
        return await in_thread(lambda: self.blocking.tree_usage)

    async def map_results(self, page: int = 1_000) -> AsyncIterator[Any]:
        """Yield the results of a map's items; see `RunHandle.map_results`."""
        async for result in _iterated(self.blocking.map_results(page), at_once=page):
            yield result

    async def steps(self) -> list[Step]:
        """See `RunHandle.steps`."""
        return await in_thread(lambda: self.blocking.steps)

    async def messages(self) -> list[Message]:
        """Return the transcript so far."""
        return await in_thread(lambda: self.blocking.messages)

    async def history(self) -> list[Message]:
        """Return the messages of earlier runs that its turns see; see `RunHandle.history`."""
        return await in_thread(lambda: self.blocking.history)

    async def references(self) -> list[Reference]:
        """Return the search results that the run received; see `RunHandle.references`."""
        return await in_thread(lambda: self.blocking.references)

    async def record(self) -> Any:
        """Return who said what in a team; see `RunHandle.record`."""
        return await in_thread(lambda: self.blocking.record)

    async def memories(self) -> list[RecalledMemory]:
        """Return the memories that the run recalled; see `RunHandle.memories`."""
        return await in_thread(lambda: self.blocking.memories)

    async def requirements(self) -> list[AsyncRequirement]:
        """Return the tool calls of this run that wait for a person."""
        return _requirements(await in_thread(lambda: self.blocking.requirements))

    async def context(self) -> dict[str, Any]:
        """Return the context that the run's model sees; see `RunHandle.context`."""
        return await in_thread(lambda: self.blocking.context)

    async def context_accesses(self) -> list[ContextAccess]:
        """Return how each value of the context was used; see `RunHandle.context_accesses`."""
        return await in_thread(lambda: self.blocking.context_accesses)

    retry = _verb(RunHandle.retry)
    signal = _verb(RunHandle.signal)
    result_text = _verb(RunHandle.result_text)
    fork = _making(lambda handle: AsyncRun(handle), RunHandle.fork)  # noqa: PLW0108 - it is being defined


class AsyncSteer(_WithId[Steer]):
    """A message to a live run; `Steer` describes the verbs."""

    receipt = _verb(Steer.receipt)
    run = _making(AsyncRun, Steer.run)


class AsyncIngestion(_Control[Ingestion]):
    """One ingestion; `Ingestion` describes the verbs."""

    async def wait(self, timeout: float | None = None) -> IngestionProgress:
        """Wait for the end, at most `timeout` seconds; see `Ingestion.wait`."""
        await self._until_end(timeout)
        return await self.progress()

    progress = _verb(Ingestion.progress)
    complete = _verb(Ingestion.complete)
    failures = _verb(Ingestion.failures)
    retry = _making(lambda job: AsyncIngestion(job), Ingestion.retry)  # noqa: PLW0108 - as above


class AsyncSession(_WithId[SessionHandle]):
    """One session; `SessionHandle` describes the verbs."""

    @property
    def created(self) -> bool | None:
        """See `SessionHandle.created`."""
        return self.blocking.created

    async def session(self) -> SessionRow:
        """Return the session's row as it is now."""
        return await in_thread(lambda: self.blocking.session)

    async def summary(self) -> str | None:
        """See `SessionHandle.summary`."""
        return (await self.session()).summary

    async def runs(self, *, newest_first: bool = False) -> AsyncIterator[Run]:
        """Yield its runs in their order, or from the newest; see `SessionHandle.runs`."""
        found = self.blocking.runs
        async for run in _iterated(reversed(found) if newest_first else found, at_once=100):
            yield run

    async def messages(self, *, newest_first: bool = False) -> AsyncIterator[Message]:
        """Yield the conversation in its order, or from its end; see `SessionHandle.messages`."""
        found = self.blocking.messages
        async for message in _iterated(reversed(found) if newest_first else found, at_once=100):
            yield message

    async def state(self) -> AsyncState:
        """Return the handle of its state; see `SessionHandle.state`."""
        return AsyncState(await in_thread(lambda: self.blocking.state))

    submit = _making(AsyncRun, SessionHandle.submit)
    update = _verb(SessionHandle.update)
    pause = _verb(SessionHandle.pause)
    resume = _verb(SessionHandle.resume)
    end = _verb(SessionHandle.end)
    rollback = _verb(SessionHandle.rollback)
    delete = _verb(SessionHandle.delete)
    export = _verb(SessionHandle.export)
    fork = _making(lambda handle: AsyncSession(handle), SessionHandle.fork)  # noqa: PLW0108 - it is being defined


class AsyncBatch(_WithId[Batch]):
    """Runs that were submitted together; `Batch` describes the verbs."""

    progress = _verb(Batch.progress)
    cancel = _verb(Batch.cancel)

    async def size(self) -> int:
        """Return the number of inputs."""
        return await in_thread(lambda: self.blocking.size)

    async def runs(self) -> AsyncIterator[Run]:
        """Yield all runs as they are now; see `Batch.runs`."""
        async for run in _iterated(self.blocking.runs, at_once=100):
            yield run

    async def wait(self, timeout: float | None = None) -> Progress:
        """Wait until all runs have ended; see `Batch.wait`."""
        async for _, pause_s in _iterated(self.blocking.polls(timeout)):
            await asyncio.sleep(pause_s)
        return await self.progress()

    async def results(self, timeout: float | None = None) -> AsyncIterator[tuple[int, RunOutput]]:
        """Yield each item when its run has ended; see `Batch.results`."""
        async for pause_s, fresh in _iterated(self.blocking.rounds(timeout)):
            for item in fresh:
                yield item
            await asyncio.sleep(pause_s)


class AsyncRequirement(_Wrapper[Requirement]):
    """A tool call that waits for a person; `Requirement` describes the verbs. The facts are those of `blocking`."""

    approve = _verb(Requirement.approve)
    reject = _verb(Requirement.reject)
    answer = _verb(Requirement.answer)
    complete = _verb(Requirement.complete)
    resolve = _verb(Requirement.resolve)


def _requirements(found: Iterable[Requirement]) -> list[AsyncRequirement]:
    return [AsyncRequirement(each) for each in found]


async def _iterated(values: Iterable[T], at_once: int = 1) -> AsyncIterator[T]:
    """Yield from a generator that blocks; `at_once` values are taken in one thread, and none between them."""
    iterator = iter(values)
    while found := await in_thread(lambda: list(islice(iterator, at_once))):
        for each in found:
            yield each


# The client.


class AsyncRuns(_Wrapper[Runs]):
    """`client.runs`."""

    submit = _making(AsyncRun, Runs.submit)
    list = _verb(Runs.list)

    def get(self, run_id: str) -> AsyncRun:
        """Return the handle of a run. Raises RunNotFound for text that is not an id."""
        return AsyncRun(self.blocking.get(run_id))


class AsyncSessions(_Wrapper[Sessions]):
    """`client.sessions`."""

    create = _making(AsyncSession, Sessions.create)
    list = _verb(Sessions.list)

    def get(self, id: str, *, user_id: str | None = None) -> AsyncSession:
        """Return the handle of a session. It asks nothing of the database."""
        return AsyncSession(self.blocking.get(id, user_id=user_id))


class AsyncBatches(_Wrapper[Batches]):
    """`client.batches`. The inputs are read in a thread."""

    submit = _making(AsyncBatch, Batches.submit)

    def get(self, batch_id: str) -> AsyncBatch:
        """Return a batch. Raises RunNotFound for text that is not an id."""
        return AsyncBatch(self.blocking.get(batch_id))


class AsyncApprovals(_Wrapper[Approvals]):
    """`client.approvals`."""

    list = _making(_requirements, Approvals.list)
    get = _making(AsyncRequirement, Approvals.get)


class AsyncIngestions(_Wrapper[Ingestions]):
    """`client.ingestions`."""

    def get(self, run_id: str) -> AsyncIngestion:
        """Return an ingestion. Raises RunNotFound for text that is not an id."""
        return AsyncIngestion(self.blocking.get(run_id))


class AsyncMemories(_Wrapper[Memories]):
    """`client.memories`; `Memories` describes the verbs."""

    list = _verb(Memories.list)
    get = _verb(Memories.get)
    history = _verb(Memories.history)
    add = _verb(Memories.add)
    edit = _verb(Memories.edit)
    undo = _verb(Memories.undo)
    forget = _verb(Memories.forget)
    redact = _verb(Memories.redact)
    delete_all = _verb(Memories.delete_all)
    export = _verb(Memories.export)
    consolidate = _verb(Memories.consolidate)
    proposal = _verb(Memories.proposal)
    apply = _verb(Memories.apply)


class AsyncKnowledge(_Wrapper[KnowledgeHandle]):
    """`client.knowledge(name)`."""

    add = _making(AsyncIngestion, KnowledgeHandle.add)
    ingest = _making(AsyncIngestion, KnowledgeHandle.ingest)
    search = _verb(KnowledgeHandle.search)
    documents = _verb(KnowledgeHandle.documents)
    chunks = _verb(KnowledgeHandle.chunks)
    remove = _verb(KnowledgeHandle.remove)
    reindex = _making(AsyncIngestion, KnowledgeHandle.reindex)
    stop_reindex = _verb(KnowledgeHandle.stop_reindex)


class AsyncConsent(_Wrapper[Consent]):
    """`client.consent(user_id)`."""

    deny = _verb(Consent.deny)
    allow = _verb(Consent.allow)
    categories = _verb(Consent.categories)
    accesses = _verb(Consent.accesses)


class AsyncState(_Wrapper[StateHandle]):
    """`client.state(scope, owner)`; `StateHandle` describes the verbs."""

    get = _verb(StateHandle.get)
    versioned = _verb(StateHandle.versioned)
    all = _verb(StateHandle.all)
    set = _verb(StateHandle.set)
    delete = _verb(StateHandle.delete)
    increment = _verb(StateHandle.increment)
    append = _verb(StateHandle.append)
    extend = _verb(StateHandle.extend)
    union = _verb(StateHandle.union)
    max = _verb(StateHandle.max)
    min = _verb(StateHandle.min)
    update = _verb(StateHandle.update)
    history = _verb(StateHandle.history)
    at = _verb(StateHandle.at)
    restore = _verb(StateHandle.restore)


class AsyncClient:
    """A `Client` for programs on asyncio, with the same arguments. `await client.aclose()`, or use `async with AsyncClient(...)`.

    Making one opens no connection. It may be used from several event loops.
    """

    def __init__(
        self, database_url: str, redis_url: str | None = None, *, timeout_s: float = 10.0, pool_size: int = 4,
        key_prefix: str = "", direct_url: str | None = None,
    ) -> None:  # fmt: skip
        """Raises SettingsError for an unusable address."""
        self.blocking = Client(
            database_url, redis_url, timeout_s=timeout_s, pool_size=pool_size, key_prefix=key_prefix, direct_url=direct_url
        )  # fmt: skip
        self.runs = AsyncRuns(self.blocking.runs)
        self.sessions = AsyncSessions(self.blocking.sessions)
        self.batches = AsyncBatches(self.blocking.batches)
        self.approvals = AsyncApprovals(self.blocking.approvals)
        self.ingestions = AsyncIngestions(self.blocking.ingestions)
        self.memories = AsyncMemories(self.blocking.memories)

    def knowledge(self, name: str) -> AsyncKnowledge:
        """Return the handle of a knowledge base. It asks nothing of the database."""
        return AsyncKnowledge(self.blocking.knowledge(name))

    def consent(self, user_id: str) -> AsyncConsent:
        """Return what a user allows and denies. It asks nothing of the database."""
        return AsyncConsent(self.blocking.consent(user_id))

    def state(self, scope: Scope, owner: str = "", *, actor: str = "client") -> AsyncState:
        """Return the handle of a state. It asks nothing of the database. Raises InvalidInput."""
        return AsyncState(self.blocking.state(scope, owner, actor=actor))

    agents = _verb(Client.agents)
    signal = _verb(Client.signal)
    aclose = _verb(Client.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
