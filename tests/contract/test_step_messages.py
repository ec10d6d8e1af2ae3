"""A step's message that we push is the one that Celery writes, field by field; Celery sends it itself where it could differ."""

from __future__ import annotations

import json
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from typing import Any

import pytest
import redis
from celery import Celery, signals
from celery._state import _task_stack
from kombu import Exchange, Queue

from agno_workers.broker.app import AgnoCelery, create
from agno_workers.broker.direct import DirectPublisher
from agno_workers.broker.names import RUN
from agno_workers.broker.queues import lists
from agno_workers.broker.signing import NONCE, SIGNATURE, SIGNED_AT, SignedParts, Signer
from agno_workers.core.run import StepKind
from agno_workers.core.step import STEP_TYPES, CommitResult, StepMessage
from agno_workers.core.step import Queue as QueueRole
from agno_workers.wiring import Services
from tests.messages import Message, decoded
from tests.places import Place

KEY, PREFIX = "a key of these tests, and of nothing else", "staging:"
QUEUES: dict[QueueRole, str] = {
    "agents": "agents",
    "tools": "tools",
    "knowledge": "knowledge",
    "background": "background",
}


def step(kind: StepKind, queue: str = "", priority: int | None = None) -> StepMessage:
    queue = queue or STEP_TYPES[kind].queue
    return StepMessage(None, str(uuid.uuid4()), str(uuid.uuid4()), 3, kind, queue, priority)


def fan_out(priority: int | None = None) -> CommitResult:
    tools = [step(StepKind.TOOL, queue, priority) for queue in ("tools", "own", "tools")]
    return CommitResult(True, tuple(tools), body=step(StepKind.TURN), barrier_id=str(uuid.uuid4()))


PUBLISHED = {
    **{str(kind): CommitResult(True, (step(kind),)) for kind in STEP_TYPES},
    **{f"priority {n}": CommitResult(True, (step(StepKind.TURN, priority=n),)) for n in (0, 2, 3, 9, 12)},
    "two runs": CommitResult(True, children=(step(StepKind.TURN), step(StepKind.TURN, priority=5))),
    "chord": fan_out(),
    "chord with a priority": fan_out(priority=7),
}
Take = Callable[[], dict[str, list[Message]]]


@pytest.fixture(params=["plain", "signed and with a prefix"])
def environment(environment: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    signed = {"AGNO_SIGNING__KEYS": KEY, "AGNO_BROKER__KEY_PREFIX": PREFIX}
    return environment if request.param == "plain" else environment | signed


@pytest.fixture
def take(services: Services, redis_client: redis.Redis) -> Take:
    """A function that takes all messages from Redis, and returns them by the keys of their lists, the oldest first."""
    prefix = services.settings.broker.key_prefix
    keys = [key for queue in (*QUEUES, "own") for key in lists(queue, prefix)]

    def take() -> dict[str, list[Message]]:
        found = {key: redis_client.lrange(key, 0, -1) for key in keys}
        redis_client.delete(*keys)
        return {key: [json.loads(each) for each in reversed(taken)] for key, taken in found.items() if taken}

    return take


@contextmanager
def in_a_task(app: AgnoCelery) -> Iterator[None]:
    """Execute a task in this process, as a worker does."""
    task = app.tasks[RUN]
    task.push_request(id=str(uuid.uuid4()), root_id=str(uuid.uuid4()), called_directly=False)
    _task_stack.push(task)
    try:
        yield
    finally:
        _task_stack.pop()
        task.pop_request()


@contextmanager
def heard() -> Iterator[list[str]]:
    """Listen to Celery's signal, which makes Celery send; return the tasks that it sends."""
    sent: list[str] = []

    def listener(sender: str, **_: Any) -> None:
        sent.append(sender)

    signals.before_task_publish.connect(listener)
    yield sent
    signals.before_task_publish.disconnect(listener)


def test_pushed_message_is_the_one_that_celery_writes(
    services: Services, app: AgnoCelery, take: Take
) -> None:
    for name, result in PUBLISHED.items():
        services.dispatch.publish(result)
        pushed = take()
        with heard() as sent:
            services.dispatch.publish(result)
        assert len(sent) == len(result.sends + result.children)
        assert_same(pushed, take(), name)
    (send,) = PUBLISHED["turn"].sends
    with in_a_task(app):
        assert app.current_worker_task
        assert services.dispatch.send([send])
        pushed = take()
        with heard():
            assert services.dispatch.send([send])
    assert_same(pushed, take(), "in a task")


def assert_same(pushed: dict[str, list[Message]], written: dict[str, list[Message]], name: str) -> None:
    plain = [
        {key: list(map(compared, each)) for key, each in by_list.items()} for by_list in (pushed, written)
    ]
    assert plain[0], name
    assert plain[0] == plain[1], name


def compared(message: Message) -> Message:
    """Return a message with a decoded body and without what is new in each; check its signature."""
    headers, properties = message["headers"], message["properties"]
    assert uuid.UUID(properties.pop("delivery_tag")).version == 4
    if is_signed := SIGNATURE in headers:
        form, routing_key = (
            (message["content-type"], message["content-encoding"]),
            properties["delivery_info"]["routing_key"],
        )
        assert (
            Signer(KEY).refusal(SignedParts(headers, b64decode(message["body"]), *form, routing_key)) is None
        )
        assert len(headers.pop(NONCE)) == 32
        assert headers.pop(SIGNED_AT)
        del headers[SIGNATURE]
    return message | {"body": decoded(message["body"]), "signed": is_signed}


@pytest.fixture
def other_app(place: Place, redis_client: redis.Redis) -> Iterator[AgnoCelery]:
    """An app with our settings, to be changed."""
    with create(place.servers.broker_url, queues=QUEUES, broker_timeout_s=5.0) as app:
        yield app


def by_function(*_: Any, **__: Any) -> dict[str, Any]:
    return {"priority": 6}


@pytest.mark.parametrize(
    "conf",
    [
        {"broker_url": "memory://"},
        {"task_routes": [by_function]},
        {"task_inherit_parent_priority": True},
        {"task_send_sent_event": True},
        {"task_routes": {"agno.turn": {"queue": "agents", "headers": {"trace": "1"}}}},
        {"task_compression": "gzip"},
        {"broker_transport_options": {"ack_emulation": False, "body_encoding": None}},
        {"task_queues": [Queue("agents", Exchange("agents"), routing_key="agents", expires=60.0)]},
    ],
    ids=lambda conf: next(iter(conf)),
)  # fmt: skip
def test_celery_sends_where_its_message_may_differ(
    other_app: AgnoCelery, redis_client: redis.Redis, conf: dict[str, Any]
) -> None:
    other_app.conf.update(conf)
    assert not DirectPublisher(other_app).push([step(StepKind.TURN)])
    assert redis_client.llen("agents") == 0


@pytest.mark.parametrize("option", [{"expires": 60}, {"serializer": "pickle"}])
def test_celery_sends_where_a_task_has_such_an_option(other_app: AgnoCelery, option: dict[str, Any]) -> None:
    other_app.task(name=STEP_TYPES[StepKind.TURN].task, **option)(by_function)
    other_app.finalize()
    assert not DirectPublisher(other_app).push([step(StepKind.TURN)])


def test_celery_sends_once_a_tracer_has_replaced_its_function(
    other_app: AgnoCelery, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = DirectPublisher(other_app)
    assert publisher.push([step(StepKind.TURN)])
    traced = partialmethod(Celery.send_task, headers={"sentry-trace": "1"})
    monkeypatch.setattr(Celery, "send_task", traced)
    assert not publisher.push([step(StepKind.TURN)])


def test_static_options_of_celery_are_copied(other_app: AgnoCelery, redis_client: redis.Redis) -> None:
    other_app.conf.task_routes = {"agno.turn": {"queue": "agents", "priority": 6}}
    other_app.conf.task_queues = [Queue("agents", Exchange("topics", type="topic"), routing_key="a.*.c")]
    other_app.conf.broker_transport_options["priority_steps"] = [0, 5]
    assert DirectPublisher(other_app).push([step(StepKind.TURN)])
    (key,) = redis_client.keys("agents*")
    (text,) = redis_client.lrange(key, 0, -1)
    properties = json.loads(text)["properties"]
    assert key == b"agents\x06\x165"
    assert properties["priority"] == 6
    assert properties["delivery_info"] == {"exchange": "topics", "routing_key": "a.*.c"}
