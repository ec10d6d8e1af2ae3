"""Our Celery app: its settings, and its one difference from Celery: sending `agno.run` submits a run.

Every way to send a task (`delay`, `apply_async`, `group`, `chain`, `chord`, `link`) calls `send_task`, so a run in any canvas
is in Postgres before anything is sent. A group sends its tasks inside one `producer_or_acquire`; what it holds, with the groups
and chords inside it, is stored in one transaction when that ends. A plain task in it needs its chord at once: then what came
before is stored first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from celery import Celery
from kombu.entity import Exchange, Queue
from msgspec.structs import replace

from agno_workers.broker.canvas import CanvasSubmit, canvas_of, is_continuing, sending, store_collected
from agno_workers.broker.control import CancellingControl
from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.envelope import Connection
from agno_workers.broker.names import RUN
from agno_workers.broker.queues import PRIORITY_STEPS
from agno_workers.broker.submit import MakeRequest, register_run, request_from_call
from agno_workers.broker.verify import MessageVerifier
from agno_workers.core.checks import unknown_option
from agno_workers.core.request import OPTIONS
from agno_workers.core.step import FIRST_STEP, STEP_TYPES
from agno_workers.core.step import Queue as QueueRole
from agno_workers.errors import InvalidInput


class AgnoCelery(Celery):
    """Celery, with callables that return this process's Dispatch and MessageVerifier."""

    dispatch: Callable[[], Dispatch]
    verifier: Callable[[], MessageVerifier]
    control_cls = CancellingControl
    backend_cls = (
        "agno_workers.broker.backend:PostgresBackend"  # CELERY_RESULT_BACKEND would win over the setting
    )
    request_kinds: Mapping[str, MakeRequest] = {}
    """Makers of requests for other kinds of runs, by the prefix of their agents; set by `wiring`."""
    result_cls: ClassVar[Any] = None
    """The AsyncResult that sending `agno.run` returns; the SDK sets it when it is imported."""

    stores_canvases = True
    """A chord is stored with its header, not before it."""

    def _connection(self, *args: Any, **options: Any) -> Any:
        self.amqp.Connection = Connection
        return super()._connection(*args, **options)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if name != RUN:
            store_collected()
            return super().send_task(name, args, kwargs, **options)
        return self._submit(args or (), kwargs or {}, options)

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:
        """Return as Celery does; see the module."""
        canvas = sending.get() or CanvasSubmit(self)
        sending.set(canvas)
        canvas.depth += 1
        try:
            with super().producer_or_acquire(producer) as acquired:
                yield acquired
        finally:
            canvas.depth -= 1
            if canvas.depth == 0:
                sending.set(None)
        if canvas.depth == 0:
            canvas.store()

    def _submit(self, args: Any, kwargs: dict[str, Any], options: dict[str, Any]) -> Any:
        if options.get("idempotency_key") is not None:
            raise InvalidInput(
                "idempotency_key is an argument of a run, not an option of its message: pass it to `s` or `delay`, and in a canvas to "
                "each run of it."
            )
        _refuse_options(options)
        dispatch, parent = self.dispatch(), self.current_worker_task
        family = {"root_id": parent.request.root_id, "parent_id": parent.request.id} if parent else {}
        queue = options.get("queue")
        request = request_from_call(
            args,
            kwargs,
            kinds=self.request_kinds,
            queue=getattr(queue, "name", queue),
            run_id=options.get("task_id"),
            countdown=options.get("countdown"),
            eta=options.get("eta"),
            priority=options.get("priority"),
            canvas=canvas_of(self, {**family, **options}),
        )
        first_step = STEP_TYPES[FIRST_STEP[request.kind]]
        request = replace(
            request,
            default_queue=self.conf.task_routes[first_step.task]["queue"],
            allow_unknown=request.allow_unknown or is_continuing.get(),
        )
        canvas, run_id, created, steer_id = sending.get(), request.id, None, None
        # A group passes `add_to_parent`; a run that its generator submits is not a part of it, and may be waited for there.
        if canvas is not None and canvas.depth and run_id and options.get("add_to_parent") is False:
            canvas.add(request)
        else:
            submitted = dispatch.submissions.submit(request)
            run_id, created, steer_id = submitted.run_id, submitted.created, submitted.steer_id
            if submitted.send is not None:
                dispatch.send([submitted.send])
        result_cls = self.result_cls or options.get("result_cls") or self.AsyncResult
        result = result_cls(run_id, app=self)
        result.created, result.steer_id = created, steer_id
        if parent and options.get("add_to_parent", True):
            parent.add_trail(result)
        return result


_USED = frozenset(
    [
        "task_id",
        "queue",
        "priority",
        "countdown",
        "eta",
        "link",
        "link_error",
        "chain",
        "chord",
        "group_id",
        "group_index",
        "root_id",
        "parent_id",
        "add_to_parent",
        "result_cls",
        "idempotency_key",
    ]
)
_WITHOUT_EFFECT = frozenset(
    [
        "connection",
        "producer",
        "publisher",
        "router",
        "retry",
        "retry_policy",
        "serializer",
        "compression",
        "headers",
        "shadow",
        "reply_to",
        "ignore_result",
        "task_type",
        "route_name",
        "logfile",
        "loglevel",
        "replaced_task_nesting",
        "stamped_headers",
        "parent",
        "immutable",
        "argsrepr",
        "kwargsrepr",
    ]
)
"""Options of a message, which a run is not, and those that Celery sets itself."""
_REFUSED = {
    **dict.fromkeys(("expires", "time_limit", "soft_time_limit"), "use the agent's Limits, deadline_s, or cancel the run"),
    **dict.fromkeys(("exchange", "exchange_type", "routing_key", "delivery_mode", "mandatory"), "name its queue"),
    **dict.fromkeys(("max_retries", "default_retry_delay", "autoretry_for"), "set the agent's Retry"),
}  # fmt: skip


def _refuse_options(options: Mapping[str, Any]) -> None:
    """Raise InvalidInput for an option of `apply_async` or `send_task` that a run does not have."""
    stamps = options.get("stamped_headers") or ()
    for name, value in options.items():
        if name in stamps:
            continue
        if name in _REFUSED and value is not None:
            raise InvalidInput(f"{name} can't be set for a run: {_REFUSED[name]}.")
        if name in OPTIONS and name not in _USED:
            raise InvalidInput(
                f"{name} is an argument of a run, not an option of its message: pass it to `s` or `delay`."
            )
        if name not in _USED and name not in _WITHOUT_EFFECT and name not in _REFUSED:
            raise InvalidInput(unknown_option(name, _USED | set(_REFUSED), what="option of apply_async"))


def create(
    broker_url: str, *, queues: Mapping[QueueRole, str], broker_timeout_s: float, key_prefix: str = ""
) -> AgnoCelery:
    """Return a Celery app with the settings that our guarantees need."""
    app = AgnoCelery("agno_workers", set_as_current=False)
    app.conf.update(
        broker_url=broker_url,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            # A message is a hint; the state is in Postgres. Without kombu's emulated acks nothing has to be restored,
            # nothing times out, and an outage can't use up prefetch credit (see the keeper's rules).
            "ack_emulation": False,
            "global_keyprefix": key_prefix,
            "priority_steps": list(PRIORITY_STEPS),
            "socket_timeout": broker_timeout_s,
            "socket_connect_timeout": broker_timeout_s,
            "socket_keepalive": True,
            "max_connections": 500,
            # Publishing fails fast: the outbox has the message, and the keeper publishes it.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.2,
        },
        task_publish_retry=False,
        redis_socket_timeout=broker_timeout_s,
        redis_socket_connect_timeout=broker_timeout_s,
        result_backend="agno_workers.broker.backend:PostgresBackend",
        result_backend_thread_safe=True,
        result_backend_always_retry=True,  # for about a minute, while Postgres is unreachable
        result_backend_max_retries=60,
        result_backend_max_sleep_between_retries_ms=2000,
        result_expires=None,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in queues.values()],
        task_default_queue=queues["agents"],
        task_routes={
            RUN: {"queue": queues["agents"]},
            **{step.task: {"queue": queues[step.queue]} for step in STEP_TYPES.values()},
        },
        task_create_missing_queues=True,
        task_acks_late=False,
        worker_consumer="agno_workers.broker.consumer:Consumer",  # survives bad messages
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        task_send_sent_event=False,
        task_track_started=False,
        worker_enable_remote_control=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=True,
        timezone="UTC",
        enable_utc=True,
    )
    register_run(app)
    return app
