"""`agno-workers run`: submit a run and wait for its answer."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar, cast

import typer
from rich.text import Text

from agno_workers.cli import connection, screen
from agno_workers.cli.attend import Attendant
from agno_workers.cli.autostart import autostart
from agno_workers.cli.programs import THREADS
from agno_workers.core.run import Run
from agno_workers.core.session import IfBusy
from agno_workers.core.words import printable
from agno_workers.errors import AgnoError, InvalidInput, UnknownAgent, WaitTimeout
from agno_workers.runs.queries import output
from agno_workers.sdk.handles import RunHandle
from agno_workers.settings import Settings
from agno_workers.streams import Streamed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
ENDED_BY_A_LIMIT = 3
_T = TypeVar("_T")


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
    if_busy: str = typer.Option(
        "queue",
        "--if-busy",
        help="While a run of the session is live: queue, reject, interrupt, rollback, steer or parallel.",
    ),
    user: str | None = typer.Option(None, "--user", help="The user of the run."),
    key: str | None = typer.Option(
        None, "--key", help="The idempotency key: the same key returns the same run."
    ),
    timeout: str | None = typer.Option(
        None,
        "--timeout",
        metavar="TIME",
        help="Wait at most 90s, 15m or 2h, also for a person; the run continues.",
    ),
) -> None:
    """Submit a run and wait for its answer. Ctrl-C stops waiting; the run continues.

    A run that waits for a person asks on a terminal. Exit status: 0 the answer is whole; 2 it failed or was cancelled; 3 a limit
    ended it; 4 it waits for a person, and stdin or stderr is not a terminal; 5 --timeout has passed; 130 Ctrl-C.
    """
    limit = screen.span(timeout, "--timeout")
    if if_busy != "queue" and session is None:
        raise InvalidInput(f"--if-busy {if_busy} is about the runs of a session: add --session ID.")
    its_queue = _queue_of(agent, connection.settings())
    text = sys.stdin.read() if text == "-" else text
    with (
        autostart(wait=wait, agents=THREADS, tools=THREADS) as ready,
        connection.client(ready.settings, live=stream) as client,
    ):
        if (
            ready.temporary and its_queue is None
        ):  # an earlier `up` may have registered the agent, and no other worker comes
            raise UnknownAgent(
                f"the workers of this command know no agent {agent!r}, because AGNO_IMPORTS is not set: set it to the module that "
                "defines the agent.",
                agent=agent,
            )
        handle = client.runs.submit(
            agent,
            text,
            queue=its_queue,
            allow_unknown=its_queue is not None,
            session_id=session,
            if_busy=cast("IfBusy", if_busy),
            user_id=user,
            idempotency_key=key,
        )
        if handle.steered is not None:
            screen.echo(f"The message joins run {handle.id} at its next turn.", err=True)
        if not wait and not ready.temporary:
            screen.echo(screen.as_json(handle.run) if json else handle.id)
            return
        try:
            with connection.database(ready.settings) as database:
                attendant = Attendant(
                    handle.id,
                    database,
                    ready.settings,
                    screen.console(stderr=True),
                    limit.total_seconds() if limit else None,
                )
                _follow(handle, attendant, stream=stream, json=json)
        except (KeyboardInterrupt, typer.Abort):
            screen.echo(f"\nThe run continues: `agno-workers runs show {handle.id}` shows it.", err=True)
            raise typer.Exit(130) from None


def _queue_of(agent: str, given: Settings) -> str | None:
    """Return the queue of an agent of AGNO_IMPORTS; None without AGNO_IMPORTS: workers have registered it. Raises UnknownAgent."""
    if not given.imports:
        return None
    return connection.registry(given).get(agent).queue or given.queues.agents


def _follow(handle: RunHandle, attendant: Attendant, *, stream: bool, json: bool) -> None:
    """Wait and print. Raises the error of a failed run, and typer.Exit with the statuses of the docs."""
    try:
        if stream and not json:
            _print_pieces(handle, attendant)
        else:
            _wait(handle, attendant)
    except typer.Exit:
        if json:
            screen.echo(screen.as_json(_outcome(handle.run)))
        raise
    run = handle.run
    if json:
        screen.echo(screen.as_json(_outcome(run)))
    show = f"`agno-workers runs show {run.id}` shows it."
    if not json and not stream and run.content is not None:
        screen.echo(run.content if isinstance(run.content, str) else screen.as_json(run.content))
    if str(run.reason).startswith("limit:") or run.reason == "length":
        error = f": {run.error['message']}" if run.error else ""
        screen.echo(
            f"The run was ended by a limit ({run.reason}), without a whole answer{error}. {show}", err=True
        )
        raise typer.Exit(ENDED_BY_A_LIMIT)
    if run.error is not None:
        screen.echo(f"The run is {run.status}: {show}", err=True)
        raise AgnoError.from_json(run.error)
    if run.content in (None, ""):
        screen.echo(f"The answer is empty: {show}", err=True)


def _wait(handle: RunHandle, attendant: Attendant) -> None:
    """Wait until the run has ended."""
    with attendant.console.status(Text(f"run {handle.id}", "dim")) as shown:

        def quietly(ask: Callable[[], None]) -> None:
            shown.stop()
            ask()
            shown.start()

        for run in _polled(handle):
            shown.update(Text.assemble((f"run {handle.id}", "dim"), f" {run.status}"))
            attendant.look(quietly)


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


def _print_pieces(handle: RunHandle, attendant: Attendant) -> None:
    """Print the text as the model writes it. A turn that is executed twice prints twice."""
    printed = False
    for event in _looking(handle.events(), attendant):
        if isinstance(event, Streamed):
            sys.stdout.write(printable(event.text))
            sys.stdout.flush()
            printed = printed or bool(event.text)
    if printed:
        sys.stdout.write("\n")
    elif isinstance(content := handle.run.content, str):
        screen.echo(content)


def _looking(events: Iterator[_T], attendant: Attendant) -> Iterator[_T]:
    """Yield the events, and look after the run about once a second. A thread of its own waits for the events."""
    read: queue.SimpleQueue[_T | BaseException | None] = queue.SimpleQueue()

    def reading() -> None:
        try:
            for event in events:
                read.put(event)
            read.put(None)
        except Exception as error:
            read.put(error)

    threading.Thread(target=reading, name="events", daemon=True).start()
    looked = time.monotonic()
    while True:
        with suppress(queue.Empty):
            match read.get(timeout=1):
                case None:
                    return
                case BaseException() as error:
                    raise error
                case event:
                    yield event
        if time.monotonic() - looked > 1:
            attendant.look()
            looked = time.monotonic()


def _outcome(run: Run) -> object:
    return screen.plain(output(run))
