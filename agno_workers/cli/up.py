"""`agno-workers up`: servers, migrations and workers in the foreground, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import typer
from rich.console import Console
from rich.text import Text

from agno_workers import settings as settings_module
from agno_workers.cli import screen
from agno_workers.cli.processes import ProcessManager, Program, StoppedBySignal, stopping_by_signal
from agno_workers.cli.programs import BACKGROUND_THREADS, FLOWER_USER, THREADS, flower, workers
from agno_workers.cli.servers import Servers, prepare, running
from agno_workers.extras import problem

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_COLOURS = {
    "agents": "cyan",
    "tools": "green",
    "background": "yellow",
    "knowledge": "blue",
    "flower": "magenta",
}
_NAME_WIDE = max(map(len, _COLOURS)) + 1
_CORES = os.cpu_count() or 1


@app.command()
def up(
    agents: int = typer.Option(
        THREADS, "--agents", min=1, help="The number of agent turns at the same time."
    ),
    tools: int = typer.Option(THREADS, "--tools", min=1, help="The number of tool calls at the same time."),
    background: int = typer.Option(
        BACKGROUND_THREADS,
        "--background",
        min=1,
        help="The number of summaries and memories made at the same time.",
    ),
    knowledge: int = typer.Option(
        min(4, _CORES), "--knowledge", min=0, help="The number of processes that ingest documents; 0: none."
    ),
    with_flower: bool = typer.Option(
        False, "--flower", help="Also start Flower, read-only and for this machine."
    ),
    flower_port: int = typer.Option(5555, "--flower-port", min=1, max=65535),
) -> None:
    """Start servers and workers here and keep them running, until Ctrl-C.

    Starts its own Postgres and Valkey, unless AGNO_DATABASE_URL and AGNO_BROKER_URL are set; migrates; then runs a worker
    for agents, one for tools, one for background work and one for knowledge. Everything stops with this process, even if it is killed. The servers keep their
    data in AGNO_STATE_DIR, default ~/.local/state/agno-workers.
    """
    settings = settings_module.load()  # without the servers of another `up`
    console = screen.console()
    lacking = problem("knowledge") if knowledge else None
    knowledge = 0 if lacking else knowledge
    programs = workers(
        settings, agents=agents, tools=tools, background=background, knowledge=knowledge, events=with_flower
    )
    where = {
        "agents": ", ".join(settings.imports) or "none: set AGNO_IMPORTS to the modules that define yours"
    }
    if lacking:
        where["knowledge"] = f"no worker, since {lacking}"
    if with_flower:
        program, password = flower(flower_port)
        programs.append(program)
        where["Flower"] = (
            f"http://127.0.0.1:{flower_port}, read-only; user {FLOWER_USER}, password {password}"
        )
    processes = ProcessManager(programs, partial(_print_line, console), partial(_print_event, console))
    with stopping_by_signal() as hurry:
        try:
            with running(settings) as servers:
                prepare(servers)
                _serve(servers, processes, console, where, hurry)
        except StoppedBySignal as stopped:
            if stopped.signum != signal.SIGINT:
                raise typer.Exit(128 + stopped.signum) from None


def _serve(
    servers: Servers,
    processes: ProcessManager,
    console: Console,
    where: dict[str, str],
    hurry: threading.Event,
) -> None:
    """Run until a signal, or until a program can't start."""
    try:
        processes.start().wait_until_ready()
        _print_addresses(console, servers, where)
        while True:
            time.sleep(1)
            servers.revive()
    except StoppedBySignal:
        _print_event(
            console,
            "stopping: running steps may finish; a second Ctrl-C interrupts them, to be executed again",
        )
        raise
    finally:
        processes.stop(hurry)


def _print_addresses(console: Console, servers: Servers, where: dict[str, str]) -> None:
    console.print(Text.assemble(("\nEverything is up.", "bold green"), " Ctrl-C stops it."))
    for name, text in {**servers.described(), **where}.items():
        console.print(Text.assemble((f"  {name:<10}", "dim"), text), soft_wrap=True)
    if servers.state_dir:
        console.print(
            "\nIn another shell of yours, `agno-workers`, `celery -A agno_workers` and Python programs find these servers. "
            'Others need: eval "$(agno-workers env)"',
            soft_wrap=True,
        )
    console.print()


def _print_line(console: Console, program: Program, line: str) -> None:
    console.print(
        Text(f"{program.name:<{_NAME_WIDE}}", _COLOURS.get(program.name, "")) + Text(f"│ {line}"),
        soft_wrap=True,
    )


def _print_event(console: Console, sentence: str) -> None:
    console.print(Text(f"{'up':<{_NAME_WIDE}}│ {sentence}", "dim"), soft_wrap=True)
