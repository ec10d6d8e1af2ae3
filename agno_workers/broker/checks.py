"""Checks of the Redis configuration. They use INFO, which hosted Redis allows too."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis

from agno_workers.errors import Unavailable


def redis_problems(client: redis.Redis) -> list[str]:
    """Return why a worker must not start on this Redis, a sentence each. Raises Unavailable when Redis does not answer."""
    policy = _info(client, "memory").get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    danger = f"Redis runs with maxmemory-policy {policy!r} and may evict queues when its memory is full"
    return [f"{danger}: set `maxmemory-policy noeviction` in redis.conf or with CONFIG SET."]


def redis_warnings(client: redis.Redis) -> list[str]:
    """Return what works but could be better, a sentence each. Raises Unavailable when Redis does not answer."""
    if _info(client, "persistence").get("aof_enabled"):
        return []
    cost = "Redis has no append-only file, so a restart loses the queues and all waiting steps are sent again"
    return [f"{cost}: set `appendonly yes`."]


def unsigned_warnings(broker_url: str, *, signed: bool) -> list[str]:
    """Return the risk of unsigned messages in a remote Redis, if it exists."""
    address = urlsplit(broker_url)
    local = "socket" in address.scheme or address.hostname in ("localhost", "127.0.0.1", "::1")
    if signed or local:
        return []
    danger = "Redis is on another machine, and anyone who can write to it can have tasks executed"
    return [f"{danger}: set the same AGNO_SIGNING__KEYS for all processes."]


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.info(section)
    except (redis.RedisError, OSError) as error:
        raise Unavailable(
            f"Redis can't be reached: {str(error).rstrip(' .')}. Is it up, and is AGNO_BROKER_URL right?"
        ) from error
    return found
