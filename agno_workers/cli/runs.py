"""`agno-workers runs`: what there is, what one run did and waits for, and what can be done to one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.text import Text

from agno_workers.cli import approvals as people
from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import listening
from agno_workers.cli.diagnose import diagnose
from agno_workers.core.messages import Message, ToolCall, ToolResult
from agno_workers.core.messages import Text as TextPart
from agno_workers.core.run import Run, RunStatus, Step, StepKind, StepStatus
from agno_workers.errors import InvalidInput, SettingsError, Unavailable
from agno_workers.knowledge.references import references
from agno_workers.knowledge.store.bases import AGENT as KNOWLEDGE
from agno_workers.knowledge.types import Reference
from agno_workers.runs.queries import Listed, RunDiagnostics
from agno_workers.sdk.client import Client
from agno_workers.sdk.handles import RunHandle

app = typer.Typer(
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List runs, show one, steer one, answer what waits for a person.",
)
app.add_typer(people.app)
_MAX_SHOWN_CHARS = 1000
_MAX_NAME_CHARS = 16
_OF_AGENTS = (StepKind.TURN, StepKind.TOOL, StepKind.DELEGATE)
_MAX_STEPS = 40
_AS_JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command()
def ls(
    status: str | None = typer.Option(
        None, "--status", help="Only these: queued, running, waiting, done, failed, cancelled."
    ),
    agent: str | None = typer.Option(None, "--agent", help="Only this agent's."),
    session: str | None = typer.Option(None, "--session", help="Only this session's."),
    batch: str | None = typer.Option(None, "--batch", metavar="ID", help="Only this batch's."),
    limit: int = typer.Option(20, "--limit", min=1, max=10_000, help="At most so many."),
    json: bool = _AS_JSON,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in list(RunStatus):
        raise InvalidInput(f"--status {status!r} is none of {', '.join(RunStatus)}.")
    with connection.look() as look:
        listed = look.runs(status=status, agent=agent, session_id=session, batch_id=batch, limit=limit)
        if json:
            typer.echo(screen.as_json(listed))
        elif listed:
            _show_list(screen.console(), listed, look.now())
        else:
            typer.echo("No runs." if not (status or agent or session or batch) else "No such runs.")


def _show_list(console: Console, listed: Sequence[Listed], now: datetime) -> None:
    rows = [
        (
            item.run.id,
            screen.one_line(item.run.agent, 16),
            _status(item.run),
            screen.age(item.run.created_at, now),
            screen.one_line(item.asked, 200),
        )
        for item in listed
    ]
    console.print(
        screen.table(console.width, ("run", "agent", "status", "age", "asked"), rows, right=("age",))
    )


def _status(run: Run) -> Text:
    return Text.assemble(screen.status(run.status), (" paused" if run.paused_at else "", "yellow"))


@app.command()
def show(run_id: str = typer.Argument(metavar="ID"), json: bool = _AS_JSON) -> None:
    """Show a run: its steps, its transcript, and why it waits if it is not over."""
    with connection.database() as database:
        look = database.queries
        run, steps, transcript = look.run(run_id), look.steps(run_id), look.transcript(run_id)
        around = look.around(run_id)
        given = references(transcript, database.feedback.grounded(run.id).values(), run.content)
    why = [] if run.status.is_terminal else diagnose(run, steps, around, _consumed(steps))
    if json:
        told = {"run": run, "why": why, "steps": steps, "children": around.children, "transcript": transcript}
        told |= {"references": given}
        typer.echo(screen.as_json(told))
        return
    console = screen.console()
    _show_run(console, run, around)
    for sentence in why:
        console.print(screen.hanging(Text(f"→ {sentence}", "yellow"), 2))
    _show_steps(console, steps, around.now, run.error)
    _show_transcript(console, transcript)
    _show_references(console, given)


def _show_run(console: Console, run: Run, around: RunDiagnostics) -> None:
    console.print(Text.assemble("run ", (run.id, "bold"), "  ", (run.agent, "bold"), "  ", _status(run)))
    usage = f"{run.usage.input_tokens} tokens in, {run.usage.output_tokens} out"
    ended = f"took {screen.took(run.created_at, run.ended_at)} ({run.reason})" if run.ended_at else ""
    facts = [f"submitted {_said_at(run.created_at)}", ended]
    facts += [f"{run.turns} turn(s), {run.tool_calls} tool call(s), {usage}", _cost(run, around)]
    facts += [f"{name} {value}" for name, value in _labels(run, around) if value]
    console.print("; ".join(fact for fact in facts if fact), style="dim", markup=False)
    if run.agent.startswith(KNOWLEDGE):
        console.print(
            f"an ingestion: `agno-workers knowledge watch {run.id}` shows how far it is",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if run.error:
        console.print(
            f"[red]{escape(str(run.error.get('type')))}[/]: {escape(str(run.error.get('message')))}"
        )
    if run.status is RunStatus.FAILED:
        console.print(
            f"→ `agno-workers dead show {run.id}` says what can be done.", style="yellow", markup=False
        )


def _cost(run: Run, around: RunDiagnostics) -> str:
    limit = around.limits.cost_usd if around.limits else None
    if not run.cost_usd and limit is None:
        return ""
    return f"cost {screen.dollars(run.cost_usd)}" + (
        f" of {screen.dollars(limit)}" if limit is not None else ""
    )


def _labels(run: Run, around: RunDiagnostics) -> list[tuple[str, str | None]]:
    return [
        ("session", run.session_id),
        ("user", run.user_id),
        ("key", run.idempotency_key),
        ("deadline", _said_at(run.deadline_at)),
        ("batch", run.batch_id),
        ("forked from", run.forked_from),
        ("delegated by", run.parent_run_id),
        (
            "delegated to",
            ", ".join(f"{child.agent} {child.id} ({child.status})" for child in around.children),
        ),
    ]


def _said_at(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else ""


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
    shown = _worth_showing(steps)
    rows = [
        (
            step.key,
            screen.one_line(step.name, _MAX_NAME_CHARS),
            screen.status(step.status),
            screen.took(step.created_at, step.started_at or step.ended_at or now),
            screen.took(step.started_at, step.ended_at or now),
            str(step.attempt),
            step.worker or "",
        )
        for step in shown
    ]
    console.print()
    console.print(screen.table(console.width, columns, rows, right=("waited", "worked", "tries")))
    if len(shown) < len(steps):
        console.print(f"{len(steps) - len(shown):,} more steps; --json shows all", style="dim")
    for step in shown:
        if step.error and step.error != run_error and not _is_verdict(step):
            name = "the model call" if step.kind is StepKind.TURN else step.name or step.kind
            console.print(
                f"{step.key}: {name} met {step.error.get('type')}: {step.error.get('message')}",
                style="red",
                markup=False,
            )
        if step.answer:
            console.print(f"{step.key}: {step.name} {_answered(step.answer)}", style="blue", markup=False)


def _worth_showing(steps: list[Step]) -> list[Step]:
    """All of an agent's run; of an ingestion, which may have thousands, those that are open or went wrong, and the last ones."""
    if len(steps) <= _MAX_STEPS or not any(step.kind not in _OF_AGENTS for step in steps):
        return steps
    marked = [
        step
        for place, step in enumerate(steps)
        if step.status.is_open or step.error or place < 2 or place >= len(steps) - 5
    ]
    return marked[:_MAX_STEPS]


def _is_verdict(step: Step) -> bool:
    """Its error is what a person said, which is shown as such."""
    return bool(step.answer and step.error and step.answer.get("verdict") == step.error.get("type"))


def _answered(answer: dict[str, Any]) -> str:
    """What a person said to a step."""
    note = f": {answer['note']}" if answer.get("note") else ""
    values = ", ".join(
        f"{name}={screen.one_line(str(value), 40)}" for name, value in (answer.get("values") or {}).items()
    )
    by = f" by {answer['by']}" if answer.get("by") else ""
    return f"was answered{by}: {answer.get('verdict')}{f' ({values})' if values else ''}{note}"


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


def _show_references(console: Console, given: Sequence[Reference]) -> None:
    """What the run had of knowledge; what its answer cites stands out."""
    if not given:
        return
    console.print()
    console.print(Rule("knowledge", align="left", style="dim"))
    for each in given:
        where = " > ".join(each.heading) or each.title or ""
        line = Text.assemble((f"[{each.n}] ", "cyan"), f"{where}  " if where else "", (each.uri, "dim"))
        if each.cited:
            line.append("  cited", "green")
        console.print(line, soft_wrap=True)


def _cut(text: str) -> str:
    if len(text) <= _MAX_SHOWN_CHARS:
        return text
    return f"{text[:_MAX_SHOWN_CHARS]}… ({len(text) - _MAX_SHOWN_CHARS} more characters; --json shows all)"


@app.command()
def cancel(run_id: str = typer.Argument(metavar="ID")) -> None:
    """End a run as cancelled; results that come in later are refused."""
    with connection.client(connection.settings()) as client:
        handle, _ = _existing(client, run_id)
        if handle.cancel():
            typer.echo(f"Run {handle.id} is cancelled.")
        else:
            typer.echo(f"Run {handle.id} had ended before: {handle.status}.")


@app.command()
def pause(run_id: str = typer.Argument(metavar="ID")) -> None:
    """Let no further step of a run begin, nor of the runs that it delegated; steps under way end."""
    with connection.client(connection.settings()) as client:
        handle, before = _existing(client, run_id)
        if handle.pause():
            typer.echo(f"Run {handle.id} is paused: `agno-workers runs resume {handle.id}` lets it go on.")
        elif before.paused_at:
            typer.echo(f"Run {handle.id} was paused before, at {_said_at(before.paused_at)}.")
        else:
            typer.echo(f"Run {handle.id} had ended before: {handle.status}.")


@app.command()
def resume(run_id: str = typer.Argument(metavar="ID")) -> None:
    """Let a paused run, and those that it delegated, go on."""
    with connection.client(connection.settings()) as client:
        handle, before = _existing(client, run_id)
        if handle.resume():
            typer.echo(f"Run {handle.id} goes on.")
        elif before.status.is_terminal:
            typer.echo(f"Run {handle.id} had ended before: {before.status}.")
        else:
            typer.echo(f"Run {handle.id} is not paused: it is {before.status}.")


@app.command()
def fork(
    run_id: str = typer.Argument(metavar="ID"),
    at: str | None = typer.Option(
        None,
        "--at",
        help="The step to begin at, by its key (tool:2:0) or id; default: the first turn, so the whole run again.",
    ),
    text: str | None = typer.Option(
        None,
        "--input",
        help="At the first turn: in the place of what was asked; at a later one: said before it.",
    ),
    arguments: str | None = typer.Option(
        None,
        "--arguments",
        help='At a tool\'s step: the JSON object that it is called with; at that of an agent: {"task": "..."}.',
    ),
    key: str | None = typer.Option(None, "--key", help="Idempotency key of the new run."),
) -> None:
    """Begin a new run in the middle of an old one, with all results from before; prints its id. The old one stays as it is."""
    asked = None if arguments is None else _as_object(arguments)
    with connection.client(connection.settings()) as client:
        handle, _ = _existing(client, run_id)
        forked = handle.fork(at, *([] if text is None else [text]), arguments=asked, idempotency_key=key)
        typer.echo(forked.id)


def _existing(client: Client, run_id: str) -> tuple[RunHandle, Run]:
    """The run, and how it stood. Raises RunNotFound."""
    handle = client.runs.get(run_id)
    return handle, handle.run


def _as_object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInput(
            f'--arguments is no JSON object ({error}): write it as \'{{"name": "value"}}\'.'
        ) from error
