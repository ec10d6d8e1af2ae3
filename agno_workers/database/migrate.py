"""Upgrade a database to the newest schema: the tables with Alembic, then the functions."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from agno_workers.database import functions
from agno_workers.database.migrations import NEWEST
from agno_workers.database.tables import SCHEMA
from agno_workers.errors import SettingsError

_LOCK = 0x61676E6F  # "agno": one upgrade at a time, from any machine


def upgrade(database_url: str, timeout_s: float = 10.0) -> tuple[str | None, str]:
    """Execute missing migrations and changed functions; return the revisions before and after. Safe to repeat, also from several
    machines at once.

    Raises Unavailable when Postgres cannot be reached, SettingsError for a database that is newer than this code.
    """
    with _connect(database_url, timeout_s) as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        try:
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.commit()
            before = functions.read(raw).revision
            if before is not None and before > NEWEST:
                raise SettingsError(
                    f"the database is at revision {before}, which is newer than this code ({NEWEST}): use newer code, or a new "
                    "database if an unreleased version made this one."
                )
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            functions.apply(raw)
            raw.commit()
            return before, NEWEST
        finally:
            raw.rollback()
            connection.rollback()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _connect(database_url: str, timeout_s: float) -> sa.Connection:
    url = sa.engine.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": max(2, round(timeout_s))}
    )
    try:
        return engine.connect()
    except sa.exc.OperationalError as error:
        raise functions.unreachable(error.orig) from error
