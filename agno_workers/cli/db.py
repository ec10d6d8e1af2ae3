"""`agno-workers db`: the schema of the database."""

from __future__ import annotations

import typer

from agno_workers.cli import connection
from agno_workers.cli.servers import upgrade

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, help="The schema of the database.")


@app.callback()
def db() -> None:
    """Keeps `upgrade` a command of its own."""


@app.command("upgrade")
def bring() -> None:
    """Run the migrations that are missing. Safe to run twice, also while workers run."""
    before, after = upgrade(connection.database_url(connection.settings()))
    typer.echo(
        f"The schema is at {after}, as it was."
        if before == after
        else f"The schema is at {after} (was: {before or 'none'})."
    )
