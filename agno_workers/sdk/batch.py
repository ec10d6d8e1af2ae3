"""Many runs of one agent, submitted together.

batch = researcher.map(topics, keys=topics)             # or client.batches.submit("researcher", topics)
for position, run in batch.results(timeout=600):        # as they end
    print(topics[position], run.content or run.error)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack, cast, get_type_hints
from uuid import UUID

from uuid6 import uuid7

from agno_workers.core.checks import brief, check_timeout, unknown_option
from agno_workers.core.messages import Message
from agno_workers.core.request import check_name, first_message, run_request
from agno_workers.core.run import Run, RunKind, RunOutput
from agno_workers.core.words import as_uuid
from agno_workers.database.pool import retry_while_unavailable
from agno_workers.errors import InvalidInput, Unavailable, WaitTimeout
from agno_workers.runs.batch import Batches, Common, Ended, Item, Progress
from agno_workers.runs.queries import known_id, output

Keys = Iterable[str | None] | Callable[[Any], str | None]
"""Idempotency keys of the inputs: one for each in order, or a function of the input; None for an input without one."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.25  # between two polls
_LATE = timedelta(
    seconds=5
)  # `ended_at` is set before the commit, so an earlier end may become visible later
_AT_ONCE = 50  # results with their contents that are in memory
_NO_KEY = object()


class Batch:
    """The handle of runs that were submitted together. Making one asks nothing of the database; its verbs raise RunNotFound.

    An item is an input with its run; items with the same key share a run.
    """

    def __init__(self, batch_id: str, bulk: Batches) -> None:
        self.id = known_id(batch_id, "batch")
        self._bulk = bulk

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"

    @property
    def size(self) -> int:
        """The number of inputs."""
        return self._bulk.batch(self.id).size

    @property
    def runs(self) -> Iterator[Run]:
        """All runs as they are now, read page by page: those made for this batch in the order of its inputs, then those that its
        keys already had.
        """
        return self._bulk.runs(self.id)

    def progress(self) -> Progress:
        """Return how many runs are queued, done, failed ..., with `share`, `per_s` and `eta_s`."""
        return self._bulk.progress(self.id)

    def results(self, timeout: float | None = None) -> Iterator[tuple[int, RunOutput]]:
        """Yield each item when its run has ended: the position of its input, and the run's result with `content` or `error`.

        Raises WaitTimeout when some have not ended after `timeout` seconds; the runs continue.
        """
        for pause_s, fresh in self.rounds(timeout):
            yield from fresh
            time.sleep(pause_s)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait until all runs have ended. Raises WaitTimeout after `timeout` seconds; the runs continue."""
        for _, pause_s in self.polls(timeout):
            time.sleep(pause_s)
        return self.progress()

    def cancel(self) -> int:
        """Cancel all runs that have not ended, also those that its keys already had; return their number.

        Safe to repeat. When this process dies in the middle, the keeper cancels the others.
        """
        return retry_while_unavailable(self._bulk.cancel, self.id)

    def rounds(self, timeout: float | None) -> Iterator[tuple[float, list[tuple[int, RunOutput]]]]:
        """Yield what `results` yields, in rounds: the time to wait after them, in seconds, and the items, which may be none."""
        given = bytearray(self.size)
        since: datetime | None = None
        for is_over, pause_s in self.polls(timeout):
            newest = since
            # The last poll reads all of them, whatever their `ended_at`.
            for page in self._bulk.ended(self.id, None if is_over or since is None else since - _LATE):
                newest = page[-1].ended_at
                for some in self._fresh(page, given):
                    yield 0.0, some
            since = newest
            yield pause_s, []

    def _fresh(self, page: list[Ended], given: bytearray) -> Iterator[list[tuple[int, RunOutput]]]:
        fresh = [item for item in page if not given[item.position]]
        for first in range(0, len(fresh), _AT_ONCE):
            some = fresh[first : first + _AT_ONCE]
            runs = retry_while_unavailable(self._bulk.these, [item.run_id for item in some])
            for item in some:
                given[item.position] = 1
            yield [(item.position, output(run)) for item in some if (run := runs.get(item.run_id))]

    def polls(self, timeout: float | None) -> Iterator[tuple[bool, float]]:
        """Yield False while some runs have not ended, then True, each with the time to wait after it, in seconds; go on while Postgres
        does not answer. Raises WaitTimeout.
        """
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = _FIRST_PAUSE_S
        while True:
            is_over = self._is_over()
            is_late = deadline is not None and time.monotonic() >= deadline
            yield is_over, 0.0 if is_over or is_late else pause_s
            if is_over:
                return
            if is_late:  # seen before the pause, so that a poll follows each pause
                raise WaitTimeout(
                    f"batch {self.id} did not end within {timeout} s and continues: wait again, or cancel it.",
                    batch_id=self.id,
                )
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def _is_over(self) -> bool:
        try:
            return not self._bulk.unfinished(self.id, 1)
        except Unavailable:
            return False


class BatchOptions(TypedDict, total=False):
    """The options that all runs of a batch share."""

    queue: str | None
    """The Celery queue; None: the one that the agent's workers registered."""
    priority: int | None
    """From 0 (first) to 9 (last)."""
    session_id: str | None
    """The conversation that the run belongs to; `Agent(history=...)` reads its earlier runs."""
    if_busy: Literal["queue", "reject", "parallel"] | None
    """`queue` (the default): the runs begin one after another, in the order of the inputs. `parallel`: all at once. `reject`: SessionBusy
    while another run of the session has not ended."""
    user_id: str | None
    """The person whom the run is for. Sessions and idempotency keys belong to a user."""
    metadata: dict[str, Any] | None
    """JSON of yours, at most 64 KiB: stored with the run, given to tools, and returned."""
    deadline_s: float | None
    """Seconds from the submit to the end of each run."""
    tenant: str
    """The tenant whose rows these are; leave it out."""
    allow_unknown: bool
    """Accept an agent that no worker has registered."""


_OPTIONS = frozenset(get_type_hints(BatchOptions))


def submit_many(
    store: Batches, agent: str, inputs: Iterable[Any], *, keys: Keys | None = None, batch_id: str | UUID | None = None,
    kind: RunKind | None = None, **options: Unpack[BatchOptions],
) -> Batch:  # fmt: skip
    """Submit a run for each input, all of them or none.

    `inputs` is any iterable; it is read while the transaction is open. An input whose idempotency key belongs to an earlier run
    of the agent and the user gets that run. The `batch_id` of an existing batch returns that batch and submits nothing, so a call whose answer
    was lost may be repeated.

    Raises UnknownAgent, InvalidInput (it names the position of the input), and Unavailable (safe to repeat with the same
    `batch_id` or keys).
    """
    if isinstance(inputs, (str, bytes, Mapping)):
        raise InvalidInput(
            f"inputs is one {type(inputs).__name__}, not a list of inputs: put it into a list, or submit one run."
        )
    if batch_id is not None and as_uuid(str(batch_id)) is None:
        raise InvalidInput(f"batch_id {batch_id!r} is not a UUID: leave it out, or make one.")
    if not isinstance(inputs, Iterable):
        raise InvalidInput(f"inputs must be a list of inputs, got {brief(inputs)}.")
    if isinstance(keys, str) or not (keys is None or callable(keys) or isinstance(keys, Iterable)):
        raise InvalidInput(f"keys must be a list of keys or a function of an input, got {brief(keys)}.")
    for name in options:
        if name not in _OPTIONS:
            raise InvalidInput(unknown_option(name, _OPTIONS, what="option of a batch"))
    if (if_busy := options.get("if_busy")) not in (None, "queue", "reject", "parallel"):
        raise InvalidInput(
            f"if_busy={if_busy!r} is for one message: a batch takes 'queue', 'reject' or 'parallel'."
        )
    request = run_request(agent, Message("user", ()), options)  # the inputs come one by one
    common = Common(
        request.agent, request.queue, request.tenant, request.allow_unknown, request.priority, request.session_id, request.user_id,
        request.metadata or {}, request.deadline_s, request.if_busy or "queue", kind,
    )  # fmt: skip
    batch = Batch(str(batch_id or uuid7()), store)
    if not store.submit(batch.id, _items(inputs, keys, agent), common):
        existing = store.batch(batch.id)
        if existing.agent != agent:
            raise InvalidInput(
                f"batch {batch.id} belongs to agent {existing.agent!r}, not to {agent!r}: choose another batch_id.",
                batch_id=batch.id,
            )
    return batch


def _items(inputs: Iterable[Any], keys: Keys | None, agent: str) -> Iterator[Item]:
    of = keys if callable(keys) else None
    given = None if keys is None or callable(keys) else iter(keys)
    position = -1
    for position, value in enumerate(inputs):
        try:
            key = of(value) if of else _next_key(given) if given is not None else None
            yield Item(first_message([value], agent), _checked(key))
        except InvalidInput as error:
            raise InvalidInput(f"input {position}: {error}", position=position, agent=agent) from error
    if given is not None and next(given, _NO_KEY) is not _NO_KEY:
        raise InvalidInput(f"there are more keys than inputs ({position + 1}): pass one for each input.")


def _next_key(keys: Iterator[str | None]) -> Any:
    key = next(keys, _NO_KEY)
    if key is _NO_KEY:
        raise InvalidInput("it has no key: pass one key for each input, or None for an input without one.")
    return key


def _checked(key: Any) -> str | None:
    if key is not None:
        check_name(key, "an idempotency key", "text that is not blank")
    return cast("str | None", key)
