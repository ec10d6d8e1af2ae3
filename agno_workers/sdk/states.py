"""State from outside of runs: `client.state("session", "chat-7")`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from agno_workers.core.checks import brief
from agno_workers.core.request import MAX_NAME_CHARS
from agno_workers.core.state import Scope, check_scope
from agno_workers.errors import InvalidInput
from agno_workers.sessions.state import StateChange, StateStore, Versioned


class StateHandle:
    """The state of one scope and owner. Making a handle asks nothing of the database; its verbs raise Unavailable.

    Each change is one transaction, and returns the key's value and version after it. It raises InvalidInput for what is not JSON or does
    not fit the value. The changes of tools and of clients are ordered by the lock of the key.
    """

    def __init__(self, store: StateStore, scope: Scope, owner: str, actor: str) -> None:
        """Raises InvalidInput for an unknown scope, or an owner that is missing."""
        self.scope = check_scope(scope)
        if fault := _owner_fault(scope, owner):
            raise InvalidInput(f"the state of scope {scope!r} needs {fault}, got {brief(owner)}.")
        self.owner = owner
        self._actor = actor
        self._store = store

    def __repr__(self) -> str:
        return f"<StateHandle {self.scope} {self.owner!r}>"

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or `default` if it does not exist."""
        found = self.versioned(key)
        return found.value if found.exists else default

    def versioned(self, key: str) -> Versioned:
        """Return the value of a key with its version, for `expected_version`."""
        return self._store.get(self.scope, self.owner, key)

    def all(self) -> dict[str, Any]:
        """Return all keys with their values."""
        return self._store.all(self.scope, self.owner)

    def set(self, key: str, value: Any, *, expected_version: int | None = None) -> Versioned:
        """Replace the value. Raises StateConflict when the key has another version than `expected_version`; 0: there was no such key yet."""
        return self._change(key, "set", value, expected_version)

    def delete(self, key: str, *, expected_version: int | None = None) -> Versioned:
        """Delete the key, if it exists. Raises as `set` does."""
        return self._change(key, "delete", None, expected_version)

    def increment(self, key: str, by: float = 1) -> Versioned:
        """Add to a number; a key that does not exist counts as 0."""
        return self._change(key, "increment", by)

    def append(self, key: str, item: Any) -> Versioned:
        """Add an item to the end of a list; a key that does not exist becomes one."""
        return self._change(key, "append", [item])

    def extend(self, key: str, items: Iterable[Any]) -> Versioned:
        """Add items to the end of a list."""
        return self._change(key, "extend", list(items))

    def union(self, key: str, items: Iterable[Any]) -> Versioned:
        """Add the items that the list does not have to its end."""
        return self._change(key, "union", list(items))

    def max(self, key: str, value: float | str) -> Versioned:
        """Keep the greater of two numbers or two texts."""
        return self._change(key, "max", value)

    def min(self, key: str, value: float | str) -> Versioned:
        """Keep the smaller of two numbers or two texts."""
        return self._change(key, "min", value)

    def update(self, key: str, fields: Mapping[str, Any]) -> Versioned:
        """Set fields of an object, and keep its others."""
        return self._change(key, "update", dict(fields))

    def history(self, key: str, limit: int = 100) -> list[StateChange]:
        """Return the newest changes of a key, the newest first."""
        return self._store.history(self.scope, self.owner, key, limit)

    def at(self, when: datetime | str) -> dict[str, Any]:
        """Return all keys with the values that they had at a time, or at the end of the run of this id.

        Raises RunNotFound for text that is not an id, InvalidInput for a run that has not ended or is gone, and for a time whose changes were pruned.
        """
        return self._store.at(self.scope, self.owner, when)

    def restore(self, when: datetime | str) -> int:
        """Set each key to the value that `at` returns, as a new version; keys that were made later are deleted. Return how many changed."""
        return self._store.restore(self.scope, self.owner, when, actor=self._actor)

    def _change(self, key: str, operation: str, value: Any, version: int | None = None) -> Versioned:
        return self._store.change(
            self.scope, self.owner, key, operation, value, version=version, actor=self._actor
        )


def _owner_fault(scope: Scope, owner: object) -> str | None:
    if scope == "global":
        return "no owner" if owner else None
    if isinstance(owner, str) and 0 < len(owner) <= MAX_NAME_CHARS:
        return None
    named = {"agent": "the name of an agent", "team": "the session of a team's run, or that run's id"}
    return named.get(scope, f"the id of a {scope}")
