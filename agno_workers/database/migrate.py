"""Upgrade a database to the newest schema: the tables with Alembic, then the functions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from agno_workers.database import functions
from agno_workers.database.connect import connect
from agno_workers.database.migrations import NEWEST
from agno_workers.database.tables import SCHEMA
from agno_workers.errors import SettingsError

_LOCK = 0x61676E6F  # "agno": one upgrade at a time, from any machine


def upgrade(database_url: str, timeout_s: float = 10.0) -> tuple[str | None, str]:
    """Execute missing migrations and changed functions; return the revisions before and after. Safe to repeat, also from several
    machines at once.

    The address leads to Postgres itself, not to a pooler: the lock needs a session of its own. Raises Unavailable when Postgres
    cannot be reached, SettingsError for a database that is newer than this code, or has an encoding other than UTF8.
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
    """SQLAlchemy reads fewer forms of addresses than libpq, so it gets a connection."""
    opened = partial(
        connect,
        database_url,
        timeout_s=timeout_s,
        statement_timeout_s=0,
        is_direct=True,
        name="agno-workers-upgrade",
    )
    return sa.create_engine("postgresql+psycopg://", poolclass=sa.pool.NullPool, creator=opened).connect()
