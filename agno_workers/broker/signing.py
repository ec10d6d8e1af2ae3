"""Messages that carry a signature, so that writing to Redis is not enough to have work done.

    agno_nonce   32 hex digits, fresh each time a message is sent
    agno_at      when it was signed, in milliseconds since 1970
    agno_sig     HMAC-SHA256, in hex, of everything else

Signed are all headers (the task's name and id, and what a canvas wrote: root, parent, group, retries, times), the bytes of
the body (arguments, link, chain, chord) with their type, and the routing key. Celery's own `auth` serializer signs the
body alone: whoever can write to Redis may give it another task's name. Not signed is what the transport adds on the way:
its delivery tag, the priority, the compression.

This file needs Celery and nothing else: a service that sends to us may copy it, and call `sign`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from celery.app.amqp import AMQP
from kombu.serialization import dumps as serialize
from kombu.utils.json import dumps, loads

NONCE, SIGNED_AT, SIGNATURE = "agno_nonce", "agno_at", "agno_sig"
_VERSION = "agno-1"
_ADDED_ON_THE_WAY = frozenset({SIGNATURE, "compression", "redelivered"})


class Refusal(NamedTuple):
    """Why a message is not work."""

    reason: str
    """`unreadable`, `unsigned`, `altered`, `replayed` or `unknown_task`."""
    detail: str


class Sent(NamedTuple):
    """What is signed of a message, the same where it is sent and where it is received."""

    headers: Mapping[str, Any]
    body: bytes
    content_type: str | None
    content_encoding: str | None
    routing_key: str | None


class Signer:
    """Signs with the first of its keys, and believes a signature by any of them: so a key can be replaced without a gap."""

    def __init__(self, keys: str) -> None:
        """`keys`: one or several, with commas between them."""
        self._keys = [key.strip().encode() for key in keys.split(",") if key.strip()]
        if not self._keys:
            raise ValueError("a signer needs a key")

    def headers(self, sent: Sent) -> dict[str, Any]:
        """The headers of a message that is about to be sent, with its signature among them."""
        plain = {name: value for name, value in sent.headers.items() if name != SIGNATURE}
        stamped = {**plain, NONCE: secrets.token_hex(16), SIGNED_AT: time.time_ns() // 1_000_000}
        as_received = loads(dumps(stamped))  # keys are text and tuples are lists at the other end
        return {**stamped, SIGNATURE: _signature(self._keys[0], sent._replace(headers=as_received))}

    def refusal(self, sent: Sent) -> Refusal | None:
        """Why a received message is not believed, if it is not. Whether it came before is not known here."""
        given = sent.headers.get(SIGNATURE)
        if given is None:
            return Refusal(
                "unsigned", "it has no signature: give its sender one of this worker's signing keys."
            )
        if not isinstance(given, str) or not given.isascii():
            return Refusal("altered", f"{SIGNATURE} is no signature.")
        if any(hmac.compare_digest(_signature(key, sent), given) for key in self._keys):
            return None
        return Refusal(
            "altered",
            "its signature does not fit: it was changed on the way, or signed with a key that this worker has not.",
        )


def sign(app: Any, keys: str) -> None:
    """Sign every task that a Celery app sends from now on, however it is sent: `delay`, a canvas, a retry.

    Call it before the app's queues are changed in code (`app.amqp.queues`): Celery builds `app.amqp` again.
    """
    app.amqp_cls = partial(SigningAMQP, signer=Signer(keys))
    del app.amqp


class SigningAMQP(AMQP):
    """Celery's AMQP class, which sends every task of an app, with a signature added where nothing is changed any more."""

    def __init__(self, app: Any, signer: Signer) -> None:
        super().__init__(app)
        self._signer = signer

    @property
    def send_task_message(self) -> Callable[..., Any]:
        send = super().send_task_message
        return lambda producer, *message, **options: send(
            _SigningProducer(producer, self._signer), *message, **options
        )


class _SigningProducer:
    """A kombu Producer that signs tasks. What is no task (an event) passes as it is."""

    def __init__(self, producer: Any, signer: Signer) -> None:
        self._producer = producer
        self._signer = signer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, routing_key: str | None = None, **options: Any) -> Any:
        headers, serializer = options.get("headers"), options.get("serializer")
        if not headers or "task" not in headers:
            return self._producer.publish(body, routing_key=routing_key, **options)
        content_type, encoding, text = serialize(body, serializer or self._producer.serializer)
        sent = text.encode() if isinstance(text, str) else text
        signed = self._signer.headers(Sent(headers, sent, content_type, encoding, routing_key))
        options |= {"headers": signed, "content_type": content_type, "content_encoding": encoding}
        return self._producer.publish(sent, routing_key=routing_key, **options)


def _signature(key: bytes, sent: Sent) -> str:
    headers = {name: value for name, value in sent.headers.items() if name not in _ADDED_ON_THE_WAY}
    digest = hashlib.sha256(sent.body).hexdigest()
    signed = [_VERSION, headers, sent.content_type, sent.content_encoding, sent.routing_key, digest]
    return hmac.new(key, dumps(signed, sort_keys=True).encode(), hashlib.sha256).hexdigest()
