"""The Agent that users build: the core's value, with Celery's verbs.

handle = researcher.delay("What is new?")          # accepted means kept: it is in Postgres now
handle.get(timeout=60)
chord([researcher.s(topic) for topic in topics], editor.s()).delay()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from celery.canvas import Signature
from celery.result import AsyncResult

from agno_workers import wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.broker.names import RUN
from agno_workers.core import agent as core
from agno_workers.core.run import Run, RunOutput, RunStatus
from agno_workers.knowledge.types import Reference
from agno_workers.runs.queries import Event
from agno_workers.sdk.batch import Batch, Keys, submit_many
from agno_workers.sdk.client import RunHandle
from agno_workers.streams import Streamed


class RunResult(AsyncResult):  # type: ignore[misc]  # celery ships no types
    """A Celery AsyncResult for a run, with the run's own words beside Celery's.

    `state` speaks Celery (`SUCCESS`), `status` speaks of runs (`done`). `handle` has what Celery has no word for: pause, resume,
    requirements, redrive, fork.
    """

    @property
    def handle(self) -> RunHandle:
        services = wiring.services()
        return RunHandle(self.id, services.journal, services.look, services.results, services.streams)

    @property
    def run(self) -> Run:
        return self.handle.run

    @property
    def status(self) -> RunStatus:
        return self.handle.status

    def output(self, timeout: float | None = None) -> RunOutput:
        """Wait, and give content, status, reason and usage; raises as `RunHandle.output`."""
        return self.handle.output(timeout)

    @property
    def references(self) -> list[Reference]:
        """What it was given of knowledge; see `RunHandle.references`."""
        return self.handle.references

    def events(self, timeout: float | None = None) -> Iterator[Event | Streamed]:
        """What happens in the run, as it happens; see `RunHandle.events`."""
        return self.handle.events(timeout)

    def cancel(self) -> bool:
        """End the run as cancelled; False when it has ended already."""
        return self.handle.cancel()

    def revoke(self, *_: Any, **__: Any) -> None:
        """Celery's word for `cancel`; a run has many tasks, so there is no one process to terminate."""
        self.cancel()


AgnoCelery.result_cls = RunResult


def run_signature(agent: str, args: Sequence[Any], kwargs: Mapping[str, Any], queue: str | None) -> Signature:
    """Return a signature that submits a run; its result is a RunResult."""
    return wiring.celery_app().signature(
        RUN, args=args, kwargs={**kwargs, "agent": agent}, options={"queue": queue} if queue else {}
    )


class Agent(core.Agent, frozen=True, kw_only=True):
    """An agent, and the ways to give it work. See `core.agent.Agent` for the fields.

    Each verb takes `session_id`, `user_id`, `idempotency_key`, `metadata` and `deadline_s` beside the input.
    """

    def delay(self, *input: Any, **asked: Any) -> RunResult:
        """Submit a run. When this returns, the run is in Postgres and will reach an end.

        Raises InvalidInput (nothing was stored) or Unavailable (Postgres is away; safe to repeat with a key).
        """
        result: RunResult = self.s(*input, **asked).apply_async()
        return result

    def apply_async(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> RunResult:
        """As `delay`, with Celery's options: queue, priority, countdown, eta, task_id, link, link_error."""
        result: RunResult = self.s(*args, **(kwargs or {})).apply_async(**options)
        return result

    def s(self, *input: Any, **asked: Any) -> Signature:
        """A signature for `group`, `chain` and `chord`; a result of an earlier task comes before `input`."""
        return run_signature(self.name, input, asked, self.queue)

    def si(self, *input: Any, **asked: Any) -> Signature:
        """As `s`, taking no result of an earlier task."""
        return self.s(*input, **asked).set(immutable=True)

    def map(
        self, inputs: Iterable[Any], *, keys: Keys | None = None, batch_id: str | None = None, **common: Any
    ) -> Batch:
        """Submit a run for each input at once, all of them or none; see `agno_workers.sdk.batch.submit_many`.

        Not Celery's `map`, which is a signature: for a canvas, `group(agent.s(each) for each in inputs)`.
        `common` to all: queue, priority, session_id, user_id, metadata, deadline_s.
        """
        services = wiring.services()
        queue = common.pop("queue", None) or self.queue or services.settings.agent_queue
        return submit_many(
            services.bulk, self.name, inputs, queue=queue, keys=keys, batch_id=batch_id, **common
        )

    def run(self, *input: Any, timeout: float | None = None, **asked: Any) -> RunOutput:
        """Submit, and wait at most `timeout` seconds. Raises as `delay` and `RunHandle.output`."""
        return self.delay(*input, **asked).output(timeout)
