"""`agno-workers memory`: list, show, edit, undo, forget, redact, export and consolidate memories."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import typer
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.cli.ids import short_ids, whole_id
from agno_workers.cli.screen import count
from agno_workers.core.words import as_uuid
from agno_workers.errors import InvalidInput, WaitTimeout
from agno_workers.sdk.client import Client
from agno_workers.sessions.memory_proposal import Proposal
from agno_workers.sessions.memory_store import KINDS, MemoryKind, MemoryVersion, StoredMemory

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List and show memories, edit, undo, forget and redact them, export and consolidate those of a user.",
)
_ID = typer.Argument(metavar="ID", help="The id of a memory: whole, or short with --user.")
_USER = typer.Option(None, "--user", help="The user whose memories these are.")
_SCOPE = typer.Option("user", "--scope", help="Another kind of owner: agent, session, team or global.")
_OWNER = typer.Option(
    None, "--owner", help="With --scope: the name of the agent or the team, or the id of the session."
)
_BY = typer.Option(None, "--by", metavar="WHO", help="Who makes the change; default: the user, or `cli`.")
_MIN_DIGITS = 4


@app.command()
def ls(
    user: str | None = _USER,
    scope: str = _SCOPE,
    owner: str | None = _OWNER,
    kind: str | None = typer.Option(None, "--kind", help=f"Only one kind: {', '.join(KINDS)}."),
    closed: bool = typer.Option(False, "--all", help="Also superseded, forgotten and redacted memories."),
    at: str | None = typer.Option(
        None, "--at", metavar="TIME", help="Those of 2026-11-30T14:00 (UTC), or of 2d ago."
    ),
    limit: int = typer.Option(50, "--limit", min=1, max=100_000, help="Show at most this many."),
    wide: bool = screen.WIDE,
    json: bool = screen.AS_JSON,
) -> None:
    """List memories, the most recently recorded first."""
    with connection.client() as client:
        found = client.memories.list(
            **_whose(user, scope, owner), kind=cast("MemoryKind | None", kind), closed=closed, at=_time(at), limit=limit
        )  # fmt: skip
        is_off = not found and user is not None and client.consent(user).categories().get("memory") is False
        off = f" {user} has switched memory off: nothing is learned or recalled." if is_off else ""
    if json:
        screen.echo(screen.as_json(found))
    elif not found:
        screen.echo(f"No memories.{off}")
    else:
        console, now, ids = screen.console(wide=wide), datetime.now(UTC), short_ids(each.id for each in found)
        rows = [
            (each.id if wide else ids[each.id], each.kind, _state(each), screen.age(each.recorded_at, now), each.text or "(redacted)")
            for each in found
        ]  # fmt: skip
        console.print(
            screen.table(console.width, ("memory", "kind", "state", "age", "text"), rows, right=("age",))
        )


@app.command()
def show(
    id: str = _ID, user: str | None = _USER, scope: str = _SCOPE, owner: str | None = _OWNER, json: bool = screen.AS_JSON
) -> None:  # fmt: skip
    """Show a memory: its text, whose it is, where it is from."""
    with connection.client() as client:
        memory = _memory(client, id, user, scope, owner)
        other = client.memories.get(memory.contradicts) if memory.contradicts else None
    if json:
        screen.echo(screen.as_json(memory))
        return
    console = screen.console()
    console.print(
        screen.line("memory ", (memory.id, "bold"), "  ", memory.kind, "  ", _state(memory)), soft_wrap=True
    )
    console.print(screen.indented(memory.text or "(redacted)"))
    facts = [
        f"of {memory.scope} {memory.owner}".rstrip(), f"version {memory.version}", f"confidence {memory.confidence:g}",
        f"valid from {_day(memory.valid_from)}" + (f" to {_day(memory.valid_to)}" if memory.valid_to else ""),
        f"recalled by {count(memory.uses, 'run')}",
    ]  # fmt: skip
    facts += [f"from run {memory.source_run_id}"] if memory.source_run_id else []
    facts += [f"replaced by {memory.replaced_by}"] if memory.replaced_by else []
    console.print(screen.line(("; ".join(facts), "dim")))
    if other and other.is_open and memory.is_open:
        console.print(
            screen.hanging(
                Text(
                    f"→ contradicts {other.id}: {other.text} `agno-workers memory forget ID` closes the wrong one.",
                    "yellow",
                ),
                2,
            )
        )


@app.command()
def history(
    id: str = _ID, user: str | None = _USER, scope: str = _SCOPE, owner: str | None = _OWNER, json: bool = screen.AS_JSON
) -> None:  # fmt: skip
    """List the versions of a memory: each change, with who made it, and the run."""
    with connection.client() as client:
        versions = client.memories.history(_memory(client, id, user, scope, owner).id)
    if json:
        screen.echo(screen.as_json(versions))
        return
    console = screen.console()
    rows = [_version_row(each) for each in versions]
    columns = ("version", "when", "change", "by", "run", "text")
    console.print(screen.table(console.width, columns, rows, right=("version",)))


def _version_row(version: MemoryVersion) -> tuple[str, ...]:
    change = f"{version.change} {version.restores}" if version.restores is not None else version.change
    run = (version.run_id or "")[-8:]
    return (
        str(version.version), f"{version.at:%Y-%m-%d %H:%M}", change, screen.one_line(version.actor, 16), run, version.text or "(redacted)",
    )  # fmt: skip


@app.command()
def edit(
    id: str = _ID,
    text: str = typer.Argument(metavar="TEXT", help="The new text."),
    user: str | None = _USER,
    scope: str = _SCOPE,
    owner: str | None = _OWNER,
    expected_version: int | None = typer.Option(
        None, "--expected-version", min=1, help="Refuse if the memory is at another version."
    ),
    by: str | None = _BY,
) -> None:
    """Change the text of a memory; its earlier versions stay."""
    with connection.client() as client:
        memory = _memory(client, id, user, scope, owner)
        changed = client.memories.edit(
            memory.id, text, expected_version=expected_version, by=by or user or "cli"
        )
    screen.echo(f"Memory {changed.id} is at version {changed.version}.")


@app.command()
def undo(
    id: str = _ID, user: str | None = _USER, scope: str = _SCOPE, owner: str | None = _OWNER, by: str | None = _BY
) -> None:  # fmt: skip
    """Undo the last change of a memory: an edit, or that it was superseded or forgotten."""
    with connection.client() as client:
        memory = _memory(client, id, user, scope, owner)
        changed = client.memories.undo(memory.id, by=by or user or "cli")
    closed = "" if changed.is_open else " It is not recalled any more."
    screen.echo(f"The last change of memory {changed.id} is undone: {changed.text}{closed}")


@app.command()
def forget(
    id: str = _ID, user: str | None = _USER, scope: str = _SCOPE, owner: str | None = _OWNER, by: str | None = _BY
) -> None:  # fmt: skip
    """Close a memory, so that it is not recalled any more; `memory undo` opens it again."""
    with connection.client() as client:
        memory = _memory(client, id, user, scope, owner)
        client.memories.forget(memory.id, by=by or user or "cli")
    if not memory.is_open:
        screen.echo(f"Memory {memory.id} was closed before; nothing changed.")
        return
    screen.echo(f"Memory {memory.id} is not recalled any more; `agno-workers memory undo {memory.id}` opens it again.")  # fmt: skip


@app.command()
def redact(
    id: str = _ID, user: str | None = _USER, scope: str = _SCOPE, owner: str | None = _OWNER, by: str | None = _BY, yes: bool = screen.YES
) -> None:  # fmt: skip
    """Remove the text of a memory from all its versions, for good."""
    with connection.client() as client:
        memory = _memory(client, id, user, scope, owner)
        if not yes:
            screen.must_agree(f"Remove the text of memory {memory.id} for good?")
        client.memories.redact(memory.id, by=by or user or "cli")
    screen.echo(f"The text of memory {memory.id} is gone. What was said in a run stays in its transcript.")


@app.command()
def export(user: str | None = _USER, scope: str = _SCOPE, owner: str | None = _OWNER) -> None:
    """Print all memories with their versions, and what the user has switched off, as JSON."""
    with connection.client() as client:
        screen.echo(screen.as_json(client.memories.export(**_whose(user, scope, owner))))


@app.command()
def consolidate(
    user: str | None = _USER,
    scope: str = _SCOPE,
    owner: str | None = _OWNER,
    agent: str | None = typer.Option(
        None, "--agent", help="Whose model is asked; default: the agent that ran last."
    ),
    apply: str | None = typer.Option(
        None, "--apply", metavar="RUN", help="Apply the proposal of this run, all of it or nothing."
    ),
    timeout: float = typer.Option(
        300.0, "--timeout", min=1, help="Seconds to wait for the proposal; the run continues after it."
    ),
    json: bool = screen.AS_JSON,
) -> None:
    """Let a model propose fewer and clearer memories, and show the changes. Nothing changes before --apply RUN."""
    with connection.client() as client:
        if apply is not None:
            run_id = whole_id(client._database, apply, "run")
            made = client.memories.apply(run_id, by=user or "cli")
            screen.echo(
                screen.as_json(made)
                if json
                else "Applied. `agno-workers memory ls --user USER` lists the memories of a user as they are now."
            )
            return
        run_id = client.memories.consolidate(**_whose(user, scope, owner), agent=agent)
        try:
            client.runs.get(run_id).wait(timeout)
        except WaitTimeout as error:
            raise WaitTimeout(
                f"consolidation {run_id} has not ended within {timeout:g} s, and continues: `agno-workers runs show {run_id}` shows why.",
                run_id=run_id,
            ) from error
        proposal, memories = (
            client.memories.proposal(run_id),
            client.memories.list(**_whose(user, scope, owner), limit=100_000, closed=True),
        )
    if json:
        screen.echo(screen.as_json({"run_id": run_id, **msgspec.to_builtins(proposal)}))
    else:
        _show_proposal(run_id, proposal, memories)


def _show_proposal(run_id: str, proposal: Proposal, memories: Sequence[StoredMemory]) -> None:
    console, texts = screen.console(), {each.id: each.text or "(redacted)" for each in memories}
    for change in proposal.changes:
        for each in change.ids:
            console.print(screen.hanging(Text(f"- {texts.get(each, each)}", "red"), 2))
        if change.action == "close":
            console.print(screen.indented(Text(f"({change.text})", "dim")))
        else:
            console.print(screen.hanging(Text(f"+ {change.text}", "green"), 2))
    if proposal.changes:
        screen.echo(
            f"{count(len(proposal.changes), 'change')} proposed; `agno-workers memory consolidate --apply {run_id}` applies all."
        )
    else:
        screen.echo(f"Nothing to change among {len(proposal.seen):,} memories.")


def _memory(client: Client, text: str, user: str | None, scope: str, owner: str | None) -> StoredMemory:
    """Return the memory with this id, or with this part of one among those of the owner. Raises MemoryNotFound and InvalidInput."""
    named = user is not None or owner is not None or scope == "global"
    if whole := as_uuid(text):
        return client.memories.get(whole, user_id=user)
    digits = text.strip("[] ").lower()
    if not named:
        raise InvalidInput(f"{text!r} is not the whole id of a memory: use the whole id, or add --user USER.")
    if len(digits) < _MIN_DIGITS:
        raise InvalidInput(
            f"{text!r} is too short: use at least {_MIN_DIGITS} characters of the beginning or the end of an id."
        )
    listed = client.memories.list(**_whose(user, scope, owner), closed=True, limit=100_000)
    match [each for each in listed if each.id.startswith(digits) or each.id.endswith(digits)]:
        case [memory]:
            return memory
        case []:
            raise InvalidInput(f"no memory of {user or owner or scope} has an id that begins or ends with {text!r}: `{_listing(user, scope, owner)}` lists them.")  # fmt: skip
        case found:
            raise InvalidInput(f"{text!r} fits several memories: use more characters of one of them, such as {', '.join(each.id for each in found[:6])}.")  # fmt: skip


def _listing(user: str | None, scope: str, owner: str | None) -> str:
    """Return the command that lists all memories of an owner."""
    whose = (
        ["--user", user] if user is not None else ["--scope", scope, *(["--owner", owner] if owner else [])]
    )
    return shlex.join(["agno-workers", "memory", "ls", *whose, "--all"])


def _whose(user: str | None, scope: str, owner: str | None) -> dict[str, Any]:
    if user is None and owner is None and scope != "global":
        raise InvalidInput("whose memories? Name the owner: --user USER, or --scope agent --owner NAME.")
    return {"user_id": user, "scope": scope, "owner": owner}


def _state(memory: StoredMemory) -> Text:
    if memory.text is None:
        return Text("redacted", "dim")
    if memory.replaced_by:
        return Text("superseded", "dim")
    return Text("open", "green") if memory.is_open else Text("forgotten", "dim")


def _day(when: datetime) -> str:
    return f"{when:%Y-%m-%d}"


def _time(text: str | None) -> datetime | None:
    """Read a time: ISO 8601, in UTC, or a length of time ago. Raises InvalidInput."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        try:
            ago = screen.span(text, "--at")
        except InvalidInput:
            raise InvalidInput(
                f"--at {text!r} is not a time: use 2026-11-30T14:00, which is UTC, or 2d for two days ago."
            ) from None
        assert ago
        return datetime.now(UTC) - ago
    return when if when.tzinfo else when.replace(tzinfo=UTC)
