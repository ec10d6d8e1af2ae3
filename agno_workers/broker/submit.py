"""`agno.run` as a Celery task of the sender, and a call of it as a RunRequest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Celery, Task
from kombu import Exchange, Queue

from agno_workers.broker.names import RUN
from agno_workers.core.checks import brief
from agno_workers.core.request import OPTIONS, SUBMIT_OPTIONS, RunRequest, run_request
from agno_workers.core.run import NAMED, Canvas, RunKind
from agno_workers.errors import InvalidInput

MakeRequest = Callable[..., RunRequest]
"""A maker of requests for another kind of run; see `wiring.REQUESTS`."""


def request_from_call(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    canvas: Canvas,
    kinds: Mapping[str, MakeRequest],
    **options: Any,
) -> RunRequest:
    """Return the request of a call. `args` are inputs, `kwargs` hold agent, input and RunOptions, `options` are other SubmitOptions.

    An agent `PREFIX:NAME`, such as `knowledge:docs`, asks for a run of another kind; `kinds` maps the prefix to its maker.
    Raises InvalidInput.
    """
    given = dict(kwargs)
    for name in sorted(set(given) & (SUBMIT_OPTIONS - OPTIONS)):
        raise InvalidInput(
            f"{name} is an option of the message, not a keyword argument of the run: pass it to apply_async or send_task."
        )
    agent, last = given.pop("agent", None), given.pop("input", None)
    kind = given.pop("kind", RunKind.AGENT)
    inputs = [*args, last] if last is not None else list(args)
    prefix, _, name = agent.partition(":") if isinstance(agent, str) else ("", "", "")
    if name and prefix in kinds:
        return kinds[prefix](name, inputs, {**given, **options}, canvas=canvas)
    if kind not in NAMED:
        raise InvalidInput(f"kind must be one of {', '.join(NAMED)}, got {brief(kind)}: leave it out.")
    return run_request(agent, inputs, {**given, **options}, canvas=canvas, kind=RunKind(kind))


class RunTask(Task):
    """`agno.run`, which is sent to workers: it refuses each way to execute it in the sender's process."""

    name = RUN

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send it as an app does that has no such task: without options of the task, which a run does not have."""
        if self.app.conf.task_always_eager:
            raise self.refused()
        if options.get("serializer") not in (None, "json"):
            raise InvalidInput(
                f"serializer {options['serializer']!r} is not readable for workers: leave it out."
            )
        queue = options.get("queue")
        if isinstance(queue, str) and not self.app.conf.task_create_missing_queues:
            known = self.app.amqp.queues.get(queue)
            options["queue"] = known or Queue(queue, Exchange(queue), routing_key=queue)
        return self.app.send_task(self.name, args, kwargs, **options)

    def apply(self, *_: Any, **__: Any) -> Any:
        raise self.refused()

    def run(self, *_: Any, **__: Any) -> Any:
        raise self.refused()

    @staticmethod
    def refused() -> InvalidInput:
        return InvalidInput(
            "agno.run can't be executed in this process (task_always_eager, apply() or a direct call): a run consists of many tasks "
            "of workers. Unset task_always_eager, send it with delay(), and start a worker; tests can use a scripted model."
        )


def register_run(app: Celery) -> None:
    """Register `agno.run` in an app that sends it, when the app needs its tasks."""
    own = type("RunTask", (RunTask,), {})  # Celery binds the class, not the task, to an app

    if app.finalized:
        app.register_task(own())
    else:
        app.on_after_finalize.connect(lambda **_: app.register_task(own()), weak=False)
