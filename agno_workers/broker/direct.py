"""Messages of steps, pushed straight into their lists in Redis: one LPUSH for each list, and a tenth of Celery's CPU time.

Celery writes the first message for each task and queue, into a channel that keeps it; later messages are copies of it with other
ids. So headers, routes and options are Celery's own, and the connections are those of its broker. Celery sends a message itself
where a copy could differ from what it would write: with another broker, while something listens to its signals, with a router
that is a function, with headers of a tracer, and so on.
"""

from __future__ import annotations

import threading
import uuid
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import redis
from celery import Celery, signals
from celery.app.routes import MapRoute

from agno_workers.broker.envelope import Channel, Transport
from agno_workers.broker.names import TASK_OF
from agno_workers.broker.signing import SIGNING_HEADERS, SignedParts, signer_of
from agno_workers.core.run import StepKind
from agno_workers.core.step import StepMessage
from agno_workers.forks import after_fork
from agno_workers.signals import signal

_HEARD = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
_FORM = ("application/json", "utf-8")


class DirectPublisher:
    """Pushes the messages of steps for a Celery app. Threads may share it; a forked process opens its own connections."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._reset()
        after_fork(self, DirectPublisher._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._channel: _KeepingChannel | None = None
        self._templates: dict[tuple[StepKind, str, int], _Template | None] = {}

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()  # type: ignore[no-untyped-call]  # kombu has no types here

    def push(self, sends: Sequence[StepMessage], group_id: str | None = None, chord: Any = None) -> bool:
        """Push messages, with `chord` as its header. Return False, with nothing pushed, where Celery has to send them.

        Raises BROKER_ERRORS; then some may be in Redis.
        """
        if any(each.receivers for each in _HEARD):
            return False
        lists: dict[str, list[bytes]] = {}
        for index, send in enumerate(sends):
            if (template := self._template(send)) is None:
                return False
            channel = template.channel
            family = {"group": group_id, "group_index": None if group_id is None else index}
            key, message = self._copy(template, send, family, chord)
            lists.setdefault(key, []).append(message)
        for number, (key, messages) in enumerate(lists.items()):
            if number:
                signal("dispatch.part")
            channel.pushing.lpush(key, *messages)
        return True

    def _copy(
        self, template: _Template, send: StepMessage, family: dict[str, Any], chord: Any
    ) -> tuple[str, bytes]:
        """Return the list and the message of a step."""
        ids, parent = ids_of(send), self._app.current_worker_task
        body = msgspec.json.encode(((), ids, {**template.canvas, "chord": chord}))
        headers = {
            **template.message["headers"],
            **family,
            "id": send.step_id,
            "root_id": send.run_id,
            "parent_id": parent.request.id if parent else None,
            "kwargsrepr": repr(ids),
        }
        properties = {
            **template.message["properties"],
            "correlation_id": send.step_id,
            "reply_to": self._app.thread_oid,
            "delivery_tag": str(uuid.uuid4()),
        }
        if send.priority is not None:
            properties["priority"] = send.priority
        if (signer := signer_of(self._app)) is not None:
            routing_key = properties["delivery_info"]["routing_key"]
            headers = signer.headers(SignedParts(headers, body, *_FORM, routing_key))
        written = {"headers": headers, "properties": properties, "body": b64encode(body).decode()}
        message = template.message | written
        return template.channel.list_of(template.queue, message), msgspec.json.encode(message)

    def _template(self, send: StepMessage) -> _Template | None:
        """Return the message to be copied for a step. None: Celery sends it, also while another thread, with Redis, makes the template."""
        sender = id(vars(Celery)["send_task"])  # which Sentry replaces, maybe after the first message
        key = send.kind, send.queue, sender
        if key not in self._templates and self._lock.acquire(blocking=False):
            try:
                self._templates[key] = self._written_by_celery(send)
            finally:
                self._lock.release()
        return self._templates.get(key)

    def _written_by_celery(self, send: StepMessage) -> _Template | None:
        """Return what Celery writes for a step; None if its other messages may differ in more than `_copy` changes."""
        app, conf = self._app, self._app.conf
        varies = conf.task_inherit_parent_priority or conf.task_send_sent_event
        if varies or not all(isinstance(route, MapRoute) for route in app.amqp.routes):
            return None
        if self._channel is None:
            transport = app.connection_for_write().transport
            if not isinstance(transport, Transport):
                return None
            self._channel = _KeepingChannel(transport)
        self._channel.kept.clear()
        Celery.send_task(  # `app.send_task` would store what is collected of a canvas
            app, TASK_OF[send.kind], kwargs=ids_of(send), task_id=send.step_id, queue=send.queue, ignore_result=True, add_to_parent=False,
            producer=app.amqp.Producer(self._channel, auto_declare=False),
        )  # fmt: skip
        headers = app.amqp.create_task_message(send.step_id, TASK_OF[send.kind]).headers
        return self._channel.template({*headers, *SIGNING_HEADERS})


class _Template(NamedTuple):
    """A message before kombu makes it JSON."""

    channel: _KeepingChannel
    queue: str
    message: dict[str, Any]
    canvas: dict[str, Any]
    """The third part of its body."""


class _KeepingChannel(Channel):
    """Keeps what is written to it."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)  # type: ignore[no-untyped-call]  # kombu has no types here
        self.kept: list[tuple[str, dict[str, Any]]] = []
        self.pushing: redis.Redis = self._create_client()  # type: ignore[no-untyped-call]  # kombu has no types here
        """It takes 0.1 ms to make one."""

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        self.kept.append((queue, message))

    def template(self, known: set[str]) -> _Template | None:
        """Return the message that was written; None if it can't be copied, as with other headers than the known ones."""
        if len(self.kept) != 1:
            return None
        ((queue, message),) = self.kept
        headers, encoding = message["headers"], message["properties"]["body_encoding"]
        form = message["content-type"], message["content-encoding"], encoding
        is_dated = headers["eta"] or headers["expires"] or queue in self._expires
        if form != (*_FORM, "base64") or is_dated or not known.issuperset(headers):
            return None
        _, _, canvas = msgspec.json.decode(b64decode(message["body"]))
        return _Template(self, queue, message, canvas)

    def list_of(self, queue: str, message: dict[str, Any]) -> str:
        """Return the key of the list that `_put` would write to, without the global prefix."""
        priority = self._get_message_priority(message)  # type: ignore[no-untyped-call]  # as above
        return str(self._q_for_pri(queue, priority))  # type: ignore[no-untyped-call]  # as above


def ids_of(send: StepMessage) -> dict[str, Any]:
    """Return the arguments of a step's message: ids and nothing else."""
    return {"run_id": send.run_id, "step_id": send.step_id, "generation": send.generation}
