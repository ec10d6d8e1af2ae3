"""State: JSON values that the tools of runs share, by scope. Pure: a tool's own view of it, and the changes that it asks for.

A tool reads a snapshot and writes by operations. They are collected here, and committed with the tool's result or not at all. Operations
that commute (`increment`, `append`, `extend`, `union`, `max`, `min`, `update`) are applied to the value that the key has at the commit. A
`set` or a `delete` of a key that this call has read is refused if the key has changed since.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from decimal import Context, Decimal
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from agno_workers.core.checks import brief
from agno_workers.core.scopes import TeamPlace, owner_in
from agno_workers.core.words import did_you_mean, safe_text
from agno_workers.errors import InvalidInput

Scope = Literal["session", "user", "agent", "team", "run", "global"]
"""The runs that share a state: those of a session, of a user, of an agent, of a team, one run, or all."""

MAX_VALUE_BYTES = 8 * 1024 * 1024
"""The most JSON of one value."""
MAX_KEY_BYTES = 512
_EXACT = Context(prec=1000)
_ADDED: Final = ("append", "extend")


class Entry(NamedTuple):
    """A key as it is stored. A key that was deleted has a version."""

    version: int = 0
    exists: bool = False
    value: Any = None
    is_read: bool = True
    """False for a large value that was not read with the others."""


class Snapshot(NamedTuple):
    """The keys of an owner that were read together."""

    entries: Mapping[str, Entry]
    is_whole: bool
    """False when the owner has so many keys that only those that are asked for are read."""


Read = Callable[[str, str, str | None], Snapshot]
"""Read the state of a scope and owner for the use of a key; None: all keys are wanted."""


def nothing(_scope: str, _owner: str, _key: str | None) -> Snapshot:
    """Read the state of an owner that has none."""
    return Snapshot({}, True)


def owner_of(
    scope: str,
    *,
    session_id: str | None,
    user_id: str | None,
    agent: str,
    run_id: str,
    team: TeamPlace | None = None,
) -> str:
    """Return the owner of the state that a run has in this scope. Raises InvalidInput where the run has no such owner."""
    owner = owner_in(
        check_scope(scope),
        session_id=session_id,
        user_id=user_id,
        agent=agent,
        run_id=run_id,
        team=team.state_owner if team else None,
    )
    if owner is None:
        instead = "submit it to a team" if scope == "team" else f"submit it with {scope}_id=..."
        raise InvalidInput(
            f"run {run_id} has no {scope}, so it has no state of a {scope}: {instead}, or use the scope 'run'.",
            run_id=run_id,
            scope=scope,
        )
    return owner


def check_scope(scope: str) -> str:
    """Return the scope. Raises InvalidInput for an unknown one."""
    if scope not in get_args(Scope):
        known = ", ".join(map(repr, get_args(Scope)))
        raise InvalidInput(
            f"{brief(scope)} is not a scope of state.{did_you_mean(str(scope), get_args(Scope))} Scopes: {known}."
        )
    return scope


class State(MutableMapping[str, Any]):
    """The state of one scope and owner as a tool sees it: a mapping of JSON values, with operations.

    The keys are read together when the first one is used, and stay as they were then; the tool's own changes are visible to it. A
    value that is changed in place, as in `ctx.state["items"].append(1)`, is written as `set` does.
    """

    def __init__(self, scope: str, owner: str, read: Read = nothing) -> None:
        self.scope = scope
        self.owner = owner
        self._read = read
        self._stored: dict[str, Entry] = {}
        self._is_whole = False
        self._used: set[str] = set()
        self._used_all = False
        self._pending: dict[str, list[tuple[str, Any]]] = {}
        self._lent: dict[str, tuple[Any, bytes]] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<State {self.scope} {self.owner!r}>"

    # Reading.

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key. Raises KeyError for a key that does not exist."""
        with self._lock:
            exists, value = self._view(key)
            if not exists:
                raise KeyError(key)
            if isinstance(value, list | dict) and key not in self._lent:
                value = plain(value, key)
                self._lent[key] = value, msgspec.json.encode(value)
            return self._lent[key][0] if key in self._lent else value

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            self._load(None)
            self._used_all = True
            keys = [*self._stored, *(key for key in self._pending if key not in self._stored)]
            return iter([key for key in keys if self._exists(key)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return isinstance(key, str) and self._view(key)[0]

    # Writing.

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.delete(key)

    def set(self, key: str, value: Any) -> None:
        """Replace the value. Refused at the commit if this call has read the key and it has changed since."""
        self._add("set", key, value)

    def delete(self, key: str) -> None:
        """Delete the key, if it exists. Refused as `set` is."""
        self._add("delete", key, None)

    def increment(self, key: str, by: float = 1) -> None:
        """Add to a number; a key that does not exist counts as 0. Decimal: 0.1 ten times is 1."""
        self._add("increment", key, by)

    def append(self, key: str, item: Any) -> None:
        """Add an item to the end of a list; a key that does not exist becomes one."""
        self._add("append", key, [item])

    def extend(self, key: str, items: Iterable[Any]) -> None:
        """Add items to the end of a list."""
        self._add("extend", key, list(items))

    def union(self, key: str, items: Iterable[Any]) -> None:
        """Add the items that the list does not have to its end."""
        self._add("union", key, list(items))

    def max(self, key: str, value: float | str) -> None:
        """Keep the greater of two numbers or two texts."""
        self._add("max", key, value)

    def min(self, key: str, value: float | str) -> None:
        """Keep the smaller of two numbers or two texts."""
        self._add("min", key, value)

    def update(self, key: Any, fields: Any = None, /) -> None:  # type: ignore[override]
        """Set fields of an object: `update("profile", {"city": "Bonn"})`. With a mapping alone, set each of its keys, as a dict does."""
        if isinstance(key, Mapping) and fields is None:
            for name, value in key.items():
                self.set(name, value)
        else:
            self._add("update", key, fields)

    # What is committed.

    def _changes(self) -> list[dict[str, Any]]:
        """Return the changes so far, as `agno.change_state` takes them."""
        with self._lock:
            for key in list(self._lent):
                self._take_back(key)
            return [self._change(key, *each) for key in self._pending for each in self._pending[key]]

    def _change(self, key: str, operation: str, operand: Any) -> dict[str, Any]:
        change: dict[str, Any] = {
            "scope": self.scope,
            "owner": self.owner,
            "key": key,
            "operation": operation,
        }
        if operation != "delete":
            change["value"] = operand
        if operation in ("set", "delete") and (key in self._used or self._used_all):
            change["version"] = self._stored.get(key, Entry()).version
        return change

    def _add(self, operation: str, key: str, operand: Any) -> None:
        check_key(key)
        operand = plain(operand, key)
        check_operand(operation, key, operand)
        with self._lock:
            self._take_back(key)
            self._lent.pop(key, None)
            before = self._pending.get(key, [])
            if (key in self._stored and self._stored[key].is_read) or (
                before and before[0][0] in ("set", "delete")
            ):
                self._fold(key, [*before, (operation, operand)])  # raises now for what does not fit
            self._pending[key] = joined(key, before, operation, operand)

    def _take_back(self, key: str) -> None:
        """Write a value that was changed in place."""
        if key not in self._lent:
            return
        value, before = self._lent[key]
        now = plain(value, key)
        if (text := msgspec.json.encode(now)) != before:
            self._lent[key] = value, text
            self._pending[key] = [("set", now)]

    def _view(self, key: str) -> tuple[bool, Any]:
        """Return whether the key exists, and its value, with the changes of this call."""
        check_key(key)
        pending = self._pending.get(key)
        if not (pending and pending[0][0] in ("set", "delete")):
            if key not in self._stored or not self._stored[key].is_read:
                self._load(key)
            self._used.add(key)
        return self._fold(key, pending or [])

    def _exists(self, key: str) -> bool:
        """Return whether the key exists, without its value."""
        if pending := self._pending.get(key):
            return pending[-1][0] != "delete"
        return self._stored[key].exists

    def _fold(self, key: str, operations: Iterable[tuple[str, Any]]) -> tuple[bool, Any]:
        entry = self._stored.get(key, Entry())
        exists, value = entry.exists, entry.value
        for operation, operand in operations:
            exists, value = operation != "delete", after(key, operation, exists, value, operand)
        return exists, value

    def _load(self, key: str | None) -> None:
        if self._is_whole and (key is None or key not in self._stored):
            return
        found = self._read(self.scope, self.owner, key)
        for name, entry in found.entries.items():
            if name not in self._stored or (entry.is_read and not self._stored[name].is_read):
                self._stored[name] = entry
        self._is_whole = self._is_whole or found.is_whole
        if key is not None:
            self._stored.setdefault(key, Entry())


class States:
    """All the state that one call of a tool uses."""

    def __init__(self, read: Read = nothing) -> None:
        self._read = read
        self._of: dict[tuple[str, str], State] = {}
        self._lock = threading.Lock()

    def of(self, scope: str, owner: str) -> State:
        with self._lock:
            return self._of.setdefault((scope, owner), State(scope, owner, self._read))

    def changes(self) -> list[dict[str, Any]]:
        """Return the changes that the call asked for. Raises InvalidInput for a value that was changed in place to one that is not JSON."""
        return [change for state in self._of.values() for change in state._changes()]


class Scratch:
    """The scratch values of at most `most` runs of this process; those of the run that was used longest ago are dropped first."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._of: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def of(self, run_id: str) -> dict[str, Any]:
        with self._lock:
            values = self._of[run_id] = self._of.pop(run_id, {})
            while len(self._of) > self._most:
                del self._of[next(iter(self._of))]
            return values

    def forget(self, run_id: str) -> None:
        with self._lock:
            self._of.pop(run_id, None)


# Values and operations.


def check_key(key: object) -> None:
    """Raise InvalidInput for what can't be a key."""
    if not isinstance(key, str) or not key:
        raise InvalidInput(f"a key of state must be text, got {brief(key)}.")
    if safe_text(key) is not key or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidInput(
            f"the key {brief(key)} of state can't be stored: use at most {MAX_KEY_BYTES} bytes of text without NUL."
        )


def plain(value: Any, key: str) -> Any:
    """Return a copy of a JSON value. Raises InvalidInput for any other value, with the key and the place in it."""
    try:
        copied = _copy(value, key, "")
        size = len(msgspec.json.encode(copied))
    except RecursionError:
        raise InvalidInput(
            f"state {key!r}: the value contains itself, or is nested too deeply: store it in parts."
        ) from None
    except (ValueError, OverflowError) as error:  # a number of thousands of digits
        raise InvalidInput(f"state {key!r}: the value can't be written as JSON: {error}.") from None
    if size > MAX_VALUE_BYTES:
        raise InvalidInput(
            f"state {key!r} would take {size} bytes, and may take {MAX_VALUE_BYTES}: store large values elsewhere, and their address here."
        )
    return copied


def _copy(value: Any, key: str, place: str) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return safe_text(str.__str__(value))
        case int():
            return int(value)
        case float() if value - value == 0:  # finite
            return float(value)
        case list() | tuple():
            return [_copy(item, key, f"{place}[{number}]") for number, item in enumerate(value)]
        case dict() if all(isinstance(name, str) for name in value):
            return {safe_text(name): _copy(item, key, f"{place}.{name}") for name, item in value.items()}
        case dict():
            odd = next(name for name in value if not isinstance(name, str))
            raise InvalidInput(
                f"state {key!r}: the key {brief(odd)} at {place or 'the top'} is not text, as JSON needs."
            )
        case _:
            where = f" at {place}" if place else ""
            raise InvalidInput(
                f"state {key!r}: {brief(value)}{where} is not JSON: store text, numbers, True, False, None, lists and dicts of them."
            )


def check_operand(operation: str, key: str, operand: Any) -> None:
    """Raise InvalidInput for an operand that fits no value."""
    match operation:
        case "increment" if not _is_number(operand):
            wanted = "a number"
        case "max" | "min" if not (_is_number(operand) or isinstance(operand, str)):
            wanted = "a number or text"
        case "update" if not isinstance(operand, dict):
            wanted = "a dict of fields"
        case _:
            return
    raise InvalidInput(f"{operation} of state {key!r} needs {wanted}, got {brief(operand)}.")


def after(key: str, operation: str, exists: bool, value: Any, operand: Any) -> Any:
    """Return a value after an operation, as `agno.state_after` does in SQL. Raises InvalidInput where they do not fit."""
    match operation:
        case "set":
            return operand
        case "delete":
            return None
        case "increment" if not exists or _is_number(value):
            return _sum(key, value if exists else 0, operand)
        case "append" | "extend" if not exists or isinstance(value, list):
            return [*(value if exists else ()), *operand]
        case "union" if not exists or isinstance(value, list):
            items = list(value) if exists else []
            known = set(map(_identity, items))
            for item in operand:
                if (identity := _identity(item)) not in known:
                    known.add(identity)
                    items.append(item)
            return items
        case "max" | "min" if (
            not exists
            or (_is_number(value) and _is_number(operand))
            or (isinstance(value, str) and isinstance(operand, str))
        ):
            is_better = not exists or (operand > value if operation == "max" else operand < value)
            return operand if is_better else value
        case "update" if not exists or isinstance(value, dict):
            return {**(value if exists else {}), **operand}
    raise InvalidInput(
        f"state {key!r} is {brief(value)}, and {operation} does not fit it: set it instead, or use another key."
    )


def joined(key: str, before: list[tuple[str, Any]], operation: str, operand: Any) -> list[tuple[str, Any]]:
    """Return a key's operations with one more, as few as possible."""
    if operation in ("set", "delete") or not before:
        return [(operation, operand)]
    last, value = before[-1]
    if last == "set":
        return [("set", after(key, operation, True, value, operand))]
    if last == operation or (last in _ADDED and operation in _ADDED):
        return [
            *before[:-1],
            (operation if last == operation else "extend", after(key, operation, True, value, operand)),
        ]
    return [*before, (operation, operand)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sum(key: str, one: float, other: float) -> float:
    """Add as Postgres does: decimal, so that the order of additions does not matter. Raises InvalidInput for what JSON can't hold."""
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    total = float(_EXACT.add(Decimal(repr(one)), Decimal(repr(other))))
    if math.isinf(total):
        raise InvalidInput(f"state {key!r}: {brief(one)} and {brief(other)} add up to too large a number.")
    return total


def _identity(value: Any) -> str:
    """Return a text that two values share where jsonb sees no difference: 1 and 1.0 are the same, 1 and True are not."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case _:
            return value
