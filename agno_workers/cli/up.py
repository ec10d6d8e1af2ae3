"""`agno-workers up`: servers, migrations and workers in the foreground, until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from functools import partial

import typer
from rich.console import Console
from rich.text import Text

from agno_workers import settings as settings_module
from agno_workers.broker.checks import redis_problems
from agno_workers.cli import connection, screen
from agno_workers.cli.processes import Crew, Ended, Program, ending_by_signal
from agno_workers.cli.servers import Servers, running, use
from agno_workers.cli.workers import FLOWER_USER, flower, workers
from agno_workers.errors import SettingsError
from agno_workers.settings import Settings
from agno_workers.storage import migrate

app = typer.Typer(pretty_exceptions_enable=False)
_COLOURS = {"agents": "cyan", "tools": "green", "flower": "magenta"}


@app.command()
def up(
    agents: int = typer.Option(8, "--agents", min=1, help="Turns of agents at the same time."),
    tools: int = typer.Option(8, "--tools", min=1, help="Tool calls at the same time."),
    with_flower: bool = typer.Option(
        False, "--flower", help="Start Flower too, read-only, for this machine."
    ),
    flower_port: int = typer.Option(5555, "--flower-port", min=1, max=65535),
) -> None:
    """Start everything here and keep it running, until Ctrl-C.

    Starts a Postgres and a Valkey of its own, unless AGNO_DATABASE_URL and AGNO_BROKER_URL are set; migrates; then keeps
    a worker for agents and one for tools running. All of it ends with this process, however that ends.
    """
    settings = settings_module.load()  # not those of servers that another `up` runs
    console = screen.console()
    with ending_by_signal() as hurry:
        try:
            with running(settings) as servers:
                use(servers)
                _refuse(redis_problems(servers.client))
                migrate.upgrade(servers.database_url, timeout_s=connection.PATIENCE_S)
                programs = workers(
                    settings, servers.environment, agents=agents, tools=tools, events=with_flower
                )
                password = ""
                if with_flower:
                    program, password = flower(servers.environment, flower_port)
                    programs.append(program)
                _keep(
                    servers,
                    programs,
                    console,
                    hurry,
                    partial(_say_where, console, settings, servers, password, flower_port),
                )
        except Ended as ended:
            if ended.signum != signal.SIGINT:
                raise typer.Exit(128 + ended.signum) from None


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SettingsError(problems[0])


def _keep(
    servers: Servers,
    programs: list[Program],
    console: Console,
    hurry: threading.Event,
    say_where: partial[None],
) -> None:
    crew = Crew(programs, partial(_print_line, console), partial(_print_event, console))
    try:
        crew.start().wait_until_ready()
        say_where()
        while True:  # until a signal
            time.sleep(1)
            servers.revive()
    finally:
        try:
            _print_event(
                console,
                "ending: steps under way may finish; a second Ctrl-C cuts them short, to be carried again",
            )
        finally:
            crew.stop(hurry)


def _say_where(console: Console, settings: Settings, servers: Servers, password: str, port: int) -> None:
    postgres, redis = servers.described()
    console.print("\n[bold green]Everything is up.[/] Ctrl-C ends it.")
    where = {"Postgres": postgres, "Redis": redis}
    where["agents"] = settings.imports or "none: set AGNO_IMPORTS to the modules that define yours"
    if password:
        where["Flower"] = f"http://127.0.0.1:{port}, read-only; user {FLOWER_USER}, password {password}"
    if servers.state_dir:
        where["data"] = str(servers.state_dir)
    for name, text in where.items():
        console.print(Text.assemble((f"  {name:<10}", "dim"), text), soft_wrap=True)
    if servers.state_dir:
        console.print("\nFrom another shell, `agno-workers runs ls` finds it. Other programs need:")
        for name, value in servers.environment.items():
            console.print(f"  export {name}={shlex.quote(value)}", soft_wrap=True, markup=False)
    console.print()


def _print_line(console: Console, program: Program, line: str) -> None:
    console.print(
        Text(f"{program.name:<7}", _COLOURS.get(program.name, "")) + Text(f"│ {line}"), soft_wrap=True
    )


def _print_event(console: Console, sentence: str) -> None:
    console.print(Text(f"{'up':<7}│ {sentence}", "dim"), soft_wrap=True)
