"""`agno-workers env`: print the exports by which any program finds the servers of a running `up`."""

from __future__ import annotations

import shlex

import typer

from agno_workers import local
from agno_workers.cli import screen
from agno_workers.errors import SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def env(json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Print the exports of the local servers that run: eval "$(agno-workers env)".

    They are the servers of `agno-workers up` in AGNO_STATE_DIR, default ~/.local/state/agno-workers. Exit status 2 if none run.
    """
    found = local.running()
    if found is None:
        raise SettingsError(
            f"no local servers run in {str(local.default_state_dir())!r}: start them with `agno-workers up`, "
            "or set AGNO_STATE_DIR to the folder in which they run."
        )
    values = {"AGNO_DATABASE_URL": found.database_url, "AGNO_BROKER_URL": found.broker_url}
    if json:
        screen.echo(screen.as_json(values))
        return
    for name, value in values.items():
        screen.echo(f"export {name}={shlex.quote(value)}")
