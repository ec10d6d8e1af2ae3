"""State in Postgres: the reader for tools, and reads and changes from outside. `core/state.py` has the operations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from agno_workers.core.state import Entry, Read, Snapshot, check_key, check_operand, check_scope, plain
from agno_workers.database.pool import Connection, Pool, Row, execute, jsonb, statements
from agno_workers.errors import InvalidInput
from agno_workers.runs.queries import known_id

_SQL = statements("sessions/state")
FEW_KEYS = 1000
"""An owner with more keys is read by key."""
SMALL_BYTES = 4096
"""A larger value is read when it is used."""
MOST_KEYS = 100_000


class Versioned(msgspec.Struct, frozen=True):
    """The value of a key of state, and its version."""

    value: Any
    """None for a key that does not exist, too."""
    version: int
    """Each change adds 1, also one that deletes the key. 0: there never was such a key."""
    exists: bool = True
    """False for a key that was deleted, or never was."""


class StateChange(msgspec.Struct, frozen=True):
    """One change of a key of state."""

    version: int
    """The version that it made."""
    operation: str
    """`set`, `delete`, `increment`, `append`, `extend`, `union`, `max`, `min`, `update`; `restore` and `remove` are those of a rollback."""
    value: Any
    """The operation's argument: the new value of a `set`, the items of an `append`."""
    at: datetime
    """When it was made."""
    run_id: str | None = None
    """The run whose tool made it; None for a change from outside."""
    step_id: str | None = None
    """The call of the tool that made it."""
    actor: str | None = None
    """The client that made it, by the name that it gave, or `rollback`."""


class StateStore:
    """State of one tenant. Every call raises Unavailable when Postgres does not answer; a change then happened wholly, or not at all."""

    def __init__(self, pool: Pool, tenant: str = "default") -> None:
        self._pool = pool
        self._tenant = tenant

    def all(self, scope: str, owner: str) -> dict[str, Any]:
        return read_state(self._pool, self._tenant, scope, owner)

    def get(self, scope: str, owner: str, key: str) -> Versioned:
        for row in self._run("one", scope, owner, key=key):
            return Versioned(**row)
        return Versioned(None, 0, False)

    def change(
        self, scope: str, owner: str, key: str, operation: str, value: Any = None, *, version: int | None = None, actor: str
    ) -> Versioned:  # fmt: skip
        """Raises InvalidInput for what does not fit, StateConflict when `version` is not the key's."""
        check_key(key)
        change = {"scope": scope, "owner": owner, "key": key, "operation": operation}
        if operation != "delete":
            change["value"] = plain(value, key)
            check_operand(operation, key, change["value"])
        changes = [change | ({} if version is None else {"version": version})]
        (row,) = self._run("write", scope, owner, changes=jsonb(changes), actor=actor)
        return Versioned(**row)

    def history(self, scope: str, owner: str, key: str, limit: int) -> list[StateChange]:
        return [StateChange(**row) for row in self._run("history", scope, owner, key=key, limit=limit)]

    def at(self, scope: str, owner: str, when: datetime | str) -> dict[str, Any]:
        """Return the state at a time, or at the end of a run. Raises InvalidInput for a time whose changes were pruned, and for a run that
        has not ended or is gone.
        """
        rows = self._run("at", scope, owner, as_of=self._time(when))
        return {row["key"]: row["value"] for row in rows}

    def restore(self, scope: str, owner: str, when: datetime | str, *, actor: str) -> int:
        """Set each key to the value that `at` returns, as new versions; return how many changed."""
        (row,) = self._run("restore", scope, owner, as_of=self._time(when), actor=actor)
        return int(row["changed"])

    def _time(self, when: datetime | str) -> datetime:
        if isinstance(when, datetime):
            return when
        for row in self._pool.run(_SQL["end_of_run"], {"run_id": known_id(when)}):
            ended_at: datetime | None = row["ended_at"]
            if ended_at is not None:
                return ended_at
            raise InvalidInput(
                f"run {when} has not ended: its state is that of now, or pass a time.", run_id=when
            )
        raise InvalidInput(
            f"no run {when} in this database: it may have been pruned. Pass a time.", run_id=when
        )

    def _run(self, name: str, scope: str, owner: str, **more: Any) -> list[Row]:
        params = {"tenant": self._tenant, "scope": check_scope(scope), "owner": owner, **more}
        return self._pool.run(_SQL[name], params)


def read_state(pool: Pool, tenant: str, scope: str, owner: str) -> dict[str, Any]:
    """Return the state of an owner by key. Raises Unavailable, and InvalidInput for one with too many keys."""
    params = {"tenant": tenant, "scope": scope, "owner": owner, "most": MOST_KEYS + 1}
    rows = pool.run(_SQL["all"], params)
    if len(rows) > MOST_KEYS:
        raise too_many(scope, owner)
    return {row["key"]: row["value"] for row in rows}


def reader(pool: Pool, tenant: str, connection: Connection | None = None) -> Read:
    """Return the reader of a tool's state. With a connection it reads in its transaction: the pool may have no second one."""

    def read(scope: str, owner: str, key: str | None) -> Snapshot:
        params: Mapping[str, Any] = {
            "tenant": tenant, "scope": scope, "owner": owner, "key": key, "few": FEW_KEYS, "small": SMALL_BYTES, "most": MOST_KEYS + 1,
        }  # fmt: skip
        rows = (
            pool.run(_SQL["read"], params)
            if connection is None
            else execute(connection, _SQL["read"], params)
        )
        if len(rows) > MOST_KEYS:
            raise too_many(scope, owner)
        entries = {
            row["key"]: Entry(row["version"], row["exists"], row["value"], row["is_read"])
            for row in rows
            if row["key"] is not None
        }
        return Snapshot(entries, rows[0]["is_whole"] or key is None)

    return read


def too_many(scope: str, owner: str) -> InvalidInput:
    return InvalidInput(
        f"the state of {scope} {owner!r} has more than {MOST_KEYS} keys: read it by key.",
        scope=scope,
        owner=owner,
    )
