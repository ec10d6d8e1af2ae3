"""Where the commands find Postgres and Redis, and how they say in a few seconds that they don't.

The addresses are those of the settings. Where there are none, they are those of the embedded servers of the state
folder, if these run: so a second shell beside `up` needs no exports.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from agno_workers import settings as settings_module
from agno_workers.errors import SettingsError, Unavailable
from agno_workers.local import Postgres, Valkey, default_state_dir
from agno_workers.repositories import Database
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.queries import RunQueries
from agno_workers.sdk.client import Client
from agno_workers.settings import Settings

PATIENCE_S = 3
"""A command that a person waits for gives up on a server sooner than a worker does."""


def settings() -> Settings:
    """The settings, with the addresses that the commands use. Raises SettingsError."""
    given = settings_module.load()
    if not _is_half_given(given) and not given.database_url.get_secret_value() and _embedded_run():
        return given.model_copy(update=_embedded_addresses())
    return given


def are_given(given: Settings) -> bool:
    """Whether the settings name servers, so that none are started. Raises SettingsError when they name one of two."""
    return not _is_half_given(given) and bool(given.database_url.get_secret_value())


def database_url(given: Settings, *, migrated: bool = False) -> str:
    """Raises SettingsError without an address, or, asked for `migrated`, without our tables; Unavailable when nobody answers."""
    url = required(given, "database_url")
    try:
        with psycopg.connect(url, connect_timeout=PATIENCE_S) as connection:
            has_tables = connection.execute("SELECT to_regclass('agno.run') IS NOT NULL").fetchone() == (
                True,
            )
    except psycopg.ProgrammingError:
        raise SettingsError(
            "AGNO_DATABASE_URL is not an address of Postgres: write postgresql://USER:PASSWORD@HOST:5432/DATABASE."
        ) from None
    except psycopg.OperationalError as error:
        said = without_secrets(str(error), url).rstrip(" .?")
        raise Unavailable(
            f"Postgres can't be reached: {said}. Is it up, and is AGNO_DATABASE_URL right?"
        ) from error
    if migrated and not has_tables:
        raise SettingsError("this database has none of our tables: run `agno-workers db upgrade`.")
    return url


def redis_client(given: Settings) -> redis.Redis:
    """A client that has been answered. Raises as `database_url`."""
    client = _redis(required(given, "broker_url"))
    reach_redis(client)
    return client


def reach_redis(client: redis.Redis) -> None:
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise Unavailable(
            f"Redis can't be reached: {str(error).rstrip(' .')}. Is it up, and is AGNO_BROKER_URL right?"
        ) from error


@contextmanager
def look(given: Settings | None = None) -> Iterator[RunQueries]:
    """The rows, for reading."""
    with database(given) as opened:
        yield opened.queries


@contextmanager
def database(given: Settings | None = None) -> Iterator[Database]:
    """Postgres, with our tables in it. Raises as `database_url`."""
    given = given or settings()
    url = database_url(given, migrated=True)
    numbers = RunNumbers(
        publish_after_s=0.0, turn_attempts=given.turn_attempts, inline_max_bytes=given.inline_max_bytes
    )
    with Database(
        url, size=1, timeout_s=PATIENCE_S, name="agno-workers-cli", numbers=numbers, knowledge_queue=given.knowledge_queue
    ) as opened:  # fmt: skip
        yield opened


@contextmanager
def client(given: Settings, *, live: bool = False) -> Iterator[Client]:
    """For submitting, waiting and cancelling; `live`: with Redis, for pieces of text as they are written."""
    redis_url = _as_redis_url(required(given, "broker_url")) if live else None
    with Client(database_url(given, migrated=True), redis_url, timeout_s=PATIENCE_S, pool_size=2) as opened:
        yield opened


def import_from_here() -> None:
    """Modules of AGNO_IMPORTS may lie in the working folder, as they may for `celery -A`."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def without_password(url: str) -> str:
    """The address as people may see it."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


def without_secrets(text: str, url: str) -> str:
    """One line of an error, without the password of the address that it is about."""
    try:
        password = urlsplit(url).password
    except ValueError:
        password = None
    line = " ".join(text.split())
    return line.replace(password, "***") if password else line


def _redis(broker_url: str) -> redis.Redis:
    try:
        opened: redis.Redis = redis.Redis.from_url(
            _as_redis_url(broker_url),
            socket_timeout=PATIENCE_S,
            socket_connect_timeout=PATIENCE_S,
            retry=Retry(NoBackoff(), 0),  # its own default would try for 20 s
        )
    except ValueError:
        raise SettingsError(
            "AGNO_BROKER_URL is not an address of Redis: write redis://:PASSWORD@HOST:6379/0."
        ) from None
    return opened


def _as_redis_url(broker_url: str) -> str:
    """kombu and redis-py name a unix socket differently."""
    return broker_url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")


def required(given: Settings, key: str) -> str:
    url: str = getattr(given, key).get_secret_value()
    if not url:
        raise SettingsError(
            f"AGNO_{key.upper()} is not set, and no embedded servers run for {str(default_state_dir())!r}: "
            "set it, or start everything here with `agno-workers up`."
        )
    return url


def _is_half_given(given: Settings) -> bool:
    database, broker = given.database_url.get_secret_value(), given.broker_url.get_secret_value()
    if bool(database) != bool(broker):
        present, missing = (
            ("AGNO_DATABASE_URL", "AGNO_BROKER_URL") if database else ("AGNO_BROKER_URL", "AGNO_DATABASE_URL")
        )
        raise SettingsError(
            f"{present} is set and {missing} is not: set both, or neither to use embedded servers."
        )
    return False


def _embedded_run() -> bool:
    return Path(urlsplit(Valkey(default_state_dir()).redis_url).path).exists()


def _embedded_addresses() -> dict[str, SecretStr]:
    folder = default_state_dir()
    return {
        "database_url": SecretStr(Postgres(folder).database_url),
        "broker_url": SecretStr(Valkey(folder).broker_url),
    }
