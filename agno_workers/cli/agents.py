"""`agno-workers agents`: list the agents that workers have registered, and those of AGNO_IMPORTS."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import typer

from agno_workers.cli import connection, screen
from agno_workers.cli.screen import count
from agno_workers.core.agent import Agent, Limits, Prices
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import SettingsError, Unavailable
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.settings import Settings
from agno_workers.wiring import lacking_model, registered

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="List agents."
)


@app.callback()
def root() -> None:
    """Without a callback, typer would drop the name of the only command."""


@app.command()
def ls(json: bool = typer.Option(False, "--json", help="Print JSON, with whole definitions.")) -> None:
    """List the agents, teams and workflows that workers have registered, and those of AGNO_IMPORTS if it is set."""
    settings = connection.settings()
    known = {agent.name: agent for agent in _in_code(settings)}
    now = datetime.now(UTC)
    try:
        with connection.database(settings) as database:
            known |= {agent.name: agent for agent in database.agents.all()}
            now = database.queries.now()
    except (SettingsError, Unavailable) as error:
        if not known:
            raise
        screen.echo(f"Only the agents of AGNO_IMPORTS are listed: {error}", err=True)
    agents = [known[name] for name in sorted(known)]
    if json:
        screen.echo(screen.as_json(agents))
    for agent in () if json else agents:
        _show(agent, now)
    if not agents and not json:
        screen.echo("No agents: workers register theirs when they start.")


def _in_code(settings: Settings) -> list[RegisteredAgent]:
    """Return the agents of AGNO_IMPORTS, without the tools that a knowledge base adds in a worker.

    Raises SettingsError, InvalidTool and InvalidInput.
    """
    if not settings.imports:
        return []
    found = connection.registry(settings).all()
    rows = []
    for each in found:
        compiled = each.compiled()
        if isinstance(compiled, Agent) and (reason := lacking_model(settings, compiled)):
            screen.echo(f"Not usable from here: {reason}", err=True)
        taken_by = compiled if isinstance(compiled, Program) else AgentPlan.of(compiled)
        queues = each.queue or settings.queues.agents, settings.queues.background
        rows.append(registered(each, taken_by, *queues))
    return rows


def _show(agent: RegisteredAgent, now: datetime) -> None:
    console = screen.console()
    seen = f"registered {screen.age(agent.seen_at, now)} ago" if agent.seen_at else "not registered"
    kind = "" if agent.kind == RunKind.AGENT else agent.kind
    facts = [
        kind,
        agent.definition.get("mode", ""),
        agent.definition.get("model", ""),
        f"queue {agent.queue}",
        seen,
    ]
    console.print(
        screen.line((agent.name, "bold"), "  ", ", ".join(fact for fact in facts if fact)), soft_wrap=True
    )
    for line in (
        screen.one_line(agent.description, 200), _named(*_starts(agent)),
        _named("limits", _limits(agent)), _named("prices", _prices(agent)),
    ):  # fmt: skip
        if line:
            console.print(screen.indented(screen.line(line)))


def _starts(agent: RegisteredAgent) -> tuple[str, str]:
    """Return what an agent calls, with a name for it: a program has no tools, but members and roles, or steps."""
    if "kind" not in agent.definition:  # an agent, or a team whose leader is one
        return "tools", ", ".join(agent.tools)
    names = [name.removeprefix(f"{agent.name}:") for name in dict.fromkeys(agent.tools)]
    return ("steps" if agent.kind == RunKind.WORKFLOW else "members and roles"), ", ".join(names)


def _named(name: str, text: str) -> str:
    return f"{name}: {text}" if text else ""


def _limits(agent: RegisteredAgent) -> str:
    """Return the limits that are not the defaults."""
    limits = msgspec.convert(agent.definition.get("limits", {}), Limits)
    texts = {
        "turns": count(limits.turns or 0, "turn"),
        "tool_calls": count(limits.tool_calls or 0, "tool call"),
        "tokens": count(limits.tokens or 0, "token"),
        "cost_usd": screen.dollars(limits.cost_usd or 0),
        "deadline_s": f"{limits.deadline_s or 0:g} s",
    }
    return ", ".join(text for name, text in texts.items() if getattr(limits, name) != getattr(Limits(), name))


def _prices(agent: RegisteredAgent) -> str:
    if (prices := msgspec.convert(agent.definition.get("prices"), Prices | None)) is None:
        return ""
    cached = f", ${prices.cached_usd:g} cached" if prices.cached_usd is not None else ""
    return f"${prices.input_usd:g} in{cached}, ${prices.output_usd:g} out, per million tokens"
