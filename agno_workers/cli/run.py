"""`agno-workers run`: submit a run and wait for its answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import typer
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.cli.autostart import autostart
from agno_workers.core.run import Run, RunStatus
from agno_workers.core.words import printable
from agno_workers.errors import AgnoError, WaitTimeout
from agno_workers.runs.queries import output
from agno_workers.sdk.handles import RunHandle
from agno_workers.settings import Settings
from agno_workers.streams import Streamed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_HINT_AFTER_S = 5.0


@app.command()
def run(
    agent: str = typer.Argument(metavar="AGENT", help="The agent's name."),
    text: str = typer.Argument(metavar="INPUT", help="The input; - reads it from standard input."),
    wait: bool = typer.Option(
        True, "--wait/--no-wait", help="Wait for the answer, or print the id of the run and exit."
    ),
    stream: bool = typer.Option(False, "--stream", help="Print the answer while the model writes it."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
    session: str | None = typer.Option(None, "--session", help="The session of the run."),
    user: str | None = typer.Option(None, "--user", help="The user of the run."),
    key: str | None = typer.Option(
        None, "--key", help="The idempotency key: the same key returns the same run."
    ),
) -> None:
    """Submit a run and wait for its answer. Ctrl-C stops waiting; the run continues."""
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
            screen.echo(screen.as_json(handle.run) if json else handle.id)
            return
        try:
            _follow(handle, stream=stream, json=json)
        except KeyboardInterrupt:
            screen.echo(f"\nThe run continues: `agno-workers runs show {handle.id}` shows it.", err=True)
            raise typer.Exit(130) from None


def _queue_of(agent: str, given: Settings) -> str | None:
    """Return the queue of an agent of AGNO_IMPORTS; None without AGNO_IMPORTS: workers have registered it. Raises UnknownAgent."""
    if not given.imports:
        return None
    return connection.registry(given).get(agent).queue or given.queues.agents


def _follow(handle: RunHandle, *, stream: bool, json: bool) -> None:
    """Wait and print. Raises the error of a failed run."""
    if stream and not json:
        _print_pieces(handle)
    else:
        _wait(handle)
    run = handle.run
    if json:
        screen.echo(screen.as_json(_outcome(run)))
    elif run.status is RunStatus.DONE and not stream:
        screen.echo(run.content if isinstance(run.content, str) else screen.as_json(run.content))
    if run.error is not None:
        screen.echo(f"The run is {run.status}: `agno-workers runs show {run.id}` shows it.", err=True)
        raise AgnoError.from_json(run.error)


def _wait(handle: RunHandle) -> None:
    """Wait until the run has ended, and name the command that explains a long wait."""
    console, begun, hinted = screen.console(stderr=True), time.monotonic(), False
    with console.status(Text(f"run {handle.id}", "dim")) as shown:
        for run in _polled(handle):
            shown.update(Text.assemble((f"run {handle.id}", "dim"), f" {run.status}"))
            if run.status is RunStatus.QUEUED and not hinted and time.monotonic() - begun > _HINT_AFTER_S:
                hinted = True
                console.print(
                    f"No worker has started it yet: `agno-workers runs show {run.id}` explains why.",
                    style="dim",
                )


def _polled(handle: RunHandle) -> Iterator[Run]:
    """Yield the run once a second; return as soon as it has ended."""
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
    """Print the text as the model writes it. A turn that is executed twice prints twice."""
    printed = False
    for event in handle.events():
        if isinstance(event, Streamed):
            sys.stdout.write(printable(event.text))
            sys.stdout.flush()
            printed = printed or bool(event.text)
    if printed:
        sys.stdout.write("\n")
    elif isinstance(content := handle.run.content, str):
        screen.echo(content)


def _outcome(run: Run) -> object:
    return screen.plain(output(run))
