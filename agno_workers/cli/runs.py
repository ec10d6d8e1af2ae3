"""`agno-workers runs`: what there is, what one run did and waits for, and ending one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import listening
from agno_workers.cli.why import why_waiting
from agno_workers.core.messages import Message, ToolCall, ToolResult
from agno_workers.core.messages import Text as TextPart
from agno_workers.core.run import Run, RunStatus, Step, StepKind, StepStatus
from agno_workers.errors import InvalidInput, SettingsError, Unavailable
from agno_workers.storage.look import Listed, Look

app = typer.Typer(
    pretty_exceptions_enable=False, no_args_is_help=True, help="List runs, show one, cancel one."
)
_MAX_SHOWN_CHARS = 1000
_AS_JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command()
def ls(
    status: str | None = typer.Option(
        None, "--status", help="Only these: queued, running, waiting, done, failed, cancelled."
    ),
    agent: str | None = typer.Option(None, "--agent", help="Only this agent's."),
    session: str | None = typer.Option(None, "--session", help="Only this session's."),
    limit: int = typer.Option(20, "--limit", min=1, max=10_000, help="At most so many."),
    json: bool = _AS_JSON,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in list(RunStatus):
        raise InvalidInput(f"--status {status!r} is none of {', '.join(RunStatus)}.")
    with connection.look() as look:
        listed = look.runs(status=status, agent=agent, session_id=session, limit=limit)
        if json:
            typer.echo(screen.as_json(listed))
        elif listed:
            _show_list(screen.console(), listed, look.now())
        else:
            typer.echo("No runs." if not (status or agent or session) else "No such runs.")


def _show_list(console: Console, listed: Sequence[Listed], now: datetime) -> None:
    rows = [
        (
            item.run.id,
            screen.one_line(item.run.agent, 16),
            screen.status(item.run.status),
            screen.age(item.run.created_at, now),
            screen.one_line(item.asked, 200),
        )
        for item in listed
    ]
    console.print(
        screen.table(console.width, ("run", "agent", "status", "age", "asked"), rows, right=("age",))
    )


@app.command()
def show(run_id: str = typer.Argument(metavar="ID"), json: bool = _AS_JSON) -> None:
    """Show a run: its steps, its transcript, and why it waits if it is not over."""
    with connection.look() as look:
        run, steps, transcript = look.run(run_id), look.steps(run_id), look.transcript(run_id)
        if json:
            typer.echo(screen.as_json({"run": run, "steps": steps, "transcript": transcript}))
            return
        console = screen.console()
        _show_run(console, run)
        _show_why(console, look, run, steps)
        _show_steps(console, steps, look.now(), run.error)
        _show_transcript(console, transcript)


def _show_run(console: Console, run: Run) -> None:
    console.print(
        Text.assemble("run ", (run.id, "bold"), "  ", (run.agent, "bold"), "  ", screen.status(run.status))
    )
    usage = f"{run.usage.input_tokens} tokens in, {run.usage.output_tokens} out"
    ended = f"took {screen.took(run.created_at, run.ended_at)} ({run.reason})" if run.ended_at else ""
    facts = [f"submitted {run.created_at:%Y-%m-%d %H:%M:%S} UTC" if run.created_at else "", ended]
    facts += [f"{run.turns} turn(s), {run.tool_calls} tool call(s), {usage}"]
    facts += [f"{name} {value}" for name, value in _labels(run) if value]
    console.print("; ".join(fact for fact in facts if fact), style="dim", markup=False)
    if run.error:
        console.print(
            f"[red]{escape(str(run.error.get('type')))}[/]: {escape(str(run.error.get('message')))}"
        )


def _labels(run: Run) -> list[tuple[str, str | None]]:
    return [
        ("session", run.session_id),
        ("user", run.user_id),
        ("key", run.idempotency_key),
        ("parent", run.parent_run_id),
    ]


def _show_why(console: Console, look: Look, run: Run, steps: list[Step]) -> None:
    if run.status.is_terminal:
        return
    for sentence in why_waiting(run, steps, look.now(), _consumed(steps)):
        console.print(f"→ {sentence}", style="yellow", markup=False)


def _consumed(steps: list[Step]) -> Collection[str] | None:
    """The queues that workers listen to, where a step waits in one; None where it can't be known."""
    if not any(step.status is StepStatus.READY for step in steps):
        return None
    try:
        return listening(connection.settings())
    except (Unavailable, SettingsError):  # no Redis: the rows are there all the same
        return None


def _show_steps(console: Console, steps: list[Step], now: datetime, run_error: dict[str, Any] | None) -> None:
    columns = ("step", "tool", "status", "waited", "worked", "tries", "worker")
    rows = [
        (
            step.key,
            step.name,
            screen.status(step.status),
            screen.took(step.created_at, step.started_at or step.ended_at or now),
            screen.took(step.started_at, step.ended_at or now),
            str(step.attempt),
            step.worker or "",
        )
        for step in steps
    ]
    console.print()
    console.print(screen.table(console.width, columns, rows, right=("waited", "worked", "tries")))
    for step in steps:
        if step.error and step.error != run_error:
            name = step.name if step.kind is StepKind.TOOL else "the model call"
            console.print(
                f"{step.key}: {name} met {step.error.get('type')}: {step.error.get('message')}",
                style="red",
                markup=False,
            )


def _show_transcript(console: Console, transcript: Sequence[Message]) -> None:
    for message in transcript:
        console.print()
        console.print(Rule(message.role, align="left", style="dim"))
        for part in message.parts:
            match part:
                case TextPart(text):
                    console.print(_cut(text), markup=False)
                case ToolCall(_, name, arguments):
                    console.print(Text.assemble("calls ", (name, "cyan"), f" {_cut(arguments)}"))
                case ToolResult(_, name, content, is_error):
                    console.print(Text.assemble((name, "red" if is_error else "cyan"), f": {_cut(content)}"))
                case other:
                    console.print(f"({type(other).__name__.lower()})", style="dim")


def _cut(text: str) -> str:
    if len(text) <= _MAX_SHOWN_CHARS:
        return text
    return f"{text[:_MAX_SHOWN_CHARS]}… ({len(text) - _MAX_SHOWN_CHARS} more characters; --json shows all)"


@app.command()
def cancel(run_id: str = typer.Argument(metavar="ID")) -> None:
    """End a run as cancelled; results that come in later are refused."""
    with connection.client(connection.settings()) as client:
        handle = client.handle(run_id)
        before = handle.run.status  # raises RunNotFound
        if handle.cancel():
            typer.echo(f"Run {handle.id} is cancelled.")
        else:
            typer.echo(
                f"Run {handle.id} had ended before: {handle.status if before.is_terminal else before}."
            )
