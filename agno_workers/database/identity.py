"""The identity of a database, so that a copy of it does not execute the runs of the original a second time.

Workers store where the database is: the system identifier of the cluster and the oid of the database. A restored dump, a copy by
`CREATE DATABASE ... TEMPLATE` and a new major version by pg_upgrade have others, and workers refuse them until `adopt` has told
what the database is. A standby that takes over, and a restart, keep both.

A physical copy (a snapshot of the disk, a base backup) keeps both, too: there the setting `deployment`, whose name is stored with
the first worker that has it, tells the copy from the original.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from agno_workers.database.pool import Connection, execute, statements
from agno_workers.errors import InvalidInput, UnusableDatabase

_SQL = statements("database/identity")


class Identity(msgspec.Struct, frozen=True):
    """Where a database is."""

    system: str
    """The system identifier of the cluster; empty where the role may not read it."""
    oid: int
    database: str
    """Its name, for people."""
    deployment: str = ""
    """The name of the deployment; empty if it has none."""

    def is_same(self, other: Identity) -> bool:
        return self.oid == other.oid and (not (self.system and other.system) or self.system == other.system)


def problem(connection: psycopg.Connection[Any]) -> str | None:
    """Return why this database looks like a copy, or None."""
    here, stored, _ = _read(connection)
    return None if stored is None or stored.is_same(here) else _copy(here, stored)


def _copy(here: Identity, stored: Identity) -> str:
    return (
        f"the database {here.database!r} looks like a copy of {stored.database!r}{_named(stored)}: it was restored, copied or moved, and its open "
        "runs would be executed a second time if the original is still used. Run `agno-workers db adopt --keep-runs` if this one "
        "replaces the original, `agno-workers db adopt --cancel-open` if it is a copy."
    )


class Home:
    """Refuses connections to another database than the first one, and to copies. Threads may share it."""

    def __init__(self) -> None:
        self._deployment = ""

    def __call__(self, connection: psycopg.Connection[Any]) -> None:
        here, stored, deployment = _read(connection)
        self._deployment = self._deployment or deployment
        if stored is not None and not stored.is_same(here):
            raise UnusableDatabase(_copy(here, stored), is_other=True)
        if self._deployment != deployment:
            raise UnusableDatabase(
                f"the database {here.database!r} is the one of another deployment now: start this process again, or correct AGNO_DATABASE_URL.",
                is_other=True,
            )


def claim(connection: psycopg.Connection[Any], deployment: str) -> str | None:
    """Store where this database is, if nothing is stored; return why the worker is of another deployment, or None."""
    here, stored, _ = _read(connection)
    if stored is None or (deployment and not stored.deployment) or (here.system and not stored.system):
        known = (
            here if stored is None else msgspec.structs.replace(stored, system=here.system or stored.system)
        )
        _store(connection, msgspec.structs.replace(known, deployment=known.deployment or deployment))
        stored = _read(connection)[1]
    if stored is None or stored.deployment == deployment:
        return None
    return (
        f"the database {here.database!r} belongs to the deployment {stored.deployment!r}, and AGNO_DEPLOYMENT of this worker is {deployment!r}: correct "
        "that, or AGNO_DATABASE_URL. If this database is a copy that becomes yours, run `agno-workers db adopt`."
    )


def adopt(connection: Connection, deployment: str, *, cancel_open: bool, lease_s: float) -> int:
    """Let workers use this database where it is now. Return the number of its open runs. Raises InvalidInput while workers live, which
    have reported within `lease_s`.

    With `cancel_open` it becomes another deployment, which has its own Redis. Its open runs are cancelled, and nothing follows them:
    no callbacks, no timers. Otherwise it replaces the original: its runs continue, and steps that were running begin again or end as
    unknown, as after a crash of their worker.
    """
    with connection.transaction():
        here, stored, _ = _read(connection)
        if (stored is None or stored.is_same(here)) and (
            live := execute(connection, _SQL["live"], {"lease_s": lease_s})
        ):
            raise InvalidInput(
                f"{len(live)} worker(s) use this database now, such as {live[0]['name']}: stop them first."
            )
        (found,) = execute(connection, _SQL["open"])
        if cancel_open:
            for name in ("cut_canvases", "cancel_open", "forget_messages", "forget_delayed"):
                execute(connection, _SQL[name])
            execute(connection, _SQL["renew"])
        execute(connection, _SQL["forget_workers"])
        _store(connection, msgspec.structs.replace(here, deployment=deployment))
    return int(found["open"])


def _named(stored: Identity) -> str:
    return f" (deployment {stored.deployment!r})" if stored.deployment else ""


def _read(connection: psycopg.Connection[Any]) -> tuple[Identity, Identity | None, str]:
    """Return where the database is, where it was when that was stored, and the id of its deployment."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row: Any = cursor.execute(_SQL["read"].encode()).fetchone()
        system = ""
        if row["tells_system"]:
            (system,) = cursor.execute(_SQL["system"].encode()).fetchone().values()  # type: ignore[union-attr]  # one row
    stored = msgspec.json.decode(row["stored"], type=Identity) if row["stored"] else None
    return Identity(str(system), row["oid"], row["database"]), stored, row["deployment"] or ""


def _store(connection: psycopg.Connection[Any], identity: Identity) -> None:
    connection.execute(_SQL["store"].encode(), {"identity": msgspec.json.encode(identity).decode()})
