"""`agno-workers workers`: list the workers of the last day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import typer
from rich.console import Console

from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import state
from agno_workers.runs.workers import Worker
from agno_workers.settings import Settings

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="List workers."
)


@app.callback()
def root() -> None:
    """Without a callback, typer would drop the name of the only command."""


@app.command()
def ls(
    wide: bool = typer.Option(False, "--wide", help="Show whole names."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the workers of the last day: alive, silent (missed a renewal), lost (their leases expired) or stopped."""
    settings = connection.settings()
    with connection.database(settings) as database:
        workers = database.workers.all()
    if json:
        screen.echo(
            screen.as_json([screen.plain(each) | {"state": state(each, settings)} for each in workers])
        )
    elif workers:
        _show(screen.console(wide=wide), workers, settings)
    else:
        screen.echo("No workers: `agno-workers up` starts some.")


def _show(console: Console, workers: Sequence[Worker], settings: Settings) -> None:
    columns = ("state", "queues", "pool", "steps", "version", "seen", "worker")
    rows = [
        (
            screen.status(state(worker, settings)),
            ",".join(worker.queues),
            f"{worker.pool} x {worker.concurrency}",
            str(worker.steps),
            worker.version,
            f"{screen.length(timedelta(seconds=round(worker.silent_s)))} ago",
            worker.name,
        )
        for worker in workers
    ]
    console.print(screen.table(console.width, columns, rows, right=("steps",)))
