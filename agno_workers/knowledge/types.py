"""Values of the knowledge vertical: sources, documents, chunks, search results. No IO.

    source ──fetch──▶ Raw ──read──▶ Parsed ──prepare──▶ Prepared (a document and its chunks) ──embed──▶ vectors

Offsets count characters of the normalised text. Vectors are float32, unit length, so that the inner product is the cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

from agno_workers.core.checks import Count, brief, misfit
from agno_workers.errors import InvalidInput

SearchType = Literal["hybrid", "vector", "keyword"]
Digest = bytes
"""A sha256, 32 bytes."""


class SourceStatus(StrEnum):
    """Status of a source within an ingestion."""

    PENDING = "pending"
    TAKEN = "taken"
    """Claimed by an open step."""
    DONE = "done"
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"
    """Another document has the same text."""
    FAILED = "failed"


class EmbeddingSpaceStatus(StrEnum):
    """Status of the vectors of one embedding model in one knowledge base."""

    BUILDING = "building"
    CURRENT = "current"
    RETIRED = "retired"


class Rows(msgspec.Struct, frozen=True, omit_defaults=True):
    """Makes each row of a CSV, TSV or JSON file or of a workbook a document of its own: `Rows(id="sku", text=("name", "description"))`.

    Columns are those of the header; in JSON they are keys, and `author.name` is one within an object. The documents of a file are named
    `<its uri>#<id>`.
    """

    id: str | tuple[str, ...]
    """The column, or the columns, that name a row permanently."""
    text: str | tuple[str, ...] = ()
    """The columns with the text; several become `column: value`, a line each. Empty: all columns without another use."""
    title: str | None = None
    """The column with the title."""
    metadata: str | tuple[str, ...] = ()
    """Numbers stay numbers, so that filters compare them; dates are ISO text."""
    sheet: str = ""
    """The sheet of a workbook. Empty: the first that is visible."""
    media_type: str = "text/plain"
    """The type of the text: `text/markdown`, `text/html` ..."""


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source that an ingestion found and has not read yet. It becomes one document."""

    uri: str
    """The key of its document: `file:///...`, `https://...`, `s3://...`, `text:...`, `db:...`."""
    origin: str = ""
    """The folder, sitemap or query that listed it. A document that its origin no longer lists is removed. Empty: never removed."""
    bytes: int = 0
    """The size, 0 if unknown."""
    fingerprint: str | None = None
    """An ETag, or size and modification time. If it equals the last one, the source is unchanged and not read."""
    media_type: str | None = None
    """None: detected from the name and the first bytes."""
    title: str | None = None
    """None: the document's own."""
    metadata: dict[str, Any] = {}
    """JSON that search filters can use."""
    text: str | None = None
    """The document itself, if the caller passed it."""
    given: dict[str, Any] | None = None
    """The part of the metadata that the ingestion was given. None: it was given none, and the document keeps what it has."""
    rows: Rows | None = None
    """Each of its rows becomes a document, and the file itself does not."""


class Skipped(msgspec.Struct, frozen=True):
    """Files and pages that a scan left out for one reason."""

    reason: str
    """`hidden`, `empty`, `link out of the folder`, `broken link`, `link to a file that is in`, `link to a folder that is in`, `not a file`, `robots.txt`"""
    count: int
    """The number of them."""
    examples: tuple[str, ...]
    """The uris of the first ones."""


class Raw(msgspec.Struct, frozen=True):
    """The bytes of a source."""

    content: bytes
    media_type: str | None = None
    """From the server. None: detected from the name and the first bytes."""
    fingerprint: str | None = None
    unchanged: bool = False
    """The server reports no change since `fingerprint`; `content` is empty."""
    seen: Parsed | None = None
    """The description of an image by a vision model."""
    tokens: int = 0
    """Tokens used for the description."""


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a part of a document stands. `str(place)` is `page 3`, `sheet Prices, rows 2-40` or `attachment offer.pdf, pages 1-2`."""

    unit: Literal["", "page", "slide", "row", "line", "message"] = ""
    """The unit of `first` and `last`, which count from 1. Empty: only the part is known."""
    first: int = 0
    """The first page, slide, row, line or message."""
    last: int = 0
    """`first`, if it is left out."""
    part: str = ""
    """The sheet, or the attachment of an e-mail."""

    def __post_init__(self) -> None:
        if self.last < self.first:
            msgspec.structs.force_setattr(self, "last", self.first)

    def __str__(self) -> str:
        numbers = f"{self.first}-{self.last}" if self.last > self.first else str(self.first)
        counted = f"{self.unit}{'s' if self.last > self.first else ''} {numbers}" if self.unit else ""
        return ", ".join(filter(None, (self.part, counted)))


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """An element of a document, in reading order."""

    kind: Literal["heading", "paragraph", "list", "table", "code"]
    text: str
    level: int = 0
    """Level of a heading; 1 is the highest."""
    place: Place | None = None
    lines: tuple[int, ...] = ()
    """The number of each line of the text, in the unit of the place: rows of a sheet, lines of code. Empty: they are not numbered."""


class Parsed(msgspec.Struct, frozen=True):
    """The result of a reader."""

    blocks: tuple[Block, ...]
    title: str | None = None
    metadata: dict[str, Any] = {}
    """From the format: author, created, pages ... JSON values."""


class Chunk(msgspec.Struct, frozen=True):
    """A chunk of a document, before it is stored."""

    position: int
    content: str
    heading: tuple[str, ...]
    """The headings above it, the highest first."""
    start: int
    end: int
    tokens: int
    hash: bytes
    """sha256 of the embedded text: the headings and the content."""
    place: Place | None = None

    @property
    def embedded(self) -> str:
        """The text that is embedded."""
        return embedded_text(self.heading, self.content)


def embedded_text(heading: tuple[str, ...] | list[str], content: str) -> str:
    """Join the headings and the content of a chunk: some words occur in the headings only."""
    return f"{' > '.join(heading)}\n{content}" if heading else content


NEAR_BANDS = 4
"""Number of equal bands from which two documents are near-duplicates; see knowledge/minhash.py."""


class Prepared(msgspec.Struct, frozen=True):
    """A document that was read, with its chunks."""

    title: str | None
    media_type: str
    language: str | None
    """ISO 639-1. None: the text is too short, or detection is not confident."""
    bytes: int
    sha256: Digest
    """Hash of the raw bytes."""
    text_sha256: Digest
    """Hash of the normalised text."""
    bands: tuple[int, ...]
    """MinHash bands (signed 64 bit). Empty: the text is too short to compare."""
    metadata: dict[str, Any]
    chunks: tuple[Chunk, ...]


class Refusal(msgspec.Struct, frozen=True):
    """A reason why a document can't be read. It is final for these bytes."""

    type: str
    """`unreadable`, `unsupported`, `empty`, `too_large`, `time_limit`, `memory_limit`, `crashed`, `low_quality`, `encrypted`"""
    message: str


class Chunking(msgspec.Struct, frozen=True, omit_defaults=True):
    """Options for splitting documents into chunks."""

    strategy: str = "structure"
    """`structure`, `fixed`, or `module:function`, which takes (Parsed, Chunking) and returns (text, [Chunk])."""
    max_chars: int = 500
    """The most characters of a chunk."""
    overlap_chars: int = 0
    """Characters that a chunk repeats of the one before."""
    max_tokens: int = 256
    """Counted by `tokenizer`; a longer chunk is split."""
    tokenizer: str = "minilm"
    """`minilm`, `cl100k_base` or `o200k_base`."""


class Filter(msgspec.Struct, frozen=True):
    """A compiled search filter: knowledge/filters.py writes it, agno.filter_condition reads it."""

    equal: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    """Pairs of which the metadata must contain (`@>`) one; an index serves them."""
    columns: dict[str, str] = {}
    """Required values of uri, language and media_type."""
    path: str | None = None
    """All other conditions: a jsonpath over `{"metadata": ..., "uri": ..., ...}`."""
    values: dict[str, str | int | float | bool | None] = {}
    """Variables of the jsonpath."""
    uses_facts: bool = False
    """The jsonpath refers to more than metadata."""


class SearchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chunk that a search found."""

    chunk_id: int
    """The id in Postgres."""
    document_id: int
    """The id in Postgres."""
    uri: str
    """The document's key: its address or path."""
    content: str
    """The text of the chunk."""
    score: float
    """Higher is better. Comparable within one search only; see `closeness`."""
    title: str | None = None
    """The document's title."""
    heading: tuple[str, ...] = ()
    """The headings above the chunk, the highest first."""
    position: int = 0
    """The chunk's number in its document, from 0."""
    start: int = 0
    """The first character in the document's text."""
    end: int = 0
    """The character after the last one."""
    place: Place | None = None
    """Its pages, slides, rows or lines. None: the format has none."""
    metadata: dict[str, Any] = {}
    """Metadata of the document."""
    knowledge: str = ""
    """The name of its knowledge base."""
    closeness: float | None = None
    """The cosine with the query, from -1 to 1: comparable between searches with one model. None: a keyword search, or no vector."""
    scores: dict[str, float] = {}
    """Parts of the score: `vector` (cosine), `keyword` (BM25), the rank in each, and the factors `feedback` and `sibling` (for a
    further chunk of the same document).
    """


Rerank = Callable[[str, Sequence[SearchResult]], Sequence[float]]
"""Takes a query and its results, and returns a score for each; higher is better."""


class SearchConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """Defaults of a search."""

    max_results: int = 8
    """The most results."""
    search_type: SearchType = "hybrid"
    """By vectors and keywords (`hybrid`), or by one of them."""
    near_duplicates: bool = True
    """False: return only the best of documents that nearly equal each other."""
    gap_below: float = 0.3
    """A query whose best result has a lower cosine is recorded as a gap. Without vectors: a query without results."""


class FeedbackConfig(msgspec.Struct, frozen=True):
    """Lets an agent add notes to a knowledge base."""

    min_confidence: float = 0.8
    """A note with at least this confidence becomes a document at once; others wait for a review. Above 1: all wait."""


class _Named(msgspec.Struct, frozen=True):
    name: str
    """The name in code, on the command line and in Postgres."""


class Knowledge(_Named, frozen=True, kw_only=True, omit_defaults=True):
    """The options of a knowledge base. It holds no connection. Options that are left out keep their stored values."""

    description: str = ""
    """Describes the contents for agents."""
    embedder: str | None = None
    """`local` (a small model from a wheel), `openai:...`, `compatible:http://...#model`. None: the stored one, or `local`."""
    vision: str | None = None
    """The model that describes images, such as `openai:...`. None: the stored one, or none; images are found by their metadata.
    `none` removes it. A change makes the next ingestion read everything again."""
    chunking: Chunking = Chunking()
    """How documents are cut."""
    search_config: SearchConfig = SearchConfig()
    """Defaults of searches."""

    def context(
        self,
        max_results: int = 5,
        *,
        search_type: SearchType | None = None,
        filters: dict[str, Any] | None = None,
    ) -> KnowledgeBinding:
        """Bind for `Agent(knowledge=...)`: each question comes with its best results, and there is no search tool."""
        return KnowledgeBinding(
            self, "context", max_results, search_type or self.search_config.search_type, filters or {}
        )

    def tool(
        self,
        max_results: int | None = None,
        *,
        search_type: SearchType | None = None,
        filters: dict[str, Any] | None = None,
    ) -> KnowledgeBinding:
        """Bind for `Agent(knowledge=...)`: the agent gets a search tool whose limits and filters the model can't change."""
        searching = self.search_config
        return KnowledgeBinding(
            self,
            "tool",
            searching.max_results if max_results is None else max_results,
            search_type or searching.search_type,
            filters or {},
        )

    def with_feedback(self, min_confidence: float = 0.8) -> KnowledgeBinding:
        """Bind for `Agent(knowledge=...)`: the agent gets a search tool and a tool to add notes."""
        return self.tool().with_feedback(min_confidence)


class KnowledgeBinding(msgspec.Struct, frozen=True):
    """A knowledge base as one agent uses it."""

    knowledge: Knowledge
    way: Literal["tool", "context"]
    max_results: Count
    search_type: SearchType
    filters: dict[str, Any] = {}
    """Set in code; the model can't change them."""
    feedback: FeedbackConfig | None = None

    def with_feedback(self, min_confidence: float = 0.8) -> KnowledgeBinding:
        """Return a copy that also gives the agent a tool to add notes."""
        return msgspec.structs.replace(self, feedback=FeedbackConfig(min_confidence))


def as_options(knowledge: Knowledge) -> dict[str, Any]:
    """Return the options to store in Postgres, without the name."""
    built: dict[str, Any] = msgspec.to_builtins(knowledge)
    return {name: value for name, value in built.items() if name != "name"}


def from_options(name: str, options: dict[str, Any]) -> Knowledge:
    """Build a knowledge base from its stored options."""
    return msgspec.convert({**options, "name": name}, Knowledge)


Uses = Knowledge | KnowledgeBinding | Sequence[Knowledge | KnowledgeBinding] | None
"""The `knowledge` of an agent."""


def uses_of(given: Uses) -> tuple[KnowledgeBinding, ...]:
    """Return the bindings; a plain knowledge base is bound as a search tool.

    Raises InvalidInput for another value, and for a base that is bound twice.
    """
    if given is None:
        return ()
    bound: dict[str, KnowledgeBinding] = {}
    for each in given if isinstance(given, list | tuple) else (given,):
        if not isinstance(each, Knowledge | KnowledgeBinding):
            raise InvalidInput(
                f"knowledge must be Knowledge(...), a binding of one (`docs.context()`), or a list of them, got {brief(each)}"
            )
        use = each.tool() if isinstance(each, Knowledge) else each
        if (kept := bound.setdefault(use.knowledge.name, use)) is not use:
            raise InvalidInput(f"knowledge has {kept.knowledge.name!r} twice: bind each knowledge base once")
        if wrong := misfit(KnowledgeBinding, use):
            raise InvalidInput(f"knowledge {use.knowledge.name!r}: {wrong[0]} {wrong[1]}")
    return tuple(bound.values())


class Note(msgspec.Struct, frozen=True):
    """A fact that an agent adds to a knowledge base."""

    title: str
    content: str
    source: str
    """A URL, a person, a run."""
    confidence: float
    """From 0 to 1, as the agent states it."""
    author: str
    """The agent's name."""
    run_id: str | None = None
    metadata: dict[str, Any] = {}


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A search result that an agent received, with its citation number."""

    n: int
    """The number that the answer cites, from 1."""
    uri: str
    """The document's key."""
    content: str
    """The text that the agent received."""
    title: str | None = None
    """The document's title."""
    heading: tuple[str, ...] = ()
    """The headings above the chunk."""
    place: Place | None = None
    """Its pages, slides, rows or lines. None: the format has none."""
    chunk: int = 0
    """The chunk's id."""
    closeness: float | None = None
    """See SearchResult."""
    metadata: dict[str, Any] = {}
    """Metadata of the document, without long values."""
    cited: bool = False
    """The answer contains its number, as `[3]`, or its uri."""
    knowledge: str = ""
    """The name of the knowledge base that it is from."""


class Progress(msgspec.Struct, frozen=True):
    """Progress of an ingestion."""

    run_id: str
    """The ingestion's id."""
    knowledge: str
    """The name of the base."""
    status: str
    """Status of the run."""
    scanned: bool
    """All sources are known; before that, `total` still grows."""
    total: int
    """Sources found so far."""
    documents: int
    """Read and stored."""
    unchanged: int
    """Sources that are as they were: not read again."""
    duplicates: int
    """Documents with the text of another one."""
    failed: int
    """Sources that could not be read."""
    removed: int
    """Documents whose sources are gone."""
    chunks: int
    """Chunks of the documents."""
    embedded: int
    """Chunks with a vector; `chunks` counts all chunks that keyword search can find."""
    to_embed: int
    """Chunks that need a vector."""
    tokens: int
    """Tokens that the embedding model has read."""
    bytes: int
    """The size of the documents."""
    started_at: datetime | None = None
    """UTC."""
    ended_at: datetime | None = None
    """UTC."""
    changed: int = 0
    """Number of `documents` that were there before."""
    skipped: tuple[Skipped, ...] = ()
    """Files and pages that the scan left out."""
    unmatched: tuple[str, ...] = ()
    """Sources in which the scan found nothing: folders, globs, sitemaps, queries."""
    refused: int = 0
    """Chunks that stay without a vector, because the model refused them: only keyword search finds them."""

    @property
    def settled(self) -> int:
        """Number of sources that have ended."""
        return self.documents + self.unchanged + self.duplicates + self.failed

    @property
    def new(self) -> int:
        """Number of documents that were not there before."""
        return self.documents - self.changed
