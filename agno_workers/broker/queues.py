"""The broker's Redis as redis-py sees it: its address, and a Celery queue, which is one list for each priority."""

from __future__ import annotations

from functools import cache
from typing import Any

import redis
from redis.connection import AbstractConnection

EPOCH_KEY = "agno:epoch"
"""The value that the keeper compares with Postgres, to notice that Redis lost data."""
DEPLOYMENT_KEY = "agno:deployment"
"""The deployment that owns these queues: the id in its Postgres, and the name of its database. It is written once."""
PRIORITY_STEPS = (0, 3, 6, 9)
"""The priorities, highest first: kombu's default, written out because `lists` depends on it."""
_SEPARATOR = "\x06\x16"  # kombu.transport.redis.Channel.sep


def redis_url(broker_url: str) -> str:
    """Return kombu's address of a broker in the form of redis-py, which names a Unix socket differently."""
    return broker_url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")


def open_client(url: str, *, timeout_s: float) -> redis.Redis:
    """Return a client of the Redis at kombu's address `url`. Raises ValueError for a wrong one."""
    made: redis.Redis = redis.Redis.from_url(
        redis_url(url), socket_timeout=timeout_s, socket_connect_timeout=timeout_s, health_check_interval=30
    )
    made.connection_pool.connection_class = leaving_replicas(made.connection_pool.connection_class)
    return made


@cache
def leaving_replicas(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    """Return a class of connections that are opened again, at the same address, when their server has become a replica.

    A failover may leave connections to the old master open: each write on them would be refused for ever.
    """

    class Connection(connection_class):  # type: ignore[misc, valid-type]  # the class is an argument
        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().read_response(*args, **kwargs)
            except redis.ReadOnlyError:
                self.mark_for_reconnect()
                raise

    return Connection


def lists(queue: str, prefix: str = "") -> list[str]:
    """Return the keys of a queue's lists, the highest priority first."""
    return [f"{prefix}{queue}{_SEPARATOR}{step}" if step else f"{prefix}{queue}" for step in PRIORITY_STEPS]


def length(client: redis.Redis, queue: str, prefix: str = "") -> int:
    """Return the number of messages in a queue, in all its priorities."""
    with client.pipeline(transaction=False) as pipe:
        for key in lists(queue, prefix):
            pipe.llen(key)
        return sum(pipe.execute())
