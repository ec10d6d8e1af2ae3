"""`agno-workers agents`: the agents that the workers of these settings serve."""

from __future__ import annotations

import typer

from agno_workers import settings as settings_module
from agno_workers.cli import connection, screen
from agno_workers.core.agent import Agent
from agno_workers.errors import SettingsError
from agno_workers.registry import Registry
from agno_workers.tools import collect

app = typer.Typer(
    pretty_exceptions_enable=False, no_args_is_help=True, help="The agents that AGNO_IMPORTS brings."
)


@app.callback()
def agents() -> None:
    """Keeps `ls` a command of its own."""


@app.command()
def ls(json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """List the agents that AGNO_IMPORTS brings."""
    settings = settings_module.load()
    if not settings.imports:
        raise SettingsError(
            "AGNO_IMPORTS is not set: name the modules that define your agents, as in AGNO_IMPORTS=myapp.agents."
        )
    connection.import_from_here()
    known = Registry.importing(settings.imports).all()
    if json:
        typer.echo(screen.as_json([_described(agent, settings.agent_queue) for agent in known]))
        return
    console = screen.console()
    rows = [
        tuple(_shown(value) for value in _described(agent, settings.agent_queue).values()) for agent in known
    ]
    if known:
        console.print(screen.table(console.width, ("agent", "model", "queue", "description", "tools"), rows))
    else:
        console.print(f"No agents stand in {settings.imports}.", markup=False)


def _described(agent: Agent, queue: str) -> dict[str, str | list[str]]:
    """Raises InvalidTool for a tool that could not be offered to a model."""
    return {
        "name": agent.name,
        "model": agent.model if isinstance(agent.model, str) else agent.model.name,
        "queue": agent.queue or queue,
        "description": agent.description,
        "tools": sorted(collect(agent.tools)),
    }


def _shown(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
