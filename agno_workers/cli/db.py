"""`agno-workers db`: upgrade the schema of the database."""

from __future__ import annotations

import typer

from agno_workers.cli import connection, screen
from agno_workers.cli.servers import upgrade

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Upgrade the database schema.",
)


@app.callback()
def db() -> None:
    """Without a callback, typer would drop the name of the only command."""


@app.command("upgrade")
def bring() -> None:
    """Execute missing migrations. Safe to repeat, and while workers run."""
    before, after = upgrade(connection.direct_url(connection.settings()))
    screen.echo(
        f"The schema is at {after} already."
        if before == after
        else f"The schema is at {after} (was: {before or 'none'})."
    )
