"""The entry point of the command line: the list of commands, and one sentence with exit status 2 for an error."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from agno_workers.core.logs import SafeFormatter
from agno_workers.core.words import printable
from agno_workers.errors import AgnoError, InvalidInput, message_of, notes

COMMANDS = {
    "demo": "See it work: search documents, run a group of agents over them, and eight tools in parallel.",
    "up": "Start servers and workers on this machine, and keep them running until Ctrl-C.",
    "init": "Write the files of a new project: an agent, Procfile, Dockerfile, Compose, settings.",
    "env": "Print the exports of the servers that `up` runs here.",
    "run": "Submit a run and wait for its answer.",
    "runs": "List, show, cancel, pause, resume, retry and fork runs; answer calls that wait for a person.",
    "sessions": "List, show, pause, resume, end, fork, roll back, export and delete sessions.",
    "ingest": "Ingest documents into a knowledge base.",
    "search": "Search a knowledge base.",
    "knowledge": "List, show, reindex and remove knowledge bases; review feedback and gaps.",
    "memory": "List, show, edit, undo, forget, redact, export and consolidate memories.",
    "dead": "List and show dead letters; retry failed runs.",
    "workers": "List workers and their queues.",
    "agents": "List agents.",
    "metrics": "Serve metrics for Prometheus, or print them once.",
    "db": "Upgrade the database schema, print grants, adopt a copy.",
    "doctor": "Check versions, Postgres, Redis, queues, workers and clocks.",
}


class Later(TyperCommand):
    """A command whose module is imported when the command is used, so that `--help` imports none."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        module = importlib.import_module(f"{__package__}.{self.name}")
        return typer.main.get_command(module.app).make_context(*args, **kwargs)


class Commands(TyperGroup):
    """The commands of COMMANDS. typer names the nearest one of a misspelt command."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: Later(name, help=text) for name, text in COMMANDS.items()}


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.import_module("agno_workers").__version__)
        raise typer.Exit


@app.callback(
    help="Durable background runs for AI agents, on Celery, Redis and Postgres.",
    epilog="Settings are AGNO_* variables, or a file that AGNO_CONFIG names. The local servers of `up`, `demo`, `run`, `ingest` and `search` "
    "keep their data in AGNO_STATE_DIR (default: ~/.local/state/agno-workers).",
)
def root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Options that belong to no command."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command. Exit status 0: success; 1: `doctor` found a failure; 2: an error."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # our own error reports it once
    if not sys.stdout.isatty():
        typer.core.HAS_RICH = False  # help without boxes and colours, and not cut
    if logging.lastResort is not None:  # which prints the warnings of a process without handlers
        logging.lastResort.setFormatter(SafeFormatter(logging.Formatter()))
    try:
        app(arguments, prog_name="agno-workers")
    except AgnoError as error:
        sys.exit(_print_error(error))
    except UnicodeEncodeError as error:  # bytes that are not text in the locale
        sys.exit(_print_error(InvalidInput(f"{error.object!a} is not UTF-8 text: encode it as UTF-8.")))
    except BrokenPipeError:  # `agno-workers runs ls | head`
        sys.stdout = None  # nothing is left to flush
        sys.exit(0)


def _print_error(error: AgnoError) -> int:
    for note in notes(error):  # the traceback of an agent's module
        sys.stderr.write(f"{printable(note)}\n")
    sys.stderr.write(f"agno-workers: {printable(' '.join(message_of(error).split()))}\n")
    return 2


if __name__ == "__main__":
    main()
