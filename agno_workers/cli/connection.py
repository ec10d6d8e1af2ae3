"""Connect the commands to Postgres and Redis, or report within a few seconds that they are unavailable.

The addresses come from the settings. If these have none, they are those of the local servers of the state folder, if these
run: a second shell beside `up` needs no exports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from agno_workers import settings as settings_module
from agno_workers.broker.checks import unavailable
from agno_workers.broker.queues import redis_url
from agno_workers.database.checks import problems
from agno_workers.database.connect import POOLED, connect
from agno_workers.discovery import load_settings
from agno_workers.errors import SettingsError, UnusableDatabase
from agno_workers.local import default_state_dir
from agno_workers.registry import Registry, import_from_here
from agno_workers.repositories import Database
from agno_workers.runs.base import RunNumbers
from agno_workers.sdk.client import Client
from agno_workers.settings import Settings

PATIENCE_S = 3
"""A person waits for a command: it gives up sooner than a worker does."""


def settings() -> Settings:
    """Return the settings, with the addresses of running local servers if they have none. Raises SettingsError."""
    return load_settings()


def are_given(given: Settings) -> bool:
    """Return True if the settings name servers. Raises SettingsError if they name one of two."""
    present = [name for name, url in _urls(given).items() if url]
    missing = [name for name, url in _urls(given).items() if not url]
    if present and missing:
        raise SettingsError(
            f"{present[0]} is set and {missing[0]} is not: set both, or neither to use local servers."
        )
    return not missing


def _urls(given: Settings) -> dict[str, str]:
    return {
        "AGNO_DATABASE_URL": given.database.url.get_secret_value(),
        "AGNO_BROKER_URL": given.broker.url.get_secret_value(),
    }


def database_url(given: Settings, *, migrated: bool = False) -> str:
    """Return the address of a Postgres that answers. Raises SettingsError without an address, Unavailable without an answer.

    migrated: also raise UnusableDatabase when this code can't read and write its tables.
    """
    url = required(given, "database")
    with connect(url, timeout_s=PATIENCE_S) as connection:
        for problem in problems(connection) if migrated else ():
            if problem.about in ("schema", "rights"):  # commands read a standby, and a copy
                raise UnusableDatabase(problem.sentence)
    return url


def direct_url(given: Settings) -> str:
    """Return the address of a session of its own, for an upgrade. Raises as `database_url`, and SettingsError for a pooler's."""
    if url := given.database.direct_url.get_secret_value():
        return url
    url = required(given, "database")
    with connect(url, timeout_s=PATIENCE_S) as connection:
        if connection.is_pooled:
            raise SettingsError(POOLED)
    return url


def redis_client(given: Settings) -> redis.Redis:
    """Return a client of a Redis that answers. Raises as `database_url`."""
    client = _redis(required(given, "broker"))
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        raise unavailable(error) from error
    return client


@contextmanager
def database(given: Settings | None = None) -> Iterator[Database]:
    """Open a Postgres that has our tables. Raises as `database_url`."""
    given = given or settings()
    url = database_url(given, migrated=True)
    numbers = RunNumbers(
        publish_after_s=0.0,
        turn_attempts=given.runs.turn_attempts,
        inline_max_bytes=given.runs.inline_max_bytes,
    )
    with Database(
        url, size=1, timeout_s=PATIENCE_S, name="agno-workers-cli", numbers=numbers, knowledge_queue=given.queues.knowledge,
        direct_url=given.database.direct_url.get_secret_value(),
    ) as opened:  # fmt: skip
        yield opened


@contextmanager
def client(given: Settings | None = None, *, live: bool = False) -> Iterator[Client]:
    """Open a client; `live`: with Redis, for text as it is streamed. Raises as `database_url`."""
    given = given or settings()
    client_url = redis_url(required(given, "broker")) if live else None
    with Client(
        database_url(given, migrated=True), client_url, timeout_s=PATIENCE_S, pool_size=2, key_prefix=given.broker.key_prefix,
        direct_url=given.database.direct_url.get_secret_value(),
    ) as opened:  # fmt: skip
        yield opened


def registry(given: Settings) -> Registry:
    """Import the modules of AGNO_IMPORTS, also those of the working folder. Raises SettingsError."""
    import_from_here()
    return Registry.importing(*given.imports)


def without_password(url: str) -> str:
    """Return the address without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


def without_secrets(text: str, url: str) -> str:
    """Return an error on one line, without the password of the address."""
    try:
        password = urlsplit(url).password
    except ValueError:
        password = None
    line = " ".join(text.split())
    return line.replace(password, "***") if password else line


def _redis(broker_url: str) -> redis.Redis:
    try:
        opened: redis.Redis = redis.Redis.from_url(
            redis_url(broker_url),
            socket_timeout=PATIENCE_S,
            socket_connect_timeout=PATIENCE_S,
            retry=Retry(NoBackoff(), 0),  # the default tries for 20 s
        )
    except ValueError:
        raise SettingsError(
            "AGNO_BROKER_URL is not an address of Redis: write redis://:PASSWORD@HOST:6379/0."
        ) from None
    return opened


def required(given: Settings, section: Literal["database", "broker"]) -> str:
    """Return the address of a section. Raises SettingsError where it is not set."""
    url: str = getattr(given, section).url.get_secret_value()
    if url:
        return url
    missing = f"{settings_module.variable(f'{section}.url')} is not set"
    if any(_urls(given).values()):
        raise SettingsError(f"{missing}, and this command needs it: set it.")
    if not given.local_servers:
        raise SettingsError(f"{missing}: set it.")
    raise SettingsError(
        f"{missing}, and no local servers run in {str(default_state_dir())!r}: set it, or start everything here with `agno-workers up`."
    )
