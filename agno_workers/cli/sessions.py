"""`agno-workers sessions`: list sessions, show one with its runs, and change it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.cli.ids import short_ids, whole_id
from agno_workers.cli.screen import count
from agno_workers.core.run import Run
from agno_workers.core.session import SessionStatus
from agno_workers.core.words import as_uuid
from agno_workers.errors import InvalidInput, SessionBusy, SessionNotFound
from agno_workers.repositories import Database
from agno_workers.runs.queries import Listed
from agno_workers.sessions.store import SessionRow

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List sessions, show one, pause, resume, end, fork, roll back, export and delete it.",
)
_SESSION = typer.Argument(metavar="ID", help="The id of a session, or its beginning or end.")
_MAX_ID_CHARS = 20
_MAX_NAME_CHARS = 12
_MANY_KEYS = 20


@app.command()
def ls(
    user: str | None = typer.Option(None, "--user", help="Only this user."),
    agent: str | None = typer.Option(None, "--agent", help="Only sessions that began with this agent."),
    status: str | None = typer.Option(
        None, "--status", help="Only created, active, paused, ended or timed_out sessions."
    ),
    since: str | None = screen.SINCE,
    limit: int = typer.Option(20, "--limit", min=1, max=10_000, help="Show at most this many."),
    before: str | None = typer.Option(
        None, "--before", metavar="ID", help="Only sessions that were active before this one: the next page."
    ),
    wide: bool = screen.WIDE,
    json: bool = screen.AS_JSON,
) -> None:
    """List sessions, the last active first."""
    if status is not None and status not in list(SessionStatus):
        raise InvalidInput(f"--status {status!r} is not a status: use one of {', '.join(SessionStatus)}.")
    with connection.database() as database:
        listed = database.sessions.all(
            limit, user_id=user, agent=agent, status=status, since=screen.span(since, "--since"),
            before=before and _whole(database, before),
        )  # fmt: skip
        if json:
            screen.echo(screen.as_json(listed))
        elif listed:
            console = screen.console(wide=wide)
            _show_list(console, listed, database.queries.now(), wide=screen.is_wide(console))
        else:
            chosen = (user, agent, status, since, before)
            screen.echo("No such sessions." if any(each is not None for each in chosen) else "No sessions.")


def _show_list(console: Console, listed: Sequence[SessionRow], now: datetime, *, wide: bool) -> None:
    ids = short_ids(each.id for each in listed if as_uuid(each.id))
    most = 200 if wide else _MAX_NAME_CHARS
    rows = [
        (
            each.id if wide else ids.get(each.id) or screen.one_line(each.id, _MAX_ID_CHARS),
            screen.one_line(each.user_id or "", most),
            screen.one_line(each.agent or "", most),
            _status(each),
            f"{each.runs:,}",
            screen.age(each.last_active_at, now),
            screen.one_line(each.title, 200),
        )
        for each in listed
    ]
    columns = ("session", "user", "agent", "status", "runs", "active", "title")
    console.print(screen.table(console.width, columns, rows, right=("runs", "active")))


def _status(session: SessionRow) -> Text:
    return Text(session.status, style={"active": "green", "paused": "yellow"}.get(session.status, "dim"))


@app.command()
def show(
    id: str = _SESSION,
    limit: int = typer.Option(20, "--limit", min=1, max=10_000, help="Show at most this many runs."),
    before: str | None = typer.Option(
        None, "--before", metavar="RUN", help="Only runs before this one: the earlier page."
    ),
    json: bool = screen.AS_JSON,
) -> None:
    """Show a session: its newest runs in their order, its summary and the keys of its state."""
    with _existing(id) as (database, session):
        at = None if before is None else database.queries.run(whole_id(database, before, "run"))
        if at is not None and at.session_id != session.id:
            raise InvalidInput(
                f"run {at.id} is not a run of session {session.id!r}: `agno-workers sessions show` lists its runs."
            )
        listed = database.sessions.runs(session.id, newest_first=True, at=at, limit=limit + 1)
        state, now = database.sessions.state_keys(session.id), database.queries.now()
    shown = listed[:limit][::-1]
    if json:
        screen.echo(screen.as_json({"session": session, "runs": shown, "state": state}))
        return
    console = screen.console()
    _show_session(console, session, now)
    if session.summary:
        console.print(Text("summary", "dim"))
        console.print(screen.indented(session.summary))
    if state:
        more = f" and {len(state) - _MANY_KEYS} more" if len(state) > _MANY_KEYS else ""
        console.print(screen.line(("state  ", "dim"), ", ".join(state[:_MANY_KEYS]), more))
    if len(listed) > limit:
        console.print(
            f"earlier runs: `agno-workers sessions show {session.id} --before {shown[0].run.id}`",
            style="dim",
            soft_wrap=True,
        )
    if shown:
        _show_runs(console, shown, now)


def _show_session(console: Console, session: SessionRow, now: datetime) -> None:
    console.print(screen.line("session ", (session.id, "bold"), "  ", _status(session), "  ", session.title))
    facts = [
        f"user {session.user_id}" if session.user_id else "",
        f"agent {session.agent}" if session.agent else "",
        count(session.runs, "run") + (f", {session.waiting} waiting" if session.waiting else ""),
        f"active {screen.age(session.last_active_at, now)} ago",
        f"created {screen.age(session.created_at, now)} ago",
        f"{session.status.replace('_', ' ')} {screen.age(session.ended_at, now)} ago"
        if session.ended_at
        else "",
        f"forked from {session.forked_from}" if session.forked_from else "",
        f"metadata {screen.one_line(screen.as_json(session.metadata), 200)}" if session.metadata else "",
    ]
    if session.expires_at and not session.ended_at:
        facts.append(f"times out in {screen.age(now, session.expires_at)} without activity")
    console.print(screen.line(("; ".join(fact for fact in facts if fact), "dim")))
    if session.status is SessionStatus.PAUSED:
        console.print(
            f"→ `agno-workers sessions resume {session.id}` lets its runs begin.",
            style="yellow",
            soft_wrap=True,
        )


def _show_runs(console: Console, shown: Sequence[Listed], now: datetime) -> None:
    ids = short_ids(each.run.id for each in shown)
    wide = screen.is_wide(console)
    rows = [
        (
            each.run.id if wide else ids[each.run.id],
            screen.one_line(each.run.agent, 200 if wide else _MAX_NAME_CHARS),
            Text.assemble(
                screen.status(each.run.status), (f" {mark}" if (mark := _mark(each.run)) else "", "yellow")
            ),
            screen.age(each.run.created_at, now),
            screen.one_line(each.asked, 200),
        )
        for each in shown
    ]
    console.print(
        screen.table(console.width, ("run", "agent", "status", "age", "input"), rows, right=("age",))
    )


def _mark(run: Run) -> str:
    """Return what is special about a run in its session: `rolled back`, `interrupted`; of an open one `live`, `waiting`, `parallel` ..."""
    if run.rolled_back_at:
        return "rolled back"
    if run.ended_at:
        return "interrupted" if run.reason == "interrupted" else ""
    return run.session_status or ""


@app.command()
def pause(id: str = _SESSION) -> None:
    """Pause a session: messages are accepted, and their runs wait. A live run continues."""
    with _existing(id) as (database, session):
        if database.sessions.pause(session.id):
            live = f" Run {session.live_run_id} is live and continues." if session.live_run_id else ""
            screen.echo(
                f"Session {session.id} is paused: `agno-workers sessions resume {session.id}` continues it.{live}"
            )
        else:
            screen.echo(f"Session {session.id} is {_now(session)} already.")


@app.command()
def resume(id: str = _SESSION) -> None:
    """Resume a paused session: its waiting runs begin, one after another."""
    with _existing(id) as (database, session):
        if database.sessions.resume(session.id):
            screen.echo(f"Session {session.id} continues; {count(session.waiting, 'run')} waited.")
        else:
            screen.echo(f"Session {session.id} is not paused: it is {_now(session)}.")


@app.command()
def end(id: str = _SESSION, yes: bool = screen.YES) -> None:
    """End a session: it takes no message any more. A live run ends as usual, and the waiting ones are cancelled."""
    with _existing(id) as (database, session):
        if session.waiting and not yes:
            screen.must_agree(
                f"End session {session.id}, and cancel {count(session.waiting, 'waiting run')}?"
            )
        cancelled = database.sessions.end(session.id)
        if cancelled is None:
            screen.echo(f"Session {session.id} is {_now(session)} already.")
        else:
            live = f" Run {session.live_run_id} is live and ends as usual." if session.live_run_id else ""
            screen.echo(f"Session {session.id} is ended; {count(cancelled, 'waiting run')} cancelled.{live}")


@app.command()
def fork(
    id: str = _SESSION,
    at: str | None = typer.Option(
        None, "--at", metavar="RUN", help="The last run to copy; default: the last that has ended."
    ),
    new_id: str | None = typer.Option(
        None, "--new-id", metavar="ID", help="The id of the new session; default: a new UUID."
    ),
) -> None:
    """Start a new session with the past of another one, and print its id.

    The old session stays as it is. Failed runs are not copied.
    """
    with _existing(id) as (database, session):
        run_id = at and whole_id(database, at, "run")
        made, created = database.sessions.fork(session.id, new_id=new_id, at=run_id, actor=_actor())
    if not created:
        screen.echo(f"Session {made} was forked from {session.id} before; nothing changed.", err=True)
    screen.echo(made)


@app.command()
def rollback(
    id: str = _SESSION,
    to: str | None = typer.Option(None, "--to", metavar="RUN", help="The last run to keep."),
    to_beginning: bool = typer.Option(False, "--to-beginning", help="Keep no run."),
    yes: bool = screen.YES,
) -> None:
    """Roll a session back to the end of a run: later runs leave its history, and its state is as it was then."""
    if (to is None) != to_beginning:
        raise InvalidInput(
            "name the last run to keep with --to RUN, or pass --to-beginning to keep none; not both."
        )
    with _existing(id) as (database, session):
        run_id = to and whole_id(database, to, "run")
        if not yes:
            place = f"the end of run {run_id}" if run_id else "its beginning"
            screen.must_agree(f"Roll session {session.id} back to {place}? Later open runs are cancelled.")
        done = database.sessions.roll_back(session.id, to=run_id, actor=_actor())
    cancelled = f", {len(done.cancelled)} of them cancelled" if done.cancelled else ""
    screen.echo(
        f"Session {session.id} is rolled back: {count(done.runs, 'run')} left its history{cancelled}."
    )


@app.command()
def rm(
    id: str = _SESSION,
    cancel: bool = typer.Option(False, "--cancel", help="Cancel its open runs first."),
    yes: bool = screen.YES,
) -> None:
    """Delete a session with all that belongs to it: runs, messages, state."""
    with _existing(id) as (database, session):
        if not yes:
            screen.must_agree(
                f"Delete session {session.id} with {count(session.runs, 'run')}? This cannot be undone."
            )
        try:
            runs = database.sessions.delete(session.id, cancel=cancel)
        except SessionBusy as error:
            raise SessionBusy(
                f"session {session.id!r} has open runs: wait for them, or add --cancel.", **error.ids
            ) from None
    screen.echo(f"Deleted session {session.id} with {count(runs, 'run')}.")


@app.command()
def export(
    id: str = _SESSION,
    output: Path | None = typer.Option(
        None, "--output", metavar="FILE", help="Write to a new file instead of the terminal."
    ),
) -> None:
    """Print all that is stored of a session as JSON."""
    with _existing(id) as (database, session):
        text = screen.as_json(database.sessions.export(session.id))
    if output is None:
        screen.echo(text)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise InvalidInput(
            f"--output {str(output)!r} can't be written ({error.strerror}): name a new file."
        ) from error


@app.command()
def prune(
    older_than: str = typer.Option(
        ..., "--older-than", metavar="TIME", help="Sessions that ended more than 30d, 12h ... ago."
    ),
    retention: str | None = typer.Option(
        None,
        "--retention",
        metavar="CLASS",
        help="Only those with this class in metadata.retention; default: only those without one.",
    ),
    idle: bool = typer.Option(
        False, "--idle", help="Also sessions that have not ended, and were not active since."
    ),
    yes: bool = typer.Option(False, "--yes", help="Delete them. Without it, they are only listed."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Delete sessions that ended or timed out long ago, with all that belongs to them."""
    age = screen.span(older_than, "--older-than")
    assert age is not None
    with connection.database() as database:
        found, now = database.sessions.prunable(age, retention, idle=idle), database.queries.now()
        runs = sum(_deleted(database, each.id) for each in found) if yes else 0
    if json:
        screen.echo(
            screen.as_json({"sessions": [each.id for each in found], "deleted": yes, "deleted_runs": runs})
        )
    elif yes:
        screen.echo(f"Deleted {count(len(found), 'session')} with {count(runs, 'run')}.")
    elif not found:
        screen.echo("No sessions to delete.")
    else:
        console = screen.console()
        rows = [
            (
                each.id,
                each.user_id or "",
                screen.age(each.ended_at or each.last_active_at, now),
                screen.one_line(each.title, 200),
            )
            for each in found
        ]
        console.print(screen.table(console.width, ("session", "user", "age", "title"), rows, right=("age",)))
        screen.echo(
            f"{count(len(found), 'session')} would be deleted; repeat the command with --yes to delete them."
        )


def _deleted(database: Database, id: str) -> int:
    try:
        return database.sessions.delete(id)
    except (SessionBusy, SessionNotFound):  # it is active again, or somebody else deletes it
        return 0


def _now(session: SessionRow) -> str:
    return session.status.replace("_", " ")


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return "operator"


@contextmanager
def _existing(text: str) -> Iterator[tuple[Database, SessionRow]]:
    """Open the session with this id, or part of an id, and yield it. Raises SessionNotFound, InvalidInput."""
    with connection.database() as database:
        yield database, database.sessions.get(_whole(database, text))


def _whole(database: Database, text: str) -> str:
    """Return the id that this text is, or begins or ends. Raises SessionNotFound where no id fits, InvalidInput where several do."""
    match database.sessions.find_ids(text):
        case [known]:
            return known
        case []:
            near = database.sessions.near(text) or " `agno-workers sessions ls` lists the newest sessions."
            raise SessionNotFound(f"no session {text!r} in this database.{near}", session_id=text)
        case found if text in found:
            return text
        case found:
            raise InvalidInput(
                f"{text!r} fits several sessions: use more of one of their ids, such as {', '.join(found)}."
            )
