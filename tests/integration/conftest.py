"""A database for all tests of journal and engine, emptied before each: creating one would cost more than most tests do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from agno_workers.database.pool import Pool
from agno_workers.local import LocalServers
from tests.integration.storage.world import World


@pytest.fixture(scope="session")
def world_url(servers: LocalServers, template: str) -> Iterator[str]:
    plain = f"world_{uuid.uuid4().hex[:12]}"
    name = sql.Identifier(plain)
    _execute(servers, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)))
    yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{plain}"))
    _execute(servers, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _execute(servers: LocalServers, statement: sql.Composed) -> None:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(statement)


# For one module: the crash tests of another may have killed the server in between.
@pytest.fixture(scope="module")
def world_pool(world_url: str) -> Iterator[Pool]:
    pool = Pool(world_url, size=4, timeout_s=10, statement_timeout_s=30)
    yield pool
    pool.close()


@pytest.fixture
def world(world_pool: Pool) -> World:
    """An empty migrated database, and its journal."""
    world = World(world_pool)
    world.empty()
    return world
