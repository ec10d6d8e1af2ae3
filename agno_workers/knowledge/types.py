"""Facts about knowledge: what is read, what is kept of it, what a search gives. No IO.

    source ──fetch──▶ Raw ──read──▶ Parsed ──prepare──▶ Prepared (a document and its chunks) ──embed──▶ vectors

Offsets count characters of the normalised text. Vectors are float32, unit length, so that the inner product is the cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

SearchType = Literal["hybrid", "vector", "keyword"]
Digest = bytes
"""A sha256, 32 bytes."""


class SourceStatus(StrEnum):
    """Where a source of an ingestion is."""

    PENDING = "pending"
    TAKEN = "taken"
    """In a step that is open."""
    DONE = "done"
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"
    """The same document stands under another address."""
    FAILED = "failed"


class EmbeddingSpaceStatus(StrEnum):
    """Where one model's vectors of one knowledge base are."""

    BUILDING = "building"
    CURRENT = "current"
    RETIRED = "retired"


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document to be, as an ingestion found it; nothing of it has been read."""

    uri: str
    """Its name in the knowledge base: `file:///...`, `https://...`, `s3://...`, `text:...`, `db:...`."""
    origin: str = ""
    """What it was found by, such as the folder: a source that an origin no longer has is removed. Empty: never removed so."""
    bytes: int = 0
    """As far as is known without reading it."""
    fingerprint: str | None = None
    """Equal to the last one: unchanged, and not read. An ETag, or size and time of change."""
    media_type: str | None = None
    title: str | None = None
    metadata: dict[str, Any] = {}
    text: str | None = None
    """The document itself, where it was handed in."""


class Raw(msgspec.Struct, frozen=True):
    """The bytes of a source."""

    content: bytes
    media_type: str | None = None
    """As the server said; None: to be told by the name and the first bytes."""
    fingerprint: str | None = None
    unchanged: bool = False
    """The server says that it is as it was when `fingerprint` was taken; `content` is empty."""
    seen: Parsed | None = None
    """Of an image: what a vision model saw in it, beside what is written in its bytes."""
    tokens: int = 0
    """That seeing it took."""


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """A chunk of a document's structure, in reading order."""

    kind: Literal["heading", "paragraph", "list", "table", "code"]
    text: str
    level: int = 0
    """Of a heading: 1 for the highest."""
    page: int | None = None


class Parsed(msgspec.Struct, frozen=True):
    """What a reader makes of bytes."""

    blocks: tuple[Block, ...]
    title: str | None = None
    metadata: dict[str, Any] = {}
    """What the format knows: author, created, pages ... JSON values."""


class Chunk(msgspec.Struct, frozen=True):
    """One chunk to be."""

    position: int
    content: str
    heading: tuple[str, ...]
    """The headings above it, the highest first."""
    start: int
    end: int
    tokens: int
    hash: bytes
    """sha256 of what is embedded: the heading path and the content."""

    @property
    def embedded(self) -> str:
        """The text that the model sees."""
        return embedded_text(self.heading, self.content)


def embedded_text(heading: tuple[str, ...] | list[str], content: str) -> str:
    """What of a chunk is embedded: its headings, for the words that stand only there, and its content."""
    return f"{' > '.join(heading)}\n{content}" if heading else content


NEAR_BANDS = 4
"""Equal bands of two documents that are nearly the same; see knowledge/minhash.py for what that means."""


class Prepared(msgspec.Struct, frozen=True):
    """A document that was read, and its chunks."""

    title: str | None
    media_type: str
    language: str | None
    """ISO 639-1; None: too short, or not sure."""
    bytes: int
    sha256: Digest
    """Of the raw bytes."""
    text_sha256: Digest
    """Of the normalised text."""
    bands: tuple[int, ...]
    """MinHash bands (signed 64 bit): two documents that share NEAR_BANDS of them are nearly the same. Empty: too short to tell."""
    metadata: dict[str, Any]
    chunks: tuple[Chunk, ...]


class Refusal(msgspec.Struct, frozen=True):
    """Why a document can't be read: final, for these bytes."""

    type: str
    """`unreadable`, `unsupported`, `empty`, `too_large`, `time_limit`, `memory_limit`, `crashed`, `low_quality`, `encrypted`"""
    message: str


class Chunking(msgspec.Struct, frozen=True, omit_defaults=True):
    """How documents are cut."""

    strategy: str = "structure"
    """`structure`, `fixed`, or `module:function`, which takes (Parsed, Chunking) and gives (text, [Chunk])."""
    max_chars: int = 500
    overlap_chars: int = 0
    max_tokens: int = 256
    """By the tokeniser of the embedder; a longer chunk is cut."""
    tokenizer: str = "minilm"
    """`minilm`, `cl100k_base` or `o200k_base`."""


class Filter(msgspec.Struct, frozen=True):
    """What a search is narrowed to, as Postgres takes it; knowledge/filters.py makes it, agno.filter_condition reads it."""

    equal: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    """Of each pair a document's metadata must contain (`@>`) the one or the other; there is an index for that."""
    columns: dict[str, str] = {}
    """What its uri, language or media_type must be."""
    path: str | None = None
    """The rest: a jsonpath over `{"metadata": ..., "uri": ..., ...}`."""
    values: dict[str, str | int | float | bool | None] = {}
    """Its variables."""
    uses_facts: bool = False
    """It asks for more than metadata."""


class SearchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One chunk that a search found."""

    chunk_id: int
    document_id: int
    uri: str
    content: str
    score: float
    """The higher the better; comparable within one search only."""
    title: str | None = None
    heading: tuple[str, ...] = ()
    position: int = 0
    start: int = 0
    end: int = 0
    metadata: dict[str, Any] = {}
    scores: dict[str, float] = {}
    """The parts of the score: `vector` (cosine), `keyword` (BM25), the ranks in each, and what it was multiplied by: `feedback`,
    and `sibling`, of a further chunk of the same document.
    """


Rerank = Callable[[str, Sequence[SearchResult]], Sequence[float]]
"""Looks at a question and its hits, and says how good each is: the higher the better."""


class SearchConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a search goes by where its caller says nothing."""

    max_results: int = 8
    search_type: SearchType = "hybrid"
    near_duplicates: bool = True
    """False: of documents that nearly equal each other only the best one is returned."""
    gap_below: float = 0.3
    """A question whose best hit is less alike (cosine) is kept as a gap; where no hit has one, a question without any."""


class FeedbackConfig(msgspec.Struct, frozen=True):
    """That an agent may add to a knowledge base, and how much of it is believed at once."""

    min_confidence: float = 0.8
    """From here on it becomes a document at once, below it waits for a person; above 1: all of it waits."""


class _Named(msgspec.Struct, frozen=True):
    name: str
    """Its name everywhere: in code, on the command line, in Postgres."""


class Knowledge(_Named, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that makes one knowledge base, but its documents. It holds no connection. What is not said stays as it was said before."""

    description: str = ""
    """What can be found in it: agents are told."""
    embedder: str | None = None
    """`local` (a small model from a wheel), `openai:...`, `compatible:http://...#model`. None: the one that it was made with, or `local`."""
    vision: str | None = None
    """The model that looks at images and says what they show, `openai:...` as agents have it. None: an image is found by what is
    written in its file; `none` ends what was said before. Another one, and all is read again."""
    chunking: Chunking = Chunking()
    search_config: SearchConfig = SearchConfig()

    def context(
        self,
        max_results: int = 5,
        *,
        search_type: SearchType | None = None,
        filters: dict[str, Any] | None = None,
    ) -> KnowledgeBinding:
        """For `Agent(knowledge=...)`: the best hits come with each question, and the agent has no tool to search."""
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
        """For `Agent(knowledge=...)`: a tool to search, within bounds that the model can't move."""
        searching = self.search_config
        return KnowledgeBinding(
            self,
            "tool",
            max_results or searching.max_results,
            search_type or searching.search_type,
            filters or {},
        )

    def with_feedback(self, min_confidence: float = 0.8) -> KnowledgeBinding:
        """For `Agent(knowledge=...)`: a tool to search, and one to add to it."""
        return self.tool().with_feedback(min_confidence)


class KnowledgeBinding(msgspec.Struct, frozen=True):
    """How one agent uses a knowledge base."""

    knowledge: Knowledge
    way: Literal["tool", "context"]
    max_results: int
    search_type: SearchType
    filters: dict[str, Any] = {}
    """Of the developer, not of the model."""
    feedback: FeedbackConfig | None = None

    def with_feedback(self, min_confidence: float = 0.8) -> KnowledgeBinding:
        """The same, and the agent may add to it."""
        return msgspec.structs.replace(self, feedback=FeedbackConfig(min_confidence))


def as_options(knowledge: Knowledge) -> dict[str, Any]:
    """What is said of it beside its name, to be kept in Postgres."""
    built: dict[str, Any] = msgspec.to_builtins(knowledge)
    return {name: value for name, value in built.items() if name != "name"}


def from_options(name: str, options: dict[str, Any]) -> Knowledge:
    """A knowledge base as Postgres knows it."""
    return msgspec.convert({**options, "name": name}, Knowledge)


def use_of(given: Knowledge | KnowledgeBinding) -> KnowledgeBinding:
    """A knowledge base handed to an agent as it is: it gets the tool to search."""
    return given if isinstance(given, KnowledgeBinding) else given.tool()


class Note(msgspec.Struct, frozen=True):
    """What an agent learned."""

    title: str
    content: str
    source: str
    """Where it has it from: a URL, a person, a run."""
    confidence: float
    """From 0 to 1, the agent's own."""
    author: str
    """The agent."""
    run_id: str | None = None
    metadata: dict[str, Any] = {}


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One hit that an agent was given, by the number under which it may cite it."""

    n: int
    uri: str
    content: str
    title: str | None = None
    heading: tuple[str, ...] = ()
    chunk: int = 0
    cited: bool = False
    """The answer names its number, as `[3]`, or its uri."""


class Progress(msgspec.Struct, frozen=True):
    """How far an ingestion is, as its rows stand."""

    run_id: str
    knowledge: str
    status: str
    """Of the run."""
    scanned: bool
    """Whether all sources are known; before that `total` still grows."""
    total: int
    documents: int
    """Read and kept."""
    unchanged: int
    duplicates: int
    failed: int
    removed: int
    chunks: int
    embedded: int
    """Chunks with a vector; `chunks` counts those that are searchable by keyword."""
    to_embed: int
    tokens: int
    bytes: int
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def settled(self) -> int:
        """Sources of which is known what became of them."""
        return self.documents + self.unchanged + self.duplicates + self.failed
