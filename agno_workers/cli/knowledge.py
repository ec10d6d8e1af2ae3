"""`agno-workers knowledge`: list and show knowledge bases, review notes, list gaps and duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import knowledge_commands, knowledge_documents, screen
from agno_workers.cli.ingest import LISTED_REASONS, follow, submitted
from agno_workers.cli.screen import count
from agno_workers.errors import AgnoError, InvalidInput
from agno_workers.knowledge.store.bases import AGENT
from agno_workers.knowledge.store.feedback import Gap, ReviewNote
from agno_workers.knowledge.store.stats import Base, Model, Origin
from agno_workers.knowledge.types import EmbeddingSpaceStatus

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List and maintain knowledge bases, review notes of agents, list gaps.",
)
for command in (
    knowledge_documents.documents,
    knowledge_documents.chunks,
    knowledge_documents.add,
    knowledge_documents.remove,
):
    app.command()(command)
_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_NAME = typer.Argument(metavar="NAME", help="The knowledge base.")
_RUN = typer.Argument(metavar="ID", help="The ingestion.")
_WAIT = typer.Option(False, "--wait", help="Show the progress until the end.")


@app.command()
def ls(json: bool = _AS_JSON) -> None:
    """List the knowledge bases."""
    with knowledge_commands.opened() as here:
        bases, now = here.database.knowledge_stats.bases(), here.look.now()
    if json:
        screen.echo(screen.as_json(bases))
    elif not bases:
        screen.echo("No knowledge bases: `agno-workers ingest FOLDER --knowledge NAME` creates one.")
    else:
        console = screen.console()
        columns = ("name", "documents", "chunks", "vectors", "changed", "state", "searched with")
        rows = [_row(base, now) for base in bases]
        console.print(screen.table(console.width, columns, rows, right=("documents", "chunks", "vectors")))


def _row(base: Base, now: datetime) -> tuple[str | Text, ...]:
    state = Text("incomplete", "yellow") if base.problems else Text("idle", "dim")
    if base.open:
        state = Text(f"{base.open} ingestion(s)", "cyan")
    changed = f"{screen.age(base.updated_at, now)} ago" if base.updated_at else "never"
    return (
        base.name,
        f"{base.documents:,}",
        f"{base.chunks:,}",
        f"{base.vectors:,}",
        changed,
        state,
        base.model or "keywords only",
    )


@app.command()
def show(name: str = _NAME, json: bool = _AS_JSON) -> None:
    """Show one: its models, the origins of its documents, its last ingestions."""
    with knowledge_commands.opened() as here:
        row = here.knowledges.get(name)
        overview = here.database.knowledge_stats
        (base,) = overview.bases(name)
        models, origins = overview.models(name), overview.origins(name)
        returned = [each for each in here.look.returned() if each.agent == f"{AGENT}{name}"]
        ingestions, now = here.knowledges.ingestions(row.id, limit=5), here.look.now()
    if json:
        told = {"knowledge": base, "models": models, "origins": origins, "ingestions": ingestions}
        screen.echo(screen.as_json(told))
        return
    console = screen.console()
    console.print(screen.line((base.name, "bold"), f"  {base.documents:,} documents, {base.chunks:,} chunks"))
    if said := base.options.get("description"):
        console.print(screen.indented(str(said)))
    if (vision := base.options.get("vision") or "none") != "none":
        console.print(screen.indented(f"Images are described by {vision}."))
    _show_models(console, models, base.chunks)
    _show_origins(console, origins, now)
    if ingestions:
        columns = ("ingestion", "status", "age", "documents")
        rows = [
            (each.run_id, screen.status(each.status), screen.age(each.created_at, now), f"{each.total:,}")
            for each in ingestions
        ]
        console.print()
        console.print(screen.table(console.width, columns, rows, right=("age", "documents")))
    stuck = [
        f"Workers could not begin {count(each.count, 'step')}: {each.type}: {each.message}."
        for each in returned
    ]
    for sentence in [*stuck, *base.problems, *_moves(base, models), *_waits(base)]:
        console.print(screen.hanging(Text(f"→ {sentence}", "yellow"), 2))


def _show_models(console: Console, models: Sequence[Model], chunks: int) -> None:
    columns = ("status", "vectors", "index", "model")
    rows = [
        (
            Text(model.status, "green" if model.status is EmbeddingSpaceStatus.CURRENT else "dim"),
            f"{model.vectors:,} of {chunks:,}",
            "HNSW" if model.is_indexed else "exact",
            f"{model.model} ({model.dimensions})",
        )
        for model in models
    ]
    console.print()
    if rows:
        console.print(screen.table(console.width, columns, rows, right=("vectors",)))
    else:
        console.print("No vectors yet: keyword search only.", style="dim")


def _show_origins(console: Console, origins: Sequence[Origin], now: datetime) -> None:
    if origins:
        rows = [
            (f"{each.documents:,}", f"{screen.age(each.updated_at, now)} ago", each.origin or "one by one")
            for each in origins
        ]
        console.print()
        console.print(
            screen.table(console.width, ("documents", "changed", "from"), rows, right=("documents",))
        )


def _moves(base: Base, models: Sequence[Model]) -> list[str]:
    """Describe the new model that the knowledge base is moving to, and how to give it up."""
    own = f"agno-workers knowledge reindex {base.name}"
    said = [
        f"{each.model} makes no vectors: {each.why} The next ingestion tries again."
        for each in models
        if each.why and each.model == base.model
    ]
    for each in models:
        if each.status is EmbeddingSpaceStatus.BUILDING:
            stopped = (
                f", and stopped: {each.why} `{own}` goes on"
                if each.why
                else f"; `{own}` goes on"
                if not base.open
                else ""
            )
            said.append(
                f"Moving to {each.model}: {each.vectors:,} of {base.chunks:,} vectors{stopped}. `{own} --stop` gives it up; searches use {base.model} until it is complete."
            )
    return said


def _waits(base: Base) -> list[str]:
    """Suggest next commands."""
    said = {
        f"{base.notes} note(s) of agents wait for a review: `agno-workers knowledge review {base.name}`.": base.notes,
        f"{base.gaps} question(s) had no good result: `agno-workers knowledge gaps {base.name}`.": base.gaps,
    }
    return [sentence for sentence, many in said.items() if many]


@app.command()
def rm(name: str = _NAME, yes: bool = screen.YES) -> None:
    """Remove a knowledge base with its documents, and cancel its ingestions."""
    with knowledge_commands.opened() as here:
        here.knowledges.get(name)  # raises UnknownKnowledge
        (base,) = here.database.knowledge_stats.bases(name)
        if not yes:
            asked = f"Remove {name!r} with its {base.documents:,} documents and {base.vectors:,} vectors?"
            screen.must_agree(asked)
        here.knowledges.remove(name)
    screen.echo(f"Removed {name}.")


@app.command()
def reindex(
    name: str = _NAME,
    embedder: str | None = typer.Option(
        None, "--embedder", help="A new model; the old one is searched until the new one is complete."
    ),
    stop: bool = typer.Option(False, "--stop", help="Give up a new model that is not complete."),
    wait: bool = _WAIT,
    json: bool = _AS_JSON,
) -> None:
    """Make missing vectors, or all vectors with a new model, without downtime.

    A worker first checks that the model works; otherwise the command fails, and the knowledge base keeps its model.
    """
    with knowledge_commands.opened() as here:
        here.knowledges.get(name)  # raises UnknownKnowledge
        if stop:
            if embedder:
                raise InvalidInput("--stop gives up a new model and takes no --embedder: use one of them.")
            given_up = here.knowledges.stop_reindex(name)
            screen.echo(f"Gave up {given_up}." if given_up else f"{name} is not moving to another model.")
            return
        models = here.ensure(name, embedder, moves=True)
        submitted(
            here, here.began(here.knowledges.reindex(name, models)), wait=wait, json=json, models=models
        )


@app.command()
def watch(run_id: str = _RUN, json: bool = _AS_JSON) -> None:
    """Show the progress of an ingestion until its end. Exits 1 if documents or vectors failed."""
    with knowledge_commands.opened() as here:
        job = here.ingestion(run_id)
        job.progress()  # raises RunNotFound before drawing
        follow(here, job, json=json)


@app.command()
def failures(
    run_id: str = _RUN, limit: int = typer.Option(100, "--limit", min=1, max=100_000), json: bool = _AS_JSON
) -> None:
    """List the failed sources of an ingestion with their reasons. Exits 1 if there are any; raises the error of a failed ingestion."""
    with knowledge_commands.opened() as here:
        job = here.ingestion(run_id)
        progress, listed, run = job.progress(), job.failures(limit), job.run
    if json:
        screen.echo(screen.as_json(listed))
    elif not listed and run.error is None:
        screen.echo(
            f"No failures in {progress.settled:,} documents{'' if run.status.is_terminal else ' so far'}."
        )
    else:
        console = screen.console()
        for each in listed:
            tries = f" ({each.attempts} tries)" if each.attempts > 1 else ""
            line = screen.line((each.type, "red"), tries, " ", (each.uri, "bold"), f" {each.message}")
            console.print(line, soft_wrap=True)
    if run.error is not None and run.reason not in LISTED_REASONS:
        raise AgnoError.from_json(run.error)
    if listed:
        raise typer.Exit(1)


@app.command()
def retry(run_id: str = _RUN, wait: bool = _WAIT, json: bool = _AS_JSON) -> None:
    """Ingest the failed and unfinished sources of an ingestion again."""
    with knowledge_commands.opened() as here:
        submitted(here, here.ingestion(run_id).retry(), wait=wait, json=json)


@app.command()
def duplicates(
    name: str = _NAME, limit: int = typer.Option(100, "--limit", min=1, max=100_000), json: bool = _AS_JSON
) -> None:
    """List documents whose text equals that of another one, or nearly."""
    with knowledge_commands.opened() as here:
        listed = here.database.knowledge_stats.duplicates(here.knowledges.get(name).id, limit)
    if json:
        screen.echo(screen.as_json(listed))
    elif not listed:
        screen.echo(f"No duplicates in {name}.")
    else:
        console = screen.console()
        rows = [(f"{each.similarity:.0%}", each.uri, each.of) for each in listed]
        console.print(screen.table(console.width, ("alike", "document", "same as"), rows, right=("alike",)))


@app.command()
def review(
    name: str = _NAME,
    verdict: str | None = typer.Argument(None, metavar="[approve|reject]"),
    id: int | None = typer.Argument(None, metavar="[NOTE]"),
    note: str | None = typer.Option(None, "--note", help="The reason; it is stored."),
    by: str | None = typer.Option(None, "--by", help="Who decides."),
    json: bool = _AS_JSON,
) -> None:
    """List notes of agents that wait for a review. `approve` turns a note into a document."""
    if verdict not in (None, "approve", "reject"):
        raise InvalidInput(f"unknown verdict {verdict!r}: use approve or reject.")
    if verdict is not None and id is None:
        raise InvalidInput(f"{verdict} which note? `agno-workers knowledge review {name}` lists them.")
    with knowledge_commands.opened() as here:
        here.knowledges.get(name)  # raises UnknownKnowledge
        if verdict is None or id is None:
            _show_notes(here.feedback.notes(name), name, json=json)
            return
        kept = here.library.decide(here.described(name), id, approve=verdict == "approve", by=by, note=note)
        here.database.submissions.wake_keeper()
    done = "Approved note {}; it is being ingested." if verdict == "approve" else "Rejected note {}."
    screen.echo(screen.as_json(kept) if json else done.format(kept.id))


def _show_notes(notes: Sequence[ReviewNote], name: str, *, json: bool) -> None:
    if json:
        screen.echo(screen.as_json(notes))
        return
    if not notes:
        screen.echo(f"No notes of {name} wait for a review.")
        return
    console = screen.console()
    for kept in notes:
        told = f"  {kept.confidence:.0%} sure, by {kept.author}, from {kept.source or 'an unknown source'}"
        console.print(screen.line((str(kept.id), "bold"), f"  {kept.title}", (told, "dim")))
        console.print(screen.indented(screen.one_line(kept.content, 500)))
    screen.echo(f"\nagno-workers knowledge review {name} approve NOTE, or reject NOTE --note WHY")


@app.command()
def gaps(
    name: str = _NAME,
    limit: int = typer.Option(50, "--limit", min=1, max=10_000),
    forget: str | None = typer.Option(None, "--forget", metavar="QUESTION", help="Delete a gap."),
    json: bool = _AS_JSON,
) -> None:  # fmt: skip
    """List the questions without a good result, the most frequent first."""
    with knowledge_commands.opened() as here:
        here.knowledges.get(name)  # raises UnknownKnowledge
        if forget is not None:
            if not here.feedback.forget_gap(name, forget):
                raise InvalidInput(f"{name!r} has no gap {forget!r}: `knowledge gaps {name}` lists gaps.")
            screen.echo(f"Deleted the gap {forget!r}.")
            return
        listed, now = here.feedback.gaps(name, limit), here.look.now()
    if json:
        screen.echo(screen.as_json(listed))
    elif not listed:
        screen.echo(f"No gaps in {name}.")
    else:
        _show_gaps(listed, now)


def _show_gaps(listed: Sequence[Gap], now: datetime) -> None:
    console = screen.console()
    rows = [
        (
            f"{gap.asked:,}",
            f"{screen.age(gap.last_at, now)} ago",
            "nothing" if gap.best_score is None else f"{gap.best_score:.2f}",
            gap.question,
        )
        for gap in listed
    ]
    console.print(
        screen.table(console.width, ("asked", "last", "best", "question"), rows, right=("asked", "best"))
    )
