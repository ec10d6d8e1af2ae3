"""People in the loop: `agno-workers runs waiting`, and the commands that answer what waits.

Each takes the id of a step, or of a run in which one step waits. What is said is recorded with the name of who said it.
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

from agno_workers.cli import connection, screen
from agno_workers.cli.diagnose import ASKS, expiry, moves
from agno_workers.core.run import WaitsFor
from agno_workers.errors import InvalidInput, NotWaiting, RunNotFound
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.client import Client

app = typer.Typer(pretty_exceptions_enable=False)
_MAX_SHOWN_CHARS = 400
_STEP = typer.Argument(metavar="STEP", help="The id of the step, or of a run in which one thing waits.")
_BY = typer.Option(None, "--by", help="Who says so; default: your name on this machine.")


@app.command()
def waiting(
    run_id: str | None = typer.Option(None, "--run", metavar="ID", help="Only what waits in this run."),
    limit: int = typer.Option(100, "--limit", min=1, max=10_000, help="At most so many, the oldest first."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List what waits for a person, or for somebody outside: which call, of whom, since when, and how to answer."""
    with connection.client(connection.settings()) as client, connection.look() as look:
        status = None if run_id is None else look.run(run_id).status  # raises RunNotFound
        found = (
            client.approvals.list(limit) if run_id is None else client.runs.get(run_id).requirements[:limit]
        )
        now = look.now()
    if json:
        typer.echo(screen.as_json([_described(requirement) for requirement in found]))
    elif found:
        _show(screen.console(), found, now)
    else:
        typer.echo(
            "Nothing waits for a person."
            if status is None
            else f"Nothing waits for a person: the run is {status}."
        )


def _described(requirement: Requirement) -> dict[str, Any]:
    facts = requirement.facts
    return {
        "step_id": requirement.id,
        "run_id": requirement.run_id,
        "agent": facts.agent,
        "key": facts.key,
        "tool": requirement.tool,
        "needs": requirement.needs,
        "fields": facts.policy.fields,
        "arguments": requirement.arguments,
        "error": facts.error,
        "since": facts.created_at,
        "expires_at": facts.expires_at,
        "on_timeout": facts.policy.on_timeout,
    }


def _show(console: Console, found: Sequence[Requirement], now: datetime) -> None:
    for requirement in found:
        facts = requirement.facts
        head = Text.assemble((requirement.tool, "bold"), f" waits for {ASKS[requirement.needs]}")
        if requirement.needs is WaitsFor.ANSWER:
            head.append(f" {', '.join(facts.policy.fields)}")
        then = expiry(facts, now)
        since = f"{facts.key} of {facts.agent}, since {screen.age(facts.created_at, now)}{f'; {then}' if then else ''}"
        called = screen.one_line(facts.call.arguments, _MAX_SHOWN_CHARS)
        console.print(head)
        console.print(screen.indented(Text(f"run {requirement.run_id}", "dim")))
        console.print(screen.indented(Text(since, "dim")))
        console.print(screen.indented(f"arguments: {called}"))
        if facts.error:
            console.print(screen.indented(Text(str(facts.error.get("message")), "red")))
        for move in moves(facts):
            console.print(screen.indented(Text(move, "cyan")))


@app.command()
def approve(step: str = _STEP, note: str | None = typer.Option(None, "--note"), by: str | None = _BY) -> None:
    """Let a call be made as it stands."""
    with _requirement(step) as requirement:
        requirement.approve(by=_who(by), note=note)
        _say(requirement, "approved, and will be made")


@app.command()
def reject(
    step: str = _STEP,
    note: str = typer.Option("", "--note", help="Why; the model reads it."),
    by: str | None = _BY,
) -> None:
    """Don't let a call be made; the model is told so."""
    with _requirement(step) as requirement:
        requirement.reject(note, by=_who(by))
        _say(requirement, "rejected; the model is told so")


@app.command()
def answer(
    step: str = _STEP,
    values: list[str] = typer.Argument(
        metavar="FIELD=VALUE...", help="A value is JSON, or else the text as it stands."
    ),
    by: str | None = _BY,
) -> None:
    """Fill in the arguments that a call leaves to a person, and let it be made."""
    filled = _values(values)
    with _requirement(step) as requirement:
        if unknown := sorted(filled.keys() - set(requirement.facts.policy.fields)):
            fields = ", ".join(requirement.facts.policy.fields) or "nothing"
            raise InvalidInput(f"{requirement.tool} asks for {fields}, not for {', '.join(unknown)}.")
        requirement.answer(filled, by=_who(by))
        _say(requirement, "answered, and will be made")


@app.command()
def complete(
    step: str = _STEP,
    result: str = typer.Argument(
        metavar="RESULT", help="What the model is to read; - reads it from standard input."
    ),
    error: bool = typer.Option(False, "--error", help="The call failed, and RESULT says why."),
    by: str | None = _BY,
) -> None:
    """Bring the result of a call that was made outside."""
    with _requirement(step) as requirement:
        requirement.complete(sys.stdin.read() if result == "-" else result, is_error=error, by=_who(by))
        _say(requirement, "completed; the model is told the result")


@app.command()
def resolve(
    step: str = _STEP,
    result: str | None = typer.Argument(
        None, metavar="[RESULT]", help="With --happened: what the model is to read."
    ),
    happened: bool = typer.Option(False, "--happened", help="It took effect."),
    again: bool = typer.Option(False, "--again", help="It did not: make the call now."),
    did_not_happen: bool = typer.Option(
        False, "--did-not-happen", help="It did not, and the model is to be told so."
    ),
    by: str | None = _BY,
) -> None:
    """Say what became of a `once` call that was cut short: look whether it took effect first."""
    if [happened, again, did_not_happen].count(True) != 1:
        raise InvalidInput("say one of --happened, --again and --did-not-happen.")
    if result is not None and not happened:
        raise InvalidInput("RESULT goes with --happened only: otherwise there is none.")
    with _requirement(step) as requirement:
        requirement.resolve(happened, result, again=again, by=_who(by))
        _say(requirement, "resolved, and will be made again" if again else "resolved; the model is told so")


@contextmanager
def _requirement(step: str) -> Iterator[Requirement]:
    """What waits under that id, answerable inside. Raises NotWaiting, or InvalidInput where more than one thing waits in a run."""
    with connection.client(connection.settings()) as client:
        yield _find(client, step)


def _find(client: Client, id: str) -> Requirement:
    try:
        handle = client.runs.get(id)
    except RunNotFound:
        raise InvalidInput(
            f"{id!r} is the id of no step and of no run: `agno-workers runs waiting` lists what waits."
        ) from None
    in_run = handle.requirements
    if len(in_run) > 1:
        steps = ", ".join(f"{requirement.id} ({requirement.tool})" for requirement in in_run)
        raise InvalidInput(
            f"{len(in_run)} things wait in run {id}: name one of the steps {steps}.", run_id=id
        )
    if in_run:
        return in_run[0]
    try:
        return client.approvals.get(id)
    except NotWaiting as error:
        try:
            status = handle.status
        except RunNotFound:
            raise error from None
        raise NotWaiting(
            f"nothing in run {id} waits for a person: the run is {status}. `agno-workers runs show {id}` shows it.",
            run_id=id,
        ) from None


def _values(given: Sequence[str]) -> dict[str, Any]:
    """`field=value` each. Raises InvalidInput."""
    values: dict[str, Any] = {}
    for pair in given:
        field, equals, value = pair.partition("=")
        if not equals or not field:
            raise InvalidInput(f"{pair!r} is not FIELD=VALUE, as in amount=12.")
        if field in values:
            raise InvalidInput(f"{field} is given twice: give it one value.")
        values[field] = _json_or_text(value)
    return values


def _json_or_text(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return value


def _who(by: str | None) -> str:
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _say(requirement: Requirement, what: str) -> None:
    typer.echo(f"{requirement.tool} ({requirement.id}) is {what}.")
