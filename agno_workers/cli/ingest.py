"""`agno-workers ingest`: ingest documents into a knowledge base, and show the progress."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from agno_workers.cli import knowledge_commands, screen
from agno_workers.cli.arrivals import Arrivals, counted, rate, share
from agno_workers.cli.autostart import autostart
from agno_workers.cli.consumers import consumers
from agno_workers.cli.knowledge_commands import KnowledgeCommands
from agno_workers.core.run import RunStatus
from agno_workers.errors import AgnoError, InvalidInput
from agno_workers.knowledge.store.bases import Failure
from agno_workers.knowledge.types import Progress, Rows
from agno_workers.sdk.ingestion import Ingestion, given, options

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_LOOK_EVERY_S = 0.25
_CHECK_S = 20.0
"""For a worker that starts, takes the scan and asks the model."""
LISTED_REASONS = frozenset({"no_vectors", "no_documents"})
"""Reasons of failed ingestions that the list of their failures shows."""
_HINT_AFTER_S = 5.0
_LINE_EVERY_S = 5.0
_SHOWN = 5
_LISTED = 20


@app.command()
def ingest(
    sources: list[str] = typer.Argument(
        metavar="SOURCE...",
        help="Files, folders, globs, URLs, sitemaps, s3://..., gs://..., az://...; or a description as JSON: '{\"database\": ...}'.",
    ),
    knowledge: str = typer.Option(
        ..., "--knowledge", "-k", help="The knowledge base; it is created if necessary."
    ),
    wait: bool = typer.Option(
        False, "--wait", help="Show the progress until the end. Without: print the id and exit."
    ),
    embedder: str | None = typer.Option(
        None,
        "--embedder",
        help="local (default), openai:MODEL or compatible:URL#MODEL; stored with the knowledge base.",
    ),
    vision: str | None = typer.Option(
        None,
        "--vision",
        metavar="MODEL",
        help="A model that describes images: openai:MODEL, anthropic:MODEL ...; none removes it. Stored with the knowledge base.",
    ),
    glob: list[str] = typer.Option(
        [], "--glob", help="Only these files of folders: '*.md'. May be repeated."
    ),
    metadata: list[str] = typer.Option(
        [],
        "--metadata",
        metavar="NAME=VALUE",
        help="Metadata for each document, also as JSON; with --rows also columns: price,colour. May be repeated. Without: documents keep theirs; '{}' removes them.",
    ),
    rows: bool = typer.Option(
        False,
        "--rows",
        help="Each row of a CSV, TSV or JSON file or of a workbook is a document; needs --id.",
    ),
    id: list[str] = typer.Option(
        [], "--id", metavar="COLUMN", help="With --rows: the column that identifies a row."
    ),
    text: list[str] = typer.Option(
        [],
        "--text",
        metavar="COLUMN,...",
        help="With --rows: the text of a row; default: all columns without another use.",
    ),
    title: str | None = typer.Option(
        None, "--title", metavar="COLUMN", help="With --rows: the title of a row."
    ),
    sheet: str | None = typer.Option(
        None, "--sheet", help="With --rows: the sheet of a workbook; default: the first."
    ),
    batch: bool = typer.Option(
        False, "--batch", help="Use the provider's batch API for vectors: half the price, within a day."
    ),
    key: str | None = typer.Option(
        None, "--key", help="Idempotency key: repeating it returns the same ingestion."
    ),
    json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Ingest documents into a knowledge base. Repeating it reads only what changed.

    Exits 0 if all documents are stored with their vectors, 1 if some failed or a source has no documents, 2 if it could not start. Ctrl-C
    stops the display, not the ingestion.
    """
    columns, values = _columns_and_values(metadata) if rows else ([], metadata)
    brought, more = (
        given([_described(each) for each in sources]),
        options(
            knowledge_commands.pairs("--metadata", values) if values else None,
            glob,
            batch=batch,
            rows=_rows(rows, id, text, title, columns, sheet),
        ),
    )
    with (
        autostart(wait=wait, knowledge=min(4, os.cpu_count() or 1)) as ready,
        knowledge_commands.opened(ready.settings) as here,
    ):
        models = here.ensure(knowledge, embedder, vision)
        job = here.began(
            here.knowledges.submit(knowledge, brought, options=more | models, idempotency_key=key)
        )
        submitted(here, job, wait=wait or ready.temporary, json=json, models=models)


def _rows(
    asked: bool, id: list[str], text: list[str], title: str | None, columns: list[str], sheet: str | None
) -> Rows | None:
    """Return what the options for rows say; None without --rows. Raises InvalidInput for the others without it, and for a missing id."""
    ids, texts = ([name for each in given for name in _columns(each)] for given in (id, text))
    if not asked:
        named = {"--id": ids, "--text": texts, "--title": title, "--sheet": sheet}
        if alone := next((option for option, value in named.items() if value), None):
            raise InvalidInput(f"{alone} names a part of the rows of a file: add --rows, or leave it out.")
        return None
    if not ids:
        raise InvalidInput("--rows needs the column that identifies a row: add --id COLUMN.")
    return Rows(id=tuple(ids), text=tuple(texts), title=title, metadata=tuple(columns), sheet=sheet or "")


def _columns_and_values(given: list[str]) -> tuple[list[str], list[str]]:
    """Split `price,colour,team=shop` into the columns and the value."""
    columns, values = list[str](), list[str]()
    for each in given:
        if each.lstrip().startswith("{"):
            values.append(each)
            continue
        before, equals, value = each.partition("=")
        names = _columns(before)
        values += [f"{names.pop()}={value}"] if equals and names else []
        columns += names
    return columns, values


def _columns(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def submitted(
    here: KnowledgeCommands, job: Ingestion, *, wait: bool, json: bool, models: Mapping[str, str] = {}
) -> None:
    """Show a submitted ingestion until its end, or print its id once a worker has checked its new models."""
    if wait:
        follow(here, job, json=json)
        return
    if models:
        _await_models(here, job, models)
    if json:
        screen.echo(screen.as_json(job.progress()))
    else:
        screen.echo(job.id)
        screen.echo(f"`agno-workers knowledge watch {job.id}` shows the progress.", err=True)


def _await_models(here: KnowledgeCommands, job: Ingestion, models: Mapping[str, str]) -> None:
    """Wait until a worker has stored the models, for some seconds at most. Raises the error of a model that does not work."""
    until = time.monotonic() + _CHECK_S
    name = job.progress().knowledge
    while time.monotonic() < until:
        run, stored = job.run, here.knowledges.get(name).options
        if run.error is not None:
            raise AgnoError.from_json(run.error)
        if run.status.is_terminal or all(stored.get(option) == model for option, model in models.items()):
            return
        time.sleep(_LOOK_EVERY_S)
    text = f"No worker has checked {' and '.join(models.values())} yet; until then {name!r} keeps its models."
    screen.echo(text, err=True)


def _described(source: str) -> str | dict[str, Any]:
    if not source.lstrip().startswith("{"):
        return source
    try:
        return msgspec.json.decode(source, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInput(f"{source!r} starts like JSON and is not valid ({error}): correct it.") from error


def follow(here: KnowledgeCommands, job: Ingestion, *, json: bool = False) -> None:
    """Show the progress until the end. Exits 1 if a document failed, a chunk has no vector, or a source has no documents; raises the
    error of a failed ingestion.
    """
    console = screen.console(stderr=json)
    try:
        ended = _watch(here, job, console)
    except KeyboardInterrupt:
        screen.echo(
            f"\nThe ingestion continues: `agno-workers knowledge watch {job.id}` shows it, `agno-workers runs cancel {job.id}` ends it.",
            err=True,
        )
        raise typer.Exit(130) from None
    failures = job.failures(_LISTED) if _lacking(ended) else []
    if json:
        screen.echo(screen.as_json({**screen.plain(ended), "failures": failures}))
    else:
        _say_end(console, job, ended, failures)
    run = job.run
    if (error := run.error) is not None and run.reason not in LISTED_REASONS:
        raise AgnoError.from_json(error)
    if _lacking(ended) or ended.unmatched:
        raise typer.Exit(1)


def _lacking(progress: Progress) -> int:
    """Return the number of documents and vectors that could not be made."""
    return progress.failed + progress.refused


def _watch(here: KnowledgeCommands, job: Ingestion, console: Console) -> Progress:
    """Poll the progress."""
    arrivals, begun, hinted = Arrivals(), time.monotonic(), False
    with _shown(console) as shown:
        while True:
            progress, now = job.progress(), time.monotonic()
            arrivals.look(progress, now)
            shown.show(
                progress, rate(arrivals, progress), job.failures(_SHOWN) if _lacking(progress) else [], now
            )
            if RunStatus(progress.status).is_terminal:
                return progress
            if progress.status == RunStatus.QUEUED and not hinted and now - begun > _HINT_AFTER_S:
                hinted = True
                console.print(Text(_why_queued(here, job), "yellow"))
            time.sleep(_LOOK_EVERY_S)


def _why_queued(here: KnowledgeCommands, job: Ingestion) -> str:
    """Explain why it has not started."""
    queue = here.settings.queues.knowledge
    if queue not in consumers(here.database.workers.all(), here.settings):
        return (
            f"No worker listens to the queue {queue!r}; the ingestion waits. Start one with `agno-workers up` or "
            f"`celery -A agno_workers worker -Q {queue} -P prefork`."
        )
    return f"No worker has started it yet: `agno-workers runs show {job.id}` shows why."


class _Shows(Protocol):
    def show(self, progress: Progress, speed: str, failures: Sequence[Failure], now: float) -> None: ...


@contextmanager
def _shown(console: Console) -> Iterator[_Shows]:
    """Show a live bar on a terminal, or a line now and then elsewhere."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield _Bar(live)


class _Bar:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, progress: Progress, speed: str, failures: Sequence[Failure], now: float) -> None:  # noqa: ARG002 - a bar is drawn each time
        width = self._live.console.width
        bar = Padding(
            ProgressBar(total=1.0, completed=share(progress), width=min(60, width)), 0
        )  # ends its line
        head = screen.line((progress.knowledge, "bold"), f"  {share(progress):.0%}  ", (speed, "cyan"))
        said = Text(counted(progress) if progress.scanned or progress.total else "looking for documents")
        self._live.update(Group(head, bar, said, *_reasons(failures, _lacking(progress), width)))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_at = float("-inf")

    def show(self, progress: Progress, speed: str, failures: Sequence[Failure], now: float) -> None:  # noqa: ARG002 - they are told at the end
        if (
            now - self._said_at < _LINE_EVERY_S
            or RunStatus(progress.status).is_terminal
            or not progress.total
        ):
            return
        self._said_at = now
        self._console.print(f"{counted(progress)}{f'; {speed}' if speed else ''}", soft_wrap=True)


def _say_end(console: Console, job: Ingestion, ended: Progress, failures: Sequence[Failure]) -> None:
    took = screen.took(ended.started_at, ended.ended_at)
    colour = screen.COLOURS.get(ended.status, "")
    console.print(
        screen.line(
            (ended.knowledge, "bold"), " ", (ended.status, colour), f"{f' in {took}' if took else ''}: {counted(ended)}"
        ),
        soft_wrap=True,
    )  # fmt: skip
    for each in ended.skipped:
        names = [uri.rstrip("/").rpartition("/")[2] for uri in each.examples]
        more = f" and {each.count - len(names):,} more" if each.count > len(names) else ""
        console.print(
            screen.line(f"{each.count:,} skipped ({each.reason}): {', '.join(names)}{more}"), soft_wrap=True
        )
    for source in ended.unmatched:
        text = f"No documents were found in {source}: check the path and --glob. Nothing was removed."
        console.print(screen.line((text, "yellow")), soft_wrap=True)
    if ended.status != RunStatus.DONE and ended.total:
        _say_what_is_in(console, job, ended)
    if ended.refused:
        text = f"{screen.count(ended.refused, 'chunk')} without a vector, which only keyword search finds:"
        console.print(text, style="yellow", markup=False, soft_wrap=True)
    for line in _reasons(failures, _lacking(ended)):
        console.print(line, soft_wrap=True)
    if _lacking(ended):
        again = f"Retry the failed ones: agno-workers knowledge retry {job.id}"
        console.print(again, style="dim", soft_wrap=True)


def _say_what_is_in(console: Console, job: Ingestion, ended: Progress) -> None:
    """Report how far an ingestion came that did not come to its end, and what becomes of the rest."""
    complete = job.complete()
    waiting = ended.settled - ended.failed - complete
    text = f"{complete:,} of {screen.count(ended.total, 'document')} {'is' if complete == 1 else 'are'} in, with all vectors"
    text += f"; {waiting:,} without all of them, which keyword search finds" if waiting > 0 else ""
    again = (
        ""
        if ended.scanned and complete == ended.total
        else " Run it again to go on: it does not read again what is in."
    )
    console.print(screen.line((f"{text}.{again}", "yellow")), soft_wrap=True)


def _reasons(failures: Sequence[Failure], many: int, width: int | None = None) -> list[Text]:
    """Format one line a failure; with a `width`, shorten the uri so that the reason fits."""
    lines = []
    for each in failures:
        uri, said = each.uri, f"{each.uri}: {each.message}"
        if width is not None:
            room = max(20, width // 3)
            uri = uri if len(uri) <= room else f"…{uri[1 - room :]}"
            said = screen.one_line(f"{uri}: {each.message}", width - 2)
        lines.append(screen.line(("✗ ", "red"), said))
    more = many - len(failures)
    return [*lines, Text(f"  and {more:,} more", "dim")] if failures and more > 0 else lines
