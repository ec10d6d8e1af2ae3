"""Counts for a monitor: open and failed runs, steps and messages. Each reading has a connection of its own, with a time limit."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from agno_workers.database.pool import NOT_MIGRATED, Connection, execute, not_migrated, statements
from agno_workers.errors import SettingsError, Unavailable
from agno_workers.runs.workers import Worker

_SQL = {**statements("runs/metrics"), "workers": statements("runs/workers")["workers"]}


class Count(msgspec.Struct, frozen=True):
    """One value with its name and labels; see `counts` in metrics.sql."""

    what: str
    labels: tuple[str, ...]
    value: float


class Counted(msgspec.Struct, frozen=True):
    """All counts at one moment."""

    counts: tuple[Count, ...]
    workers: tuple[Worker, ...]
    """The workers of the last day."""


def counted(url: str, *, timeout_s: float, recent_s: float) -> Counted:
    """Read all counts within `timeout_s`. Runs that were submitted in the last `recent_s` count as recent.

    Raises Unavailable when Postgres does not answer in time, SettingsError for a wrong address or a database that is not
    migrated.
    """
    try:
        with closing(_connected(url, timeout_s)) as connection, _cut_after(connection, timeout_s):
            rows = execute(connection, _SQL["counts"], {"recent_s": recent_s})
            workers = execute(connection, _SQL["workers"])
    except NOT_MIGRATED as error:
        raise not_migrated(error) from error
    except psycopg.Error as error:
        raise Unavailable(f"Postgres did not answer: {str(error).strip()}") from error
    return msgspec.convert({"counts": rows, "workers": workers}, Counted)


def _connected(url: str, timeout_s: float) -> Connection:
    options: dict[str, Any] = {
        "connect_timeout": max(2, round(timeout_s)),
        "application_name": "agno-workers-metrics",
        "options": f"-c statement_timeout={round(timeout_s * 1000)} -c default_transaction_read_only=on",
    }
    try:
        connection: Connection = psycopg.connect(url, autocommit=True, row_factory=dict_row, **options)
    except psycopg.ProgrammingError:
        raise SettingsError(
            "AGNO_DATABASE_URL is not a Postgres address: write postgresql://USER:PASSWORD@HOST:5432/DATABASE."
        ) from None
    return connection


@contextmanager
def _cut_after(connection: Connection, timeout_s: float) -> Iterator[None]:
    """Close our end of the connection after a time limit: the server's own limit does not help when the server hangs."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        watch = threading.Timer(timeout_s + 0.5, end.shutdown, [socket.SHUT_RDWR])
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            watch.join()
