"""The functions in Postgres, and the schema state of a database, read without SQLAlchemy or Alembic.

Functions are repeatable: every `functions/*.sql` of the package is `CREATE OR REPLACE`, and an upgrade executes all of them when
their hash differs from the stored one. A changed signature is a `DROP FUNCTION` in a migration of the tables.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import msgspec
import psycopg
from psycopg.rows import tuple_row

from agno_workers.database.connect import connect
from agno_workers.database.migrations import OLDEST
from agno_workers.database.pool import translated

_KEY = "functions"


class State(msgspec.Struct, frozen=True):
    """The schema state of a database."""

    revision: str | None = None
    """The newest migration; None before the first one."""
    functions: str = ""
    """The hash of the functions."""
    release: tuple[int, ...] = ()
    """The release that wrote the functions."""


@cache
def sql() -> str:
    """Return the text of all functions."""
    found = sorted(Path(str(files("agno_workers"))).rglob("functions/*.sql"))
    return "\n".join(path.read_text(encoding="utf-8") for path in found)


@cache
def current() -> State:
    """Return the state that this code needs, without the revision."""
    release = tuple(int(part) for part in version("agno-workers").split(".")[:3] if part.isdigit())
    return State(functions=hashlib.sha256(sql().encode()).hexdigest(), release=release)


def state(database_url: str, timeout_s: float = 10.0) -> State:
    """Return the schema state of a database. Raises Unavailable when Postgres cannot be reached, SettingsError for an unusable
    address or encoding.
    """
    with (
        translated(),
        connect(database_url, timeout_s=timeout_s, autocommit=True, row_factory=tuple_row) as connection,
    ):
        return read(connection)


def read(connection: psycopg.Connection[tuple[object, ...]]) -> State:
    if connection.execute("SELECT to_regclass('agno.alembic_version')").fetchone() == (None,):
        return State()
    revision = connection.execute("SELECT version_num FROM agno.alembic_version").fetchone()
    if revision is None:
        return State()
    row = connection.execute("SELECT value FROM agno.meta WHERE key = %s", (_KEY,)).fetchone()
    return msgspec.structs.replace(stored(str(row[0]) if row else None), revision=str(revision[0]))


def stored(value: str | None) -> State:
    """Return what the row of agno.meta says of the functions."""
    release, _, digest = (value or "").partition(" ")
    return State(None, digest, tuple(int(part) for part in release.split(".") if part))


def apply(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Write the functions of this code; False when the database has them already, or has those of a newer release."""
    if not is_missing(read(connection)):
        return False
    connection.execute(script().encode())
    return True


def is_missing(found: State) -> bool:
    """Return whether the database lacks the functions of this code; those of a later release serve it, too."""
    wanted = current()
    return found.functions != wanted.functions and found.release <= wanted.release


def script() -> str:
    """Return the statements that write the functions of this code, within a transaction."""
    wanted = current()
    written = f"{'.'.join(map(str, wanted.release))} {wanted.functions}"
    return f"""SET LOCAL check_function_bodies = off; -- they call each other
{sql()}
INSERT INTO agno.meta (key, value) VALUES ('{_KEY}', '{written}'), ('oldest', '{OLDEST}')
ON CONFLICT (key) DO UPDATE SET value = excluded.value;
"""  # noqa: S608 - our own texts
