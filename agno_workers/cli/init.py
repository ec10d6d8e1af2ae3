"""`agno-workers init`: the files of a new project."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import typer

from agno_workers.cli import screen
from agno_workers.errors import InvalidInput
from agno_workers.local import project

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def init(
    folder: Path = typer.Argument(Path(), help="The folder of the project; it is made if it is not there."),
) -> None:
    """Write an agent, a Procfile, a Dockerfile, files for Compose and Kubernetes, and settings for production.

    Files that exist are kept as they are.
    """
    kept = []
    try:
        for name, text in project.files(version("agno-workers")):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                kept.append(name)
            else:
                screen.echo(f"{name} written")
    except OSError as error:
        raise InvalidInput(
            f"{error.filename} can't be written ({error.strerror}): name another folder."
        ) from error
    for name in kept:
        screen.echo(f"{name} kept as it is")
    console = screen.console()
    console.print("\nNow, in this folder:" if folder == Path() else f"\nNow, in {folder}:")
    for line in (
        "AGNO_IMPORTS=agents agno-workers up                 servers and workers, until Ctrl-C",
        'agno-workers run writer "What is a lease?"          in a second shell',
        "docker compose up --build                           after `cp config/env.example .env`, filled in",
    ):
        console.print(f"  {line}", soft_wrap=True)
