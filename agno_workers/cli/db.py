"""`agno-workers db`: the schema of the database, the rights of its roles, and what a copy of it is."""

from __future__ import annotations

from contextlib import closing

import typer
from psycopg.rows import dict_row, tuple_row

from agno_workers.cli import connection, screen
from agno_workers.cli.screen import count
from agno_workers.database import functions, identity
from agno_workers.database.checks import NO_TABLES
from agno_workers.database.checks import grants as grants_of
from agno_workers.database.connect import connect
from agno_workers.database.migrations import NEWEST
from agno_workers.database.pool import translated
from agno_workers.errors import InvalidInput, UnusableDatabase

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Upgrade the database schema, print the rights that a role needs, adopt a copy.",
)


@app.command("upgrade")
def bring(
    sql: bool = typer.Option(False, "--sql", help="Only print the statements, for psql."),
) -> None:
    """Execute missing migrations. Safe to repeat, and while workers run."""
    from agno_workers.cli.servers import upgrade  # noqa: PLC0415 - brings Alembic, 0.5 s to import
    from agno_workers.database.migrate import script  # noqa: PLC0415 - as above

    settings = connection.settings()
    if sql:
        url = connection.required(settings, "database")
        screen.echo(script(functions.state(url, connection.PATIENCE_S)))
        return
    before, after = upgrade(connection.direct_url(settings))
    screen.echo(
        f"The schema is at {after} already."
        if before == after
        else f"The schema is at {after} (was: {before or 'none'})."
    )


@app.command()
def current() -> None:
    """Print the revision of the database, and the one that this code needs."""
    url = connection.required(connection.settings(), "database")
    found = functions.state(url, connection.PATIENCE_S)
    if found.revision is None:
        screen.echo(
            f"The database has no tables of ours; this code needs {NEWEST}: run `agno-workers db upgrade`."
        )
        return
    release = ".".join(map(str, found.release)) or "unknown"
    same = "the same" if found.functions == functions.current().functions else "other"
    screen.echo(f"The schema is at {found.revision}; this code needs {NEWEST}.")
    screen.echo(f"The functions are those of release {release}: {same} as in this code.")


@app.command()
def grants(role: str = typer.Argument(metavar="ROLE", help="The role of workers and clients.")) -> None:
    """Print the statements that give a role what workers and clients need, for psql as the owner of the schema."""
    url = connection.required(connection.settings(), "database")
    with connect(url, timeout_s=connection.PATIENCE_S, row_factory=tuple_row) as opened:
        if opened.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount == 0:
            raise InvalidInput(
                f"role {role!r} does not exist: create it first, with `CREATE ROLE ... LOGIN PASSWORD ...`."
            )
        found = opened.execute(_OWNER).fetchone()
    if found is None:
        raise UnusableDatabase(NO_TABLES)
    owner, database = found
    for line in grants_of(role, owner, database):
        screen.echo(line)


_OWNER = "SELECT pg_get_userbyid(nspowner), current_database() FROM pg_namespace WHERE nspname = 'agno'"


@app.command()
def adopt(
    keep_runs: bool = typer.Option(
        False, "--keep-runs", help="Continue the open runs: this database replaces the original."
    ),
    cancel_open: bool = typer.Option(
        False, "--cancel-open", help="Cancel the open runs: the original goes on with them."
    ),
) -> None:
    """Let workers use a copied, restored or moved database, which they refuse until then."""
    if keep_runs == cancel_open:
        raise InvalidInput(
            "choose what happens to the open runs: --keep-runs if this database replaces the original, --cancel-open if it is a copy."
        )
    settings = connection.settings()
    url = connection.database_url(settings, migrated=True)
    opened = connect(
        url, timeout_s=connection.PATIENCE_S, statement_timeout_s=0, autocommit=True, row_factory=dict_row
    )
    with translated(), closing(opened):
        runs = identity.adopt(
            opened, settings.deployment, cancel_open=cancel_open, lease_s=settings.runs.lease_s
        )
    done = "cancelled; nothing follows them" if cancel_open else "continue with the next worker"
    screen.echo(f"Workers accept this database now. {count(runs, 'open run')}: {done}.")
