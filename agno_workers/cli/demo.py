"""`agno-workers demo`: everything started here, a pipeline of runs over real files, and what the rows tell of it."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from agno_workers import settings as settings_module
from agno_workers.broker.checks import redis_problems
from agno_workers.cli import connection, screen
from agno_workers.cli.demo_model import Chosen, choose, serving
from agno_workers.cli.processes import Crew, Ended, Program, ending_by_signal
from agno_workers.cli.progress import Progress, progress
from agno_workers.cli.servers import Servers, running, use
from agno_workers.cli.workers import workers
from agno_workers.core.run import StepKind
from agno_workers.demo import pipeline, timeline
from agno_workers.demo.documents import Document, Picked, pick
from agno_workers.demo.pipeline import Told, Watch
from agno_workers.errors import SettingsError
from agno_workers.settings import Settings
from agno_workers.storage import migrate
from agno_workers.wiring import Services, forget, services

app = typer.Typer(pretty_exceptions_enable=False)
_LOOK_EVERY_S = 0.1
_LEASE_S = 4.0
"""Short, so that a worker killed on stage is missed soon."""


@app.command()
def demo(
    path: Path | None = typer.Argument(None, help="A file or folder of text or Markdown; default: this project's documents."),
    model: str = typer.Option("", "--model", help="provider:model; default: a provider whose key is set, else a small local model."),
    documents: int = typer.Option(6, "--documents", min=1, max=50, help="Read at most so many."),
) -> None:
    """See it work here: a group of agent runs over real files, then eight tools side by side.

    Starts a Postgres and a Valkey of its own (or uses AGNO_DATABASE_URL and AGNO_BROKER_URL) and real Celery workers, and
    ends them with itself. Kill a worker while it runs: the demo still comes out right, and checks that it did.
    """
    started = time.monotonic()
    settings = settings_module.load()
    console = screen.console()
    with ending_by_signal() as hurry:
        try:
            with _stage(console, settings, path, model, documents) as stage:
                crew = Crew(_programs(stage), lambda _program, _line: None, stage.say)
                try:
                    crew.start()
                    wrong = _play(stage, crew, started)
                finally:
                    stage.leave()
                    crew.stop(hurry)
        except Ended as ended:
            console.print("[dim]Ended before it was over; its unfinished runs are cancelled.[/]")
            raise typer.Exit(128 + ended.signum) from None
    if wrong:
        raise typer.Exit(1)
