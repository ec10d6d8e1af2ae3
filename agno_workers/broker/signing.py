"""Signed messages: write access to Redis is not enough to have tasks executed.

    agno_nonce   32 hex digits, new each time a message is sent
    agno_at      when it was signed, in milliseconds since 1970
    agno_sig     HMAC-SHA256, in hex, of everything else

The signature covers all headers (the task's name and id, and a canvas' root, parent, group, retries and times), the bytes
and the type of the body (arguments, link, chain, chord), and the routing key. It does not cover what the transport adds:
the delivery tag, the priority, the compression. Celery's own `auth` serializer signs only the body, so a writer to Redis
could put another task's name on it.

This file needs Celery and nothing else: another service may copy it and call `sign`.
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

NONCE, SIGNED_AT, SIGNATURE = SIGNING_HEADERS = "agno_nonce", "agno_at", "agno_sig"
_VERSION = "agno-1"
_ADDED_BY_TRANSPORT = frozenset({SIGNATURE, "compression", "redelivered"})


class Refusal(NamedTuple):
    """A worker's reason to reject a message."""

    reason: str
    """`unreadable`, `unsigned`, `altered`, `replayed` or `unknown_task`."""
    detail: str


class SignedParts(NamedTuple):
    """The parts of a message that are signed, as its sender and its receiver see them."""

    headers: Mapping[str, Any]
    body: bytes
    content_type: str | None
    content_encoding: str | None
    routing_key: str | None


class Signer:
    """Signs with the first of its keys and accepts any of them, so that a key can be replaced without downtime."""

    def __init__(self, keys: str) -> None:
        """`keys`: one key, or several separated by commas."""
        self._keys = [key.strip().encode() for key in keys.split(",") if key.strip()]
        if not self._keys:
            raise ValueError("a signer needs at least one key")

    def headers(self, parts: SignedParts) -> dict[str, Any]:
        """Return the headers of a message with its signature added."""
        plain = {name: value for name, value in parts.headers.items() if name != SIGNATURE}
        stamped = {**plain, NONCE: secrets.token_hex(16), SIGNED_AT: time.time_ns() // 1_000_000}
        as_received = loads(dumps(stamped))  # JSON turns keys into text and tuples into lists
        return {**stamped, SIGNATURE: _signature(self._keys[0], parts._replace(headers=as_received))}

    def refusal(self, parts: SignedParts) -> Refusal | None:
        """Return why the signature of a received message is rejected, or None. Replays are checked elsewhere (verify.py)."""
        signature = parts.headers.get(SIGNATURE)
        if signature is None:
            return Refusal(
                "unsigned", "the message has no signature: give its sender one of this worker's signing keys."
            )
        if not isinstance(signature, str) or not signature.isascii():
            return Refusal("altered", f"the header {SIGNATURE} is not a signature.")
        if any(hmac.compare_digest(_signature(key, parts), signature) for key in self._keys):
            return None
        return Refusal(
            "altered",
            "the signature does not match: the message was changed, or signed with a key that this worker does not have.",
        )


def sign(app: Any, keys: str) -> None:
    """Sign every task that a Celery app sends from now on, however it is sent: `delay`, a canvas, a retry.

    Call it before the app's queues are changed in code (`app.amqp.queues`): Celery builds `app.amqp` again.
    """
    app.amqp_cls = partial(SigningAMQP, signer=Signer(keys))
    del app.amqp


def signer_of(app: Any) -> Signer | None:
    """Return the signer of an app's messages, if they are signed."""
    return getattr(app.amqp, "signer", None)


class SigningAMQP(AMQP):
    """Celery's AMQP class, which sends every task of an app, and adds a signature when a message is complete."""

    def __init__(self, app: Any, signer: Signer) -> None:
        super().__init__(app)
        self.signer = signer

    @property
    def send_task_message(self) -> Callable[..., Any]:
        send = super().send_task_message
        return lambda producer, *message, **options: send(
            _SigningProducer(producer, self.signer), *message, **options
        )


class _SigningProducer:
    """A kombu Producer that signs tasks and sends everything else (events) unchanged."""

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
        content = text.encode() if isinstance(text, str) else text
        signed = self._signer.headers(SignedParts(headers, content, content_type, encoding, routing_key))
        options |= {"headers": signed, "content_type": content_type, "content_encoding": encoding}
        return self._producer.publish(content, routing_key=routing_key, **options)


def _signature(key: bytes, parts: SignedParts) -> str:
    headers = {name: value for name, value in parts.headers.items() if name not in _ADDED_BY_TRANSPORT}
    digest = hashlib.sha256(parts.body).hexdigest()
    signed = [_VERSION, headers, parts.content_type, parts.content_encoding, parts.routing_key, digest]
    return hmac.new(key, dumps(signed, sort_keys=True).encode(), hashlib.sha256).hexdigest()
