"""`agno-workers agents`: the agents that the workers of these settings serve."""

from __future__ import annotations

from typing import Any

import typer

from agno_workers import settings as settings_module
from agno_workers.cli import connection, screen
from agno_workers.core.agent import Agent, Limits
from agno_workers.errors import SettingsError
from agno_workers.knowledge.types import use_of
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
    known = Registry.importing(*settings.imports).all()
    if json:
        typer.echo(screen.as_json([_described(agent, settings.queues.agents) for agent in known]))
        return
    if not known:
        typer.echo(f"No agents stand in {', '.join(settings.imports)}.")
        return
    console = screen.console()
    names = max(len(agent.name) for agent in known)
    models = max(len(_model(agent)) for agent in known)
    for agent in known:
        line = f"{agent.name:<{names}}  {_model(agent):<{models}}  {agent.queue or settings.queues.agents}"
        console.print(line, style="bold", markup=False)
        for text in _details(agent):
            console.print(screen.indented(text))


def _described(agent: Agent, queue: str) -> dict[str, Any]:
    """Raises InvalidTool for a tool that could not be offered to a model."""
    return {
        "name": agent.name,
        "model": _model(agent),
        "queue": agent.queue or queue,
        "description": agent.description,
        "tools": _tools(agent),
        "members": _members(agent),
        "knowledge": _knowledge(agent),
        "limits": agent.limits,
        "prices": agent.prices,
    }


def _details(agent: Agent) -> list[str]:
    """What there is to say beside its name, model and queue, a line each."""
    limits, prices = _limits(agent.limits), agent.prices
    cached = f", ${prices.cached_usd:g} cached" if prices and prices.cached_usd is not None else ""
    lines = {
        "": screen.one_line(agent.description, 200),
        "tools: ": ", ".join(_tools(agent)),
        "delegates to: ": ", ".join(_members(agent)),
        "knowledge: ": _knowledge(agent) or "",
        "limits: ": limits,
        "prices: ": f"${prices.input_usd:g} in{cached}, ${prices.output_usd:g} out, for a million tokens"
        if prices
        else "",
    }
    return [f"{name}{text}" for name, text in lines.items() if text]


def _model(agent: Agent) -> str:
    return agent.model if isinstance(agent.model, str) else agent.model.name


def _tools(agent: Agent) -> list[str]:
    return sorted(collect(each for each in agent.tools if not isinstance(each, Agent)))


def _members(agent: Agent) -> list[str]:
    """The agents among its tools."""
    return sorted(each.name for each in agent.tools if isinstance(each, Agent))


def _knowledge(agent: Agent) -> str | None:
    """What it searches, and how: `docs, by a tool, may add to it`."""
    if agent.knowledge is None:
        return None
    use = use_of(agent.knowledge)
    how = "by a tool" if use.way == "tool" else "with each question"
    return f"{use.knowledge.name}, {how}{', may add to it' if use.feedback else ''}"


def _limits(limits: Limits) -> str:
    """Those that are not the defaults."""
    said = {
        "turns": f"{limits.turns} turn(s)",
        "tool_calls": f"{limits.tool_calls} tool call(s)",
        "tokens": f"{limits.tokens} tokens",
        "cost_usd": screen.dollars(limits.cost_usd or 0),
        "deadline_s": f"{limits.deadline_s or 0:g} s",
    }
    return ", ".join(text for name, text in said.items() if getattr(limits, name) != getattr(Limits(), name))
