"""An ingestion while workers die and Redis forgets: every chunk and every vector is there, once, as without faults."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import redis

from agno_workers.knowledge.embedders import resolve
from agno_workers.knowledge.reading import Reading
from agno_workers.knowledge.sources.files import uri_of
from agno_workers.knowledge.store.bases import KnowledgeBases
from agno_workers.knowledge.types import Chunking, Prepared, Progress, Raw, Source
from agno_workers.wiring import Services
from tests import invariants
from tests.acceptance.matrix.fleet import Fleet
from tests.conftest import StartWorker

PLACES = (
    "scan.claimed", "scan.found", "scan.recorded", "ingest.claimed", "ingest.read", "ingest.recorded", "embed.claimed", "embed.made",
    "embed.recorded", "finalize.claimed", "finalize.removed", "finalize.recorded",
)  # fmt: skip
SMALL = {
    "AGNO_KNOWLEDGE__BATCH_DOCUMENTS": "5",
    "AGNO_KNOWLEDGE__EMBED_TOKENS": "1500",
    "AGNO_KNOWLEDGE__EMBED_WINDOW": "3",
}
OPTIONS = {"embedder": "hash:32", "chunking": {"max_chars": 200}}
DEATHS = 6
WORDS = [f"word{number}" for number in range(400)]


class Kept(NamedTuple):
    uri: str
    position: int
    hash: str
    live: bool
    vector: bytes


@pytest.fixture
def knowledges(services: Services) -> KnowledgeBases:
    return services.database.knowledge


@pytest.fixture
def fleet(environment: dict[str, str], tmp_path: Path, services: Services) -> Iterator[Fleet]:
    """Three workers for knowledge; who dies is replaced."""
    started = Fleet(environment | SMALL, tmp_path, pool="threads", size=3, queues="knowledge")
    yield started
    started.close()


def written(folder: Path, many: int, seed: int = 1) -> Path:
    """So many small documents of some paragraphs."""
    chance = random.Random(seed)
    folder.mkdir(exist_ok=True)
    for number in range(many):
        paragraphs = [" ".join(chance.choices(WORDS, k=25)) for _ in range(chance.randint(2, 6))]
        (folder / f"{number:03}.txt").write_text("\n\n".join(paragraphs))
    return folder


def begin(services: Services, knowledges: KnowledgeBases, name: str, folder: Path) -> str:
    knowledges.ensure(name, OPTIONS)
    submitted = knowledges.submit(name, [str(folder)])
    assert submitted.send is not None
    services.dispatch.send([submitted.send])
    return submitted.run_id


def ended(knowledges: KnowledgeBases, run_id: str, timeout_s: float = 120) -> Progress:
    invariants.until(lambda: knowledges.progress(run_id).ended_at is not None, timeout_s)
    return knowledges.progress(run_id)


def kept(services: Services, name: str) -> list[Kept]:
    """Each chunk and each vector of a knowledge base, whatever their ids are."""
    rows = services.database.pool.run(
        """SELECT d.uri, c.position, encode(c.hash, 'hex') AS hash, c.live, e.embedding::text AS vector
           FROM agno.knowledge k JOIN agno.document d ON d.knowledge_id = k.id LEFT JOIN agno.chunk c ON c.document_id = d.id
           LEFT JOIN agno.chunk_embedding e ON e.chunk_id = c.id WHERE k.name = %(name)s""",
        {"name": name},
    )
    return sorted(
        Kept(row["uri"], row["position"], row["hash"], row["live"], _half(json.loads(row["vector"])))
        for row in rows
    )


def wanted(folder: Path) -> list[Kept]:
    """The same, as it must be: read and embedded here."""
    chunking, embedder, found = msgspec.convert(OPTIONS["chunking"], Chunking), resolve("hash:32"), []
    items = [(Source(uri_of(str(path))), Raw(path.read_bytes())) for path in sorted(folder.iterdir())]
    with closing(Reading(1)) as reading:
        results = reading.prepare(items, chunking)
    for (source, _), prepared in zip(items, results, strict=True):
        assert isinstance(prepared, Prepared)
        vectors = embedder.embed([chunk.embedded for chunk in prepared.chunks])
        found += [
            Kept(source.uri, chunk.position, chunk.hash.hex(), True, _half(vector))
            for chunk, vector in zip(prepared.chunks, vectors, strict=True)
        ]
    return sorted(found)


def _half(vector: Any) -> bytes:
    return np.asarray(vector, np.float16).tobytes()


@pytest.mark.timeout(300)
def test_whoever_dies_at_whichever_place_nothing_is_lost_and_nothing_is_there_twice(
    services: Services, knowledges: KnowledgeBases, fleet: Fleet, tmp_path: Path
) -> None:
    folder = written(tmp_path / "documents", 40)
    for place in PLACES:
        fleet.arm(place)
    run_id = begin(services, knowledges, "docs", folder)

    def all_died() -> bool:
        fleet.fill()
        return not any(fleet.is_armed(place) for place in PLACES)

    invariants.until(all_died, 200)
    assert ended(knowledges, run_id).status == "done"
    assert kept(services, "docs") == wanted(folder)
    fleet.settle()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_die_each_second_and_redis_forgets_twice_and_all_is_as_without_faults(
    services: Services, knowledges: KnowledgeBases, fleet: Fleet, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """And again with every document edited, until that has happened often enough."""
    tick, deaths, rounds = threading.Event(), 0, 0
    while deaths < DEATHS and rounds < 8:
        rounds += 1
        folder = written(tmp_path / "documents", 160, seed=rounds)
        run_id = begin(services, knowledges, "docs", folder)
        while knowledges.progress(run_id).ended_at is None:
            tick.wait(1.0)
            if len(fleet.workers) == 3:  # the one that has lived longest: it has work in its hands
                fleet.workers[0].kill(signal.SIGKILL)
                deaths += 1
                if deaths in (2, 4):
                    redis_client.flushdb()
            fleet.fill()
        progress = knowledges.progress(run_id)
        assert (progress.status, progress.documents, progress.failed, progress.to_embed) == (
            "done",
            160,
            0,
            0,
        )
        assert progress.chunks == progress.embedded
        assert kept(services, "docs") == wanted(folder)
    assert deaths >= DEATHS
    fleet.settle()


@pytest.mark.timeout(200)
def test_a_document_that_kills_its_worker_each_time_fails_alone(
    services: Services, knowledges: KnowledgeBases, start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = written(tmp_path / "documents", 9)
    (folder / "005-poison.txt").write_text("poison")
    start_worker(queues="knowledge", pool="prefork", concurrency=2, AGNO_IMPORTS="tests.poison", AGNO_KNOWLEDGE__BATCH_DOCUMENTS="5")  # fmt: skip
    run_id = begin(services, knowledges, "docs", folder)
    progress = ended(knowledges, run_id)
    assert (progress.status, progress.documents, progress.failed) == ("done", 9, 1)
    (failure,) = knowledges.failures(run_id)
    assert failure.uri.endswith("005-poison.txt")
    assert failure.message == "its worker died in each of 3 attempts"
    assert progress.chunks == progress.embedded > 0
