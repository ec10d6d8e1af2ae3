"""`agno-workers knowledge documents | chunks | add | remove`: the documents of a knowledge base, one by one."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import quote, unquote

import typer
from rich.text import Text

from agno_workers.cli import knowledge_commands, screen
from agno_workers.cli.ingest import submitted
from agno_workers.cli.search import fields
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.sources.files import uri_of
from agno_workers.knowledge.sources.resolve import scheme_of
from agno_workers.sdk.ingestion import document as text_source
from agno_workers.sdk.ingestion import options

_AS_JSON = typer.Option(False, "--json", help="Print JSON.")
_NAME = typer.Argument(metavar="NAME", help="The knowledge base.")
_FILTER = typer.Option(
    [],
    "--filter",
    metavar="NAME=VALUE",
    help="Only documents with this metadata, as for `search`. May be repeated.",
)
_MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".csv": "text/csv",
    ".json": "application/json",
}
_LISTED = 20


def documents(
    name: str = _NAME,
    filters: list[str] = _FILTER,
    after: str = typer.Option(
        "", "--after", metavar="URI", help="Only documents after this uri: the next page."
    ),
    limit: int = typer.Option(100, "--limit", min=1, max=100_000, help="Show at most this many."),
    json: bool = _AS_JSON,
) -> None:
    """List the documents, in the order of their uris."""
    chosen = knowledge_commands.pairs("--filter", filters)
    with knowledge_commands.opened() as here:
        base = here.knowledges.get(name)
        listed = here.knowledges.documents(base.id, filters=chosen, after=after, limit=limit)
        warnings, now = here.knowledges.filter_warnings(name, chosen), here.look.now()
    for text in warnings:
        screen.echo(f"warning: {text}", err=True)
    if json:
        screen.echo(screen.as_json(listed))
        return
    if not listed:
        screen.echo(f"No such documents in {name}." if chosen or after else f"No documents in {name}.")
        return
    console = screen.console()
    rows = [
        (
            str(each.id), f"same as {each.duplicate_of}" if each.duplicate_of else f"{each.chunks:,}", f"{screen.age(each.updated_at, now)} ago",
            each.uri,
        )
        for each in listed
    ]  # fmt: skip
    console.print(
        screen.table(console.width, ("id", "chunks", "changed", "document"), rows, right=("id", "chunks"))
    )
    if len(listed) == limit:
        screen.echo(f"There may be more: --after {listed[-1].uri!r}, or a higher --limit.", err=True)


def chunks(
    name: str = _NAME,
    document: str = typer.Argument(metavar="DOCUMENT", help="A uri, a path of this machine, or an id."),
    json: bool = _AS_JSON,
) -> None:
    """Show the chunks of a document, as searches find them."""
    with knowledge_commands.opened() as here:
        row = here.knowledges.document(name, named(here, name, document))
        listed = here.knowledges.chunks(name, row.id)
    if json:
        screen.echo(screen.as_json(listed))
        return
    console = screen.console()
    console.print(screen.line((row.title or row.uri, "bold"), f"  {screen.count(len(listed), 'chunk')}"))
    console.print(screen.line((row.uri, "dim")), soft_wrap=True)
    if row.metadata:
        console.print(screen.line((fields(row.metadata), "dim")), soft_wrap=True)
    if row.duplicate_of:
        console.print(
            screen.line(
                (f"It has the text of document {row.duplicate_of}, whose chunks these are.", "yellow")
            )
        )
    for each in listed:
        lacks = "" if each.has_vector else f"  no vector{f': {each.refused}' if each.refused else ''}"
        console.print()
        console.print(
            screen.line(
                (f"{each.position:>3}  ", "dim"),
                (" > ".join(each.heading), "bold"),
                (f"  {each.tokens} tokens", "dim"),
                (lacks, "yellow"),
            )
        )
        for paragraph in each.content.splitlines():
            console.print(screen.hanging(Text(f"     {paragraph}"), 5))


def add(
    name: str = typer.Argument(metavar="NAME", help="The knowledge base; it is created if necessary."),
    text: str | None = typer.Argument(None, metavar="[TEXT]", help="The text; - or nothing: standard input."),
    file: Path | None = typer.Option(None, "--file", help="A text file of this machine; workers need not read it."),
    uri: str | None = typer.Option(None, "--uri", help="Its name: a document of that name is replaced. Default: a new one."),
    title: str | None = typer.Option(None, "--title", help="The title."),
    media_type: str | None = typer.Option(None, "--media-type", help="text/markdown, text/html ...; default: by the file, or text/plain."),
    metadata: list[str] = typer.Option([], "--metadata", metavar="NAME=VALUE", help="Metadata, also as JSON. May be repeated."),
    key: str | None = typer.Option(None, "--key", help="Idempotency key: repeating it returns the same ingestion."),
    wait: bool = typer.Option(False, "--wait", help="Show the progress until the end."),
    json: bool = _AS_JSON,
) -> None:  # fmt: skip
    """Add one text as a document."""
    if file is not None and text is not None:
        raise InvalidInput("a text and --file are given: use one of them.")
    content, known = _read(file) if file else _read(None) if text in (None, "-") else (text or "", None)
    source = text_source(
        content,
        uri=uri or (f"text:{file.name}" if file else None),
        title=title,
        media_type=media_type or known or "text/plain",
    )
    own = options(knowledge_commands.pairs("--metadata", metadata) if metadata else None)
    with knowledge_commands.opened() as here:
        models = here.ensure(name, None)
        job = here.began(here.knowledges.submit(name, [source], options=own | models, idempotency_key=key))
        submitted(here, job, wait=wait, json=json)


def _read(file: Path | None) -> tuple[str, str | None]:
    """Return the text of a file, or of standard input, and its media type."""
    what = repr(str(file)) if file else "standard input"
    try:
        if file is None and sys.stdin.isatty():
            screen.echo("Type the text, then Ctrl-D.", err=True)
        raw = file.read_bytes() if file else sys.stdin.buffer.read()
        return raw.decode("utf-8-sig"), _MEDIA_TYPES.get(file.suffix.lower()) if file else None
    except OSError as error:
        raise InvalidInput(f"{what} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{what} is not text in UTF-8: `agno-workers ingest` reads other files."
        ) from error


def remove(
    name: str = _NAME,
    chosen: list[str] = typer.Argument(
        None, metavar="[DOCUMENT]...", help="Uris, paths of this machine, or ids."
    ),
    filters: list[str] = _FILTER,
    dry_run: bool = typer.Option(False, "--dry-run", help="List what would be removed, and remove nothing."),
    yes: bool = screen.YES,
    json: bool = typer.Option(False, "--json", help="Print the uris as JSON; needs --yes or --dry-run."),
) -> None:
    """Remove documents. One from a folder returns with the next ingestion of that folder."""
    conditions = knowledge_commands.pairs("--filter", filters)
    with knowledge_commands.opened() as here:
        wanted = [named(here, name, each) for each in chosen or ()]
        for each in wanted:
            here.knowledges.document(name, each)  # raises for an unknown one
        found = here.knowledges.remove_documents(name, wanted, conditions, dry_run=True)
        if not json:
            for uri in found[:_LISTED]:
                screen.echo(uri)
            if len(found) > _LISTED:
                screen.echo(f"and {len(found) - _LISTED:,} more")
        if found and not dry_run:
            if not yes:
                if json:
                    raise InvalidInput("--json asks no questions: add --yes or --dry-run.")
                screen.must_agree(f"Remove {screen.count(len(found), 'document')} of {name!r}?")
            found = here.knowledges.remove_documents(name, wanted, conditions)
    if json:
        screen.echo(screen.as_json(found))
    elif dry_run:
        screen.echo(f"{screen.count(len(found), 'document')} would be removed.")
    else:
        screen.echo(f"Removed {screen.count(len(found), 'document')}.")


def named(here: knowledge_commands.KnowledgeCommands, name: str, document: str) -> str | int:
    """Return an id, or a uri of the knowledge base; any other text is a path of this machine, also with the id of a row: `shop.csv#A1`."""
    if document.isascii() and document.isdigit():
        return int(document)
    known = here.knowledges.get(name).id
    if scheme_of(document) or here.knowledges.documents(known, filters={"uri": document}, limit=1):
        return document
    file, mark, row = document.rpartition("#")
    path, of_file = (Path(each).expanduser().absolute() for each in (document, file))
    if mark and not path.exists() and of_file.is_file():
        return f"{uri_of(str(of_file))}#{quote(unquote(row), safe='')}"
    return uri_of(str(path))
