"""The servers of `up` and `demo`: those of the settings, or local ones that stop with us."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from agno_workers import local
from agno_workers import settings as settings_module
from agno_workers.broker.checks import redis_problems
from agno_workers.cli import connection
from agno_workers.database import migrate
from agno_workers.database.connect import shown
from agno_workers.errors import SettingsError
from agno_workers.settings import Settings


@dataclass(frozen=True)
class Servers:
    """Postgres and Redis; both answer."""

    database_url: str
    broker_url: str
    client: redis.Redis
    state_dir: Path | None
    """The folder of local servers; None for those of the settings."""
    direct_url: str = ""
    """The address without a pooler, if it differs."""
    revive: Callable[[], None] = lambda: None
    """Restart a local server that has died. Raises EmbeddedError."""
    shared: bool = False
    """Another process, such as `up`, runs these local servers."""

    @property
    def environment(self) -> dict[str, str]:
        """The settings by which a process finds them."""
        return {"AGNO_DATABASE_URL": self.database_url, "AGNO_BROKER_URL": self.broker_url}

    def described(self) -> dict[str, str]:
        """Return the addresses without passwords."""
        where = {
            "Postgres": shown(self.database_url),
            "Redis": connection.without_password(self.broker_url),
        }
        return {**where, "data": str(self.state_dir)} if self.state_dir else where


@contextmanager
def running(settings: Settings, *, share: bool = False) -> Iterator[Servers]:
    """Yield the servers; `share`: local ones that another process runs, if it does.

    Raises EmbeddedError, SettingsError or Unavailable within a few seconds.
    """
    if connection.are_given(settings):
        yield _given(settings)
        return
    if share and (found := local.running()):
        with redis.Redis.from_url(found.redis_url) as client:
            yield Servers(
                found.database_url, found.broker_url, client, local.default_state_dir(), shared=True
            )
        return
    folder = local.default_state_dir()
    with local.servers(folder) as started, redis.Redis.from_url(started.redis_url) as client:
        yield Servers(started.database_url, started.broker_url, client, folder, revive=started.start)


def _given(settings: Settings) -> Servers:
    client = connection.redis_client(settings)
    return Servers(
        connection.database_url(settings),
        settings.broker.url.get_secret_value(),
        client,
        None,
        connection.direct_url(settings),
    )


def prepare(servers: Servers) -> None:
    """Migrate, and point this process and its children at these servers.

    Raises SettingsError for a Redis that may lose messages.
    """
    if problems := redis_problems(servers.client):
        raise SettingsError(problems[0])
    upgrade(servers.direct_url or servers.database_url)
    os.environ.update(servers.environment)
    if servers.state_dir:
        os.environ.update(_everything())


def _everything() -> dict[str, str]:
    """Allow sources all that this user can read: only this user reaches local servers. The lists of the settings come first."""
    settings = settings_module.load().knowledge
    lists = {"source_roots": "/", "source_variables": "*", "source_databases": "*", "source_objects": "*"}
    return {
        settings_module.variable(f"knowledge.{name}"): everything
        for name, everything in lists.items()
        if not getattr(settings, name)
    }


def upgrade(url: str) -> tuple[str | None, str]:
    """Return the revisions before and after. Raises Unavailable, also when Postgres refuses a change."""
    return migrate.upgrade(url, timeout_s=connection.PATIENCE_S)
