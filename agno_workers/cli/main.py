"""The command line's door: which commands there are, and how an error looks (one sentence, exit 2)."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from agno_workers.errors import AgnoError, InvalidInput

COMMANDS = {
    "demo": "See it work here: documents asked, a group of agent runs over them, eight tools side by side.",
    "up": "Start everything here and keep it running: servers, migrations, workers. Ctrl-C ends it.",
    "run": "Submit a run, and wait for its answer.",
    "runs": "List runs, show one with its steps, steer one; what waits for a person, and answering it.",
    "ingest": "Bring documents into a knowledge base.",
    "search": "Ask a knowledge base.",
    "knowledge": "Knowledge bases: list, show, reindex, remove; what agents learned; what is missing.",
    "dead": "List what failed, show why, send it again.",
    "workers": "List workers: who is there, and what they carry.",
    "agents": "Show the agents that AGNO_IMPORTS brings.",
    "metrics": "Numbers for Prometheus: on a port, or once to stdout.",
    "db": "Bring the database to the newest schema.",
    "doctor": "Check what runs need: versions, Postgres, Redis, queues, clocks.",
}


class Later(TyperCommand):
    """A command whose module is imported when it is used, so that `--help` need not import them all."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        module = importlib.import_module(f"{__package__}.{self.name}")
        return typer.main.get_command(module.app).make_context(*args, **kwargs)


class Commands(TyperGroup):
    """The commands of COMMANDS."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's signature
        return Later(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.import_module("agno_workers").__version__)
        raise typer.Exit


@app.callback(help="Durable background runs for AI agents, on Celery, Redis and Postgres.")
def root(
    version: bool = typer.Option(
        False, "--version", help="Say which version this is.", callback=_say_version, is_eager=True
    ),
) -> None:
    """Holds the options of no command."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exits 0 when it did what it should, 1 when it found something wrong, 2 when it could not begin."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # our own sentence says it once
    try:
        app(arguments, prog_name="agno-workers")
    except AgnoError as error:
        sys.exit(_sentence(error))
    except UnicodeEncodeError as error:  # bytes of the command line that are no text of its locale
        sys.exit(_sentence(InvalidInput(f"{error.object!a} is no UTF-8 text: write it as such.")))
    except BrokenPipeError:  # `agno-workers runs ls | head`
        sys.stdout = None  # nothing is left to be flushed
        sys.exit(0)


def _sentence(error: AgnoError) -> int:
    sys.stderr.write(f"agno-workers: {' '.join(str(error).split())}\n")
    return 2


if __name__ == "__main__":
    main()
