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
from typing import Any

import msgspec
import psycopg
from psycopg.rows import tuple_row

from agno_workers.database.connect import POOLED, connect
from agno_workers.database.migrations import NEWEST

NO_TABLES = "this database lacks our tables: run `agno-workers db upgrade`."

_KEY = "functions"
_NOTIFIED_WITHIN_S = 2.0


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
    with connect(database_url, timeout_s=timeout_s, autocommit=True, row_factory=tuple_row) as connection:
        return read(connection)


def database_problems(database_url: str) -> list[str]:
    """Return the reasons, a sentence each, why this code must not use a database. Raises as `state` does."""
    found, wanted = state(database_url), current()
    if found.revision is None:
        return [NO_TABLES]
    if found.revision < NEWEST:
        return [
            f"the database is at revision {found.revision}, this code needs {NEWEST}: run `agno-workers db upgrade`."
        ]
    if found.functions != wanted.functions and found.release <= wanted.release:
        return ["the functions in the database are older than this code: run `agno-workers db upgrade`."]
    return []


def session_problem(database_url: str, direct_url: str, timeout_s: float = 10.0) -> str | None:
    """Return why a worker would have no session of its own, for LISTEN and for locks. Raises as `state` does."""
    options: dict[str, Any] = {"timeout_s": timeout_s, "autocommit": True}
    with connect(database_url, **options) as connection:
        if not direct_url:
            return POOLED if connection.is_pooled else None
        with connect(direct_url, is_direct=True, setting="AGNO_DATABASE__DIRECT_URL", **options) as listener:
            listener.execute("LISTEN agno_direct")
            connection.execute("SELECT pg_notify('agno_direct', '')")
            for _ in listener.notifies(timeout=_NOTIFIED_WITHIN_S, stop_after=1):
                return None
    return (
        "a notification through AGNO_DATABASE_URL does not arrive at AGNO_DATABASE__DIRECT_URL: set it to an address of the same "
        "database without a pooler in transaction mode."
    )


def read(connection: psycopg.Connection[tuple[object, ...]]) -> State:
    if connection.execute("SELECT to_regclass('agno.alembic_version')").fetchone() == (None,):
        return State()
    revision = connection.execute("SELECT version_num FROM agno.alembic_version").fetchone()
    if revision is None:
        return State()
    stored = connection.execute("SELECT value FROM agno.meta WHERE key = %s", (_KEY,)).fetchone()
    release, _, digest = str(stored[0] if stored else "").partition(" ")
    return State(str(revision[0]), digest, tuple(int(part) for part in release.split(".") if part))


def apply(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Write the functions of this code; False when the database has them already, or has those of a newer release."""
    found, wanted = read(connection), current()
    if found.functions == wanted.functions or found.release > wanted.release:
        return False
    connection.execute("SET LOCAL check_function_bodies = off")  # they call each other
    connection.execute(sql().encode())
    connection.execute(
        "INSERT INTO agno.meta (key, value) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_KEY, f"{'.'.join(map(str, wanted.release))} {wanted.functions}"),
    )
    return True
