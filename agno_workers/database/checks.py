"""Why a database can't be used, a sentence each with the next move: for the start of workers, commands and `doctor` alike.

A database of another encoding and an old server are refused by each connection (`connect.check_server`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from agno_workers.database import functions, identity
from agno_workers.database.connect import DIRECT_URL, POOLED, READ_ONLY_MOVE, PinnedConnection, connect
from agno_workers.database.migrations import NEWEST, REVISIONS
from agno_workers.database.pool import statements

NO_TABLES = "this database lacks our tables: run `agno-workers db upgrade`."
PGVECTOR = "0.8"
"""The oldest release of pgvector that is supported."""

_SQL = statements("database/checks")
_NOTIFIED_WITHIN_S = 2.0
_MANY = 4


class Problem(NamedTuple):
    """One reason."""

    about: str
    """`read-only`, `rights`, `schema`, `pgvector` or `copy`."""
    sentence: str


def problems(connection: psycopg.Connection[Any]) -> Iterator[Problem]:
    """Yield the reasons why workers can't use this database, the first one first: the later ones may follow from it."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        facts: Any = cursor.execute(_SQL["facts"].encode()).fetchone()
        if facts.is_standby or facts.is_read_only:
            what = "is a standby" if facts.is_standby else "is read-only (default_transaction_read_only)"
            yield Problem(
                "read-only", f"the database {facts.database!r} {what}, and workers write: {READ_ONLY_MOVE}"
            )
        if not facts.has_tables:
            yield Problem("schema", NO_TABLES)
            return
        if facts.missing:
            yield Problem("rights", _rights(facts))
            return
        release: Any = cursor.execute(_SQL["release"].encode()).fetchone()
    if sentence := _version(release):
        yield Problem("schema", sentence)
    if facts.pgvector is None:
        yield Problem(
            "pgvector",
            "the extension vector is missing: run `CREATE EXTENSION vector` in this database as an administrator.",
        )
    elif is_older(facts.pgvector, PGVECTOR):
        yield Problem(
            "pgvector",
            f"pgvector {facts.pgvector} is too old: update the package of the server to {PGVECTOR} or newer, then run `ALTER EXTENSION vector UPDATE`.",
        )
    if sentence := identity.problem(connection):
        yield Problem("copy", sentence)


def is_older(version: str, than: str) -> bool:
    """Compare versions such as 0.8.4 as numbers."""
    numbers = [[int(part) for part in text.split(".") if part.isdigit()] for text in (version, than)]
    return numbers[0] < numbers[1]


def database_problems(
    database_url: str, direct_url: str | None = None, timeout_s: float = 10.0, *, deployment: str = ""
) -> list[str]:
    """Return the first reason why a worker must not use a database; empty if there is none. `direct_url`: also check that the worker gets a session of its own.

    Stores the database's identity if it has none. Raises Unavailable when Postgres can't be reached, SettingsError for an
    unusable address, server or encoding.
    """
    with connect(database_url, timeout_s=timeout_s, autocommit=True) as connection:
        if direct_url is not None and (sentence := session_problem(connection, direct_url, timeout_s)):
            return [sentence]
        if (problem := next(problems(connection), None)) is not None:
            return [problem.sentence]
        return [sentence] if (sentence := identity.claim(connection, deployment)) else []


def session_problem(
    connection: PinnedConnection[Any], direct_url: str, timeout_s: float = 10.0
) -> str | None:
    """Return why a worker would have no session of its own, for LISTEN and for locks. Raises as `database_problems`."""
    if not direct_url:
        return POOLED if connection.is_pooled else None
    with connect(
        direct_url, timeout_s=timeout_s, autocommit=True, is_direct=True, setting=DIRECT_URL
    ) as listener:
        listener.execute("LISTEN agno_direct")
        connection.execute("SELECT pg_notify('agno_direct', '')")
        for _ in listener.notifies(timeout=_NOTIFIED_WITHIN_S, stop_after=1):
            return None
    return (
        "a notification through AGNO_DATABASE_URL does not arrive at AGNO_DATABASE__DIRECT_URL: set it to an address of the same "
        "database without a pooler in transaction mode."
    )


def grants(role: str, owner: str, database: str) -> list[str]:
    """Return the statements that give a role what workers and clients need, in this release and in later ones."""
    names = {
        "role": sql.Identifier(role),
        "owner": sql.Identifier(owner),
        "database": sql.Identifier(database),
    }
    lines = (
        "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA agno TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA agno TO {role}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA agno TO {role}",
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA agno TO {role}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA agno GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA agno GRANT USAGE ON SEQUENCES TO {role}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA agno GRANT EXECUTE ON FUNCTIONS TO {role}",
    )
    return [sql.SQL(line).format(**names).as_string() + ";" for line in lines]


def _rights(facts: Any) -> str:
    missing, more = facts.missing[:_MANY], len(facts.missing) - _MANY
    what = ", ".join(missing) + (f" and {more} more" if more > 0 else "")
    statements = " ".join(grants(facts.role, facts.owner, facts.database))
    return (
        f"the role {facts.role!r} lacks rights in the database {facts.database!r} ({what}): run what `agno-workers db grants {facts.role}` prints "
        f"as {facts.owner!r}: {statements}"
    )


def _version(found: Any) -> str | None:
    wanted = functions.current()
    if found is None:
        return NO_TABLES
    if found.revision > NEWEST:
        if found.oldest is not None and found.oldest <= NEWEST:
            return None
        return (
            f"the database is at revision {found.revision}, which is newer than this code ({NEWEST}) and does not serve it: update the "
            "package agno-workers of this process, or use a new database if an unreleased version made this one."
        )
    if found.revision not in REVISIONS:
        return f"the database is at revision {found.revision}, which an unreleased version made: use a new database."
    if found.revision < NEWEST:
        return f"the database is at revision {found.revision}, this code needs {NEWEST}: run `agno-workers db upgrade`."
    stored = functions.stored(found.functions)
    if stored.functions != wanted.functions and stored.release <= wanted.release:
        return "the functions in the database are older than this code: run `agno-workers db upgrade`."
    return None
