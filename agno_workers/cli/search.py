"""`agno-workers search`: search a knowledge base."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from warnings import catch_warnings, simplefilter

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import knowledge_commands, screen
from agno_workers.cli.autostart import autostart
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import SearchResult

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_SNIPPET_CHARS = 320
_FIELD_CHARS = 60
_LONG_WORD = 3
_EVERYWHERE = re.compile(
    r"and|are|but|can|did|does|for|from|get|ha[dsv]e?|how|its|not|our|that|the[mnry]?|their|there|these|this|was|were"
    r"|what|when|where|which|who|why|will|with|you|your",
    re.IGNORECASE,
)
"""Words that are not highlighted, as are shorter ones."""


@app.command()
def search(
    knowledge: str = typer.Argument(metavar="NAME", help="The knowledge base."),
    question: str = typer.Argument(help="A question, or a few words."),
    search_type: str | None = typer.Option(None, "--search-type", help="hybrid (default), vector or keyword."),
    filters: list[str] = typer.Option(
        [],
        "--filter",
        metavar="NAME=VALUE",
        help="Only documents with this metadata; VALUE may be JSON: 'year={\"gte\": 2024}'. May be repeated.",
    ),
    max_results: int | None = typer.Option(
        None, "--max-results", min=1, max=1000, help="Maximum number of results; default: the knowledge base's, or 8."
    ),
    min_score: float | None = typer.Option(
        None, "--min-score", min=-1, max=1, help="Only results whose cosine with the question is at least this, such as 0.3."
    ),
    duplicates: bool | None = typer.Option(
        None, "--duplicates/--no-duplicates", help="Show or drop documents that nearly equal a better result."
    ),
    json: bool = typer.Option(False, "--json", help="Print JSON with whole chunks and the parts of their scores."),
) -> None:  # fmt: skip
    """Find the chunks that match a question, best first."""
    chosen = knowledge_commands.pairs("--filter", filters)
    with autostart() as ready, knowledge_commands.opened(ready.settings) as here:
        described = here.described(knowledge)
        with catch_warnings(record=True) as caught:
            simplefilter("always")
            hits = here.library.search(
                described,
                question,
                max_results=max_results,
                search_type=search_type,  # type: ignore[arg-type]  # the retriever refuses another one
                filters=chosen,
                near_duplicates=duplicates,
                min_score=min_score,
            )
        if not hits:
            _must_hold_something(here, knowledge)
    for each in caught:
        screen.echo(f"warning: {each.message}", err=True)
    if json:
        screen.echo(screen.as_json(hits))
    elif hits:
        _show(screen.console(), hits, question)
    else:
        hint = (
            "Try without --filter."
            if chosen
            else "Try a lower --min-score."
            if min_score is not None
            else "Try other words."
        )
        screen.echo(f"No results in {knowledge}. {hint}")


def _must_hold_something(here: knowledge_commands.KnowledgeCommands, knowledge: str) -> None:
    (base,) = here.database.knowledge_stats.bases(knowledge)
    if not base.documents and base.open:
        raise InvalidInput(
            f"{knowledge!r} is still empty: an ingestion is running, see `agno-workers knowledge show {knowledge}`."
        )
    if not base.documents:
        raise InvalidInput(
            f"{knowledge!r} is empty: `agno-workers ingest FOLDER --knowledge {knowledge}` adds documents."
        )


def _show(console: Console, hits: Sequence[SearchResult], question: str) -> None:
    words = marks(question)
    for rank, hit in enumerate(hits, 1):
        console.print(
            screen.line(
                (f"{rank:>2}  ", "dim"),
                (f"{hit.score:.3f}  ", "cyan"),
                (place(hit), "bold"),
                ("" if hit.closeness is None else f"  cosine {hit.closeness:.2f}", "dim"),
            )
        )
        where = f"    {hit.uri}{f', {hit.place}' if hit.place else ''}"
        console.print(screen.line((where, "dim")), soft_wrap=True)
        if hit.metadata:
            console.print(
                screen.line(
                    (f"    {screen.one_line(fields(hit.metadata, _FIELD_CHARS), _SNIPPET_CHARS)}", "dim")
                ),
                soft_wrap=True,
            )
        text = Text(snippet(hit.content, words))
        if words:
            text.highlight_regex(words, "yellow")
        console.print(screen.hanging(Text("    ") + text, 4))


def place(hit: SearchResult) -> str:
    """Return the place in the document: `Title > Heading > Heading`."""
    path = [part for part in hit.heading if part]
    if hit.title and path[:1] != [hit.title]:
        path.insert(0, hit.title)
    return " > ".join(path) or hit.uri.rstrip("/").rpartition("/")[2]


def fields(metadata: Mapping[str, Any], width: int | None = None) -> str:
    """Return metadata as they are given on the command line: `team=docs year=2024`; with a `width`, the beginning of long values."""
    texts = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in metadata.items()
    }
    return " ".join(
        f"{name}={screen.one_line(text, width) if width else text}" for name, text in texts.items()
    )


def marks(question: str) -> re.Pattern[str] | None:
    """Return a pattern that highlights the words of a question, with common inflections."""
    asked = {word for word in re.findall(r"\w+", question) if len(word) >= _LONG_WORD}
    words = sorted((word for word in asked if not _EVERYWHERE.fullmatch(word)), key=len, reverse=True)
    stems = [re.escape(word[:-1] if len(word) > 4 and word.endswith("s") else word) for word in words]
    return re.compile(rf"\b(?:{'|'.join(stems)})(?:e?s|e?d|ing)?\b", re.IGNORECASE) if stems else None


def snippet(content: str, words: re.Pattern[str] | None) -> str:
    """Return the part of a chunk with the most words of the question."""
    line = " ".join(content.split())
    if len(line) <= _SNIPPET_CHARS:
        return line
    places = [match.start() for match in words.finditer(line)] if words else []
    starts = [max(0, place - 40) for place in places] or [0]
    best = max(starts, key=lambda start: sum(start <= place < start + _SNIPPET_CHARS for place in places))
    best = line.find(" ", best) + 1 if best else 0
    end = best + _SNIPPET_CHARS
    return f"{'…' if best else ''}{line[best:end].strip()}{'…' if end < len(line) else ''}"
