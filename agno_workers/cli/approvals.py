"""`agno-workers runs waiting`, and the commands that answer a call which waits for a person; `runs signal`.

Each takes the id of a step, or of a run in which one step waits, and records the answer with a name.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import calls, connection, screen
from agno_workers.cli.diagnose import expiry, moves, wanted
from agno_workers.cli.ids import existing_run, short_ids, whole_id
from agno_workers.cli.screen import count
from agno_workers.core.run import StepKind
from agno_workers.errors import InvalidInput, NotWaiting, RunNotFound
from agno_workers.repositories import Database
from agno_workers.runs.queries import Waiting
from agno_workers.sdk.approvals import Requirement

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_STEP = typer.Argument(
    metavar="STEP", help="The id of the step, or of a run in which one step waits, whole or short."
)
_BY = typer.Option(None, "--by", help="The name to record; default: your user name.")
_YES = typer.Option(
    False, "--yes", help="Do not ask, and accept arguments that `runs waiting` cuts: you have read them."
)


@app.command()
def waiting(
    run: str | None = typer.Option(None, "--run", metavar="ID", help="Only this run."),
    limit: int = typer.Option(100, "--limit", min=1, max=10_000, help="Show at most this many."),
    wide: bool = typer.Option(False, "--wide", help="Show whole ids."),
    full: bool = typer.Option(False, "--full", help="Show whole arguments; without it each value is cut."),
    json: bool = screen.AS_JSON,
) -> None:
    """List tool calls and approvals that wait for a person or for someone outside, the oldest first, and how to answer them."""
    with connection.database() as database:
        run_id = None if run is None else whole_id(database, run, "run")
        status = None if run_id is None else database.queries.run(run_id).status  # raises RunNotFound
        found, now = database.queries.waiting(run_id, limit=limit), database.queries.now()
        if json:
            screen.echo(screen.as_json([_described(Requirement(each, database)) for each in found]))
        elif found:
            _show(screen.console(), found, now, wide=wide, full=full)
        else:
            screen.echo(f"No call waits for a person{f': the run is {status}' if status else ''}.")


def _described(requirement: Requirement) -> dict[str, Any]:
    facts = requirement.facts
    return {
        "step_id": requirement.id,
        "run_id": requirement.run_id,
        "agent": facts.agent,
        "key": facts.key,
        "tool": requirement.tool,
        "kind": facts.kind,
        "needs": requirement.needs,
        "fields": facts.policy.fields,
        "arguments": screen.json_or_text(requirement.arguments_json or "{}"),
        "error": facts.error,
        "since": facts.created_at,
        "expires_at": facts.expires_at,
        "on_timeout": facts.policy.on_timeout,
    }


def _show(console: Console, found: Sequence[Waiting], now: datetime, *, wide: bool, full: bool) -> None:
    ids = {} if wide else short_ids(part for each in found for part in (each.step_id, each.run_id))
    for each in found:
        head = screen.line((each.name, "bold"), f" waits for {wanted(each)}")
        then = expiry(each, now)
        facts = f"{each.key} of run {ids.get(each.run_id, each.run_id)} ({each.agent}), for {screen.age(each.created_at, now)}"
        console.print(head)
        console.print(screen.indented(screen.line((f"{facts}; {then}" if then else facts, "dim"))))
        if each.kind is not StepKind.WAIT or each.call.arguments != "{}":
            label = "arguments" if each.kind is not StepKind.WAIT else "shown"
            console.print(screen.indented(f"{label}:{calls.arguments(each.call.arguments, full=full)}"))
        if each.error:
            console.print(screen.indented(screen.line((str(each.error.get("message")), "red"))))
        for move in moves(each, ids.get(each.step_id)):
            console.print(screen.indented(Text(move, "cyan")))


@app.command()
def approve(
    step: str = _STEP,
    note: str | None = typer.Option(None, "--note", help="A note to record."),
    by: str | None = _BY,
    yes: bool = _YES,
) -> None:
    """Approve a call: it is made with the arguments that it has. On a terminal, they are shown first. Or approve the step of a workflow."""
    with _requirement(step) as requirement:
        _must_be_seen(requirement, yes=yes)
        requirement.approve(by=who(by), note=note)
        _report(requirement, "approved")


@app.command()
def reject(
    step: str = _STEP,
    note: str = typer.Option("", "--note", help="The reason; the model reads it."),
    by: str | None = _BY,
) -> None:
    """Reject a call: it is not made, and the model is told so. The step of a workflow fails."""
    with _requirement(step) as requirement:
        requirement.reject(note, by=who(by))
        told = "the model is told" if requirement.facts.arrival is None else "its step fails"
        _report(requirement, f"rejected; {told}")


@app.command()
def answer(
    step: str = _STEP,
    values: list[str] = typer.Argument(
        metavar="FIELD=VALUE...", help="Each VALUE is read as JSON if possible, and otherwise as text."
    ),
    by: str | None = _BY,
    yes: bool = _YES,
) -> None:
    """Fill in the arguments that a call leaves to a person: it is made with them. On a terminal, the whole call is shown first."""
    filled = _values(values)
    with _requirement(step) as requirement:
        if unknown := sorted(filled.keys() - set(requirement.facts.policy.fields)):
            fields = ", ".join(requirement.facts.policy.fields) or "nothing"
            raise InvalidInput(f"{requirement.tool} asks for {fields}, not for {', '.join(unknown)}.")
        _must_be_seen(requirement, yes=yes, filled=filled)
        requirement.answer(filled, by=who(by))
        _report(requirement, "answered")


@app.command()
def complete(
    step: str = _STEP,
    result: str = typer.Argument(
        metavar="RESULT", help="The text that the model reads; - reads it from standard input."
    ),
    error: bool = typer.Option(False, "--error", help="The call failed, and RESULT is the error."),
    by: str | None = _BY,
) -> None:
    """Set the result of a call that someone outside has made."""
    with _requirement(step) as requirement:
        requirement.complete(sys.stdin.read() if result == "-" else result, is_error=error, by=who(by))
        _report(requirement, "completed; the model is told the result")


@app.command()
def resolve(
    step: str = _STEP,
    result: str | None = typer.Argument(
        None, metavar="RESULT", help="With --happened: the text that the model reads."
    ),
    happened: bool = typer.Option(False, "--happened", help="The call took effect."),
    again: bool = typer.Option(False, "--again", help="The call did not take effect: make it again."),
    did_not_happen: bool = typer.Option(
        False, "--did-not-happen", help="The call did not take effect: tell the model."
    ),
    by: str | None = _BY,
    yes: bool = _YES,
) -> None:
    """Report whether an interrupted `once` call took effect. Find out first."""
    if [happened, again, did_not_happen].count(True) != 1:
        raise InvalidInput("use exactly one of --happened, --again and --did-not-happen.")
    if result is not None and not happened:
        raise InvalidInput("RESULT needs --happened: without it the call has no result.")
    with _requirement(step) as requirement:
        if again:
            _must_be_seen(requirement, yes=yes)
        requirement.resolve(happened, result, again=again, by=who(by))
        _report(requirement, "resolved, and made again" if again else "resolved; the model is told")


@app.command()
def signal(
    run: str = typer.Argument(metavar="RUN", help="The id of a run, whole or short."),
    name: str = typer.Argument(metavar="NAME", help="The name that the workflow waits for."),
    payload: str | None = typer.Argument(
        None, metavar="[JSON]", help="What the wait returns; - reads it from standard input."
    ),
    key: str | None = typer.Option(None, "--key", help="The same key is sent once: safe to repeat."),
) -> None:
    """Send a signal to a run. It is kept until a step waits for it, and taken once."""
    text = sys.stdin.read() if payload == "-" else payload
    try:
        value = None if text is None else msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidInput(
            f"the payload is not JSON ({error}): write text in quotes, as in '\"yes\"', or an object, as in '{{\"eur\": 5}}'."
        ) from error
    with existing_run(run) as (handle, _):
        if handle.signal(name, value, key):
            screen.echo(f"Signal {name!r} is sent to run {handle.id}.")
        else:
            screen.echo(f"Signal {name!r} with the key {key!r} was sent to run {handle.id} before.")


@contextmanager
def _requirement(id: str) -> Iterator[Requirement]:
    """Open what waits under this id. Raises NotWaiting, or InvalidInput if more than one call waits in the run."""
    with connection.database() as database:
        yield Requirement(_find(database, whole_id(database, id, "step", "run")), database)


def asked(waiting: Waiting) -> str:
    """Return what a call waits for, as a sentence."""
    return f"{waiting.name} of run {waiting.run_id} ({waiting.agent}) waits for {wanted(waiting)}:"


def show_call(requirement: Requirement, console: Console) -> None:
    """Print a call with its whole arguments."""
    console.print(screen.line((requirement.tool, "bold"), f" of run {requirement.run_id}"))
    label = "shown" if requirement.facts.kind is StepKind.WAIT else "arguments"
    console.print(screen.indented(f"{label}:{calls.arguments(requirement.arguments_json, full=True)}"))


def _must_be_seen(requirement: Requirement, *, yes: bool, filled: dict[str, Any] | None = None) -> None:
    """Let no call be made with arguments that nobody has seen: show them whole and ask, or refuse where nobody can be asked."""
    if yes:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        console = screen.console()
        show_call(requirement, console)
        if filled is not None:
            given = msgspec.json.encode(filled).decode()
            console.print(screen.indented(f"filled in:{calls.arguments(given, full=True)}"))
        typer.confirm(
            "Approve it?" if requirement.facts.kind is StepKind.WAIT else "Make this call?", abort=True
        )
        return
    if cut := calls.hidden(requirement.arguments_json):
        raise InvalidInput(
            f"{requirement.tool} ({requirement.id}) has {count(cut, 'value')} that `runs waiting` cuts: read them with "
            f"`agno-workers runs waiting --run {requirement.run_id} --full`, then repeat this command with --yes.",
            step_id=requirement.id,
        )


def _find(database: Database, id: str) -> Waiting:
    queries = database.queries
    match queries.waiting(step_id=id, limit=1) or queries.waiting(run_id=id):
        case [found]:
            return found
        case []:
            try:
                status = queries.run(id).status
            except RunNotFound:
                raise NotWaiting(
                    f"step {id} does not wait for a person: it was answered, has expired, or does not exist. "
                    "`agno-workers runs waiting` lists the calls that wait.",
                    step_id=id,
                ) from None
            raise NotWaiting(
                f"no call in run {id} waits for a person: the run is {status}. `agno-workers runs show {id}` shows it.",
                run_id=id,
            )
        case several:
            steps = ", ".join(f"{each.step_id} ({each.name})" for each in several)
            raise InvalidInput(
                f"{count(len(several), 'call')} wait in run {id}: name one of the steps {steps}.", run_id=id
            )


def _values(given: Sequence[str]) -> dict[str, Any]:
    """Read `field=value` pairs. Raises InvalidInput."""
    values: dict[str, Any] = {}
    for pair in given:
        field, equals, value = pair.partition("=")
        if not equals or not field:
            raise InvalidInput(f"{pair!r} is not FIELD=VALUE, as in amount=12.")
        if field in values:
            raise InvalidInput(f"{field} has two values: use one.")
        values[field] = screen.json_or_text(value)
    return values


def who(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _report(requirement: Requirement, what: str) -> None:
    screen.echo(f"{requirement.tool} ({requirement.id}) is {what}.")
