"""Submit the demo's work (an ingestion, questions, a chord, a run with eight tools), watch it, and check its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from celery import chord
from msgspec.structs import replace

from agno_workers.core.messages import Message, ToolResult
from agno_workers.core.run import Run, RunStatus, Step, StepKind, StepStatus
from agno_workers.knowledge.types import Reference
from agno_workers.local.demo.agents import analyst, docs, editor, helper, researcher
from agno_workers.local.demo.documents import Document
from agno_workers.runs.queries import RunQueries
from agno_workers.sdk.ingestion import Ingestion
from agno_workers.streams import Streams
from agno_workers.wiring import Services

TOOL_CALLS = 8


def submit_ingestion(folder: Path, knowledge: str, embedder: str) -> Ingestion:
    """Ingest the demo's folder. The workers learn of the knowledge base from their environment."""
    return replace(docs, name=knowledge, embedder=embedder).ingest(folder)


def submit_questions(questions: Sequence[str], session: str) -> None:
    for question in questions:
        helper.delay(question, session_id=session, if_busy="parallel")


def submit_pipeline(documents: Sequence[Document], session: str) -> None:
    """Submit a chord: an analyst's run for each document in parallel, then the editor's run over their texts."""
    header = [
        analyst.s(doc.text, session_id=session, if_busy="parallel", metadata={"document": doc.name})
        for doc in documents
    ]
    chord(header, editor.s(session_id=session, if_busy="parallel")).delay()


def submit_research(documents: Sequence[Document], session: str) -> None:
    names = "\n".join(doc.name for doc in documents)
    researcher.delay(f"Look into these files:\n{names}", session_id=session, if_busy="parallel")


@dataclass
class Watched:
    """A run, and the text that it has streamed so far."""

    run: Run
    text: str = ""
    _last_id: str = "0-0"

    @property
    def name(self) -> str:
        return str(self.run.metadata.get("document", ""))


@dataclass
class Watch:
    """Reads all runs of a session."""

    queries: RunQueries
    streams: Streams
    session: str
    skip: frozenset[str] = frozenset()
    """Ids of runs to leave out."""
    _seen: dict[str, Watched] = field(default_factory=dict)

    def now(self) -> list[Watched]:
        """Return the runs in the order of their submission."""
        for item in reversed(self.queries.runs(session_id=self.session, limit=1000)):
            if item.run.id in self.skip:
                continue
            watched = self._seen.setdefault(item.run.id, Watched(item.run))
            if not watched.run.status.is_terminal:
                watched.run = item.run
                self._read(watched)
        return list(self._seen.values())

    def _read(self, watched: Watched) -> None:
        if watched.run.status is RunStatus.QUEUED:
            return
        for piece in self.streams.read(watched.run.id, watched._last_id):
            watched._last_id = piece.id
            watched.text += piece.text


@dataclass(frozen=True)
class Recorded:
    """The rows of one run."""

    run: Run
    steps: list[Step]
    transcript: list[Message]


def recorded(queries: RunQueries, session: str) -> list[Recorded]:
    """Return the rows of a session's runs, in the order of their submission."""
    runs = [item.run for item in reversed(queries.runs(session_id=session, limit=1000))]
    return [Recorded(run, queries.steps(run.id), queries.transcript(run.id)) for run in runs]


def problems(rows: Sequence[Recorded], documents: Sequence[Document]) -> list[str]:
    """Return a sentence for each thing that went wrong."""
    found = [text for each in rows for text in _problems_of(each)]
    read = Counter(each.run.metadata.get("document") for each in rows if each.run.agent == "analyst")
    if read != Counter(doc.name for doc in documents):
        found.append(f"each document needs one analyst's run, and the runs are {dict(read)}")
    for agent in ("editor", "researcher"):
        number = sum(each.run.agent == agent for each in rows)
        if number != 1:
            found.append(f"{agent} ran {number} times instead of once")
    research = [step for each in rows if each.run.agent == "researcher" for step in each.steps]
    calls = sum(step.kind is StepKind.TOOL for step in research)
    if calls != TOOL_CALLS:
        found.append(f"the researcher called {calls} tools instead of {TOOL_CALLS}")
    return found


def _problems_of(each: Recorded) -> list[str]:
    """Check that a run is done, and that each step left one message after the input."""
    run, steps, found = each.run, each.steps, []
    if run.status is not RunStatus.DONE:
        message = (run.error or {}).get("message", "no reason is recorded")
        return [f"{run.agent} {run.id} is {run.status}: {message}"]
    if wrong := [step.key for step in steps if step.status is not StepStatus.DONE]:
        found.append(f"{run.agent} {run.id}: not done: {', '.join(wrong)}")
    if len({step.key for step in steps}) != len(steps) or len(each.transcript) != 1 + len(steps):
        found.append(f"{run.agent} {run.id}: {len(steps)} steps left {len(each.transcript) - 1} messages")
    parts = [part for message in each.transcript for part in message.parts]
    errors = [part for part in parts if isinstance(part, ToolResult) and part.is_error]
    return found + [f"tool {part.name}: {part.content}" for part in errors]


def without_sources(asked: Sequence[tuple[Run, Sequence[Reference]]]) -> list[str]:
    """Return a sentence for each answer that cites no source."""
    return [
        f"helper {run.id} cited no source: {str(run.content)[:80]!r}"
        for run, references in asked
        if run.status is RunStatus.DONE and not any(each.cited for each in references)
    ]


def remove_earlier(services: Services, prefix: str) -> None:
    """Remove the knowledge bases of earlier demos."""
    for row in services.database.knowledge.all():
        if row.name.startswith(prefix):
            services.database.knowledge.remove(row.name)


def cancel_unfinished(services: Services, prefix: str) -> int:
    """Cancel the unfinished runs of all sessions with this prefix; return their number."""
    unfinished = [status for status in RunStatus if not status.is_terminal]
    listed = [
        item.run
        for status in unfinished
        for item in services.database.queries.runs(status=status, limit=10_000)
    ]
    ours = [run.id for run in listed if (run.session_id or "").startswith(prefix)]
    return sum(services.database.journal.cancel(run_id) for run_id in ours)
