"""`agno-workers workers`: list the workers that are alive, or those of the last day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import state
from agno_workers.cli.screen import count
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
    everything: bool = typer.Option(False, "--all", help="Show those that are lost or stopped, too."),
    wide: bool = typer.Option(False, "--wide", help="Cut nothing off."),
    json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the workers that are alive, or silent (missed a renewal).

    --all: those of the last day, also lost (their leases expired) and stopped ones.
    """
    settings = connection.settings()
    with connection.database(settings) as database:
        known = database.workers.all()
    workers = [each for each in known if everything or state(each, settings) in ("alive", "silent")]
    if json:
        screen.echo(
            screen.as_json([screen.plain(each) | {"state": state(each, settings)} for each in workers])
        )
    elif workers:
        _show(screen.console(wide=wide), workers, settings)
    elif known:
        screen.echo(f"No worker is alive; --all shows {count(len(known), 'worker')} of the last day.")
    else:
        screen.echo("No workers: `agno-workers up` starts some.")


def _show(console: Console, workers: Sequence[Worker], settings: Settings) -> None:
    columns = ["worker", "state", "steps", "seen", "pool", "queues"]
    rows: list[list[str | Text]] = [
        [
            worker.name,
            screen.status(state(worker, settings)),
            str(worker.steps),
            screen.length(timedelta(seconds=round(worker.silent_s))),
            f"{worker.pool} x {worker.concurrency}",
            ",".join(worker.queues),
        ]
        for worker in workers
    ]
    if screen.is_wide(console) or len({worker.version for worker in workers}) > 1:
        columns.insert(-1, "version")
        for row, worker in zip(rows, workers, strict=True):
            row.insert(-1, worker.version)
    console.print(screen.table(console.width, columns, rows, right=("steps", "seen")))
