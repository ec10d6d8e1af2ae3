"""`agno-workers agents`: the agents that the workers of these settings serve."""

from __future__ import annotations

import typer
from rich.text import Text

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
    known = [_described(agent, settings.agent_queue) for agent in Registry.importing(settings.imports).all()]
    if json:
        typer.echo(screen.as_json(known))
        return
    rows = screen.table("agent", "model", "queue", "tools", "description")
    for agent in known:
        rows.add_row(*(Text(str(value)) for value in {**agent, "tools": ", ".join(agent["tools"])}.values()))
    screen.console().print(rows if known else f"No agents stand in {settings.imports}.")


def _described(agent: Agent, queue: str) -> dict[str, object]:
    """Raises InvalidTool for a tool that could not be offered to a model."""
    model = agent.model if isinstance(agent.model, str) else agent.model.name
    return {
        "name": agent.name, "model": model, "queue": agent.queue or queue, "tools": sorted(collect(agent.tools)),
        "description": agent.description,
    }  # fmt: skip
