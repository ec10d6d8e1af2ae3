"""A database for all tests of journal and engine, emptied before each: creating one would cost more than most tests do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from agno_workers.embedded import EmbeddedServers
from agno_workers.storage.pool import Pool
from tests.integration.storage.world import World


@pytest.fixture(scope="session")
def world_url(servers: EmbeddedServers, template: str) -> Iterator[str]:
    name = f"world_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
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
