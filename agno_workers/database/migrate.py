"""Bring a database to the newest schema."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from agno_workers.database.schema import SCHEMA
from agno_workers.errors import Unavailable

_LOCK = 0x61676E6F  # "agno": one migration at a time, whoever starts it


def upgrade(database_url: str, timeout_s: float = 10.0) -> tuple[str | None, str]:
    """Run what is missing, and return the revisions before and after. Safe to run twice and from several machines.

    Raises Unavailable where Postgres can't be reached.
    """
    with _connect(database_url, timeout_s) as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        try:
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.commit()
            before = _revision(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            return before, newest()
        finally:
            connection.rollback()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})


def current(database_url: str, timeout_s: float = 10.0) -> str | None:
    """The revision of a database, None for one that was never migrated."""
    with _connect(database_url, timeout_s) as connection:
        return _revision(connection)


def newest() -> str:
    """The revision that this code wants."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(
        connection, opts={"version_table_schema": SCHEMA}
    ).get_current_revision()


def _connect(database_url: str, timeout_s: float) -> sa.Connection:
    url = sa.engine.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": max(2, round(timeout_s))}
    )
    try:
        return engine.connect()
    except sa.exc.OperationalError as error:
        raise Unavailable(
            f"Postgres can't be reached: {str(error.orig).strip()}. Is AGNO_DATABASE_URL right?"
        ) from error
