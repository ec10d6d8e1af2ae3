"""How a Celery queue lies in Redis: a list for each priority, which kombu names."""

from __future__ import annotations

import redis

PRIORITY_STEPS = (0, 3, 6, 9)
"""The priorities that are told apart, 0 the highest; kombu's default, spelt out because we count by it."""
_SEPARATOR = "\x06\x16"  # kombu.transport.redis.Channel.sep


def length(client: redis.Redis, queue: str) -> int:
    """Messages that wait in a queue, in all its priorities."""
    with client.pipeline(transaction=False) as pipe:
        for step in PRIORITY_STEPS:
            pipe.llen(f"{queue}{_SEPARATOR}{step}" if step else queue)
        return sum(pipe.execute())
