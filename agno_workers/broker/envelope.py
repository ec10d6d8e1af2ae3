"""The shape that a message must have before a worker uses it, and a transport that survives messages of any other shape, and
error replies of Redis. It takes several messages in one round trip.

kombu and Celery trust messages. A list element that is not JSON, a `delivery_tag` that is a list, a body that is a number:
each of about thirty such faults raises in the worker's event loop, and the process ends, or reconnects and forgets what it
had fetched. `tests/acceptance/test_bad_messages.py` lists them.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from queue import Empty
from time import monotonic
from typing import Annotated, Any

import kombu
import msgspec
import redis
from kombu.transport import redis as stock
from kombu.transport.virtual import base
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from agno_workers.broker.names import STEP_TASKS
from agno_workers.broker.quarantine import HEAD_CHARACTERS, Quarantined
from agno_workers.broker.queues import leaving_replicas
from agno_workers.broker.signing import NONCE
from agno_workers.broker.verify import nonce_key

Name = Annotated[str, msgspec.Meta(max_length=255, pattern=r"\A[^\x00\ud800-\udfff]+\Z")]
"""Text that may be a key in Postgres: not empty, and without the characters that Postgres refuses."""
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Headers(msgspec.Struct):
    """The headers of Celery's protocol 2 that its worker uses without a check; it checks `eta` and `expires` itself."""

    task: Name
    id: Name
    root_id: Name | None = None
    parent_id: Name | None = None
    group: Name | None = None
    group_index: Natural | None = None
    retries: Natural | None = 0
    timelimit: tuple[Seconds | None, Seconds | None] | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: Natural | None = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    shadow: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None


class Link(msgspec.Struct):
    """A signature in a canvas. Celery checks the inside of a group or a chord when it sends it."""

    task: Name
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] | None = None


class Embedded(msgspec.Struct):
    """The canvas that follows a task."""

    callbacks: list[Link] | None = None
    errbacks: list[Link] | None = None
    chain: list[Link] | None = None
    chord: Link | None = None


class Ids(msgspec.Struct):
    """The arguments of a step's message."""

    run_id: uuid.UUID
    step_id: uuid.UUID
    generation: Natural


Body = tuple[list[Any], dict[str, Any], Embedded | None]
_MARK = "agno_unreadable"
_QUEUE = "agno_queue"
_MAX_DEPTH = 200
"""Pickle, which brings a request to prefork's children, fails at a depth of about 500, and the pool loses a slot for good."""
MAX_UNSTARTED = 16
"""Messages that a worker holds and has not started, at most: the others stay for other workers, and are not lost with this one."""
_MAX_TAKEN = 4
"""Messages that one round trip takes, at most: idle workers share the tool calls of a turn, and other queues and priorities have their
turn after so many. More would save little: a run of 21 steps takes 4.4 round trips with 16, 5.5 with 4, and 21 with 1.
"""


class Message(base.Message):
    """A message that can be made of any payload: `errors` has its faults, and kombu tells the consumer.

    Its `delivery_info` leads to the queue that it came from. The sender's exchange and routing key, which are in its properties,
    may mean nothing here: a worker that requeued, retried or answered by them would lose the message.
    """

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        queue = payload.pop(_QUEUE, None) if isinstance(payload, dict) else None
        try:
            super().__init__(payload, channel=channel, **options)  # type: ignore[no-untyped-call]  # kombu has no types here
            _check(self)
        except Exception:
            self.errors = [sys.exc_info()]
            blank = {"properties": {"delivery_tag": uuid.uuid4().hex}}
            super().__init__(blank, channel=channel, **options)  # type: ignore[no-untyped-call]  # as above
        self.raw = payload
        if queue is not None:
            self.delivery_info = {**self.delivery_info, "exchange": "", "routing_key": queue}

    def _decode(self) -> Any:
        if self.content_type == "application/json" and (
            self.accept is None or self.content_type in self.accept
        ):
            return _decoded(self.body, super()._decode)
        return super()._decode()  # type: ignore[no-untyped-call]  # as above


class Channel(stock.Channel):
    """kombu's channel, which also survives list elements that are not JSON and requeues signed messages.

    It takes up to `_MAX_TAKEN` messages at once, as the worker has room for (its prefetch count), all of one queue and one priority; from
    a server that can't do that (Redis before 7.0, or one whose ACL forbids BLMPOP) it takes one at a time, as kombu does.
    """

    Message = Message
    _in_poll: Any
    _brpop_sent_at: Any
    _takes_several = True

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for messages; `_brpop_read` is called when the answer has arrived."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not self._takes_several or not queues:
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]  # as above
            return
        keys = [
            f"{self.global_keyprefix}{self._q_for_pri(queue, step)}"  # type: ignore[no-untyped-call]  # as above
            for step in self.priority_steps
            for queue in queues
        ]
        # Until the answer comes, the room only grows. `--disable-prefetch` replaces `can_consume`, and tells only whether there is any.
        room = 1 if "can_consume" in vars(self.qos) else self.qos.can_consume_max_estimate() or _MAX_TAKEN
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        wait_s = (self.brpop_timeout if timeout is None else timeout) or 0
        self._in_poll.send_command(
            "BLMPOP", wait_s, len(keys), *keys, "RIGHT", "COUNT", min(room, _MAX_TAKEN)
        )

    def _brpop_read(self, **options: Any) -> bool:
        try:
            key, items = self._taken(**options)
            queue = key.rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            # Redis no longer has these messages, so each is delivered, also when the delivery before it raises.
            with ExitStack() as deliveries:
                for item in reversed(items):
                    deliveries.callback(self.connection._deliver, _read(item, queue), queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[no-untyped-call]  # as above

    def _taken(self, **options: Any) -> tuple[str, list[bytes]]:
        """Read the answer: a list and its messages, the oldest first. Raises Empty when there are none."""
        command = "BLMPOP" if self._takes_several else "BRPOP"
        try:
            answer = self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors as error:
            if command == "BLMPOP" and _is_refused(error):
                self._takes_several = False
                raise Empty from None
            self.client.connection.disconnect()
            raise
        if not answer:
            raise Empty
        key, taken = answer
        if command == "BRPOP":
            return bytes_to_str(key), [taken]
        return bytes_to_str(key).removeprefix(self.global_keyprefix), taken

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[no-untyped-call]  # as above
        return params | {"connection_class": leaving_replicas(params["connection_class"])}

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Requeue a message; forget its nonce, so that the next worker does not take it for a replay."""
        if isinstance(nonce := message.headers.get(NONCE), str):
            with self.conn_or_acquire() as client:
                client.delete(nonce_key(nonce))
        super()._restore(message, leftmost)  # type: ignore[no-untyped-call]  # as above


class Transport(stock.Transport):
    """kombu's transport. To it an error reply (READONLY after a failover, NOPERM, WRONGTYPE) is as a lost connection."""

    Channel = Channel
    connection_errors = (*stock.Transport.connection_errors, redis.RedisError)

    def _deliver(self, message: Any, queue: str) -> None:
        if isinstance(message, dict):
            message[_QUEUE] = queue
        super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # as above


class Connection(kombu.Connection):
    """kombu's connection, with our transport. The setting `broker_transport` is ignored for redis+socket:// URLs."""

    def get_transport_cls(self) -> type[Any]:
        found: type[Any] = super().get_transport_cls()  # type: ignore[no-untyped-call]  # as above
        return Transport if found is stock.Transport else found


def shape_error(message: Any, tasks: Mapping[str, Any]) -> str | None:
    """Return the fault of a message, or None. Decodes the body, as Celery does next."""
    try:
        headers = msgspec.convert(message.headers, Headers)
        args, kwargs, _ = msgspec.convert(message.payload, Body)
        if _is_deeper(message.headers, _MAX_DEPTH) or (
            message.body.count(b"[") + message.body.count(b"{") > _MAX_DEPTH
            and _is_deeper(message.payload, _MAX_DEPTH)
        ):
            return f"the message is nested deeper than {_MAX_DEPTH} levels."
        if headers.task in STEP_TASKS:
            ids = msgspec.convert(kwargs, Ids)
            if headers.task in tasks:
                tasks[headers.task].__header__(*args, **kwargs)
            if headers.id != str(ids.step_id):
                return f"the message's id {headers.id!r} differs from the id of its step, {ids.step_id}."
    except Exception as error:  # decoders of dates, UUIDs and the like raise anything
        return f"{type(error).__name__}: {error}"
    return None


def describe(message: Any, reason: str, detail: str) -> Quarantined:
    """Return a rejected message as it is stored."""
    payload = getattr(message, "raw", {"headers": message.headers, "properties": message.properties})
    raw = _dict(payload)
    if message.errors and isinstance(marked := raw.get(_MARK), dict):
        return Quarantined(
            reason,
            str(marked.get("why")),
            str(marked.get("queue")),
            None,
            None,
            str(marked.get("head")),
            _int(marked.get("bytes")),
        )
    headers = _dict(raw.get("headers"))
    if isinstance(message.body, bytes):  # instead of its base64
        shown = {**raw, "body": message.body[:HEAD_CHARACTERS].decode("utf-8", "backslashreplace")}
    else:
        shown = payload
    return Quarantined(
        reason,
        detail,
        str(message.delivery_info.get("routing_key") or ""),
        _shown(headers.get("task")),
        _shown(headers.get("id")),
        _text(shown)[:HEAD_CHARACTERS],
        len(_text(payload)),
    )


def _is_refused(error: Exception) -> bool:
    """Return True when a server does not have, or not allow, a command."""
    return isinstance(error, redis.exceptions.NoPermissionError) or "unknown command" in str(error)


def _read(item: bytes, queue: str) -> Any:
    """Return a list element as kombu reads it; one that it can't read becomes a marker that describes it."""
    try:
        return _decoded(item, lambda: loads(bytes_to_str(item)))
    except Exception as error:  # as in `shape_error`
        found = {
            "why": f"not JSON that Celery can read: {type(error).__name__}: {error}",
            "queue": queue,
            "head": item[:HEAD_CHARACTERS].decode("utf-8", "backslashreplace"),
            "bytes": len(item),
        }
        return {_MARK: found}


def _decoded(text: bytes, as_kombu: Callable[[], Any]) -> Any:
    """Decode JSON with msgspec, and with kombu's decoder what has its own types (dates, UUIDs) or is not strict JSON (NaN)."""
    if b"__type__" not in text:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(text)
    return as_kombu()


def _check(message: Message) -> None:
    """Check the types that kombu and Celery use without a check."""
    kinds: dict[str, Any] = {
        "delivery_tag": str,
        "delivery_info": dict,
        "headers": dict,
        "properties": dict,
        "content_type": str | None,
        "content_encoding": str | None,
        "body": bytes | None,
    }
    for name, kind in kinds.items():
        if not isinstance(value := getattr(message, name), kind):
            raise TypeError(f"{name} is {type(value).__name__}")


def _is_deeper(value: Any, depth: int) -> bool:
    match value:
        case dict():
            return depth < 0 or any(_is_deeper(each, depth - 1) for each in value.values())
        case list() | tuple():
            return depth < 0 or any(_is_deeper(each, depth - 1) for each in value)
        case _:
            return False


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _int(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)


def _text(value: Any) -> str:
    try:
        return str(dumps(value))
    except Exception:  # JSON may be read at a depth at which it can't be written
        return repr(value)[:HEAD_CHARACTERS] if not isinstance(value, dict) else "{…}"
