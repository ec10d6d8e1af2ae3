"""Refused connections are told by the reason, with the next move, and without the password."""

from __future__ import annotations

import psycopg
import pytest

from agno_workers.database.connect import unreachable

AT = 'connection failed: connection to server at "db" (10.0.0.1), port 5432 failed: '
URL = "postgresql://app:hush@db/shop"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('FATAL:  database "shop" does not exist', "the database 'shop' does not exist: create it (`CREATE DATABASE` with ENCODING 'UTF8'), or correct AGNO_X."),
        ("FATAL:  no such database: shop", "the database 'shop' does not exist: "),
        ('FATAL:  role "app" does not exist', "the role 'app' does not exist: create it, or correct AGNO_X."),
        ("FATAL:  no such user: app", "the role 'app' does not exist: "),
        ('FATAL:  role "app" is not permitted to log in', "the role 'app' may not log in: "),
        ('FATAL:  password authentication failed for user "app"', "Postgres refuses the user or the password (password authentication failed for user \"app\"): correct AGNO_X."),
        ("fe_sendauth: no password supplied", "Postgres refuses the user or the password"),
        ("FATAL:  SASL authentication failed", "Postgres refuses the user or the password"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "app", database "shop", no encryption', "Postgres refuses this machine (no pg_hba.conf entry"),
        ('FATAL:  permission denied for database "shop"', 'permission denied for database "shop": run `GRANT CONNECT'),
        ("FATAL:  sorry, too many clients already", "Postgres has no connection left (sorry, too many clients already): raise max_connections"),
        ('FATAL:  too many connections for role "app"', "Postgres has no connection left"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "Postgres has no connection left"),
        ("FATAL:  no more connections allowed (max_client_conn)", "Postgres has no connection left"),
        ("FATAL:  the database system is starting up", "Postgres is not ready (the database system is starting up): try again in a moment."),
        ("session is read-only", "no server of the address is the wanted one"),
        ("server does not support SSL, but SSL was required", "Postgres can't be reached safely"),
        ("FATAL:  hush is a secret", "Postgres can't be reached: "),
        ("Connection refused", "Postgres can't be reached: "),
    ],
)  # fmt: skip
def test_refused_connection_is_told_by_its_reason(said: str, told: str) -> None:
    text = str(unreachable(psycopg.OperationalError(f"{AT}{said}\n\tmore"), URL, "AGNO_X"))
    assert text.startswith(told)
    assert text.endswith(".")
    assert "hush" not in text
