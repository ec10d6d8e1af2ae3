"""One ingestion from outside: how far it is, what failed, and how to end it or try again.

job = docs.ingest(["docs/"])                  # or client.ingest("docs", ["s3://bucket/"])
print(job.wait(timeout=600).failed, job.failures())
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from os.path import normpath
from pathlib import Path
from typing import Any

from agno_workers.core.run import Run
from agno_workers.errors import AgnoError, InvalidInput, WaitTimeout
from agno_workers.knowledge.store.bases import Failure, KnowledgeBases, SourceInput, new_id
from agno_workers.knowledge.types import Progress, Source
from agno_workers.runs.journal import Journal
from agno_workers.runs.queries import RunQueries, known_id
from agno_workers.runs.results import Results

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_NAME = re.compile(r"[\w][\w.-]{0,99}")
_MAGIC = re.compile(r"[*?\[]")


Sources = SourceInput | Path | Iterable[SourceInput | Path]
"""What callers hand in: one thing to ingest, or several."""


class Ingestion:
    """See the module. Making one asks nothing of the database; it is a run, so its id serves `runs show` as well."""

    def __init__(
        self, run_id: str, knowledges: KnowledgeBases, journal: Journal, look: RunQueries, results: Results
    ) -> None:
        self.id = known_id(run_id)
        self._knowledges = knowledges
        self._journal = journal
        self._look = look
        self._results = results

    def __repr__(self) -> str:
        return f"<Ingestion {self.id}>"

    @property
    def run(self) -> Run:
        """Its row as it stands now. Raises RunNotFound."""
        return self._look.run(self.id)

    def progress(self) -> Progress:
        """How far it is: documents, chunks, vectors, failures. Raises RunNotFound."""
        return self._knowledges.progress(self.id)

    def failures(self, limit: int = 100) -> list[Failure]:
        """What could not be brought in so far, and why."""
        return self._knowledges.failures(self.id, limit)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait for the end, at most `timeout` seconds. Documents that failed are no error: `failed` counts them.

        Raises RunFailed and RunCancelled where it did not come to its end, WaitTimeout (it goes on), RunNotFound.
        """
        run = self._results.wait(self.id, self._ended, timeout)
        if run is None:
            raise WaitTimeout(
                f"ingestion {self.id} has not ended within {timeout} s; it goes on. Wait again, or cancel it.",
                run_id=self.id,
            )
        if run.error is not None:
            raise AgnoError.from_json(run.error)
        return self.progress()

    def cancel(self) -> bool:
        """End it as cancelled: what is in stays in. False when it has ended already."""
        return self._journal.cancel(self.id)

    def pause(self) -> bool:
        """Let no further step of it begin; False when it has ended or is paused."""
        return self._journal.pause(self.id)

    def resume(self) -> bool:
        """Let it go on; False when it is not paused."""
        return self._journal.resume(self.id)

    def retry(self) -> Ingestion:
        """A new ingestion of what failed in this one, and of what it left undone where it was cancelled."""
        again = self._knowledges.rerun(self.id)
        self._journal.wake_keeper()
        return Ingestion(again.run_id, self._knowledges, self._journal, self._look, self._results)

    def _ended(self) -> Run | None:
        run = self.run
        return run if run.status.is_terminal else None


def named(name: str) -> str:
    """A name that a knowledge base can have, since it is written everywhere. Raises InvalidInput for another."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} can't be the name of a knowledge base: letters, digits, '_', '.' and '-' make one."
        )
    return name


def given(sources: Sources) -> list[SourceInput]:
    """What callers hand in, as a worker elsewhere understands it: paths are absolute.

    Raises InvalidInput for a path that is not here. Write `file:///...` for one that only workers can see.
    """
    if isinstance(sources, str | dict | Source | Path):
        return [_absolute(sources)]
    return [_absolute(each) for each in sources]


def options(
    metadata: dict[str, Any] | None = None, glob: str | Sequence[str] | None = None, *, batch: bool = False
) -> dict[str, Any]:
    """Options of an ingestion, without those that say nothing; see `storage.knowledge.ingest_request`."""
    said: dict[str, Any] = {"metadata": metadata, "glob": glob, "batch": batch}
    return {name: value for name, value in said.items() if value}


def document(
    text: str, *, uri: str | None = None, title: str | None = None, media_type: str = "text/plain",
    metadata: dict[str, Any] | None = None,
) -> Source:  # fmt: skip
    """A document whose text is at hand. Without a `uri` it is one of its own each time. Raises InvalidInput for no text."""
    if not text.strip():
        raise InvalidInput("the text is empty: there is nothing to be found in it.")
    return Source(
        uri=uri or f"text:{new_id()}",
        title=title,
        text=text,
        bytes=len(text.encode(errors="replace")),
        media_type=media_type,
        metadata=metadata or {},
    )


def _absolute(source: SourceInput | Path) -> SourceInput:
    match source:
        case dict() if isinstance(path := source.get("path"), str):
            return source | {"path": _path(path)}
        case str() if _ADDRESS.match(source):
            return source
        case str() | Path():
            return _path(str(source))
        case _:
            return source


def _path(text: str) -> str:
    """A path, or a glob: what stands before its first `*`, `?` or `[` must be here."""
    path = Path(normpath(Path.cwd() / Path(text).expanduser()))  # links stay: what they lead to may change
    solid = Path(*takewhile(lambda part: not _MAGIC.search(part), path.parts))
    if not text.strip() or not (path if solid == path else solid).exists():
        raise InvalidInput(
            f"{text!r} does not exist: name a file, a folder, or an address such as https://... or s3://..."
        )
    return str(path)
