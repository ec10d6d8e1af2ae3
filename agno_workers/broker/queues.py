"""The broker's Redis as redis-py sees it: its address, and a Celery queue, which is one list for each priority."""

from __future__ import annotations

import redis

PRIORITY_STEPS = (0, 3, 6, 9)
"""The priorities, highest first: kombu's default, written out because `length` depends on it."""
_SEPARATOR = "\x06\x16"  # kombu.transport.redis.Channel.sep


def redis_url(broker_url: str) -> str:
    """Return kombu's address of a broker in the form of redis-py, which names a Unix socket differently."""
    return broker_url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")


def length(client: redis.Redis, queue: str) -> int:
    """Return the number of messages in a queue, in all its priorities."""
    with client.pipeline(transaction=False) as pipe:
        for step in PRIORITY_STEPS:
            pipe.llen(f"{queue}{_SEPARATOR}{step}" if step else queue)
        return sum(pipe.execute())
