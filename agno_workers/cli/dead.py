"""`agno-workers dead`: what failed, like with like; why; and sending it again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.errors import InvalidInput
from agno_workers.runs.dead import TURN, Group, Letter, Which
from agno_workers.sdk.client import Client

app = typer.Typer(
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Dead letters: runs that failed, and tool calls that died or of which nobody knows what became.",
)
_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_AGENT = typer.Option(None, "--agent", help="Only this agent's.")
_TOOL = typer.Option(None, "--tool", help="Only calls of this tool; `turn`: only runs that failed.")
_ERROR = typer.Option(None, "--error", metavar="TYPE", help="Only those that met this type of error.")
_SINCE = typer.Option(None, "--since", metavar="TIME", help="Only those of this time: 90s, 15m, 2h, 7d.")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST = timedelta(days=36500)
_MAX_SHOWN_CHARS = 1000


@app.command()
def ls(
    agent: str | None = _AGENT,
    tool: str | None = _TOOL,
    error: str | None = _ERROR,
    since: str | None = _SINCE,
    limit: int = typer.Option(
        50, "--limit", min=1, max=10_000, help="At most so many groups, the largest first."
    ),
    json: bool = _AS_JSON,
) -> None:
    """List what is dead, those together that died of the same: how many, when the newest did, and the id of one."""
    which = Which(agent, tool, error, _span(since))
    with connection.database() as database:
        groups, now = database.dead_letters.groups(which, limit), database.queries.now()
    if json:
        typer.echo(screen.as_json(groups))
    elif groups:
        _show_groups(screen.console(), groups, now)
    else:
        typer.echo("Nothing is dead." if which.is_all else "Nothing of that kind is dead.")


def _show_groups(console: Console, groups: list[Group], now: datetime) -> None:
    wide = max(len(str(group.letters)) for group in groups) + 2
    for group in groups:
        newest = f"newest {screen.age(group.newest, now)} ago: {group.sample}"
        head = Text.assemble(
            (f"{group.letters:>{wide - 2}}  ", "bold"), screen.status(group.status), f"  {group.agent} · {group.tool}  ",
            (group.type, "red"), f": {screen.one_line(group.message or '', 200)}\n", (newest, "dim"),
        )  # fmt: skip
        console.print(screen.hanging(head, wide))
    console.print(Text("`agno-workers dead show ID` shows one; `dead retry` sends failed runs again.", "dim"))


@app.command()
def show(id: str = typer.Argument(metavar="ID", help="Of a run or a step."), json: bool = _AS_JSON) -> None:
    """Show one: what it met, and what can be done."""
    with connection.database() as database:
        letter, now = database.dead_letters.letter(id), database.queries.now()
    if not letter.is_dead:
        raise InvalidInput(
            f"{_named(letter)} is {letter.status}, not dead: `agno-workers runs show {letter.run_id}` shows it."
        )
    if json:
        typer.echo(screen.as_json(screen.plain(letter) | {"moves": _moves(letter)}))
        return
    console, met = screen.console(), letter.error or {}
    console.print(Text.assemble((_named(letter), "bold"), "  ", screen.status(letter.status)))
    facts = [f"agent {letter.agent}", f"{screen.age(letter.ended_at, now)} ago", letter.reason or ""]
    facts += [] if letter.is_run else [f"run {letter.run_id} is {letter.run_status}"]
    facts += [f"delegated by {letter.parent_run_id}"] if letter.parent_run_id else []
    console.print("; ".join(fact for fact in facts if fact), style="dim", markup=False)
    console.print(Text.assemble((str(met.get("type")), "red"), f": {met.get('message')}"))
    if letter.call:
        console.print(f"arguments: {screen.one_line(letter.call, _MAX_SHOWN_CHARS)}", markup=False)
    for move in _moves(letter):
        console.print(screen.hanging(Text(f"→ {move}", "yellow"), 2))


def _moves(letter: Letter) -> list[str]:
    """What can be done about it."""
    run, show = letter.run_id, f"`agno-workers runs show {letter.run_id}` has the transcript."
    fork = f"`agno-workers runs fork {run} --at {letter.key}` makes it in a new run that begins there"
    if letter.is_run:
        again = f"`agno-workers dead retry {run}` sends it again: it goes on from its last good turn, under its own id."
        told = f"Run {letter.parent_run_id}, which delegated it, was told that it failed, and waits no more: retry or fork that one."
        return [told, show] if letter.parent_run_id else [again, show]
    if letter.tool == TURN:
        return [f"It is a turn of run {run}, which is {letter.run_status}: `agno-workers runs show {run}`."]
    if letter.status == StepStatus.UNKNOWN:
        look = f"Find out whether it took effect; the call's idempotency key was {letter.id}."
        ask = '`@tool(reconcile=…)` finds out by itself the next time, `on_unknown="ask"` asks a person.'
        return [look, f"If it did not, {fork}.", ask, show]
    goes_on = "was told" if letter.run_status.is_terminal else "is told, and goes on"
    return [f"The model {goes_on}; this call is not made again. {fork}.", show]


@app.command()
def retry(
    id: str | None = typer.Argument(None, metavar="[ID]", help="Of a failed run."),
    agent: str | None = _AGENT,
    tool: str | None = _TOOL,
    error: str | None = _ERROR,
    since: str | None = _SINCE,
    everything: bool = typer.Option(False, "--all", help="All runs that failed."),
    limit: int | None = typer.Option(None, "--limit", min=1, help="At most so many, the oldest first."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how many it would be."),
) -> None:
    """Send failed runs again: each goes on from its last good turn, under its own id. Safe to repeat.

    In bulk, runs that others delegated are left out: whoever delegated them was told that they failed.
    """
    which = Which(agent, tool, error, _span(since))
    if id is not None:
        if everything or not which.is_all or limit or dry_run:
            raise InvalidInput("give an ID, or filters, --all, --limit and --dry-run: not both.")
        _retry_one(id)
    elif everything and not which.is_all:
        raise InvalidInput("--all is for all runs that failed: leave it out, or the filters.")
    elif which.is_all and not everything:
        raise InvalidInput(
            "say which: an ID, --agent, --tool, --error or --since, or --all for all runs that failed."
        )
    else:
        _retry_many(which, limit, dry_run=dry_run)


def _retry_one(id: str) -> None:
    given = connection.settings()
    with connection.database(given) as database, connection.client(given) as client:
        letter = database.dead_letters.letter(id)
        if not letter.is_run:
            move = _moves(letter)[0] if letter.is_dead else f"It is {letter.status}: there is nothing to do."
            raise InvalidInput(f"{_named(letter)} is no run, and only runs are sent again. {move}")
        if letter.status == RunStatus.FAILED and letter.parent_run_id is not None:
            raise InvalidInput(
                f"run {letter.id} was delegated by {letter.parent_run_id}, which was told that it failed and waits no more: "
                "retry or fork that one."
            )
        if client.runs.get(id).retry():
            typer.echo(f"Run {letter.id} goes on from its last good turn.")
        elif letter.status not in (RunStatus.DONE, RunStatus.CANCELLED):
            typer.echo(f"Run {letter.id} is on its way already.")
        else:
            raise InvalidInput(
                f"run {letter.id} is {letter.status}, and only a failed run is sent again: "
                f"`agno-workers runs fork {letter.id}` makes a new run of it."
            )


def _retry_many(which: Which, limit: int | None, *, dry_run: bool) -> None:
    given = connection.settings()
    with connection.database(given) as database, connection.client(given) as client:
        dead = database.dead_letters
        found = dead.retryable(which)
        if dry_run:
            typer.echo(f"{min(found.runs, limit or found.runs)} run(s) would be sent again.")
        else:
            typer.echo(f"{_send_again(dead.failed(which), client, limit)} run(s) were sent again.")
    if found.delegated:
        typer.echo(f"{found.delegated} were delegated by other runs, which wait for them no more: left out.")
    if which.tool not in (None, TURN):
        typer.echo(
            "Calls of a tool are not made again in place: `agno-workers runs fork RUN --at KEY` makes one in a new run; "
            "`dead show ID` names both."
        )


def _send_again(run_ids: Iterator[str], client: Client, limit: int | None) -> int:
    """How many were: one that somebody else has sent again meanwhile does not count."""
    sent = 0
    with screen.console(stderr=True).status("") as shown:
        try:
            for run_id in run_ids:
                sent += client.runs.get(run_id).retry()
                shown.update(f"[dim]{sent} sent again[/]")
                if sent == limit:
                    break
        except KeyboardInterrupt:
            typer.echo(f"{sent} run(s) were sent again; the same command goes on with the others.", err=True)
            raise typer.Exit(130) from None
    return sent


def _named(letter: Letter) -> str:
    return f"run {letter.id}" if letter.is_run else f"{letter.tool} ({letter.key}, step {letter.id})"


def _span(text: str | None) -> timedelta | None:
    """`90s`, `15m`, `2h`, `7d`, `1w`. Raises InvalidInput."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhdw])", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise InvalidInput(f"--since {text!r} is no time: write 90s, 15m, 2h or 7d.")
    return timedelta(seconds=seconds)
