"""Bringing documents in: ours beside LangChain, LlamaIndex, agno, and the floor of one process that checks nothing.

All have the same files and an embedder that costs next to nothing, chunks of at most 1,000 characters, and a database each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from agno_workers import Knowledge, wiring
from agno_workers.knowledge.types import Progress
from agno_workers.types import Chunking
from benchmarks.corpus import Corpus
from benchmarks.processes import tree_bytes
from benchmarks.report import Report, Row
from benchmarks.stage import ROOT, Options, Stage, stage

PEERS = {"langchain": "LangChain", "llama_index": "LlamaIndex", "agno": "agno"}
_WAIT_S = 900.0
_WORKER = Options(concurrency=16)
_INDEXES = "SELECT count(*) FROM pg_indexes WHERE indexdef ~ 'USING (hnsw|ivfflat)'"


def run(options: Options) -> Report:
    corpus = Corpus(options.pick(2000, 60))
    rounds = options.pick(2, 1)
    with stage() as on_stage:
        folder = on_stage.folder / "documents"
        corpus.write(folder)
        played = [_round(on_stage, options, folder, number) for number in range(rounds)]
        edited = corpus.edit(folder)
        again = _edited(on_stage, options, folder, rounds - 1)
        told = _after_a_refusal(on_stage, options, folder) if options.agno_python.exists() else []
        setting = on_stage.setting()
    count = len(corpus.texts)
    rows = [
        Row(
            measure="documents per second", unit="/s", ours=tuple(count / each["ours"]["seconds"] for each in played),
            peer=tuple(count / each[peer]["seconds"] for each in played), against=who,
            aim=">= 0.6x" if peer == "floor" else "", readme=peer in ("floor", "agno"),
        )
        for peer, who in {"floor": "one process with COPY only", **PEERS}.items() if peer in played[0]
    ]  # fmt: skip
    rows += [
        Row(
            measure="the same, and an HNSW index of all vectors", unit="/s", ours=tuple(count / each["ours"]["indexed_s"] for each in played),
            peer=tuple(count / each["floor"]["seconds"] for each in played), against="the same process, without an index",
        ),
        Row(
            measure="ingesting unchanged documents again", unit="s", ours=tuple(each["ours"]["again_s"] for each in played),
            peer=tuple(each["ours"]["seconds"] for each in played), against="the first time", aim="<= 0.02x",
        ),
        Row(
            measure=f"texts embedded after an edit of {edited} documents", unit="", ours=(float(again["ours"]),),
            peer=(float(again["langchain"]),) if "langchain" in again else (), against="LangChain",
        ),
        Row(measure="memory of the worker and its reading children, after it", unit="B", ours=tuple(float(each["ours"]["bytes"]) for each in played), aim="<= 200 MiB"),
    ]  # fmt: skip
    return Report(
        name="ingest",
        title=f"{count} documents of 6 kB into a knowledge base",
        setting=f"{setting}; a stub embedder (384 dimensions), chunks of 1,000 characters; ours: one worker, -P {_WORKER.pool} -c {_WORKER.concurrency}",
        rows=tuple(rows),
        notes=tuple(told),
    )


def _round(on_stage: Stage, options: Options, folder: Path, number: int) -> dict[str, dict[str, Any]]:
    """Everybody once, each in a new database; every other round goes backwards."""
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: _ours(on_stage, folder, f"knowledge-{number}"),
        **{
            peer: lambda peer=peer: _peer(on_stage, options, peer, folder, f"{peer}_{number}")  # type: ignore[misc]
            for peer in ("floor", *PEERS)
            if options.agno_python.exists() or peer == "floor"
        },
    }
    order = list(sides) if number % 2 == 0 else list(reversed(sides))
    return {side: sides[side]() for side in order}


def _ours(on_stage: Stage, folder: Path, name: str) -> dict[str, Any]:
    _forget_all()  # a text that has a vector in another base would not be embedded again
    knowledge = _knowledge(name)
    with _worker(on_stage) as pid:
        took_s, indexed_s, progress = _first_s(knowledge, folder)
        assert progress.documents == len(list(folder.iterdir())), progress
        assert progress.failed == 0, progress
        assert progress.embedded == progress.chunks, progress
        again_s, again = _ingest_s(knowledge, folder)
        assert again.unchanged == progress.documents, again
        return {"seconds": took_s, "indexed_s": indexed_s, "again_s": again_s, "bytes": tree_bytes(pid)}


def _forget_all() -> None:
    knowledges = wiring.services().database.knowledge
    for known in knowledges.all():
        knowledges.remove(known.name)


def _edited(on_stage: Stage, options: Options, folder: Path, number: int) -> dict[str, int]:
    """How many texts are embedded after an edit."""
    with _worker(on_stage):
        found = {"ours": _ingest_s(_knowledge(f"knowledge-{number}"), folder)[1].embedded}
    if options.agno_python.exists():
        for peer in PEERS:
            found[peer] = _peer(on_stage, options, peer, folder, f"{peer}_{number}", again=True)["embedded"]
    return found


def _knowledge(name: str) -> Knowledge:
    return Knowledge(name, embedder="hash:384", chunking=Chunking(max_chars=1000, max_tokens=512))


@contextmanager
def _worker(on_stage: Stage) -> Iterator[int]:
    """One worker process for knowledge, warm: it has read and embedded a document of each kind."""
    with on_stage.celery(
        "agno_workers",
        _WORKER,
        "-Q",
        "knowledge",
        name="ours",
        AGNO_KNOWLEDGE__SOURCE_ROOTS=str(on_stage.folder),
    ) as pid:
        Knowledge("warm", embedder="hash:384").add("A first document, to be warm.").wait(timeout=120)
        yield pid


def _first_s(knowledge: Knowledge, folder: Path) -> tuple[float, float, Progress]:
    """Until every chunk has its vector and can be found, as the peers end; and until its index is built, too, which they lack."""
    began, tick = perf_counter(), threading.Event()
    job = knowledge.ingest([str(folder)])
    while (now := job.progress()).total == 0 or now.settled < now.total or now.embedded < now.chunks:
        if now.ended_at is not None:
            break  # it failed: `wait` raises the reason
        tick.wait(0.02)
    took_s = perf_counter() - began
    job.wait(timeout=_WAIT_S)
    return took_s, perf_counter() - began, job.progress()


def _ingest_s(knowledge: Knowledge, folder: Path) -> tuple[float, Progress]:
    began = perf_counter()
    job = knowledge.ingest([str(folder)])
    job.wait(timeout=_WAIT_S)
    return perf_counter() - began, job.progress()


def _peer(
    on_stage: Stage, options: Options, peer: str, folder: Path, database: str, *, again: bool = False, fail_at: int | None = None
) -> dict[str, Any]:  # fmt: skip
    url = on_stage.servers.database_url
    more = ["--again"] if again else []
    more += ["--fail-at", str(fail_at)] if fail_at is not None else []
    if not again:
        folder.with_suffix(".docstore.json").unlink(missing_ok=True)  # LlamaIndex's memory of a round before
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    own = urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
    program = ROOT / "benchmarks" / "peers" / f"ingest_{peer}.py"
    python = options.agno_python if options.agno_python.exists() else sys.executable
    command = [str(python), str(program), own, str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["failed"] and fail_at is None:
        raise RuntimeError(f"{peer} failed: {found['failed']}")
    return found


def _after_a_refusal(on_stage: Stage, options: Options, folder: Path) -> list[str]:
    """Describe what each peer has stored after the embedder refused one text late in the ingestion, and whether it has an index for vectors."""
    files, told = len(list(folder.iterdir())), []
    for peer, who in PEERS.items():
        database = f"{peer}_refused"
        (folder.with_suffix(".docstore.json")).unlink(
            missing_ok=True
        )  # LlamaIndex's memory of the rounds before
        found = _peer(on_stage, options, peer, folder, database, fail_at=6 * files)
        url = urlunsplit(urlsplit(on_stage.servers.database_url)._replace(path=f"/{database}"))
        with psycopg.connect(url) as connection:
            (indexes,) = connection.execute(_INDEXES).fetchone() or (0,)
        told.append(
            f"{who}, refused one text by the embedder: {found['documents']} of {files} documents can be found; "
            f"{indexes or 'no'} index for vectors"
        )
    return told
