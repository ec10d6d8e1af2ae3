"""A signature covers all that Celery relies on, and arrives as it was sent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery, signals
from kombu import Queue
from kombu.message import Message

from agno_workers.broker.signing import NONCE, SIGNATURE, SIGNED_AT, SignedParts, Signer, sign
from agno_workers.errors import SettingsError
from agno_workers.settings import load

KEY, NEXT_KEY = "the first key of these tests", "the next key of these tests"
PARTS = SignedParts(
    {"task": "a.task", "id": "1", "group": None, "retries": 0, "stamps": {}},
    b'[[1], {}, {"chain": null}]',
    "application/json",
    "utf-8",
    "queue",
)


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery app whose broker is kombu's own, in memory."""
    celery = Celery("sender", broker=f"memory://{uuid.uuid4().hex}", set_as_current=False)
    celery.conf.task_default_queue = uuid.uuid4().hex
    sign(celery, KEY)
    yield celery
    celery.close()


def received(app: Celery) -> Message:
    with app.connection_for_read() as connection:
        queue: Queue = app.amqp.queues[app.conf.task_default_queue]
        message: Message | None = queue(connection.default_channel).get(accept=["json"])
    assert message is not None
    return message


def signed_parts(message: Message) -> SignedParts:
    return SignedParts(
        message.headers,
        message.body,
        message.content_type,
        message.content_encoding,
        message.delivery_info["routing_key"],
    )


def signed(parts: SignedParts = PARTS, keys: str = KEY) -> SignedParts:
    return parts._replace(headers=Signer(keys).headers(parts))


def with_header(name: str, value: Any) -> SignedParts:
    message = signed()
    return message._replace(headers={**message.headers, name: value})


def reason(parts: SignedParts, keys: str = KEY) -> str | None:
    refusal = Signer(keys).refusal(parts)
    return refusal and refusal.reason


def test_an_unchanged_message_is_accepted() -> None:
    assert reason(signed()) is None


@pytest.mark.parametrize(
    "changed",
    [
        signed()._replace(body=b'[[2], {}, {"chain": null}]'),
        signed()._replace(content_type="application/x-yaml"),
        signed()._replace(content_encoding="latin-1"),
        signed()._replace(routing_key="other"),
        with_header("task", "b.task"),
        with_header("id", "2"),
        with_header("group", "g"),
        with_header("retries", 1),
        with_header("chain", []),
        with_header("stamps", {"a": 1}),
        with_header(NONCE, "0" * 32),
        with_header(SIGNED_AT, 0),
        with_header(SIGNATURE, "0" * 64),
        with_header(SIGNATURE, ""),
        with_header(SIGNATURE, 7),
        with_header(SIGNATURE, "ä"),
        signed(keys=NEXT_KEY),
    ],
    ids=map(str, range(99)),
)
def test_a_changed_message_is_rejected(changed: SignedParts) -> None:
    assert reason(changed) == "altered"


def test_a_message_without_a_signature_is_rejected() -> None:
    assert reason(PARTS) == "unsigned"


@pytest.mark.parametrize("name", ["compression", "redelivered"])
def test_headers_of_the_transport_are_not_signed(name: str) -> None:
    assert reason(with_header(name, True)) is None


def test_every_key_is_accepted_and_the_first_one_signs() -> None:
    both = f"{NEXT_KEY} , {KEY},"
    assert reason(signed(keys=KEY), both) is None
    assert reason(signed(keys=NEXT_KEY), both) is None
    assert reason(signed(keys=both), NEXT_KEY) is None
    assert reason(signed(keys=both), KEY) == "altered"


def test_a_message_that_is_sent_again_has_a_new_nonce() -> None:
    assert signed().headers[NONCE] != signed().headers[NONCE]
    assert len(signed().headers[NONCE]) == 32


@pytest.mark.parametrize("keys", ["", " , "])
def test_a_signer_needs_a_key(keys: str) -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Signer(keys)


@pytest.mark.parametrize("keys", ["short", f"{KEY},short", f"{KEY},", " , "])
def test_a_short_key_is_refused_and_not_shown(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGNO_SIGNING__KEYS", keys)
    with pytest.raises(SettingsError, match="at least 16 characters") as refused:
        load()
    assert "short" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"countdown": 5, "expires": 60, "time_limit": 1.5, "soft_time_limit": 1},
        {"headers": {"trace": ("a", {1: "b"}), "at": datetime(2026, 1, 1, tzinfo=UTC)}},
        {"compression": "zlib"},
        {"priority": 6, "group_id": "g", "group_index": 1, "root_id": "r", "parent_id": "p"},
        {"stamped_headers": ["monitor"], "monitor": [uuid.UUID(int=17)]},
        {"retry": True},
        {"shadow": "ä\ud800"},
    ],
    ids=str,
)
def test_messages_of_celery_are_accepted_by_the_receiver(app: Celery, options: dict[str, Any]) -> None:
    args = ["ä", 1.1, uuid.uuid4(), datetime.now(UTC), Decimal("1.10"), b"\xff", {"a": [None, True]}, 2**70]
    app.send_task("a.task", args, {"b": 1}, link=app.signature("b.task"), **options)
    message = received(app)
    assert reason(signed_parts(message)) is None
    assert message.payload[0] == args


def test_headers_that_a_signal_handler_adds_are_signed(app: Celery) -> None:
    def trace(headers: dict[str, Any], **_: Any) -> None:
        headers["traceparent"] = "00-1"

    signals.before_task_publish.connect(trace)
    try:
        app.send_task("a.task")
    finally:
        signals.before_task_publish.disconnect(trace)
    message = received(app)
    assert message.headers["traceparent"] == "00-1"
    assert reason(signed_parts(message)) is None
    message.headers["traceparent"] = "00-2"
    assert reason(signed_parts(message)) == "altered"


def test_messages_are_signed_with_a_producer_or_connection_of_the_caller(app: Celery) -> None:
    with app.producer_or_acquire() as producer:
        app.send_task("a.task", producer=producer)
    assert reason(signed_parts(received(app))) is None
    with app.connection_for_write() as connection:
        app.send_task("a.task", connection=connection)
        assert reason(signed_parts(received(app))) is None


def test_signing_an_app_again_replaces_its_key(app: Celery) -> None:
    sign(app, NEXT_KEY)
    app.send_task("a.task")
    assert reason(signed_parts(received(app)), NEXT_KEY) is None


def test_another_app_of_the_same_process_does_not_sign(app: Celery) -> None:
    other = Celery("other", broker=app.conf.broker_url, set_as_current=False)
    other.conf.task_default_queue = app.conf.task_default_queue
    other.send_task("a.task")
    assert reason(signed_parts(received(app))) == "unsigned"
