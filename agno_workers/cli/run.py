"""`agno-workers run`: submit a run, and wait for its answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import typer

from agno_workers.cli import connection, screen
from agno_workers.cli.autostart import autostart
from agno_workers.core.run import Run, RunStatus
from agno_workers.errors import AgnoError, WaitTimeout
from agno_workers.registry import Registry
from agno_workers.runs.queries import output
from agno_workers.sdk.handles import RunHandle
from agno_workers.settings import Settings
from agno_workers.streams import Streamed

app = typer.Typer(pretty_exceptions_enable=False)
_HINT_AFTER_S = 5.0


@app.command()
def run(
    agent: str = typer.Argument(help="The agent's name."),
    text: str = typer.Argument(help="What it is to do; - reads it from standard input."),
    wait: bool = typer.Option(
        True, "--wait/--no-wait", help="Wait for the end, or print the run's id and leave."
    ),
    stream: bool = typer.Option(False, "--stream", help="Print the answer while it is being written."),
    json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
    session: str | None = typer.Option(None, "--session", help="The session that the run belongs to."),
    user: str | None = typer.Option(None, "--user", help="The user that the run belongs to."),
    key: str | None = typer.Option(
        None, "--key", help="Idempotency key: the same key again gives the same run."
    ),
) -> None:
    """Submit a run, and wait for its answer. Ctrl-C stops waiting; the run goes on."""
    queue = _queue_of(agent, connection.settings())
    text = sys.stdin.read() if text == "-" else text
    with (
        autostart(wait=wait, agents=8, tools=8) as ready,
        connection.client(ready.settings, live=stream) as client,
    ):
        handle = client.runs.submit(
            agent,
            text,
            queue=queue,
            allow_unknown=queue is not None,
            session_id=session,
            user_id=user,
            idempotency_key=key,
        )
        if not wait and not ready.temporary:
            typer.echo(screen.as_json(handle.run) if json else handle.id)
            return
        try:
            _follow(handle, stream=stream, json=json)
        except KeyboardInterrupt:
            typer.echo(f"\nThe run goes on: agno-workers runs show {handle.id}", err=True)
            raise typer.Exit(130) from None


def _queue_of(agent: str, given: Settings) -> str | None:
    """The queue of an agent in the code here; None: its workers have registered it. Raises UnknownAgent, where there is code."""
    if not given.imports:
        return None
    connection.import_from_here()
    return Registry.importing(*given.imports).get(agent).queue or given.queues.agents


def _follow(handle: RunHandle, *, stream: bool, json: bool) -> None:
    """Wait and print. Raises what the run failed with."""
    if stream and not json:
        _print_pieces(handle)
    else:
        _wait(handle)
    run = handle.run
    if json:
        typer.echo(screen.as_json(_outcome(run)))
    elif run.status is RunStatus.DONE and not stream:
        typer.echo(run.content if isinstance(run.content, str) else screen.as_json(run.content))
    if run.error is not None:
        raise AgnoError.from_json(run.error)


def _wait(handle: RunHandle) -> None:
    """Until the run has ended, with a word on what it waits for when that is long."""
    console, begun, hinted = screen.console(stderr=True), time.monotonic(), False
    with console.status(f"[dim]run {handle.id}[/]") as shown:
        for run in _looks(handle):
            shown.update(f"[dim]run {handle.id}[/] {run.status}")
            if run.status is RunStatus.QUEUED and not hinted and time.monotonic() - begun > _HINT_AFTER_S:
                hinted = True
                console.print(
                    f"[dim]No worker has taken it yet: `agno-workers runs show {run.id}` says why.[/]"
                )


def _looks(handle: RunHandle) -> Iterator[Run]:
    """The run's row once a second until it has ended, with an end noticed at once."""
    while True:
        try:
            handle.wait(timeout=1)
        except WaitTimeout:
            yield handle.run
            continue
        except AgnoError:
            if not handle.run.status.is_terminal:
                raise
        return


def _print_pieces(handle: RunHandle) -> None:
    """The text as it is written. What was streamed is for watching; a turn that was carried twice shows twice."""
    said = False
    for event in handle.events():
        if isinstance(event, Streamed):
            sys.stdout.write(event.text)
            sys.stdout.flush()
            said = said or bool(event.text)
    if said:
        sys.stdout.write("\n")
    elif isinstance(content := handle.run.content, str):
        typer.echo(content)


def _outcome(run: Run) -> object:
    return screen.plain(output(run))
