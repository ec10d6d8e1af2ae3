"""Checks of Redis: its configuration, by INFO, which hosted Redis allows too; and whether it accepts what a worker sends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis

from agno_workers.broker.names import CANARY
from agno_workers.broker.queues import DEPLOYMENT_KEY, EPOCH_KEY, lists
from agno_workers.errors import Unavailable
from agno_workers.runs.maintain import Deployment

_NEARLY_FULL = 0.8


def redis_problems(client: redis.Redis) -> list[str]:
    """Return why a worker must not start on this Redis, a sentence each. Raises Unavailable when Redis does not answer."""
    policy = _info(client, "memory").get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    danger = f"Redis runs with maxmemory-policy {policy!r} and may evict queues when its memory is full"
    return [f"{danger}: set `maxmemory-policy noeviction` in redis.conf or with CONFIG SET."]


def owner_problem(
    client: redis.Redis, prefix: str, deployment: Deployment, *, claim: bool = True
) -> str | None:
    """Return why these queues belong to another deployment, or None. `claim` them if they belong to none. Raises redis.RedisError.

    Two deployments on the same queues would take each other's messages, and drop them: their ids are unknown.
    """
    key = f"{prefix}{DEPLOYMENT_KEY}"
    if claim:
        client.set(key, f"{deployment.id} {deployment.database}", nx=True)
    value = client.get(key)
    owner, _, database = (
        value.decode(errors="replace").partition(" ") if isinstance(value, bytes) else ("", "", "")
    )
    if owner in ("", deployment.id):
        return None
    return (
        f"these queues in Redis belong to another deployment, that of the Postgres database {database!r}: give this one "
        "another database of Redis, or a prefix of its own (AGNO_BROKER__KEY_PREFIX, in all its processes). If the other one is gone, or "
        f"its database was made again, delete the key {key!r} in Redis."
    )


def redis_refusal(
    client: redis.Redis, queues: Collection[str], *, remote_control: bool, prefix: str = ""
) -> str | None:
    """Return why Redis refuses what a worker of these queues sends, or None. Raises Unavailable when it does not answer.

    It changes nothing: Redis checks its own state and the user's permissions when a command is queued in a transaction, and
    this one is discarded.
    """
    commands: list[tuple[str | int, ...]] = [("SET", f"{prefix}{EPOCH_KEY}", "")]
    for queue in (*queues, CANARY):
        key = f"{prefix}{queue}"
        commands += [("SADD", f"{prefix}_kombu.binding.{queue}", ""), ("LPUSH", key, ""), ("BRPOP", key, 1)]
    if remote_control:
        database = client.connection_pool.connection_kwargs.get("db", 0)
        channel = f"{prefix}/{database}.celery.pidbox"
        commands += [("PUBLISH", channel, ""), ("PSUBSCRIBE", channel)]
    try:
        with client.client() as session:  # type: ignore[no-untyped-call]  # redis-py has no type here
            for key in (key for queue in queues for key in lists(queue, prefix)):
                if (kind := session.type(key)) not in (b"none", b"list"):
                    return f"Redis can't serve the queue {key!r}, which is a {kind.decode()} there: rename or delete that key."
            session.execute_command("MULTI")
            try:
                for command in commands:
                    session.execute_command(*command)
            except redis.ResponseError as error:
                return f"Redis refuses {command[0]} {command[1]}: {_reply(error)}."
            finally:
                with suppress(redis.RedisError):  # the connection may have been replaced after READONLY
                    session.execute_command("DISCARD")
    except redis.ResponseError as error:
        return f"Redis refuses commands: {_reply(error)}."
    except (redis.RedisError, OSError) as error:
        raise unavailable(error) from error
    return None


def redis_warnings(client: redis.Redis) -> list[str]:
    """Return what works but could be better, a sentence each. Raises Unavailable when Redis does not answer."""
    if _info(client, "persistence").get("aof_enabled"):
        return []
    cost = "Redis has no append-only file, so a restart loses the queues and all waiting steps are sent again"
    return [f"{cost}: set `appendonly yes`."]


def redis_space(client: redis.Redis) -> tuple[list[str], list[str]]:
    """Return `space` of this Redis. Raises Unavailable when it does not answer."""
    return space(_info(client, "memory") | _info(client, "persistence"))


def space(info: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return why Redis refuses messages, and why it soon will, by its own report: its memory, and its last write to the disk."""
    problems, warnings = [], []
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    share = f"Redis uses {_megabytes(used)} of its maxmemory, {_megabytes(most)}"
    if most and used >= most:
        problems.append(f"{share}, and refuses messages until it has space; they are kept: raise maxmemory.")
    elif most and used >= _NEARLY_FULL * most:
        warnings.append(f"{share}; when it is full, it refuses messages: raise maxmemory.")
    failed = [
        name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name, "ok") != "ok"
    ]
    if failed:
        problems.append(
            f"Redis could not write to its disk ({', '.join(failed)}) and may refuse messages; they are kept: see its log, and free space."
        )
    return problems, warnings


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"


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
    except redis.ResponseError as error:
        raise Unavailable(f"Redis refuses INFO: {_reply(error)}.") from error
    except (redis.RedisError, OSError) as error:
        raise unavailable(error) from error
    return found


def unavailable(error: Exception) -> Unavailable:
    """Return the error for a Redis that doesn't answer, or refuses the user or the password."""
    text = str(error).rstrip(" .")
    if isinstance(error, redis.AuthenticationError):
        return Unavailable(f"Redis refuses the user or the password: {text}. Correct AGNO_BROKER_URL.")
    return Unavailable(f"Redis can't be reached: {text}. Start it, or correct AGNO_BROKER_URL.")


def _reply(error: redis.RedisError) -> str:
    """Return an error reply as Redis sent it; redis-py takes the code off those that it has a class for."""
    return f"{error.status_code or ''} {error}".strip(" .")
