"""How messages leave Redis: several in one round trip, as many as there is room for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import kombu
import pytest
import redis

from agno_workers.broker.app import AgnoCelery, create
from agno_workers.broker.queues import lists
from agno_workers.core.step import Queue
from tests.messages import message
from tests.servers import Servers

Receive = Callable[..., list[str]]
"""Waits for one answer of Redis; returns the ids of its messages."""


@contextmanager
def receiving(
    app: AgnoCelery, room: int, handle: Callable[[Any], object] = lambda _: None
) -> Iterator[Receive]:
    taken: list[Any] = []

    def receive(timeout: float = 5.0) -> list[str]:
        taken.clear()
        with suppress(TimeoutError):
            connection.drain_events(timeout=timeout)
        return [each.headers["id"] for each in taken]

    def on_message(each: Any) -> None:
        taken.append(each)
        handle(each)

    queues = [kombu.Queue(name) for name in ("agents", "tools")]
    with (
        app.connection_for_read() as connection,
        kombu.Consumer(connection, queues, on_message=on_message, prefetch_count=room),
    ):
        yield receive


def put(client: redis.Redis, key: str, *ids: str) -> None:
    client.lpush(key, *[json.dumps(message(id=each)) for each in ids])


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_consumer_takes_what_it_has_room_for(app: AgnoCelery, redis_client: redis.Redis) -> None:
    unstarted: list[Any] = []
    put(redis_client, "agents", *ids("a", 10))
    with receiving(app, 4, unstarted.append) as receive:
        assert receive() == ["a0", "a1", "a2", "a3"]
        assert redis_client.llen("agents") == 6
        unstarted[0].ack()
        unstarted[1].ack()
        assert receive() == ["a4", "a5"]
        assert redis_client.llen("agents") == 4


def test_higher_priorities_come_first_and_queues_take_turns(
    app: AgnoCelery, redis_client: redis.Redis
) -> None:
    for queue in ("agents", "tools"):
        highest, *_, lowest = lists(queue)
        put(redis_client, lowest, *ids(f"{queue} low ", 20))
        put(redis_client, highest, f"{queue} high")
    with receiving(app, 64) as receive:
        assert sorted([receive(), receive()]) == [["agents high"], ["tools high"]]
        assert sorted([receive(), receive()]) == [ids("agents low ", 4), ids("tools low ", 4)]


def test_consumers_that_wait_share_the_tools_of_a_turn(app: AgnoCelery, redis_client: redis.Redis) -> None:
    with receiving(app, 16) as one, receiving(app, 16) as other:
        assert one(0.1) == other(0.1) == []  # both wait in Redis now
        put(redis_client, "tools", *ids("t", 10))
        assert [one(), other()] == [ids("t", 4), ["t4", "t5", "t6", "t7"]]


def test_consumer_with_disabled_prefetch_takes_one_message_at_a_time(
    app: AgnoCelery, redis_client: redis.Redis
) -> None:
    def disable_prefetch(taken: Any) -> None:
        taken.channel.qos.can_consume = lambda: True  # as Celery does with `--disable-prefetch`

    put(redis_client, "agents", "a0")
    with receiving(app, 16, disable_prefetch) as receive:
        assert receive() == ["a0"]
        put(redis_client, "agents", *ids("b", 3))
        assert [receive(), receive()] == [["b0"], ["b1"]]


def test_error_with_one_message_does_not_lose_those_behind_it(
    app: AgnoCelery, redis_client: redis.Redis
) -> None:
    seen: list[str] = []

    def handle(taken: Any) -> None:
        seen.append(taken.headers["id"])
        if len(seen) == 2:
            raise redis.ConnectionError("lost")

    put(redis_client, "agents", *ids("a", 4))
    with receiving(app, 64, handle) as receive, pytest.raises(redis.ConnectionError):
        receive()
    assert seen == ids("a", 4)


@pytest.mark.parametrize("prefix", ["", "a"])
def test_server_without_the_command_gives_one_message_at_a_time(
    servers: Servers, redis_client: redis.Redis, prefix: str
) -> None:
    redis_client.execute_command(  # type: ignore[no-untyped-call]  # redis-py has no type here
        "ACL", "SETUSER", "old", "on", ">old", "allkeys", "allchannels", "+@all", "-blmpop"
    )
    url = servers.broker_url.replace("redis+socket://", "redis+socket://old:old@")
    queues: dict[Queue, str] = {
        "agents": "agents",
        "tools": "tools",
        "knowledge": "knowledge",
        "background": "background",
    }
    put(redis_client, f"{prefix}agents", "a0", "a1")
    with receiving(create(url, queues=queues, broker_timeout_s=5, key_prefix=prefix), 4) as receive:
        assert [receive(), receive()] == [["a0"], ["a1"]]
