"""A handle for an ingestion: progress, failures, cancel, retry.

job = docs.ingest(["docs/"])                  # or client.knowledge("docs").ingest(["s3://bucket/"])
print(job.wait(timeout=600).failed, job.failures())
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from os.path import normpath
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from agno_workers.core.words import without_none
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.store.bases import Failure, SourceInput, new_id
from agno_workers.knowledge.types import Progress, Rows, Source
from agno_workers.sdk.handles import RunControl

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_NAME = re.compile(r"[\w][\w.-]{0,99}")
_MAGIC = re.compile(r"[*?\[]")


Sources = SourceInput | Path | Iterable[SourceInput | Path]
"""One source or several."""


class SignatureOptions(TypedDict, total=False):
    """Options of an ingestion in a canvas."""

    idempotency_key: str | None
    """When an earlier ingestion of the base has this key, that ingestion is returned."""
    deadline_s: float | None
    """Seconds from the submit to its end."""
    session_id: str | None
    """Stored with the run."""
    user_id: str | None
    """Stored with the run; keys belong to a user."""


class IngestOptions(SignatureOptions, total=False):
    """Options of an ingestion."""

    queue: str | None
    """The Celery queue; None: the setting `queues.knowledge`."""
    priority: int | None
    """From 0 (first) to 9 (last)."""


class Ingestion(RunControl):
    """One ingestion. It is a run: `runs show` takes its id as well.

    Making a handle asks nothing of the database; its verbs raise RunNotFound and Unavailable.
    """

    _noun = "ingestion"

    def progress(self) -> Progress:
        """Count documents, chunks, vectors and failures. Raises RunNotFound."""
        return self._database.knowledge.progress(self.id)

    def complete(self) -> int:
        """Count the documents of this ingestion that are in with all their vectors, also those that were in before."""
        return self._database.knowledge.complete(self.id)

    def failures(self, limit: int = 100) -> list[Failure]:
        """List at most `limit` of the sources that failed so far, with their reasons."""
        return self._database.knowledge.failures(self.id, limit)

    def wait(self, timeout: float | None = None) -> Progress:
        """Wait for the end, at most `timeout` seconds. Failed documents are not an error: `failed` counts them, and
        `refused` the chunks without a vector. An ingestion fails if all its documents failed, or it could make no vector.

        Raises RunFailed or RunCancelled if it did not complete, WaitTimeout (it continues), RunNotFound.
        """
        self._wait(timeout)
        return self.progress()

    def retry(self) -> Ingestion:
        """Submit a new ingestion of the failed and unfinished sources of this one."""
        again = self._database.knowledge.rerun(self.id)
        self._database.submissions.wake_keeper()
        return Ingestion(again.run_id, self._database)


def named(name: object) -> str:
    """Return a valid name of a knowledge base. Raises InvalidInput for an invalid one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is not a valid name of a knowledge base: use letters, digits, '_', '.' and '-'."
        )
    return name


def given(sources: Sources) -> list[SourceInput]:
    """Return the sources with absolute paths, as workers need them.

    Raises InvalidInput for a path that does not exist here. Use `file:///...` for a path that only workers can see.
    """
    if isinstance(sources, str | dict | Source | Path):
        return [_absolute(sources)]
    several: Any = sources
    return [_absolute(each) for each in (several if isinstance(several, Iterable) else [several])]


def options(
    metadata: dict[str, Any] | None = None,
    glob: str | Sequence[str] | None = None,
    *,
    batch: bool = False,
    rows: Rows | None = None,
) -> dict[str, Any]:
    """Return the options of an ingestion without empty ones; see `store.bases.ingest_request`."""
    if not isinstance(metadata, dict | None):
        raise InvalidInput(f"metadata is {metadata!r}: expected a dict, such as {{'team': 'docs'}}.")
    said = {
        "metadata": metadata,  # empty: the documents lose theirs
        "glob": glob or None,
        "batch": batch or None,
        "rows": None if rows is None else msgspec.to_builtins(rows),
    }
    return without_none(said)


def document(
    text: str, *, uri: str | None = None, title: str | None = None, media_type: str = "text/plain"
) -> Source:
    """Return the source of a text. Without a `uri` it gets a new one. Raises InvalidInput for an empty text."""
    if not text.strip():
        raise InvalidInput("the text is empty: pass some text.")
    return Source(
        uri=uri or f"text:{new_id()}",
        title=title,
        text=text,
        bytes=len(text.encode(errors="replace")),
        media_type=media_type,
    )


def _absolute(source: SourceInput | Path) -> SourceInput:
    match source:
        case dict() if isinstance(path := source.get("path"), str):
            return source | {"path": _path(path)}
        case str() if _ADDRESS.match(source):
            return source
        case str() | Path():
            return _path(str(source))
        case dict() | Source():
            return source
        case _:
            raise InvalidInput(f"a source is {source!r}: pass a path, an address, a dict, or a list of them.")


def _path(text: str) -> str:
    """Return an absolute path or glob. The part before the first `*`, `?` or `[` must exist."""
    path = Path(normpath(Path.cwd() / Path(text).expanduser()))  # links are kept: their targets may change
    solid = Path(*takewhile(lambda part: not _MAGIC.search(part), path.parts))
    if not text.strip() or not (path if solid == path else solid).exists():
        raise InvalidInput(
            f"{text!r} does not exist: pass a file, a folder, or an address such as https://... or s3://..."
        )
    return str(path)
