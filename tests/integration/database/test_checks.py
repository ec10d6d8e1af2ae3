"""Databases that can't be used: workers, commands and `doctor` say why in the same sentence, with the next move."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from agno_workers.database import functions, migrate
from agno_workers.database.checks import database_problems, grants
from agno_workers.database.connect import parse
from agno_workers.database.pool import Pool
from agno_workers.errors import AgnoError, UnusableDatabase
from tests.integration.database.test_schema import make_first_schema
from tests.servers import TEMPLATE, Servers

ROLE = "a Role"


@pytest.fixture
def copy(servers: Servers) -> Iterator[Callable[..., str]]:
    """Make databases, by default copies of the migrated one, and return their addresses."""
    made: list[str] = []
    with psycopg.connect(servers.database_url, autocommit=True) as connection:

        def make(words: str = f"TEMPLATE {TEMPLATE}") -> str:
            made.append(f"checked_{uuid.uuid4().hex[:12]}")
            connection.execute(f"CREATE DATABASE {made[-1]} {words}".encode())
            return servers.postgres.url_of(made[-1])

        yield make
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def role(servers: Servers) -> Iterator[str]:
    """A role without rights."""
    name = f"{ROLE} {uuid.uuid4().hex[:8]}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
        yield name
        for (database,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datallowconn"
        ).fetchall():
            with (
                suppress(psycopg.OperationalError),  # of another test, which has just dropped its database
                psycopg.connect(servers.postgres.url_of(database), autocommit=True) as each,
            ):
                each.execute(f'DROP OWNED BY "{name}"'.encode())
        connection.execute(f'DROP ROLE "{name}"'.encode())


def as_role(url: str, role: str) -> str:
    return make_conninfo(**parse(url) | {"user": role})


def execute(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


READ_ONLY = "ALTER DATABASE {name} SET default_transaction_read_only = on"
BROKEN = {
    "no tables": ("DROP SCHEMA agno CASCADE", "lacks our tables: run `agno-workers db upgrade`"),
    "an empty table of versions": ("DELETE FROM agno.alembic_version", "lacks our tables: run `agno-workers db upgrade`"),
    "older tables": ("UPDATE agno.alembic_version SET version_num = '0002'", "at revision 0002, this code needs 0007: run `agno-workers db upgrade`"),
    "tables of an unreleased version": ("UPDATE agno.alembic_version SET version_num = '0003'", "an unreleased version made: use a new database"),
    "newer tables that do not serve this code": (
        "UPDATE agno.alembic_version SET version_num = '9999'; UPDATE agno.meta SET value = '9000' WHERE key = 'oldest'",
        "newer than this code (0007) and does not serve it: update the package agno-workers",
    ),
    "older functions": ("UPDATE agno.meta SET value = '0.0.1 x' WHERE key = 'functions'", "functions in the database are older than this code: run `agno-workers db upgrade`"),
    "read-only": (READ_ONLY, "is read-only (default_transaction_read_only), and workers write: set AGNO_DATABASE_URL to the primary"),
    "a copy": (
        """INSERT INTO agno.meta (key, value) VALUES ('identity', '{{"system": "1", "oid": 1, "database": "shop"}}')""",
        "looks like a copy of 'shop': it was restored, copied or moved",
    ),
}  # fmt: skip
"""Statements that break a database, and what is said of it."""


@pytest.mark.parametrize("fault", BROKEN)
def test_database_that_can_not_be_used_is_told_in_one_sentence(fault: str, copy: Callable[..., str]) -> None:
    statements, said = BROKEN[fault]
    url = copy()
    execute(url, statements.format(name=parse(url)["dbname"]))
    (found,) = database_problems(url, "")
    assert said in found
    assert database_problems(url, "") == [found]


def test_newer_tables_that_serve_this_code_are_used(copy: Callable[..., str]) -> None:
    url = copy()
    execute(
        url,
        "UPDATE agno.alembic_version SET version_num = '9999'; UPDATE agno.meta SET value = '99.0.0 x' WHERE key = 'functions'",
    )
    assert database_problems(url, "") == []


RIGHTS = {
    "the schema": ("REVOKE USAGE ON SCHEMA agno FROM {role}", "USAGE of schema agno"),
    "a table": ("REVOKE INSERT, DELETE ON agno.run FROM {role}", "INSERT on table run, DELETE on table run"),
    "the versions": ("REVOKE SELECT ON agno.alembic_version FROM {role}", "SELECT on table alembic_version"),
    "a sequence": (
        "REVOKE USAGE ON SEQUENCE agno.chunk_id_seq FROM {role}",
        "USAGE on sequence chunk_id_seq",
    ),
    "a function": ("REVOKE EXECUTE ON FUNCTION agno.uuid7 FROM PUBLIC, {role}", "EXECUTE of function uuid7"),
    "many": ("REVOKE ALL ON ALL TABLES IN SCHEMA agno FROM {role}", " more)"),
}


@pytest.mark.parametrize("right", RIGHTS)
def test_missing_rights_are_told_with_the_grants_that_give_them(
    right: str, copy: Callable[..., str], role: str
) -> None:
    """The statements in the sentence are all that the role needs."""
    url = copy()
    given = grants(role, "agno", parse(url)["dbname"])
    execute(url, "\n".join(given))
    assert database_problems(as_role(url, role), "") == []
    revoke, said = RIGHTS[right]
    execute(url, revoke.format(role=f'"{role}"'))
    (found,) = database_problems(as_role(url, role), "")
    assert f"the role '{role}' lacks rights" in found
    assert said in found
    assert all(line in found for line in given)
    execute(url, "\n".join(given))
    assert database_problems(as_role(url, role), "") == []


REFUSED: dict[str, tuple[Callable[[str], str], str]] = {
    "no database": (lambda url: make_conninfo(**parse(url) | {"dbname": "nowhere"}), "the database 'nowhere' does not exist: create it"),
    "no role": (lambda url: as_role(url, "nobody here"), "the role 'nobody here' does not exist: create it"),
    "an unknown option": (lambda url: f"{url}&sslmod=on", "unknown option 'sslmod': correct AGNO_DATABASE_URL"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_connection_that_is_refused_is_told_with_the_reason(fault: str, servers: Servers) -> None:
    spoil, said = REFUSED[fault]
    url = spoil(servers.database_url)
    calls: list[Callable[[], Any]] = [
        lambda: database_problems(url, ""),
        lambda: migrate.upgrade(url, 2),
        lambda: Pool(url, size=1, timeout_s=1, statement_timeout_s=1).run("SELECT"),
    ]
    for call in calls:
        with pytest.raises(AgnoError) as caught:
            call()
        assert said in str(caught.value)


def test_role_without_connections_left_or_login_is_told(copy: Callable[..., str], role: str) -> None:
    url = copy()
    for limit, said in (
        ("CONNECTION LIMIT 0", "no connection left (too many connections for role"),
        ("CONNECTION LIMIT -1 NOLOGIN", "may not log in"),
    ):
        execute(url, f'ALTER ROLE "{role}" {limit}')
        with pytest.raises(AgnoError, match=said.replace("(", r"\(")):
            database_problems(as_role(url, role), "")
    execute(url, f'ALTER ROLE "{role}" LOGIN; REVOKE CONNECT ON DATABASE {parse(url)["dbname"]} FROM PUBLIC')
    with pytest.raises(AgnoError, match=r"permission denied for database .*: run `GRANT CONNECT"):
        database_problems(as_role(url, role), "")


REFUSED_UPGRADES = {
    "no right to make the schema": ("", "GRANT CREATE ON DATABASE"),
    "the schema of another role": ("CREATE SCHEMA agno", "upgrade as the owner of the schema agno"),
    "no right to make the extension": (
        'CREATE SCHEMA agno AUTHORIZATION "{role}"',
        "CREATE EXTENSION vector",
    ),
}


@pytest.mark.parametrize("fault", REFUSED_UPGRADES)
def test_upgrade_that_lacks_rights_is_told_with_the_next_move(
    fault: str, copy: Callable[..., str], role: str
) -> None:
    before, said = REFUSED_UPGRADES[fault]
    url = copy("")
    if before:
        execute(url, before.format(role=role))
    with pytest.raises(UnusableDatabase, match="refused to change the schema") as caught:
        migrate.upgrade(as_role(url, role))
    assert said in str(caught.value)


@pytest.mark.parametrize("before", [None, "0001", "0004", "0005", "0006", "0007"])
def test_printed_upgrade_does_what_the_upgrade_does(
    before: str | None, copy: Callable[..., str], tmp_path: Path
) -> None:
    printed, upgraded = copy(""), copy("")
    if before == "0001":
        for url in (printed, upgraded):
            with psycopg.connect(url, autocommit=True) as connection:
                make_first_schema(connection)
    elif before:
        printed = copy()
        execute(printed, "UPDATE agno.meta SET value = '0.0.1 x' WHERE key = 'functions'")
    migrate.upgrade(upgraded)
    (tmp_path / "upgrade.sql").write_text(migrate.script(functions.state(printed)))
    psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / "upgrade.sql"), printed]
    assert subprocess.run(psql, capture_output=True, text=True, timeout=60, check=False).stderr == ""
    assert dump(printed) == dump(upgraded)
    assert database_problems(printed, "") == []


def test_upgrade_is_not_printed_for_tables_of_other_code(copy: Callable[..., str]) -> None:
    url = copy()
    for revision, said in (("9999", "newer than this code"), ("0003", "an unreleased version made")):
        execute(url, f"UPDATE agno.alembic_version SET version_num = '{revision}'")
        with pytest.raises(UnusableDatabase, match=said):
            migrate.script(functions.state(url))


def test_printed_upgrade_leaves_the_functions_of_a_later_release(copy: Callable[..., str]) -> None:
    url = copy()
    execute(url, "UPDATE agno.meta SET value = '99.0.0 x' WHERE key = 'functions'")
    assert "FUNCTION" not in migrate.script(functions.state(url))


def dump(url: str) -> list[str]:
    shown = subprocess.run(
        ["psql", "-X", "-At", url, "-c", _CATALOGUE], capture_output=True, text=True, check=True, timeout=60
    )
    return shown.stdout.splitlines()


_CATALOGUE = """
    SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE relnamespace = 'agno'::regnamespace AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2;
    SELECT proname, md5(prosrc), pg_get_function_identity_arguments(oid) FROM pg_proc WHERE pronamespace = 'agno'::regnamespace ORDER BY 1, 3;
    SELECT version_num FROM agno.alembic_version; SELECT key, value FROM agno.meta ORDER BY 1;"""
