"""What Redis must be like before work is entrusted to it. Asked with INFO, which hosted Redis allows as well."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis

from agno_workers.errors import Unavailable


def redis_problems(client: redis.Redis) -> list[str]:
    """Why a worker must not start on this Redis, a sentence each; empty when it may.

    Raises Unavailable when Redis does not answer.
    """
    policy = _info(client, "memory").get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    danger = f"Redis runs with maxmemory-policy {policy!r} and may throw queues away when its memory is full"
    return [f"{danger}: set `maxmemory-policy noeviction`, in redis.conf or by CONFIG SET."]


def redis_warnings(client: redis.Redis) -> list[str]:
    """What works, but not as well as it could; as `redis_problems`."""
    if _info(client, "persistence").get("aof_enabled"):
        return []
    cost = "Redis keeps no append-only file, so its restart forgets the queues and all waiting steps are sent again"
    return [f"{cost}: set `appendonly yes`."]


def unsigned_warnings(broker_url: str, *, signed: bool) -> list[str]:
    """What is to be said of who may write to Redis."""
    address = urlsplit(broker_url)
    local = "socket" in address.scheme or address.hostname in ("localhost", "127.0.0.1", "::1")
    if signed or local:
        return []
    danger = "Redis is on another machine, and whoever can write to it can have tasks carried out"
    return [f"{danger}: set AGNO_SIGNING_KEY, the same for all."]


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.info(section)
    except (redis.RedisError, OSError) as error:
        raise Unavailable(
            f"Redis can't be reached: {str(error).rstrip(' .')}. Is it up, and is AGNO_BROKER_URL right?"
        ) from error
    return found
