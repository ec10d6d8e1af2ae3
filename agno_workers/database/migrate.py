"""Upgrade a database to the newest schema: the tables with Alembic, then the functions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from agno_workers.database import functions
from agno_workers.database.checks import PGVECTOR
from agno_workers.database.connect import READ_ONLY_MOVE, connect
from agno_workers.database.migrations import NEWEST, REVISIONS, statements_of
from agno_workers.database.pool import LOCKED
from agno_workers.database.tables import SCHEMA
from agno_workers.errors import AgnoError, Unavailable, UnusableDatabase

_HAS_SCHEMA = sa.text(f"SELECT to_regnamespace('{SCHEMA}')")
_VERSION_TABLE = (
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY "
    "(version_num));"
)
_LOCK = 0x61676E6F  # "agno": one upgrade at a time, from any machine
_LOCK_WAIT_S, _PAUSE_S, _PATIENCE_S = 3, 2.0, 300.0
"""The time to wait for locks in one try, the time between two tries, and the time for all tries."""


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
            if (
                connection.execute(_HAS_SCHEMA).scalar() is None
            ):  # IF NOT EXISTS would need the right to create it
                connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.commit()
            before = functions.read(raw).revision
            _check(before)
            config = _config()
            config.attributes["connection"] = connection
            retrying = Retrying(
                retry=retry_if_exception(_is_locked),
                wait=wait_fixed(_PAUSE_S),
                stop=stop_after_delay(_PATIENCE_S),
                reraise=True,
            )
            retrying(_change, connection, raw, config)
            return before, NEWEST
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            raise _refused(getattr(error, "orig", error), raw.info.user, raw.info.dbname) from error
        finally:
            raw.rollback()
            connection.rollback()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})


def _change(connection: sa.Connection, raw: psycopg.Connection[Any], config: Config) -> None:
    """Change tables and functions in one transaction, so that workers never see one without the other.

    Workers wait behind this transaction, also while it waits for a lock itself, so it does that for a short time only.
    """
    with connection.begin():
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'"))
        command.upgrade(config, "head")
        functions.apply(raw)


def script(found: functions.State) -> str:
    """Return what `upgrade` would execute on a database in this state, as one transaction for psql. Raises as `upgrade` does."""
    before = found.revision
    _check(before)
    parts = [
        "BEGIN;",
        "SET LOCAL client_min_messages = warning; -- no notices of what need not be dropped",
        f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'; -- workers wait behind this transaction: if it fails, execute it again",
    ]
    if before is None:
        parts += [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};", _VERSION_TABLE]
    missing = [revision for revision in REVISIONS if before is None or revision > before]
    for revision in missing:
        parts += [f"-- {revision}", statements_of(f"{revision}_tables.sql")]
    if missing:
        parts += [
            f"DELETE FROM {SCHEMA}.alembic_version;",  # noqa: S608 - our own text
            f"INSERT INTO {SCHEMA}.alembic_version VALUES ('{NEWEST}');",  # noqa: S608 - our own text
        ]
    if functions.is_missing(found):
        parts.append(functions.script())
    return "\n\n".join([*parts, "COMMIT;\n"])


def _check(before: str | None) -> None:
    """Raises UnusableDatabase for a revision that this code can't upgrade."""
    if before is not None and before > NEWEST:
        raise UnusableDatabase(
            f"the database is at revision {before}, which is newer than this code ({NEWEST}): use newer code, or a new "
            "database if an unreleased version made this one."
        )
    if before is not None and before not in REVISIONS:
        raise UnusableDatabase(
            f"the database is at revision {before}, which an unreleased version made: use a new database."
        )


def _is_locked(error: BaseException) -> bool:
    return isinstance(getattr(error, "orig", error), LOCKED)


def _refused(error: Any, role: str, database: str) -> AgnoError:
    """Return the error for a change that Postgres refused."""
    said = " ".join(str(error).split()).rstrip(".")
    match error:
        case psycopg.errors.InsufficientPrivilege() if "extension" in said:
            move = f"run `CREATE EXTENSION vector` in the database {database!r} as an administrator, and upgrade again"
        case psycopg.errors.InsufficientPrivilege() if "for database" in said:
            move = f"run `GRANT CREATE ON DATABASE {database} TO {role}` as an administrator, or upgrade as the owner of the database"
        case psycopg.errors.InsufficientPrivilege():
            move = f"upgrade as the owner of the schema {SCHEMA}, not as {role!r}, or give what `agno-workers db upgrade --sql` prints to its owner"
        case psycopg.errors.ReadOnlySqlTransaction():
            move = READ_ONLY_MOVE.rstrip(".")
        case psycopg.errors.LockNotAvailable():
            return Unavailable(
                f"A transaction has used the tables of {database!r} for {_PATIENCE_S:g} s, so they were not changed: end it (see "
                "pg_stat_activity), and upgrade again."
            )
        case psycopg.errors.FeatureNotSupported() | psycopg.errors.UndefinedFile() if "vector" in said:
            move = f"install the package of pgvector {PGVECTOR} or newer on the server"
        case _:
            return Unavailable(f"Postgres refused to change the schema: {said}.")
    return UnusableDatabase(f"Postgres refused to change the schema ({said}): {move}.")


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
