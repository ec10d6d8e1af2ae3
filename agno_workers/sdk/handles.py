"""The handle of a run: wait for it, watch it, and cancel, pause, retry or fork it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from agno_workers.core.budget import TreeUsage
from agno_workers.core.checks import check_timeout
from agno_workers.core.mapping import read_item
from agno_workers.core.messages import Message
from agno_workers.core.request import RunRequest
from agno_workers.core.run import Run, RunOutput, RunStatus, Step
from agno_workers.errors import InvalidInput, WaitTimeout
from agno_workers.knowledge.references import references
from agno_workers.knowledge.types import Reference
from agno_workers.repositories import Database
from agno_workers.runs.queries import Event, failure, known_id, output
from agno_workers.runs.tree import RunTree
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.follow import POLL_S, Place, read_pages
from agno_workers.sessions.consent import ContextAccess
from agno_workers.sessions.memory_store import RecalledMemory
from agno_workers.sessions.steering import SteerReceipt
from agno_workers.streams import Streamed, Streams


class RunControl:
    """The verbs of all kinds of runs. Making a handle asks nothing of the database; its verbs raise RunNotFound and Unavailable."""

    _noun: ClassVar[str] = "run"

    def __init__(self, run_id: str, database: Database, streams: Streams | None = None) -> None:
        """Raises RunNotFound for text that is not an id."""
        self.id = known_id(run_id)
        self._database = database
        self._streams = streams

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def run(self) -> Run:
        """The run's row as it is now."""
        return self._database.queries.run(self.id)

    def cancel(self) -> bool:
        """Cancel the run; False when it has ended. Results that arrive later are discarded; what is stored stays."""
        return self._database.journal.cancel(self.id)

    def pause(self) -> bool:
        """Start no more steps of this run and of its delegations; False when it has ended or is paused."""
        return self._database.journal.pause(self.id)

    def resume(self) -> bool:
        """Continue a paused run; False when it is not paused."""
        return self._database.journal.resume(self.id)

    def _wait(self, timeout: float | None) -> Run:
        check_timeout(timeout)
        run = self._database.results.wait(self.id, self._ended, timeout)
        if run is None:
            raise self.not_ended(timeout)
        if error := failure(run):
            raise error
        return run

    def not_ended(self, timeout: float | None) -> WaitTimeout:
        """Return the error of a wait that took too long."""
        return WaitTimeout(
            f"{self._noun} {self.id} did not end within {timeout} s and continues: wait again, or cancel it.",
            run_id=self.id,
        )

    def _ended(self) -> Run | None:
        run = self.run
        return run if run.status.is_terminal else None


class Steer:
    """A message that was submitted with `if_busy="steer"` while a run of its session was live. It joins that run at its next turn, or
    becomes the next run."""

    def __init__(self, steer_id: str, database: Database, streams: Streams | None = None) -> None:
        self.id = steer_id
        self._database = database
        self._streams = streams

    def __repr__(self) -> str:
        return f"<Steer {self.id}>"

    def receipt(self) -> SteerReceipt:
        """Return what became of it. Raises RunNotFound when it was deleted with its run, and Unavailable."""
        return self._database.steering.receipt(self.id)

    def run(self) -> RunHandle:
        """Return the run that answers it: the live run, or the one that it became when that ended before. Raises as `receipt` does."""
        receipt = self.receipt()
        return RunHandle(receipt.next_run_id or receipt.run_id, self._database, self._streams)


class RunHandle(RunControl):
    """One run of an agent. Making a handle asks nothing of the database; its verbs raise RunNotFound and Unavailable."""

    created: bool | None = None
    """After a submit: False when it returned an earlier run, because of its idempotency key or id, or `if_busy="steer"`. None for other
    handles."""
    steered: Steer | None = None
    """After a submit with `if_busy="steer"`: the message, if a run was live. This is the handle of that run."""

    def __init__(
        self, run_id: str, database: Database, streams: Streams | None = None, *, created: bool | None = None,
        steer_id: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(run_id, database, streams)
        self.created = created
        self.steered = Steer(steer_id, database, streams) if steer_id else None

    @property
    def status(self) -> RunStatus:
        """The run's status as it is now."""
        return self.run.status

    @property
    def tree_usage(self) -> TreeUsage:
        """The tokens and the cost of the run and of all runs below it, so far."""
        return self._database.journal.tree_usage(self.id)

    @property
    def steps(self) -> list[Step]:
        """All steps so far, in order."""
        return self._database.queries.steps(self.id)

    @property
    def tree(self) -> RunTree:
        """The run with its steps and all runs that they started, at most 1,000; `tree_usage` has the sums of all."""
        return self._database.queries.tree(self.id)

    @property
    def messages(self) -> list[Message]:
        """The transcript so far. A large tool result is a preview here, see `result_text`."""
        return self._database.queries.transcript(self.id)

    def result_text(self, result_id: str) -> str:
        """Return the whole text of a large tool result, by the id in its preview, such as `r1a2b3c4d`. Raises InvalidInput when the
        run has no such result.
        """
        text = self._database.queries.stored_result(self.id, result_id)
        if text is None:
            raise InvalidInput(
                f"run {self.id} has no stored result {result_id!r}: use an id that a preview in its messages names.",
                run_id=self.id,
            )
        return text

    @property
    def record(self) -> Any:
        """The record of a team that has ended: who said what, verdicts, votes, minds that changed. None for other runs."""
        return self._database.queries.record(self.id)

    @property
    def history(self) -> list[Message]:
        """The messages of earlier runs that its turns see before its transcript, see `History`; each is marked `from_history`."""
        return list(self._database.history.of(self.id))

    @property
    def references(self) -> list[Reference]:
        """The search results that the run received; `cited` is True for those that its answer names."""
        given = self._database.feedback.grounded(self.id).values()
        return references(self.messages, given, self.run.content)

    @property
    def memories(self) -> list[RecalledMemory]:
        """The memories that the run recalled, as they were then."""
        return self._database.memories.recalled(self.id) or []

    @property
    def requirements(self) -> list[Requirement]:
        """The tool calls and approvals of this run that wait for a person, to be approved, answered, completed or resolved."""
        waiting = self._database.queries.waiting(self.id)
        return [Requirement(each, self._database) for each in waiting]

    @property
    def context(self) -> dict[str, Any]:
        """The values of `Context` that the run's model sees, by name; empty where all stand in the agent's definition."""
        return self._database.consents.of_run(self.id)

    @property
    def context_accesses(self) -> list[ContextAccess]:
        """How each value of the context was used, or why it was not."""
        return self._database.consents.accesses(run_id=self.id, limit=1000)

    def wait(self, timeout: float | None = None) -> RunOutput:
        """Wait for the end, at most `timeout` seconds, and return content, status, reason and usage.

        Raises RunFailed (or the error that the run failed with, such as LimitReached), RunCancelled, and WaitTimeout (the
        run continues).
        """
        return output(self._wait(timeout))

    def result(self, timeout: float | None = None) -> Any:
        """Wait as `wait` does, and return the content alone."""
        return self.wait(timeout).content

    def events(self, timeout: float | None = None, *, after: int = 0) -> Iterator[Event | Streamed]:
        """Yield the run's events until its end, complete and in order, and live pieces of text between them: those of a model call or a
        tool call after its start and before its end.

        Events after number `after` are yielded: pass the last one that you have seen, also from another process. Live text
        needs Redis. Raises WaitTimeout after `timeout` seconds; the run continues.
        """
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        place, wait_s = Place(self.id, after), 0.0
        while True:
            (page,) = read_pages(self._database.queries, self._streams, [place], wait_s)
            if page is None:
                _ = self.run  # raises RunNotFound
                continue
            yield from page.items
            if page.is_last:
                return
            if deadline is not None and time.monotonic() > deadline:
                raise self.not_ended(timeout)
            wait_s = POLL_S

    def signal(self, name: str, payload: Any = None, key: str | None = None) -> bool:
        """Send a signal: the oldest `flow.wait_for_signal(name)` of the run returns `payload` (JSON, at most 256 KiB), or the next one does, since the
        signal is kept. Each signal is taken once.

        Safe to repeat with a `key`: False means that it was sent before. Raises InvalidInput, RunNotFound, NotWaiting when the run has ended,
        and Unavailable.
        """
        return self._database.journal.signal(self.id, name, payload, key)

    def map_results(self, page: int = 1_000) -> Iterator[Any]:
        """Yield the results of a map's items so far, as JSON, in their order, reading so many at once; this is the handle of
        `MapResult.run_id`. An item that failed is a StepFailed.
        """
        first = 0
        while found := self._database.journal.map_results(self.id, first, page):
            yield from (
                read_item(first + place, each, lambda value: value) for place, each in enumerate(found)
            )
            first += len(found)

    def retry(self) -> bool:
        """Retry a failed run under its own id, from its last good turn. False when it has not failed, or when it is a delegation,
        whose parent has read of the failure.

        The error callbacks of its canvas are not undone; the callbacks of a success follow when the run succeeds.
        """
        return self._database.journal.retry_run(self.id)

    def fork(
        self, at: str | None = None, *input: Any, arguments: Mapping[str, Any] | None = None, idempotency_key: str | None = None,
        metadata: dict[str, Any] | None = None, deadline_s: float | None = None,
    ) -> RunHandle:  # fmt: skip
        """Start a new run at a step of this one, with all results from before the step; this run does not change.

        `at` is the key or id of a step (`runs show` lists them); None is the first turn, so the whole run again. `input` replaces
        the first message or, at a later turn, is one more message before it. `arguments` replace those of a tool call, at its
        step; at a delegation they are `{"task": ...}`, for a new child run. The new run uses the agents that are deployed now.

        Of a workflow, `at` is the id of a step: those that were made before it, or beside it, keep their results; it and all later ones are
        made again. `input` replaces the first message.

        Raises InvalidInput when there is no such step, or a run can't begin there.
        """
        run_id = self._database.forks.fork(
            self.id, at, input, arguments=arguments, idempotency_key=idempotency_key, metadata=metadata, deadline_s=deadline_s
        )  # fmt: skip
        return RunHandle(run_id, self._database, self._streams)


def submit_run(request: RunRequest, database: Database, streams: Streams | None) -> RunHandle:
    """Submit a run, let the keeper send it at once, and return its handle."""
    submitted = database.submissions.submit(request)
    database.submissions.wake_keeper()
    return RunHandle(
        submitted.run_id, database, streams, created=submitted.created, steer_id=submitted.steer_id
    )
