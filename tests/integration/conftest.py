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
from tests.database import RunDatabase


@pytest.fixture(scope="session")
def db_url(servers: LocalServers, template: str) -> Iterator[str]:
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
def db_pool(db_url: str) -> Iterator[Pool]:
    pool = Pool(db_url, size=4, timeout_s=10, statement_timeout_s=30)
    yield pool
    pool.close()


@pytest.fixture
def db(db_pool: Pool) -> RunDatabase:
    """An empty migrated database, and its journal."""
    db = RunDatabase(db_pool)
    db.empty()
    return db
