"""Sessions as people use them: lists, one with its runs and messages, and the changes of its life.

What is one transaction is a function of functions/lifecycle.sql. To delete a session takes several, since it may have many thousand runs:
it is ended first, its runs go in pages, and its row goes last. An interrupted delete leaves an ended session: repeat it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any, TypedDict, Unpack

import msgspec
from uuid6 import uuid7

from agno_workers.core.checks import brief
from agno_workers.core.messages import Message
from agno_workers.core.request import check_metadata, check_name
from agno_workers.core.run import Run
from agno_workers.core.session import SessionStatus
from agno_workers.core.words import did_you_mean
from agno_workers.database.pool import Pool, Row, jsonb, statements
from agno_workers.errors import InvalidInput, SessionForbidden, Unavailable
from agno_workers.runs.control import Control
from agno_workers.runs.queries import Listed, checked_filters, known_id, narrowed, run_of, shown_message

_SQL = statements("sessions/store")
EXPORT_VERSION = 1
"""The version of the shape of `export`: it is raised when a reader must change."""
_PAGE = 200
_DELETED_AT_ONCE = 200
_DELETE_WAIT_S = 10.0
_DELETE_POLL_S = 0.1
_NO_POSITION = 2**62


class SessionRow(msgspec.Struct, frozen=True):
    """A session at the time of the query."""

    id: str
    """The `session_id` of its runs."""
    status: SessionStatus
    """Its place in the life of a session."""
    title: str
    """The beginning of the first message, unless it was set."""
    user_id: str | None = None
    """The user whom it belongs to; no other user reads it or continues it."""
    agent: str | None = None
    """The agent of its first run."""
    summary: str | None = None
    """The summary of its runs up to `summary_until`, if its agents keep one."""
    summary_until: int = 0
    """The position of the last run that the summary covers."""
    metadata: dict[str, Any] = {}
    """JSON of yours. `retention` is its class for `agno-workers sessions prune`."""
    runs: int = 0
    """The number of its runs, with those that were rolled back."""
    live_run_id: str | None = None
    """The run that it works on now."""
    waiting: int = 0
    """The number of runs that wait for their turn."""
    idle_timeout_s: float | None = None
    """After so many seconds without activity it times out."""
    created_at: datetime | None = None
    """UTC."""
    last_active_at: datetime | None = None
    """The time of the last message or end of a run; UTC."""
    expires_at: datetime | None = None
    """When it times out, if it stays idle; UTC."""
    ended_at: datetime | None = None
    """When it ended or timed out; UTC."""
    forked_from: str | None = None
    """The session that it was forked from."""


class SessionFilters(TypedDict, total=False):
    """Which sessions a list has; None, or left out: all."""

    user_id: str | None
    """The user whom they belong to."""
    agent: str | None
    """The agent of the first run."""
    status: str | None
    """`created`, `active`, `paused`, `ended` or `timed_out`."""
    since: datetime | timedelta | None
    """Active at this time or later, or within this time."""
    before: str | None
    """The id of a session: only those that were active before it. With the last session of a page, the next page."""


class RolledBack(msgspec.Struct, frozen=True):
    """The result of a rollback."""

    runs: int
    """The number of runs that left the history."""
    cancelled: tuple[str, ...]
    """The ids of those that were open, and were cancelled."""


class Sessions:
    """See the module. `as_user` is the user who asks: SessionForbidden is raised for a session of another one; None is not checked.

    Every call for a session raises SessionNotFound, and Unavailable when Postgres does not answer.
    """

    def __init__(self, pool: Pool, control: Control, tenant: str = "default") -> None:
        self._pool = pool
        self._control = control
        self._tenant = tenant

    def get(self, id: str, as_user: str | None = None) -> SessionRow:
        """Return a session."""
        row = self._one("session", id, as_user)
        return msgspec.convert(row, SessionRow)

    def owner(self, id: str, as_user: str | None = None) -> str | None:
        """Return the user whom a session belongs to."""
        user_id: str | None = self._one("owner", id, as_user)["user_id"]
        return user_id

    def all(self, limit: int = 50, **filters: Unpack[SessionFilters]) -> list[SessionRow]:
        """Return sessions, the last active first. Raises InvalidInput for a filter that can't be used, SessionNotFound for `before`."""
        if limit < 1:
            raise InvalidInput(f"limit is at least 1, not {limit!r}.")
        texts = ("user_id", "agent", "status", "before")
        wanted = checked_filters("session", filters, SessionFilters.__annotations__, texts, SessionStatus)
        wanted |= {"tenant": self._tenant, "limit": limit}
        if (before := filters.get("before")) is not None:
            wanted |= {"before_at": self.get(before).last_active_at}
        return [
            msgspec.convert(row, SessionRow)
            for row in self._pool.run(narrowed(_SQL["sessions"], wanted), wanted)
        ]

    def near(self, id: str) -> str:
        """Return ` Did you mean ...?` with the nearest id among the last active sessions, for an operator; or an empty string."""
        return did_you_mean(id, [row["id"] for row in self._run("ids", id, None)])

    def find_ids(self, text: str) -> list[str]:
        """Return the ids, at most seven, that are this text, or begin or end with it."""
        return [row["id"] for row in self._run("find_ids", text, None)]

    def state_keys(self, id: str) -> list[str]:
        """Return the keys of its state."""
        return [row["key"] for row in self._run("state_keys", id, None)]

    def create(
        self, id: str | None = None, *, user_id: str | None = None, title: str = "", metadata: dict[str, Any] | None = None,
        idle_timeout_s: float | None = None,
    ) -> tuple[str, bool]:  # fmt: skip
        """Return the id of the session, and whether it is new: one that exists stays as it is. Raises SessionForbidden where it belongs to
        another user, InvalidInput."""
        new_id = str(uuid7()) if id is None else id
        check_name(new_id, "id", "text that is not blank")
        if user_id is not None:
            check_name(user_id, "user_id", "text that is not blank")
        _check_title(title)
        check_metadata(metadata or {})
        if idle_timeout_s is not None and (isinstance(idle_timeout_s, bool) or not 0 < idle_timeout_s < 1e9):
            raise InvalidInput(f"idle_timeout_s must be seconds above 0, got {idle_timeout_s!r}.")
        values = {
            "user_id": user_id,
            "title": title,
            "metadata": jsonb(metadata or {}),
            "idle_timeout_s": idle_timeout_s,
        }
        created = bool(self._run("create", new_id, None, **values))
        if not created and self.owner(new_id, user_id) != user_id:
            raise SessionForbidden(
                f"session {new_id!r} exists and belongs to a user: pass its user_id, or use another id.",
                session_id=new_id,
            )
        return new_id, created

    def update(
        self, id: str, as_user: str | None = None, *, title: str | None = None, metadata: dict[str, Any] | None = None
    ) -> None:  # fmt: skip
        """Set the title, the metadata, or both; None leaves a value as it is."""
        if title is not None:
            _check_title(title)
        if metadata is not None:
            check_metadata(metadata)
        self._run("update", id, as_user, title=title, metadata=jsonb(metadata))

    # Runs and messages.

    def runs(
        self, id: str, as_user: str | None = None, *, newest_first: bool = False, at: Run | None = None, limit: int = _PAGE,
        in_history: bool = False,
    ) -> list[Listed]:  # fmt: skip
        """Return a page of runs in the order of the session, after (`newest_first`: before) the run `at`. `in_history`: without those that
        were rolled back."""
        found: list[Row] = []
        kinds = ("scheduled", "placed", "old") if newest_first else ("old", "placed", "scheduled")
        side = "before" if newest_first else "after"
        edge = at
        for kind in kinds[kinds.index(_kind(at)) if at else 0 :]:
            wanted: dict[str, Any] = {
                "in_history": in_history or None,
                "last" if newest_first else "first": limit - len(found),
            }
            if kind == "placed":
                wanted[f"{side}_position"] = (
                    edge.session_position if edge else _NO_POSITION if newest_first else 0
                )
            else:
                wanted["is_scheduled"] = kind == "scheduled"
            if edge:
                wanted |= {
                    f"{side}_place": edge.session_position or 0,
                    f"{side}_at": edge.created_at,
                    side: edge.id,
                }
            edge = None  # the other kinds are read from their beginning
            params = {"tenant": self._tenant, "id": id, "as_user": as_user} | wanted
            found += self._pool.run(narrowed(_SQL["runs"], params), params)
            if len(found) >= limit:
                break
        if at is None and not found:
            self.owner(id, as_user)  # raises SessionNotFound and SessionForbidden
        return [Listed(run_of(row), row["asked"] or "") for row in found]

    def all_runs(
        self, id: str, as_user: str | None = None, *, newest_first: bool = False, in_history: bool = False
    ) -> Iterator[Run]:
        """Yield the runs, read page by page."""
        at: Run | None = None
        while page := self.runs(id, as_user, newest_first=newest_first, at=at, in_history=in_history):
            at = page[-1].run
            yield from (each.run for each in page)

    def all_messages(
        self, id: str, as_user: str | None = None, *, newest_first: bool = False
    ) -> Iterator[tuple[str, int, Message]]:
        """Yield the messages of the history with the ids of their runs and their places in these, read page by page."""
        runs = self.all_runs(id, as_user, newest_first=newest_first, in_history=True)
        while page := [run.id for run in islice(runs, _PAGE)]:
            rows = self._pool.run(_SQL["messages"], {"run_ids": page})
            of_run = {run_id: list(each) for run_id, each in groupby(rows, lambda row: str(row["run_id"]))}
            for run_id in page:
                for row in sorted(of_run.get(run_id, ()), key=lambda row: row["seq"], reverse=newest_first):
                    yield run_id, row["seq"], shown_message(row["content"])

    # Its life.

    def pause(self, id: str, as_user: str | None = None) -> bool:
        """Let the runs of new messages wait; False when it is paused or has ended."""
        return bool(self._one("pause", id, as_user)["done"])

    def resume(self, id: str, as_user: str | None = None) -> bool:
        """Let its runs begin again; False when it is not paused."""
        return bool(self._one("resume", id, as_user)["done"])

    def end(self, id: str, as_user: str | None = None) -> int | None:
        """End it, and return how many waiting runs were cancelled; None when it had ended before."""
        cancelled: int | None = self._one("end", id, as_user)["cancelled"]
        return cancelled

    def fork(
        self,
        id: str,
        as_user: str | None = None,
        *,
        new_id: str | None = None,
        at: str | None = None,
        actor: str = "",
    ) -> tuple[str, bool]:
        """Make a session with the past of this one; return its id, and whether it is new. Raises InvalidInput."""
        new_id = str(uuid7()) if new_id is None else new_id
        check_name(new_id, "new_id", "text that is not blank")
        row = self._one("fork", id, as_user, new_id=new_id, at=at and known_id(at), actor=actor)
        return new_id, bool(row["created"])

    def roll_back(
        self, id: str, as_user: str | None = None, *, to: str | None, actor: str = ""
    ) -> RolledBack:
        """Roll back to the end of a run, or to the beginning (None). Raises InvalidInput for a run that is not of its past."""
        row = self._one("roll_back", id, as_user, to=to and known_id(to), actor=actor)
        self._cancel_children(row["cancelled"])
        return RolledBack(row["rolled_back"], tuple(row["cancelled"]))

    def delete(self, id: str, as_user: str | None = None, *, cancel: bool = False) -> int:
        """Delete a session with all that belongs to it, and return the number of its runs. May be repeated.

        Raises SessionBusy while a run is open, unless it may `cancel` it, and Unavailable when something that follows the end of a run was
        not sent within seconds.
        """
        self._cancel_children(self._one("begin_delete", id, as_user, cancel=cancel)["cancelled"])
        for each in ("forget_background", "stop_background"):
            self._run(each, id, None)
        runs, until = 0, time.monotonic() + _DELETE_WAIT_S
        while not self._one("delete", id, None)["deleted"]:
            deleted: int = self._one("delete_runs", id, None, limit=_DELETED_AT_ONCE)["deleted"]
            runs += deleted
            if deleted:
                until = time.monotonic() + _DELETE_WAIT_S
            elif time.monotonic() > until:
                raise Unavailable(
                    f"session {id!r} has ended, and is not deleted yet: a callback after one of its runs, or a run that one delegated to, is "
                    "open. Start a worker, which sends callbacks, and repeat the delete."
                )
            else:
                time.sleep(_DELETE_POLL_S)
        return runs

    def prunable(
        self, older_than: timedelta, retention: str | None = None, *, idle: bool = False, limit: int = 10_000
    ) -> list[SessionRow]:
        """Return sessions that ended so long ago, the longest first; with `idle` also those that were not active since. Those with a
        retention class only where it is named.
        """
        params = {
            "tenant": self._tenant,
            "older_than": older_than,
            "retention": retention,
            "idle": idle,
            "limit": limit,
        }
        return [msgspec.convert(row, SessionRow) for row in self._pool.run(_SQL["prunable"], params)]

    def export(self, id: str, as_user: str | None = None) -> dict[str, Any]:
        """Return all that is stored of a session, as JSON values."""
        session = self.get(id, as_user)
        messages = [
            {"run_id": run_id, "seq": seq, "message": message}
            for run_id, seq, message in self.all_messages(id, as_user)
        ]
        stored = {
            "version": EXPORT_VERSION,
            "session": session,
            "runs": list(self.all_runs(id, as_user)),
            "messages": messages,
            **{
                name: {
                    row["key"]: {"value": row["value"], "version": row["version"]}
                    for row in self._run("state", id, None, scope=scope)
                }
                for name, scope in (("state", "session"), ("team_state", "team"))
            },
            "context": self._run("context", id, None),
            "memories": [row["id"] for row in self._run("memories", id, None, user_id=session.user_id)],
        }
        exported: dict[str, Any] = msgspec.to_builtins(stored, builtin_types=())
        return exported

    def _cancel_children(self, run_ids: Sequence[str]) -> None:
        for child_id in self._control.open_children(*run_ids):
            self._control.cancel(child_id)  # after a crash before this, the keeper cancels them

    def _one(self, statement: str, id: str, as_user: str | None, **params: Any) -> Row:
        (row,) = self._run(statement, id, as_user, **params)
        return row

    def _run(self, statement: str, id: str, as_user: str | None, **params: Any) -> list[Row]:
        return self._pool.run(
            _SQL[statement], {"tenant": self._tenant, "id": id, "as_user": as_user} | params
        )


def _kind(run: Run) -> str:
    if run.session_position is not None:
        return "placed"
    return "old" if run.session_status is None else "scheduled"


def _check_title(title: Any) -> None:
    if not isinstance(title, str) or len(title) > 1000:
        raise InvalidInput(f"title must be text of at most 1,000 characters, got {brief(title)}.")
