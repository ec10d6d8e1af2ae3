"""`agno-workers runs`: list runs, show one with its steps and what it waits for, and steer it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from agno_workers.cli import approvals, calls, connection, screen
from agno_workers.cli.consumers import consumers
from agno_workers.cli.dead import retry_run
from agno_workers.cli.diagnose import diagnose
from agno_workers.cli.ids import existing_run, short_ids, step_id, whole_id
from agno_workers.cli.screen import count
from agno_workers.cli.tree import is_tree, show_bars, show_tree
from agno_workers.core.budget import TreeUsage
from agno_workers.core.messages import Message, ToolCall, ToolResult, stored_results
from agno_workers.core.messages import Text as TextPart
from agno_workers.core.run import Run, RunKind, RunStatus, Step, StepKind
from agno_workers.core.step import CompactionRecord
from agno_workers.core.words import printable
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.references import references
from agno_workers.knowledge.types import Reference
from agno_workers.runs.prune import pruning
from agno_workers.runs.queries import Event, Listed, RunDiagnostics, RunFilters
from agno_workers.sessions.memory_store import RecalledMemory

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List runs, show one, steer it, and answer calls that wait for a person.",
)
app.add_typer(approvals.app)
_MAX_SHOWN_CHARS = 1000
_MAX_NOTE_CHARS = 200
_MAX_NAME_CHARS = 16
_MAX_STEPS = 40
_MANY_HIDDEN = 1000
_AGENT_STEPS = (StepKind.TURN, StepKind.TOOL, StepKind.DELEGATE, StepKind.COMPACT, StepKind.WAIT)
_RUN = typer.Argument(metavar="ID", help="The id of a run, whole or short.")


@app.command()
def ls(
    status: str | None = typer.Option(
        None, "--status", help="Only queued, running, waiting, done, failed or cancelled runs."
    ),
    agent: str | None = typer.Option(None, "--agent", help="Only this agent."),
    user: str | None = typer.Option(None, "--user", help="Only this user."),
    session: str | None = typer.Option(None, "--session", help="Only this session."),
    since: str | None = screen.SINCE,
    kind: str | None = typer.Option(
        None, "--kind", help="Only agent, team, workflow, ingestion or background runs."
    ),
    roots: bool = typer.Option(False, "--roots", help="Only runs that no other run started."),
    open: bool = typer.Option(False, "--open", help="Only runs that have not ended."),
    stuck: bool = typer.Option(
        False,
        "--stuck",
        help="Only open runs without progress for two minutes, which wait for no person, timer or other run.",
    ),
    batch: str | None = typer.Option(None, "--batch", metavar="ID", help="Only this batch."),
    background: bool = typer.Option(
        False, "--background", help="Also background work, which follows the runs of sessions."
    ),
    limit: int = typer.Option(20, "--limit", min=1, max=10_000, help="Show at most this many."),
    before: str | None = typer.Option(
        None, "--before", metavar="ID", help="Only runs older than this one: the next page."
    ),
    wide: bool = screen.WIDE,
    json: bool = screen.AS_JSON,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in list(RunStatus):
        raise InvalidInput(f"--status {status!r} is not a status: use one of {', '.join(RunStatus)}.")
    if kind is not None and kind not in list(RunKind):
        raise InvalidInput(f"--kind {kind!r} is not a kind of run: use one of {', '.join(RunKind)}.")
    with connection.database() as database:
        filters = RunFilters(
            status=status,
            agent=agent,
            user_id=user,
            session_id=session,
            since=screen.span(since, "--since"),
            kind=kind,
            roots=roots,
            open=open,
            stuck=stuck,
            batch_id=batch and whole_id(database, batch, "batch"),
            before=before and whole_id(database, before, "run"),
            background=background,
        )
        listed = database.queries.runs(limit, **filters)
        if json:
            screen.echo(screen.as_json(listed))
            return
        last = listed[-1].run if len(listed) == limit else None
        hidden = database.queries.hidden(_MANY_HIDDEN, last, **filters)
        if listed:
            console = screen.console(wide=wide)
            _show_list(console, listed, database.queries.now(), wide=screen.is_wide(console))
        else:
            chosen = (status, agent, user, session, since, kind, roots or open or stuck, batch, before)
            screen.echo("No such runs." if any(each not in (None, False) for each in chosen) else "No runs.")
    if hidden:
        more = " or more" if hidden == _MANY_HIDDEN else ""
        screen.echo(f"{count(hidden, 'run')}{more} of background work not shown: see --background.")


@app.command()
def prune(
    older_than: str = typer.Option(
        ..., "--older-than", metavar="TIME", help="Runs that ended more than 30d, 12h ... ago."
    ),
    yes: bool = typer.Option(False, "--yes", help="Delete them. Without it, they are only listed."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Delete old runs that have ended, with all that belongs to them: steps, messages, events, results, keys.

    Runs of one canvas, one batch or one delegation go together, or stay.
    """
    age = screen.span(older_than, "--older-than")
    assert age is not None
    with connection.database() as database, pruning(database.pool, age) as found:
        chosen = found.chosen()
        gone, texts = found.delete() if yes else (0, 0)
    runs, keys, sessions = (
        sum(getattr(each, name) for each in chosen) for name in ("runs", "keys", "sessions")
    )
    if json:
        screen.echo(screen.as_json({"runs": chosen, "deleted": gone, "deleted_texts": texts}))
    elif yes:
        screen.echo(f"Deleted {count(gone, 'run')} and {count(texts, 'large text')}.")
    elif not chosen:
        screen.echo("No runs to delete.")
    else:
        console = screen.console()
        rows = [
            (each.agent, each.status, f"{each.runs:,}", f"{each.oldest:%Y-%m-%d}", f"{each.newest:%Y-%m-%d}")
            for each in chosen
        ]
        console.print(
            screen.table(
                console.width, ("agent", "status", "runs", "first ended", "last ended"), rows, right=("runs",)
            )
        )
        screen.echo(f"{count(runs, 'run')} would be deleted; repeat the command with --yes to delete them.")
        if keys:
            screen.echo(
                f"{count(keys, 'idempotency key')} would be forgotten: the same submit would begin another run."
            )
        if sessions:
            screen.echo(f"{count(sessions, 'session')} would lose a part of the history.")


def _show_list(console: Console, listed: Sequence[Listed], now: datetime, *, wide: bool) -> None:
    ids = short_ids(item.run.id for item in listed)
    rows = [
        (
            item.run.id if wide else ids[item.run.id],
            item.run.agent if wide else screen.one_line(item.run.agent, _MAX_NAME_CHARS),
            _status(item.run),
            screen.age(item.run.created_at, now),
            screen.one_line(item.asked, 200),
        )
        for item in listed
    ]
    console.print(
        screen.table(console.width, ("run", "agent", "status", "age", "input"), rows, right=("age",))
    )


def _status(run: Run) -> Text:
    return Text.assemble(screen.status(run.status), (" paused" if run.paused_at else "", "yellow"))


@app.command()
def show(
    id: str = _RUN,
    full: bool = typer.Option(False, "--full", help="Cut nothing off in notes and the transcript."),
    history: bool = typer.Option(
        False, "--history", help="Show also the earlier messages that it was given."
    ),
    result: str | None = typer.Option(
        None,
        "--result",
        metavar="ID",
        help="Print only this stored tool result, whole; its preview names the id.",
    ),
    timeline: bool = typer.Option(
        False, "--timeline", help="Print only bars over time: of its steps, and of the runs below it."
    ),
    json: bool = screen.AS_JSON,
) -> None:
    """Show a run: its steps and the runs below it as a tree, its transcript, and what it waits for."""
    if result is not None:
        with existing_run(id) as (handle, _):
            text = handle.result_text(result)
            screen.echo(screen.as_json({"id": result, "text": text}) if json else printable(text))
        return
    settings = connection.settings()
    with connection.database(settings) as database:
        queries, run_id = database.queries, whole_id(database, id, "run")
        tree, transcript = queries.tree(run_id), queries.transcript(run_id)
        used = database.journal.tree_usage(run_id)
        run, steps = tree.run, list(tree.steps)
        around, workers = queries.diagnostics(run_id), database.workers.all()
        compactions = queries.compactions(run_id)
        given = references(transcript, database.feedback.grounded(run.id).values(), run.content)
        earlier = database.history.of(run_id) if history else ()
        recalled = database.memories.recalled(run.id) or []
    why = diagnose(run, steps, around, consumers(workers, settings))
    if json:
        shown = {
            "run": run,
            "why": why,
            "steps": steps,
            "children": around.children,
            "below": tree.children,
            "tree_usage": used,
            "transcript": transcript,
            "compactions": compactions,
        }
        shown |= {"references": given, "memories": recalled} | ({"history": earlier} if history else {})
        screen.echo(screen.as_json(shown))
        return
    console = screen.console()
    if timeline:
        show_bars(console, tree, around.now, full=full)
        return
    _show_run(console, tree.run, used, around)
    for sentence in why:
        console.print(screen.hanging(Text(f"→ {sentence}", "yellow"), 2))
    if is_tree(tree):
        show_tree(console, tree, around.now, full=full)
    _show_steps(console, run, steps, around.now, full=full, as_table=not is_tree(tree))
    if history and not earlier:
        console.print("\nno history", style="dim")
    _show_compactions(console, compactions, full=full)
    _show_transcript(
        console, run_id, (*earlier, *transcript), {each.call.id for each in around.waiting}, full=full
    )
    _show_references(console, given)
    _show_memories(console, recalled)


def _show_run(console: Console, run: Run, used: TreeUsage, around: RunDiagnostics) -> None:
    console.print(screen.line("run ", (run.id, "bold"), "  ", (run.agent, "bold"), "  ", _status(run)))
    usage = f"{used.usage.input_tokens} tokens in, {used.usage.output_tokens} out"
    if used.runs > 1:
        usage = f"{usage} in {count(used.runs, 'run')}"
    ended = f"took {screen.took(run.created_at, run.ended_at)} ({run.reason})" if run.ended_at else ""
    facts = [f"submitted {_utc(run.created_at)}", ended]
    facts += [
        f"{count(run.turns, 'turn')}, {count(run.tool_calls, 'tool call')}, {usage}",
        _cost(used.cost_usd, around),
    ]
    facts += [f"{name} {value}" for name, value in _labels(run) if value]
    console.print(screen.line(("; ".join(fact for fact in facts if fact), "dim")))
    if run.kind is RunKind.BACKGROUND:
        work = f"background work: {run.metadata.get('kind')} of {run.metadata.get('owner')}"
        console.print(screen.line((work, "dim")))
    if run.kind is RunKind.INGESTION:
        console.print(
            f"an ingestion: `agno-workers knowledge watch {run.id}` shows its progress",
            style="dim",
            soft_wrap=True,
        )
    if run.error:
        console.print(screen.line((str(run.error.get("type")), "red"), f": {run.error.get('message')}"))
    if run.status is RunStatus.FAILED:
        console.print(f"→ `agno-workers dead show {run.id}` shows what can be done.", style="yellow")


def _cost(cost_usd: float, around: RunDiagnostics) -> str:
    limit = around.limits.cost_usd if around.limits else None
    if not cost_usd and limit is None:
        return ""
    return f"cost {screen.dollars(cost_usd)}" + (f" of {screen.dollars(limit)}" if limit is not None else "")


def _labels(run: Run) -> list[tuple[str, str | None]]:
    return [
        ("session", run.session_id),
        ("rolled back", _utc(run.rolled_back_at)),
        ("user", run.user_id),
        ("key", run.idempotency_key),
        ("deadline", _utc(run.deadline_at)),
        ("batch", run.batch_id),
        ("forked from", run.forked_from),
        ("delegated by", run.parent_run_id),
    ]


def _utc(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else ""


def _show_steps(
    console: Console,
    run: Run,
    steps: list[Step],
    now: datetime,
    *,
    full: bool,
    as_table: bool = True,
) -> None:
    """Print the steps of a run, and below them their errors and answers."""
    columns = ("step", "tool", "status", "waited", "ran", "tries", "worker")
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
    if as_table:
        console.print()
        console.print(screen.table(console.width, columns, rows, right=("waited", "ran", "tries")))
    if len(shown) < len(steps):
        console.print(f"{count(len(steps) - len(shown), 'more step')}; --json shows all", style="dim")
    for step in shown:
        if step.error and step.error != run.error and not _is_verdict(step):
            turn = "the model call" if run.kind is RunKind.AGENT else "the turn"
            name = turn if step.kind is StepKind.TURN else step.name or step.kind
            said = f"{step.key}: {name} {'could not begin' if step.returns else 'failed'} with {step.error.get('type')}: {step.error.get('message')}"
            console.print(screen.line((said, "red")))
        if step.answer:
            console.print(
                screen.line((f"{step.key}: {step.name} {_answered(step.answer, full=full)}", "blue"))
            )


def _worth_showing(steps: list[Step]) -> list[Step]:
    """Return all steps of an agent's run; of an ingestion, which may have thousands, the open, the failed and the last ones."""
    if len(steps) <= _MAX_STEPS or not any(step.kind not in _AGENT_STEPS for step in steps):
        return steps
    marked = [
        step
        for place, step in enumerate(steps)
        if step.status.is_open or step.error or place < 2 or place >= len(steps) - 5
    ]
    return marked[:_MAX_STEPS]


def _is_verdict(step: Step) -> bool:
    """Return True if the error is a person's answer, which is shown as one."""
    return bool(step.answer and step.error and step.answer.get("verdict") == step.error.get("type"))


def _answered(answer: dict[str, Any], *, full: bool) -> str:
    note = (
        f": {answer['note'] if full else _cut(str(answer['note']), _MAX_NOTE_CHARS)}"
        if answer.get("note")
        else ""
    )
    given = answer.get("values")
    values = ", ".join(
        f"{name}={screen.one_line(str(value), 40)}"
        for name, value in (given if isinstance(given, dict) else {}).items()
    )
    by = f" by {answer['by']}" if answer.get("by") else ""
    return f"was answered{by}: {answer.get('verdict')}{f' ({values})' if values else ''}{note}"


def _show_compactions(console: Console, compactions: Sequence[CompactionRecord], *, full: bool) -> None:
    """Print the newest summary: the model sees it in place of the messages before it."""
    if not compactions:
        return
    last = compactions[-1]
    console.print()
    console.print(
        Rule(
            f"summary, for the model, of the messages {last.keeps_first:d} to {last.until_seq - 1} below",
            align="left",
            style="dim",
        )
    )
    console.print(last.summary if full else _cut(last.summary))
    times = f"; {count(len(compactions), 'compaction')} so far" if len(compactions) > 1 else ""
    console.print(f"{last.tokens_before:,} tokens became {last.tokens_after:,}{times}", style="dim")


def _show_transcript(
    console: Console, run_id: str, transcript: Sequence[Message], waiting: set[str], *, full: bool
) -> None:
    """Print the messages; the arguments of the calls that are `waiting` for a person are whole."""
    cut = (lambda text: text) if full else _cut
    for message in transcript:
        console.print()
        title = f"{message.role}, from the history" if message.from_history else message.role
        console.print(Rule(title, align="left", style="dim"))
        for part in message.parts:
            match part:
                case TextPart(text):
                    console.print(cut(text))
                case ToolCall(call_id, name, given):
                    shown = calls.arguments(given, full=full or call_id in waiting)
                    console.print(Text.assemble("calls ", (printable(name, one_line=True), "cyan"), shown))
                case ToolResult(_, name, content, is_error):
                    name = printable(name, one_line=True)
                    console.print(Text.assemble((name, "red" if is_error else "cyan"), f": {cut(content)}"))
                case other:
                    console.print(f"({type(other).__name__.lower()})", style="dim")
        if message.role == "tool":
            for result_id in stored_results(message):
                console.print(
                    f"whole: `agno-workers runs show {run_id} --result {result_id}`",
                    style="dim",
                    soft_wrap=True,
                )


def _show_references(console: Console, given: Sequence[Reference]) -> None:
    """Print the search results that the run was given; those that its answer cites stand out."""
    if not given:
        return
    console.print()
    console.print(Rule("knowledge", align="left", style="dim"))
    for each in given:
        where = " > ".join(each.heading) or each.title or ""
        if each.place:
            where = f"{where}, {each.place}" if where else str(each.place)
        base = f"{each.knowledge}: " if len({one.knowledge for one in given}) > 1 else ""
        line = screen.line((f"[{each.n}] ", "cyan"), base, f"{where}  " if where else "", (each.uri, "dim"))
        if each.cited:
            line.append("  cited", "green")
        console.print(line, soft_wrap=True)


def _show_memories(console: Console, recalled: Sequence[RecalledMemory]) -> None:
    """Print the memories that the run recalled."""
    if not recalled:
        return
    console.print()
    console.print(Rule("memories", align="left", style="dim"))
    for each in recalled:
        console.print(
            screen.line((f"[{each.short}] ", "cyan"), each.text or "(redacted)", (f"  {each.kind}", "dim")),
            soft_wrap=True,
        )


def _cut(text: str, most: int = _MAX_SHOWN_CHARS) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most} more characters; --full shows all)"


@app.command()
def events(
    id: str = _RUN,
    after: int = typer.Option(0, "--after", min=0, help="Only events with a higher number."),
    json: bool = screen.AS_JSON,
) -> None:
    """List the events of a run so far. They are numbered from 1, without gaps, and a number never changes."""
    with connection.database() as database:
        run = database.queries.run(whole_id(database, id, "run"))
        found = database.queries.events(run.id, after)
    if json:
        screen.echo(screen.as_json(found))
    elif found:
        _show_events(screen.console(), found)
    else:
        screen.echo(f"No events after {after}.")


def _show_events(console: Console, found: Sequence[Event]) -> None:
    columns = ("number", "time (UTC)", "event", "about")
    rows = [
        (
            str(each.number),
            f"{each.at:%Y-%m-%d %H:%M:%S.%f}"[:-3],
            each.event,
            screen.one_line(_about(each), 200),
        )
        for each in found
    ]
    console.print(screen.table(console.width, columns, rows, right=("number",)))


def _about(event: Event) -> str:
    attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
    error = f"{event.error.get('type')}: {event.error.get('message')}" if event.error else ""
    return ", ".join(part for part in (event.name, attempt, error) if part)


@app.command()
def cancel(id: str = _RUN) -> None:
    """Cancel a run. Late results are discarded."""
    with existing_run(id) as (handle, _):
        if handle.cancel():
            screen.echo(f"Run {handle.id} is cancelled.")
        else:
            screen.echo(f"Run {handle.id} has ended already: it is {handle.status}.")


@app.command()
def pause(id: str = _RUN) -> None:
    """Pause a run and the runs that it delegated: running steps finish, and no further step starts."""
    with existing_run(id) as (handle, before):
        if handle.pause():
            screen.echo(f"Run {handle.id} is paused: `agno-workers runs resume {handle.id}` continues it.")
        elif before.paused_at:
            screen.echo(f"Run {handle.id} has been paused since {_utc(before.paused_at)}.")
        else:
            screen.echo(f"Run {handle.id} has ended already: it is {handle.status}.")


@app.command()
def resume(id: str = _RUN) -> None:
    """Resume a paused run and the runs that it delegated."""
    with existing_run(id) as (handle, before):
        if handle.resume():
            screen.echo(f"Run {handle.id} continues.")
        elif before.status.is_terminal:
            screen.echo(f"Run {handle.id} has ended already: it is {before.status}.")
        else:
            screen.echo(f"Run {handle.id} is not paused: it is {before.status}.")


@app.command()
def retry(id: str = _RUN) -> None:
    """Retry a failed run, under its own id, from its last good turn; `dead retry` retries many."""
    retry_run(id)


@app.command()
def fork(
    id: str = _RUN,
    at: str | None = typer.Option(
        None, "--at", help="The key (tool:2:0) or id of the step to start at; default: the first turn."
    ),
    text: str | None = typer.Option(
        None, "--input", help="At the first turn: replaces the input. At a later turn: a message before it."
    ),
    arguments: str | None = typer.Option(
        None,
        "--arguments",
        help='At a tool call: the JSON object to call the tool with. At a delegation: {"task": "..."}.',
    ),
    key: str | None = typer.Option(None, "--key", help="The idempotency key of the new run."),
) -> None:
    """Start a new run at a step of another one, reuse all results from before that step, and print the new id.

    The old run stays as it is.
    """
    asked = None if arguments is None else _as_object(arguments)
    with connection.database() as database:
        run_id = whole_id(database, id, "run")
        at = at and step_id(database.queries.steps(run_id), at)
        texts = [] if text is None else [text]
        screen.echo(database.forks.fork(run_id, at, texts, arguments=asked, idempotency_key=key))


def _as_object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInput(
            f'--arguments is not a JSON object ({error}): write it as \'{{"name": "value"}}\'.'
        ) from error
