"""What a monitor reads: counts of all that is open, failed or put aside. One connection a time, that can't hang."""

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

from agno_workers.database.pool import NOT_MIGRATED, Connection, execute, statements
from agno_workers.errors import SettingsError, Unavailable
from agno_workers.runs.workers import Worker

_SQL = {**statements("runs/metrics"), "workers": statements("runs/workers")["workers"]}


class Count(msgspec.Struct, frozen=True):
    """One number, and of what; see `counts` in sql/metrics.sql."""

    what: str
    labels: tuple[str, ...]
    value: float


class Counted(msgspec.Struct, frozen=True):
    """All there was to count at one moment."""

    counts: tuple[Count, ...]
    workers: tuple[Worker, ...]
    """Of the last day."""


def counted(url: str, *, timeout_s: float, recent_s: float) -> Counted:
    """Count, within `timeout_s`; `recent_s`: how long ago a run may have been submitted to be a recent one.

    Raises Unavailable where Postgres can't be reached or does not answer in time, SettingsError for a wrong address or a
    database that is not migrated.
    """
    try:
        with closing(_connected(url, timeout_s)) as connection, _cut_after(connection, timeout_s):
            rows = execute(connection, _SQL["counts"], {"recent_s": recent_s})
            workers = execute(connection, _SQL["workers"])
    except NOT_MIGRATED as error:
        raise SettingsError(
            f"this database has not the tables that this code needs ({error.diag.message_primary}): "
            "run `agno-workers db upgrade`."
        ) from error
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
            "AGNO_DATABASE_URL is not an address of Postgres: write postgresql://USER:PASSWORD@HOST:5432/DATABASE."
        ) from None
    return connection


@contextmanager
def _cut_after(connection: Connection, timeout_s: float) -> Iterator[None]:
    """The server's own time limit is of no help where the server stands still: then our end is cut off."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        watch = threading.Timer(timeout_s + 0.5, end.shutdown, [socket.SHUT_RDWR])
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            watch.join()
