"""`agno-workers dead`: list what failed, grouped by error, show one, and retry failed runs."""

from __future__ import annotations

from datetime import datetime

import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import calls, connection, screen
from agno_workers.cli.ids import short_ids, whole_id
from agno_workers.cli.screen import count
from agno_workers.core.run import RunKind, RunStatus, StepStatus
from agno_workers.errors import InvalidInput
from agno_workers.repositories import Database
from agno_workers.runs.dead import TURN, Group, Letter, Which
from agno_workers.sdk.handles import RunHandle

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Dead letters: failed runs, and tool calls that died or whose outcome is unknown.",
)
_AGENT = typer.Option(None, "--agent", help="Only this agent.")
_TOOL = typer.Option(None, "--tool", help="Only calls of this tool; `turn`: only failed runs.")
_ERROR = typer.Option(None, "--error", metavar="TYPE", help="Only this type of error.")


@app.command()
def ls(
    agent: str | None = _AGENT,
    tool: str | None = _TOOL,
    error: str | None = _ERROR,
    since: str | None = screen.SINCE,
    limit: int = typer.Option(50, "--limit", min=1, max=10_000, help="Show at most this many groups."),
    wide: bool = typer.Option(False, "--wide", help="Show whole ids."),
    json: bool = screen.AS_JSON,
) -> None:
    """List dead letters grouped by error, the largest group first, with the id of one run or step of each."""
    which = Which(agent, tool, error, screen.span(since, "--since"))
    with connection.database() as database:
        groups, now = database.dead_letters.groups(which, limit), database.queries.now()
    if json:
        screen.echo(screen.as_json(groups))
    elif groups:
        _show_groups(screen.console(), groups, now, wide=wide)
    else:
        screen.echo("No dead letters." if which.is_all else "No such dead letters.")


def _show_groups(console: Console, groups: list[Group], now: datetime, *, wide: bool) -> None:
    margin = max(len(str(group.letters)) for group in groups) + 2
    ids = short_ids(group.sample for group in groups)
    for group in groups:
        newest = f"newest {screen.age(group.newest, now)} ago: {group.sample if wide else ids[group.sample]}"
        head = screen.line(
            (f"{group.letters:>{margin - 2}}  ", "bold"), screen.status(group.status), f"  {group.agent} · {group.tool}  ",
            (group.type, "red"), f": {screen.one_line(group.message or '', 200)}",
        )  # fmt: skip
        console.print(screen.hanging(head, margin))
        console.print(screen.hanging(Text(f"{'':{margin}}{newest}", "dim"), margin))
    console.print(Text("`agno-workers dead show ID` shows one; `dead retry` retries failed runs.", "dim"))


@app.command()
def show(
    id: str = typer.Argument(metavar="ID", help="The id of a run or a step, whole or short."),
    json: bool = screen.AS_JSON,
) -> None:
    """Show one dead letter: its error, and what can be done about it."""
    with connection.database() as database:
        letter, now = _letter(database, id), database.queries.now()
    if not letter.is_dead:
        raise InvalidInput(
            f"{_named(letter)} is {letter.status}, not dead: `agno-workers runs show {letter.run_id}` shows it."
        )
    if json:
        screen.echo(screen.as_json(screen.plain(letter) | {"moves": _moves(letter)}))
        return
    console, met = screen.console(), letter.error or {}
    console.print(screen.line((_named(letter), "bold"), "  ", screen.status(letter.status)))
    facts = [f"agent {letter.agent}", f"{screen.age(letter.ended_at, now)} ago", letter.reason or ""]
    facts += [] if letter.is_run else [f"run {letter.run_id} is {letter.run_status}"]
    facts += [f"delegated by {letter.parent_run_id}"] if letter.parent_run_id else []
    console.print(screen.line(("; ".join(fact for fact in facts if fact), "dim")))
    console.print(screen.line((str(met.get("type")), "red"), f": {met.get('message')}"))
    if letter.call:
        console.print(f"arguments:{calls.arguments(letter.call)}")
    for move in _moves(letter):
        console.print(screen.hanging(Text(f"→ {move}", "yellow"), 2))


def _letter(database: Database, id: str) -> Letter:
    return database.dead_letters.letter(whole_id(database, id, "run", "step"))


def _moves(letter: Letter) -> list[str]:
    """Return what can be done about it, a sentence for each."""
    run, show = letter.run_id, f"`agno-workers runs show {letter.run_id}` shows the transcript."
    fork = f"`agno-workers runs fork {run} --at {letter.key}` makes the call in a new run"
    if letter.is_run:
        retry = f"`agno-workers dead retry {run}` retries it: it continues from its last good turn, under its own id."
        parent = f"Run {letter.parent_run_id} delegated it, and has received its failure as a result: retry or fork that run."
        return [parent if letter.parent_run_id else retry, show]
    if letter.tool == TURN:
        return [f"It is a turn of run {run}, which is {letter.run_status}: `agno-workers runs show {run}`."]
    if letter.status == StepStatus.UNKNOWN:
        check = f"Find out whether the call took effect; its idempotency key is {letter.id}."
        ask = 'Next time, `@tool(reconcile=…)` finds out by itself, and `on_unknown="ask"` asks a person.'
        return [check, f"If it did not, {fork}.", ask, show]
    return [f"The model is told of the error, and its run does not repeat the call. {fork}.", show]


@app.command()
def retry(
    id: str | None = typer.Argument(None, metavar="ID", help="The id of a failed run, whole or short."),
    agent: str | None = _AGENT,
    tool: str | None = _TOOL,
    error: str | None = _ERROR,
    since: str | None = screen.SINCE,
    everything: bool = typer.Option(False, "--all", help="Retry all failed runs."),
    limit: int | None = typer.Option(
        None, "--limit", min=1, help="Retry at most this many, the oldest first."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only print how many runs would be retried."),
) -> None:
    """Retry failed runs: each continues from its last good turn, under its own id. Safe to repeat.

    Filters and --all skip runs that another run delegated: the other run has received the failure as a result.
    """
    which = Which(agent, tool, error, screen.span(since, "--since"))
    if id is not None:
        if everything or not which.is_all or limit or dry_run:
            raise InvalidInput("use an ID, or filters, --all, --limit and --dry-run, but not both.")
        retry_run(id)
    elif everything and not which.is_all:
        raise InvalidInput("--all retries all failed runs: use it without filters.")
    elif which.is_all and not everything:
        raise InvalidInput(
            "no runs are chosen: use an ID, --agent, --tool, --error or --since, or --all for all failed runs."
        )
    else:
        _retry_many(which, limit, dry_run=dry_run)


def retry_run(id: str) -> None:
    """Retry one run, and print what happened. Raises InvalidInput for what is not a failed run."""
    with connection.database() as database:
        letter = _letter(database, id)
        if not letter.is_run:
            move = _moves(letter)[0] if letter.is_dead else f"It is {letter.status}."
            raise InvalidInput(f"{_named(letter)} is not a run, and only runs are retried. {move}")
        if letter.status == RunStatus.FAILED and letter.parent_run_id is not None:
            raise InvalidInput(
                f"run {letter.parent_run_id} delegated run {letter.id}, and has received its failure as a result: retry or fork that run."
            )
        kind = database.queries.run(letter.id).kind
        if letter.status == RunStatus.FAILED and kind is RunKind.INGESTION:
            raise InvalidInput(
                f"run {letter.id} is an ingestion: `agno-workers knowledge retry {letter.id}` ingests again what failed."
            )
        if RunHandle(letter.id, database).retry():
            how = "begins again" if kind is RunKind.BACKGROUND else "continues from its last good turn"
            screen.echo(f"Run {letter.id} {how}.")
        elif letter.status == RunStatus.FAILED and kind is RunKind.BACKGROUND:
            screen.echo(f"Run {letter.id} is not retried: a later run does its work now.")
        elif letter.status not in (RunStatus.DONE, RunStatus.CANCELLED):
            screen.echo(f"Run {letter.id} has not ended: it is {database.queries.run(letter.id).status}.")
        else:
            raise InvalidInput(
                f"run {letter.id} is {letter.status}, and only failed runs are retried: "
                f"`agno-workers runs fork {letter.id}` starts a new run from it."
            )


def _retry_many(which: Which, limit: int | None, *, dry_run: bool) -> None:
    with connection.database() as database:
        found = database.dead_letters.retryable(which)
        if dry_run:
            screen.echo(f"{count(min(found.runs, limit or found.runs), 'run')} would be retried.")
        else:
            screen.echo(f"Retried {count(_retry_each(database, which, limit), 'run')}.")
    if found.delegated:
        screen.echo(
            f"Skipped {count(found.delegated, 'delegated run')}: other runs have received their failures."
        )
    if which.tool not in (None, TURN):
        screen.echo(
            "Tool calls are not retried: `agno-workers runs fork RUN --at KEY` makes one in a new run; "
            "`dead show ID` prints both."
        )


def _retry_each(database: Database, which: Which, limit: int | None) -> int:
    """Return how many were retried; one that somebody else has retried meanwhile does not count."""
    retried = 0
    with screen.console(stderr=True).status("") as shown:
        try:
            for run_id in database.dead_letters.failed(which):
                retried += RunHandle(run_id, database).retry()
                shown.update(Text(f"{retried} retried", "dim"))
                if retried == limit:
                    break
        except KeyboardInterrupt:
            screen.echo(
                f"Retried {count(retried, 'run')}; the same command continues with the others.", err=True
            )
            raise typer.Exit(130) from None
    return retried


def _named(letter: Letter) -> str:
    return f"run {letter.id}" if letter.is_run else f"{letter.tool} ({letter.key}, step {letter.id})"
