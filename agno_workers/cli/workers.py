"""`agno-workers workers`: who carries steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import typer
from rich.console import Console

from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import known, state
from agno_workers.runs.workers import Worker
from agno_workers.settings import Settings

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, help="List workers.")


@app.callback()
def root() -> None:
    """Holds `ls`: a single command would stand without its name."""


@app.command()
def ls(json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """List the workers of the last day: alive, silent (has missed a time), lost (its leases ran out), or stopped."""
    settings = connection.settings()
    workers = known(settings)
    if json:
        told = [screen.plain(worker) | {"state": state(worker, settings)} for worker in workers]
        typer.echo(screen.as_json(told))
    elif workers:
        _show(screen.console(), workers, settings)
    else:
        typer.echo("No workers: `agno-workers up` starts some.")


def _show(console: Console, workers: Sequence[Worker], settings: Settings) -> None:
    columns = ("state", "host", "queues", "pool", "steps", "version", "seen", "name")
    rows = [
        (
            screen.status(state(worker, settings)),
            worker.hostname,
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
