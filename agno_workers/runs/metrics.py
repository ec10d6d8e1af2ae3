"""Counts for a monitor: open and failed runs, steps and messages. Each reading has a connection of its own, with a time limit."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec
import psycopg
from psycopg.rows import dict_row

from agno_workers.database.connect import connect, reason
from agno_workers.database.pool import UNUSABLE, Connection, execute, statements, unusable
from agno_workers.errors import Unavailable
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
        with (
            closing(
                connect(
                    url,
                    timeout_s=timeout_s,
                    name="agno-workers-metrics",
                    autocommit=True,
                    row_factory=dict_row,
                )
            ) as connection,
            _cut_after(connection, timeout_s),
        ):
            rows = execute(connection, _SQL["counts"], {"recent_s": recent_s})
            workers = execute(connection, _SQL["workers"])
    except UNUSABLE as error:
        raise unusable(error) from error
    except psycopg.Error as error:
        raise Unavailable(f"Postgres did not answer: {reason(error, url)}") from error
    return msgspec.convert({"counts": rows, "workers": workers}, Counted)


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
