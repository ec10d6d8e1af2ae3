"""Sessions: `client.sessions`, and the handle of one: read it, pause, resume, end, fork, roll back and delete it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar, Unpack

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Message
from agno_workers.core.request import SubmitOptions, check_name, run_request
from agno_workers.core.run import Run
from agno_workers.core.words import safe_text
from agno_workers.errors import SessionNotFound
from agno_workers.repositories import Database
from agno_workers.sdk.handles import RunHandle, submit_run
from agno_workers.sdk.states import StateHandle
from agno_workers.sessions.store import RolledBack, SessionFilters, SessionRow
from agno_workers.streams import Streams

T = TypeVar("T")


class InOrder(Generic[T]):
    """Values in the order of a session, read page by page; `reversed(...)` begins with the last."""

    def __init__(self, read: Callable[[bool], Iterator[T]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[T]:
        return self._read(False)

    def __reversed__(self) -> Iterator[T]:
        return self._read(True)


class HasId(Protocol):
    """A run, by its handle, its row, or the result of `Agent.delay`."""

    @property
    def id(self) -> str: ...


class SessionHandle:
    """One session. Making a handle asks nothing of the database; its verbs raise SessionNotFound, SessionForbidden where it has a
    `user_id` and the session belongs to another user, and Unavailable.
    """

    created: bool | None = None
    """After `create` and `fork`: False when the session existed. None for other handles."""

    def __init__(
        self, id: str, database: Database, streams: Streams | None = None, *, user_id: str | None = None, created: bool | None = None
    ) -> None:  # fmt: skip
        """Raises InvalidInput for what is not the id of a session or of a user."""
        check_name(id, "id", "text", not_blank=False)
        if user_id is not None:
            check_name(user_id, "user_id", "text that is not blank")
        self.id = safe_text(id)
        self.user_id = user_id
        self.created = created
        self._database = database
        self._streams = streams

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def session(self) -> SessionRow:
        """The session's row as it is now."""
        return self._database.sessions.get(self.id, self.user_id)

    @property
    def summary(self) -> str | None:
        """The summary of its earlier runs; None before there is one."""
        return self.session.summary

    @property
    def runs(self) -> InOrder[Run]:
        """Its runs in their order, also those that were rolled back; `reversed(session.runs)` begins with the newest."""
        sessions = self._database.sessions
        return InOrder(
            lambda newest_first: sessions.all_runs(self.id, self.user_id, newest_first=newest_first)
        )

    @property
    def messages(self) -> InOrder[Message]:
        """The conversation in its order, without runs that were rolled back; `reversed(session.messages)` begins with the newest."""
        sessions = self._database.sessions
        return InOrder(
            lambda newest_first: (
                message
                for _, _, message in sessions.all_messages(self.id, self.user_id, newest_first=newest_first)
            )
        )

    @property
    def state(self) -> StateHandle:
        """The state of the session, as `client.state("session", id)` returns it."""
        if self.user_id is not None:
            self._database.sessions.owner(self.id, self.user_id)  # raises SessionForbidden
        return StateHandle(self._database.states, "session", self.id, _actor(self.user_id))

    def submit(self, agent: Agent | str, *input: Any, **options: Unpack[SubmitOptions]) -> RunHandle:
        """Submit a run to this session, for its user: `agent` is an Agent, or the name of one that a worker has registered. When this
        returns, the run is in Postgres.

        Raises as `client.runs.submit` does. A session that does not exist yet is made.
        """
        given: dict[str, Any] = {**options}
        if given.get("user_id") is None:
            given["user_id"] = self._owner() if self.user_id is None else self.user_id
        if not isinstance(agent, str):
            # The caller has the agent itself, so no worker needs to have registered it.
            given = {"allow_unknown": True, "queue": agent.queue, **given}
            agent = agent.name
        request = run_request(agent, input, given | {"session_id": self.id})
        return submit_run(request, self._database, self._streams)

    def _owner(self) -> str | None:
        try:
            return self._database.sessions.owner(self.id)
        except SessionNotFound:
            return None

    def update(self, *, title: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Set the title, or replace the metadata; None leaves a value as it is. Raises InvalidInput."""
        self._database.sessions.update(self.id, self.user_id, title=title, metadata=metadata)

    def pause(self) -> bool:
        """Let new runs wait until `resume`; messages are accepted, and a live run continues. False when it is paused or has ended."""
        return self._database.sessions.pause(self.id, self.user_id)

    def resume(self) -> bool:
        """Let the runs of a paused session begin; False when it is not paused."""
        return self._database.sessions.resume(self.id, self.user_id)

    def end(self) -> int:
        """End the session, and return the number of waiting runs that were cancelled. New messages are refused; a live run ends as usual.

        0 too when it had ended before.
        """
        return self._database.sessions.end(self.id, self.user_id) or 0

    def fork(self, new_id: str | None = None, *, at: HasId | str | None = None) -> SessionHandle:
        """Start a new session with the past of this one, up to and with the run `at`; None is all that has ended. This session does not change.

        The new session has copies of the runs (`run.forked_from` names the original) without their costs; its state as it was at the end
        of that run; and the summary, unless it covers later runs. Failed runs are not copied. Repeated with the same `new_id`, it returns
        the session that the first call made. Raises InvalidInput for a run that has not ended, or is not of this session.
        """
        new_id, created = self._database.sessions.fork(
            self.id, self.user_id, new_id=new_id, at=_id(at), actor=_actor(self.user_id)
        )
        return SessionHandle(new_id, self._database, self._streams, user_id=self.user_id, created=created)

    def rollback(self, to: HasId | str | None) -> RolledBack:
        """Return to the end of the run `to`; None is the beginning. Later runs leave the history, open ones are cancelled first, and the
        session's state is as it was then. What tools did outside, and memories, stay.

        Raises InvalidInput for a run that has not ended, was rolled back, or is not of this session.
        """
        return self._database.sessions.roll_back(
            self.id, self.user_id, to=_id(to), actor=_actor(self.user_id)
        )

    def delete(self, *, cancel: bool = False) -> int:
        """Delete the session with all that belongs to it: runs, messages, state, memories of the session. Return the number of its runs.

        `cancel`: cancel its open runs first. Raises SessionBusy while it has some otherwise; Unavailable when a callback after one of its
        runs is not sent yet: then the session has ended, and `delete` may be repeated.
        """
        return self._database.sessions.delete(self.id, self.user_id, cancel=cancel)

    def export(self) -> dict[str, Any]:
        """Return all that is stored of the session, as JSON values: `version`, `session`, `runs`, `messages`, `state`, `context` (each use of
        a context value), and the ids of `memories` that it made."""
        return self._database.sessions.export(self.id, self.user_id)


def _id(run: HasId | str | None) -> str | None:
    return run if run is None or isinstance(run, str) else run.id


def _actor(user_id: str | None) -> str:
    return f"user:{user_id}" if user_id else "operator"


class Sessions:
    """`client.sessions`: get, create and list sessions."""

    def __init__(self, database: Database, streams: Streams | None) -> None:
        self._database = database
        self._streams = streams

    def get(self, id: str, *, user_id: str | None = None) -> SessionHandle:
        """Return the handle of a session. With `user_id`, its verbs raise SessionForbidden for a session of another user: pass it wherever
        the id comes from that user."""
        return SessionHandle(id, self._database, self._streams, user_id=user_id)

    def create(
        self, id: str | None = None, *, user_id: str | None = None, title: str = "", metadata: dict[str, Any] | None = None,
        idle_timeout_s: float | None = None,
    ) -> SessionHandle:  # fmt: skip
        """Create a session, or return the one of that id and user as it is. The first message to an unknown `session_id` creates one too.

        `idle_timeout_s`: it times out after so many seconds without activity. Raises SessionForbidden when the id belongs to another
        user, InvalidInput, Unavailable (safe to repeat with an id).
        """
        known, created = self._database.sessions.create(
            id, user_id=user_id, title=title, metadata=metadata, idle_timeout_s=idle_timeout_s
        )
        return SessionHandle(known, self._database, self._streams, user_id=user_id, created=created)

    def list(self, limit: int = 50, **filters: Unpack[SessionFilters]) -> list[SessionRow]:
        """Return at most `limit` sessions, the last active first; `before` the last of them is the next page.

            for session in client.sessions.list(user_id="ann", since=timedelta(days=7)): ...

        Raises InvalidInput for a filter that can't be used, SessionNotFound for `before`, Unavailable.
        """
        return self._database.sessions.all(limit, **filters)
