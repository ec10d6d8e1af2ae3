"""The demo's work: documents ingested and asked, a chord of runs, a run with eight tools; watching, and checking what the rows say."""

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
    """All documents of the demo's folder. The workers know the same knowledge base by their environment."""
    return replace(docs, name=knowledge, embedder=embedder).ingest(folder)


def submit_questions(questions: Sequence[str], session: str) -> None:
    for question in questions:
        helper.delay(question, session_id=session)


def submit_pipeline(documents: Sequence[Document], session: str) -> None:
    """A run for each document, side by side, and the editor's run over what they wrote, once all are in."""
    header = [analyst.s(doc.text, session_id=session, metadata={"document": doc.name}) for doc in documents]
    chord(header, editor.s(session_id=session)).delay()


def submit_research(documents: Sequence[Document], session: str) -> None:
    names = "\n".join(doc.name for doc in documents)
    researcher.delay(f"Look into these files:\n{names}", session_id=session)


@dataclass
class Watched:
    """A run as it stands, and the text that it has written so far."""

    run: Run
    text: str = ""
    _last: str = "0-0"

    @property
    def name(self) -> str:
        return str(self.run.metadata.get("document", ""))


@dataclass
class Watch:
    """Looks at all runs of a session."""

    look: RunQueries
    streams: Streams
    session: str
    leave_out: frozenset[str] = frozenset()
    """Ids of runs that were watched before."""
    _seen: dict[str, Watched] = field(default_factory=dict)

    def now(self) -> list[Watched]:
        """In the order in which they were submitted."""
        for item in reversed(self.look.runs(session_id=self.session, limit=1000)):
            if item.run.id in self.leave_out:
                continue
            watched = self._seen.setdefault(item.run.id, Watched(item.run))
            if not watched.run.status.is_terminal:
                watched.run = item.run
                self._read(watched)
        return list(self._seen.values())

    def _read(self, watched: Watched) -> None:
        if watched.run.status is RunStatus.QUEUED:
            return
        for piece in self.streams.read(watched.run.id, watched._last):
            watched._last = piece.id
            watched.text += piece.text


@dataclass(frozen=True)
class Told:
    """All that the database tells of one run."""

    run: Run
    steps: list[Step]
    transcript: list[Message]


def told(look: RunQueries, session: str) -> list[Told]:
    """Of all runs of a session, in the order in which they were submitted."""
    runs = [item.run for item in reversed(look.runs(session_id=session, limit=1000))]
    return [Told(run, look.steps(run.id), look.transcript(run.id)) for run in runs]


def problems(tellings: Sequence[Told], documents: Sequence[Document]) -> list[str]:
    """What did not go as it should have; empty when all did."""
    found = [text for telling in tellings for text in _problems_of(telling)]
    read = Counter(
        telling.run.metadata.get("document") for telling in tellings if telling.run.agent == "analyst"
    )
    if read != Counter(doc.name for doc in documents):
        found.append(f"each document should have been read by one run, and they were by {dict(read)}")
    for agent in ("editor", "researcher"):
        number = sum(telling.run.agent == agent for telling in tellings)
        if number != 1:
            found.append(f"{agent} should have run once, and did {number} times")
    research = [step for telling in tellings if telling.run.agent == "researcher" for step in telling.steps]
    calls = sum(step.kind is StepKind.TOOL for step in research)
    if calls != TOOL_CALLS:
        found.append(f"{TOOL_CALLS} tools should have been called, and {calls} were")
    return found


def _problems_of(telling: Told) -> list[str]:
    """A run must be done; each of its steps recorded once, with one message each behind the one that asked."""
    run, steps, found = telling.run, telling.steps, []
    if run.status is not RunStatus.DONE:
        message = (run.error or {}).get("message", "no reason is recorded")
        return [f"{run.agent} {run.id} is {run.status}: {message}"]
    if wrong := [step.key for step in steps if step.status is not StepStatus.DONE]:
        found.append(f"{run.agent} {run.id}: not done: {', '.join(wrong)}")
    if len({step.key for step in steps}) != len(steps) or len(telling.transcript) != 1 + len(steps):
        found.append(f"{run.agent} {run.id}: {len(steps)} steps left {len(telling.transcript) - 1} messages")
    parts = [part for message in telling.transcript for part in message.parts]
    errors = [part for part in parts if isinstance(part, ToolResult) and part.is_error]
    return found + [f"tool {part.name}: {part.content}" for part in errors]


def without_sources(asked: Sequence[tuple[Run, Sequence[Reference]]]) -> list[str]:
    """Answers that should name where they have it from, and do not."""
    return [
        f"helper {run.id} answered without a source: {str(run.content)[:80]!r}"
        for run, references in asked
        if run.status is RunStatus.DONE and not any(each.cited for each in references)
    ]


def forget_former(services: Services, prefix: str) -> None:
    """Remove the knowledge bases of demos that were before this one."""
    for row in services.database.knowledge.all():
        if row.name.startswith(prefix):
            services.database.knowledge.remove(row.name)


def cancel_unfinished(services: Services, session: str) -> int:
    """Cancel what has not ended of the sessions whose name begins so; gives how many runs that were."""
    unfinished = [status for status in RunStatus if not status.is_terminal]
    listed = [
        item.run
        for status in unfinished
        for item in services.database.queries.runs(status=status, limit=10_000)
    ]
    ours = [run.id for run in listed if (run.session_id or "").startswith(session)]
    return sum(services.database.journal.cancel(run_id) for run_id in ours)
