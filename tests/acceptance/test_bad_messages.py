"""A bad message is quarantined; the worker survives and executes the messages behind it."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery.exceptions import NotRegistered

from agno_workers.broker.app import AgnoCelery
from agno_workers.cli.doctor import examine
from agno_workers.local import LocalServers
from agno_workers.settings import Settings
from tests import invariants
from tests.agents import echo
from tests.conftest import StartWorker, Worker
from tests.messages import NOTHING_AFTER, Message, Quarantined, decoded, encoded, message

WAIT_S = 30
PLAIN = ("-I", "tests.contract.canvas.plain")


def with_(part: str, name: str, value: Any) -> Message:
    changed = message()
    changed[part][name] = value
    return changed


def without(part: str, name: str) -> Message:
    changed = message()
    del changed[part][name]
    return changed


def header(name: str, value: Any) -> Message:
    return with_("headers", name, value)


def body(value: Any) -> Message:
    return message(body=value)


def after(**canvas: Any) -> Message:
    return message(body=[["x"], {}, {**NOTHING_AFTER, **canvas}])


def step(task_id: str | None = None, task: str = "agno.turn", **ids: Any) -> Message:
    step_id = str(uuid.uuid4())
    kwargs = {"run_id": str(uuid.uuid4()), "step_id": step_id, "generation": 0, **ids}
    return message(task, [[], kwargs, NOTHING_AFTER], id=task_id or step_id)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


BAD: dict[str, Any] = {
    # kombu can't read these.
    "not JSON": b"hello",
    "not UTF-8": b"\xff\xfe\x00",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "text": b'"x"',
    "nested endlessly": b"[" * 200_000,
    "an empty object": {},
    "no properties": {name: value for name, value in message().items() if name != "properties"},
    "properties that are a list": {**message(), "properties": []},
    "no delivery tag": without("properties", "delivery_tag"),
    "a delivery tag that is a list": with_("properties", "delivery_tag", [1]),
    "a delivery tag that is null": with_("properties", "delivery_tag", None),
    "delivery info that is a list": with_("properties", "delivery_info", [1]),
    "a body that is a number": {**message(), "body": 7},
    "a body that is not base64": {**message(), "body": "%%%a"},
    "a body in an unknown encoding": with_("properties", "body_encoding", "rot13"),
    "a body encoding that is a number": with_("properties", "body_encoding", 3),
    "headers that are a list": {**message(), "headers": [1]},
    "headers that are text": {**message(), "headers": "abc"},
    "a date that is a number": header("x", {"__type__": "datetime", "__value__": 5}),
    "an unknown type": header("x", {"__type__": "zzz", "__value__": 5}),
    "a type that is a list": header("x", {"__type__": ["a"], "__value__": 5}),
    "a content type that is a list": {**message(), "content-type": [5]},
    "a content encoding that is a number": {**message(), "content-encoding": 5},
    "an unknown compression": header("compression", "rar"),
    "a compression that it does not have": header("compression", "zlib"),
    # Celery can't use these.
    "no headers": {**message(), "headers": None},
    "no task": without("headers", "task"),
    "a task that is null": header("task", None),
    "a task that is a list": header("task", [1]),
    "no id": without("headers", "id"),
    "an id that is null": header("id", None),
    "an id that is a list": header("id", [1]),
    "an id with a zero byte": header("id", "a\0b"),
    "an id with a lone surrogate": header("id", "\ud800"),
    "an endless id": header("id", "x" * 10_000),
    "retries that are text": header("retries", "x"),
    "an eta that is not a time": header("eta", "nonsense"),
    "an eta that is a number": header("eta", 5),
    "an eta that is a list": header("eta", [1]),
    "an expiry that is a list": header("expires", [1]),
    "three time limits": header("timelimit", [1, 2, 3]),
    "time limits that are text": header("timelimit", ["a", "b"]),
    "a group that is a list": header("group", [1]),
    "stamps that are a list": header("stamps", [1]),
    "stamped headers that are a number": header("stamped_headers", 5),
    "a root that is a list": header("root_id", [1]),
    "a nesting that is text": header("replaced_task_nesting", "x"),
    "an empty body": {**message(), "body": ""},
    "a body that is null": {**message(), "body": None},
    "a body that is not JSON": body(b"{"),
    "a body of two": body([1, 2]),
    "a body that is an object": body({"args": []}),
    "a body that is text": body("args"),
    "a body that holds a number": body(7),
    "args that are an object": body([{}, {}, NOTHING_AFTER]),
    "args that are a number": body([7, {}, NOTHING_AFTER]),
    "kwargs that are a list": body([[], [1], NOTHING_AFTER]),
    "kwargs that are null": body([[], None, NOTHING_AFTER]),
    "a canvas that is a list": body([["x"], {}, [1]]),
    "callbacks that are a number": after(callbacks=7),
    "callbacks that hold a number": after(callbacks=[7]),
    "a callback without a task": after(callbacks=[{"args": []}]),
    "errbacks that are a number": after(errbacks=7),
    "a chain that is text": after(chain="abc"),
    "a chord that is a number": after(chord=7),
    "a body in pickle": {**message(), "content-type": "application/x-python-serialize"},
    "a body of an unknown type": {**message(), "content-type": "x/y"},
    "an invalid UUID": body([[{"__type__": "uuid", "__value__": {"hex": "zz"}}], {}, NOTHING_AFTER]),
    "a body that is nested endlessly": body(b"[" * 200_000),
    "ten megabytes": {**message(), "body": "A" * 10_000_000},
    # These are not steps.
    "a step of a run that is not a UUID": step(run_id="x"),
    "a step that is not a UUID": step(step_id="x"),
    "a step that is null": step(step_id=None),
    "a generation that is text": step(generation="x"),
    "a generation that is too large": step(generation=2**40),
    "a step with an extra argument": step(more=1),
    "a tool of a run that is not a UUID": step(run_id=7, task="agno.tool"),
    "a step with another's id": step(str(uuid.uuid4())),
}  # fmt: skip


def raw(bad: Any) -> bytes:
    return bad if isinstance(bad, bytes) else json.dumps(bad).encode()


@pytest.fixture
def quarantine(database_url: str) -> Quarantined:
    return Quarantined(database_url)


@pytest.fixture(autouse=True)
def _nothing_is_left_over(database_url: str, start_worker: StartWorker) -> Iterator[None]:
    yield
    invariants.hold(database_url)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_bad_message_is_quarantined_and_the_messages_behind_it_are_executed(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined, pool: str
) -> None:
    worker = start_worker(*PLAIN, pool=pool, concurrency=2)
    for name, bad in BAD.items():
        seen = len(quarantine())
        redis_client.lpush("agents", *[raw(bad)] * 3)  # more than the two that are prefetched
        assert echo.delay(name).get(timeout=WAIT_S) == f"<{name}>", name
        assert quarantine.reasons(seen + 3)[seen:] == ["unreadable"] * 3, name
        assert worker.process.poll() is None, name
    assert not [line for line in worker.lines if "Connection to broker lost" in line or "Traceback" in line]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_no_mutation_of_a_real_message_stops_a_worker(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined, pool: str
) -> None:
    echo.delay("hi")
    app.send_task("plain.upper", ["hi"], chain=[app.signature("plain.upper")], priority=0)
    real = [json.loads(item) for item in redis_client.lrange("agents", 0, -1)]
    worker = start_worker(*PLAIN, pool=pool, concurrency=2)
    dice = random.Random(f"20261122 {pool}")
    for number in range(4):
        redis_client.lpush("agents", *[mutated(dice, dice.choice(real)) for _ in range(100)])
        runs = [echo.delay(f"{number}.{each}") for each in range(4)]
        assert [run.get(timeout=WAIT_S) for run in runs] == [f"<{number}.{each}>" for each in range(4)]
        assert worker.process.poll() is None
    assert len(quarantine.reasons(100)) >= 100  # the others were still valid, or copies of the real step
    assert not [line for line in worker.lines if "Connection to broker lost" in line]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_the_deepest_nesting_that_json_allows_stops_no_worker(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, pool: str
) -> None:
    worker = start_worker(*PLAIN, pool=pool, concurrency=1)
    for depth in (20, 190, 210, 600, 900):
        deep = [raw(header("x", nested(depth))), raw(body([[nested(depth)], {}, NOTHING_AFTER]))]
        redis_client.lpush("agents", *deep * 3)
        assert echo.delay(str(depth)).get(timeout=WAIT_S) == f"<{depth}>"
    assert worker.process.poll() is None


def test_a_row_describes_its_message(
    worker: Worker, redis_client: redis.Redis, quarantine: Quarantined
) -> None:
    bad = header("retries", "x") | {"body": encoded([["zero \0 byte"], {}, NOTHING_AFTER])}
    redis_client.lpush("agents", raw(bad), b"hello")
    assert quarantine.reasons(2) == ["unreadable"] * 2
    shaped, shapeless = quarantine()
    assert (shaped["task"], shaped["message_id"], shaped["queue"]) == (
        "plain.same", bad["headers"]["id"], "agents",
    )  # fmt: skip
    assert "retries" in shaped["detail"]
    assert "zero" in shaped["head"]
    assert shaped["bytes"] == len(raw(bad))
    assert (shapeless["head"], shapeless["bytes"], shapeless["queue"]) == ("hello", 5, "agents")
    assert shapeless["task"] is None
    assert shaped["worker"] == shapeless["worker"] != ""
    line = worker.wait_for("is quarantined as unreadable")
    assert bad["headers"]["id"] in line


def test_an_unknown_task_is_kept_and_whoever_waits_is_told(
    worker: Worker, app: AgnoCelery, quarantine: Quarantined
) -> None:
    sent = app.send_task("nobody.knows", chain=[app.signature("plain.same", task_id=str(uuid.uuid4()))])
    with pytest.raises(NotRegistered):
        sent.get(timeout=WAIT_S)
    assert quarantine.reasons(1) == ["unknown_task"]
    assert (quarantine()[0]["task"], quarantine()[0]["message_id"]) == ("nobody.knows", sent.id)


def test_a_message_is_logged_while_postgres_is_down_and_its_row_written_later(
    servers: LocalServers, worker: Worker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined
) -> None:  # fmt: skip
    servers.postgres.kill()
    try:
        redis_client.lpush("agents", *[b"hello"] * 20)
        for _ in range(20):
            worker.wait_for("is quarantined as unreadable")
        assert redis_client.llen("agents") == 0
    finally:
        servers.postgres.start()
    assert quarantine.reasons(20) == ["unreadable"] * 20
    assert echo.delay("after").get(timeout=WAIT_S) == "<after>"


def test_doctor_counts_quarantined_messages(
    worker: Worker, settings: Settings, redis_client: redis.Redis, quarantine: Quarantined
) -> None:
    assert [found.level for found in examine(settings) if found.about == "messages"] == ["ok"]
    redis_client.lpush("agents", b"hello", b"hello")
    quarantine.reasons(2)
    (found,) = [found for found in examine(settings) if found.about == "messages"]
    assert (found.level, "2 unreadable" in found.text) == ("warn", True)


@pytest.mark.parametrize(
    "command", [b"[]", b"{}", b"x", raw(body(7)), raw(body({"method": ["a"]}))], ids=["list", "object", "text", "number", "method"]
)  # fmt: skip
def test_a_bad_remote_control_command_stops_no_worker(
    worker: Worker, app: AgnoCelery, redis_client: redis.Redis, command: bytes
) -> None:
    for _ in range(3):
        invariants.until(lambda: redis_client.publish("/0.celery.pidbox", command))
    assert echo.delay("hi").get(timeout=WAIT_S) == "<hi>"
    assert worker.process.poll() is None
    assert app.control.ping(timeout=5, limit=1)


def mutated(dice: random.Random, real: Message) -> bytes:
    """Return a message with one to three changes at any depth, also inside its body."""
    changed = json.loads(json.dumps(real))
    for _ in range(dice.randint(1, 3)):
        if dice.random() < 0.5 and isinstance(changed.get("body"), str):
            inside = decoded(changed["body"])
            changed["body"] = encoded(_changed(dice, inside)) if inside is not None else dice.choice(_VALUES)
        else:
            changed = _changed(dice, changed)
        if not isinstance(changed, dict):
            break
    text = json.dumps(changed).encode()
    if dice.random() < 0.1:
        at = dice.randrange(len(text))
        text = text[:at] + bytes([dice.randrange(256)]) + text[at + dice.randint(0, 2) :]
    return text


_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**70, 1.5, float("nan"), float("inf"), "", "x", "\0", "\ud800", "x" * 5000, [], [1], {}, {"a": 1},
    [[]], [None], {"task": "x"}, {"__type__": "datetime", "__value__": "x"}, {"__type__": "uuid", "__value__": 1},
    "agno.run", "agno.turn", "plain.upper", "2020-01-01T00:00:00", "9999-12-31T23:59:59",
]  # fmt: skip


def _changed(dice: random.Random, value: Any) -> Any:
    match value:
        case dict() if value and dice.random() < 0.85:
            key = dice.choice(list(value))
            if dice.random() < 0.15:
                return {name: each for name, each in value.items() if name != key}
            return {**value, key: _changed(dice, value[key])}
        case list() if value and dice.random() < 0.85:
            at = dice.randrange(len(value))
            return [*value[:at], _changed(dice, value[at]), *value[at + 1 :]]
        case _:
            return dice.choice(_VALUES)
