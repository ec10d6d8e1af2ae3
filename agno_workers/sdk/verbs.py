"""The verbs that submit runs of agents, teams and workflows.

run = researcher.delay("What is new?")          # the run is in Postgres now
run.get(timeout=60)
chord([researcher.s(topic) for topic in topics], editor.s()).delay()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from celery.canvas import Signature
from celery.result import AsyncResult

from agno_workers import wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.broker.names import RUN
from agno_workers.core.checks import brief
from agno_workers.core.request import RunOptions
from agno_workers.core.run import Run, RunOutput, RunStatus
from agno_workers.core.runnable import Runnable
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Reference
from agno_workers.runs.queries import Event
from agno_workers.sdk.aio import AsyncRun, in_thread
from agno_workers.sdk.batch import Batch, BatchOptions, Keys, submit_many
from agno_workers.sdk.handles import RunHandle
from agno_workers.streams import Streamed


class RunResult(AsyncResult):  # type: ignore[misc]  # celery ships no types
    """Celery's AsyncResult of a run, with Celery's verbs (`get`, `state`, `ready`, `revoke`) and the first ones of RunHandle.

    `state` and `status` are Celery's words (`SUCCESS`), `run_status` is the run's (`done`).
    """

    created: bool | None = None
    """See `RunHandle.created`; None also for the parts of a canvas, which are stored together later."""
    steer_id: str | None = None
    """The id of a message that joined a live run; `handle.steered` is the message."""

    @property
    def handle(self) -> RunHandle:
        """The handle of the run, with every verb: pause, resume, retry, fork, requirements."""
        services = wiring.services()
        return RunHandle(
            self.id, services.database, services.streams, created=self.created, steer_id=self.steer_id
        )  # fmt: skip

    @property
    def run(self) -> Run:
        """See `RunHandle.run`."""
        return self.handle.run

    @property
    def run_status(self) -> RunStatus:
        """The run's own status; `state` is Celery's."""
        return self.handle.status

    def output(self, timeout: float | None = None) -> RunOutput:
        """Wait, and return content, status, reason and usage. Raises as `RunHandle.wait` does."""
        return self.handle.wait(timeout)

    @property
    def record(self) -> Any:
        """See `RunHandle.record`."""
        return self.handle.record

    @property
    def references(self) -> list[Reference]:
        """See `RunHandle.references`."""
        return self.handle.references

    def events(self, timeout: float | None = None, *, after: int = 0) -> Iterator[Event | Streamed]:
        """See `RunHandle.events`."""
        return self.handle.events(timeout, after=after)

    def signal(self, name: str, payload: Any = None, key: str | None = None) -> bool:
        """See `RunHandle.signal`."""
        return self.handle.signal(name, payload, key)

    def cancel(self) -> bool:
        """See `RunHandle.cancel`."""
        return self.handle.cancel()

    def revoke(self, *_: Any, **__: Any) -> None:
        """Cancel the run, as `cancel` does, also one of a canvas that is not submitted yet. Celery's options are ignored: a run has
        many tasks, and no process of its own.
        """
        self.app.dispatch().control.revoke([self.id])


AgnoCelery.result_cls = RunResult


def run_signature(agent: str, args: Sequence[Any], kwargs: Mapping[str, Any], queue: str | None) -> Signature:
    """Return a signature that submits a run; its result is a RunResult."""
    return wiring.celery_app().signature(
        RUN, args=args, kwargs={**kwargs, "agent": agent}, options={"queue": queue} if queue else {}
    )


class Verbs(Runnable, frozen=True, kw_only=True):
    """The verbs that submit runs."""

    def delay(self, *input: Any, **options: Unpack[RunOptions]) -> RunResult:
        """Submit a run. When this returns, the run is in Postgres and will end.

        Raises InvalidInput (nothing was stored) or Unavailable (safe to repeat with an idempotency key).
        """
        result: RunResult = self.s(*input, **options).apply_async()
        return result

    def apply_async(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> RunResult:
        """Submit as `delay` does, with Celery's options: `queue`, `priority` (0 first, 9 last), `countdown` (seconds), `eta` (a naive time
        is in UTC), `task_id` (a UUID, the run's id), `link`, `link_error`. `kwargs` are the options of the run.

        Raises as `delay` does.
        """
        if not isinstance(args, list | tuple):
            raise InvalidInput(
                f"args must be a list of inputs, got {brief(args)}: write apply_async([...]), or use delay(...)."
            )
        if not isinstance(kwargs, dict | None):
            raise InvalidInput(f"kwargs must be a dict of run options, got {brief(kwargs)}.")
        result: RunResult = self.s(*args, **(kwargs or {})).apply_async(**options)
        return result

    def s(self, *input: Any, **options: Unpack[RunOptions]) -> Signature:
        """Return a signature for `group`, `chain` and `chord`; the result of an earlier task comes before `input`."""
        # The caller has the agent itself, so no worker needs to have registered it.
        queue = self.queue or wiring.services().settings.queues.agents
        return run_signature(self.name, input, {"allow_unknown": True, "kind": self.kind, **options}, queue)

    def si(self, *input: Any, **options: Unpack[RunOptions]) -> Signature:
        """Return a signature as `s` does that takes no result of an earlier task."""
        return self.s(*input, **options).set(immutable=True)

    def map(
        self, inputs: Iterable[Any], *, keys: Keys | None = None, batch_id: str | None = None, **options: Unpack[BatchOptions]
    ) -> Batch:  # fmt: skip
        """Submit a run for each input in one transaction: all of them or none. An input whose key belongs to an earlier run of
        this name and the user gets that run; the `batch_id` of an existing batch returns that batch and submits nothing.

        Raises InvalidInput, which names the position of the input, and Unavailable (safe to repeat with the same keys or
        `batch_id`).

        This is not Celery's `map`, which is a signature: for a canvas, use `group(agent.s(each) for each in inputs)`.
        """
        services = wiring.services()
        options.setdefault("queue", self.queue or services.settings.queues.agents)
        options.setdefault("allow_unknown", True)
        return submit_many(
            services.database.batches,
            self.name,
            inputs,
            keys=keys,
            batch_id=batch_id,
            kind=self.kind,
            **options,
        )

    async def adelay(self, *input: Any, **options: Unpack[RunOptions]) -> AsyncRun:
        """Submit as `delay` does, without blocking the event loop: `await run` then waits for the content.

        When the awaiting task is cancelled, the run may have been submitted: an idempotency key makes it safe to repeat.
        """
        return AsyncRun((await in_thread(self.delay, *input, **options)).handle)

    async def arun(
        self, *input: Any, timeout: float | None = None, **options: Unpack[RunOptions]
    ) -> RunOutput:
        """Submit, and wait at most `timeout` seconds, without blocking the event loop. Raises as `run` does."""
        return await (await self.adelay(*input, **options)).wait(timeout)

    def run(self, *input: Any, timeout: float | None = None, **options: Unpack[RunOptions]) -> RunOutput:
        """Submit, and wait at most `timeout` seconds. Raises as `delay` and `RunHandle.wait` do."""
        return self.delay(*input, **options).handle.wait(timeout)
