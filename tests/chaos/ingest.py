"""`./run chaos-ingest FOLDER`: the same documents twice, first without faults, then while workers are killed and Redis is wiped.

Then chunks and vectors must be the same: none twice, none missing. Which of two equal documents is the first, and so has the
chunks, is chance: so chunks are compared by the text that they are of, and documents by their uris.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import redis
from rich.console import Console

from agno_workers import Knowledge, local, wiring
from agno_workers.database import migrate
from agno_workers.knowledge.types import Progress
from agno_workers.local import LocalServers
from agno_workers.sdk.ingestion import Ingestion
from tests.chaos.cluster import ROOT, Fleet, celery_command
from tests.chaos.ours import environment, telling, temporary, violated
from tests.chaos.plan import WORKERS

Say = Callable[[str], None]

_DOCUMENTS = """
    SELECT d.uri, encode(d.text_sha256, 'hex') FROM agno.document d JOIN agno.knowledge k ON k.id = d.knowledge_id
    WHERE k.name = %s ORDER BY 1"""
_CHUNKS = """
    SELECT encode(d.text_sha256, 'hex'), c.position, encode(c.hash, 'hex'), c.live, count(e.chunk_id), md5(string_agg(e.embedding::text, ','))
    FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id JOIN agno.knowledge k ON k.id = d.knowledge_id
    LEFT JOIN agno.chunk_embedding e ON e.chunk_id = c.id
    WHERE k.name = %s GROUP BY d.id, c.id ORDER BY 1, 2, 3"""


class Options(msgspec.Struct, frozen=True):
    folder: str
    seed: int
    kill_every_s: float = 2.0
    wipes: int = 2
    embedder: str = "hash:384"
    settle_s: float = 900.0


class Verdict(msgspec.Struct, frozen=True):
    """The result; `broken` is empty when every promise was kept."""

    counters: dict[str, Any]
    broken: list[str]


def run(options: Options, say: Say) -> Verdict:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(temporary()))
        servers = stack.enter_context(local.servers(folder, fsync=True))
        stack.enter_context(telling(folder, servers))
        migrate.upgrade(servers.database_url)
        settings = {
            "AGNO_DATABASE_URL": servers.database_url,
            "AGNO_BROKER_URL": servers.broker_url,
            "AGNO_CONFIG": str(ROOT / "config" / "test.toml"),
        }
        commands = {name: celery_command("agno_workers", name, "-Q", "knowledge") for name in WORKERS}
        fleet = Fleet(commands, dict.fromkeys(WORKERS, settings), folder)
        stack.callback(fleet.stop)
        stack.enter_context(environment(settings))
        fleet.start()
        return _play(options, servers, fleet, say)


def _play(options: Options, servers: LocalServers, fleet: Fleet, say: Say) -> Verdict:
    say("in peace")
    peace_s, peace = _ingest(options, "peace", lambda _: None, say)
    rows = {"peace": _rows(servers.database_url, "peace")}
    wiring.services().database.knowledge.remove(
        "peace"
    )  # a text that has a vector in another base would get that one
    say(
        f"under faults: a worker is killed each {options.kill_every_s:g} s, Redis wiped {options.wipes} times"
    )
    faults = _Faults(options, servers, fleet, peace.total)
    storm_s, storm = _ingest(options, "storm", faults.look, say)
    again_s, again = _ingest(options, "storm", lambda _: None, say)
    rows["storm"] = _rows(servers.database_url, "storm")
    counters = {
        "documents": storm.total,
        "chunks": len(rows["storm"][1]),
        "kill -9 of a worker": faults.kills,
        "FLUSHALL": faults.wipes,
        "failed": storm.failed,
        "seconds in peace": round(peace_s, 1),
        "seconds under faults": round(storm_s, 1),
        "seconds of the same again": round(again_s, 2),
        "unchanged the second time": again.unchanged,
        "missing or different": len(set(rows["peace"][1]) ^ set(rows["storm"][1])),
        "vectors twice or missing": sum(row[4] != 1 for row in rows["storm"][1]),
    }
    broken = different(rows["peace"], rows["storm"]) + violated(servers.database_url)
    return Verdict(counters, broken)


Rows = tuple[list[Any], list[Any]]
"""The documents and the chunks of a knowledge base, as rows of the statements above."""


def different(peace: Rows, storm: Rows) -> list[str]:
    """Return a sentence for each row that is missing, extra or duplicated under faults."""
    found = []
    for what, expected, there in zip(("document", "chunk"), peace, storm, strict=True):
        found += [f"a {what} is missing: {row}" for row in sorted(set(expected) - set(there))[:10]]
        found += [f"a {what} is too much: {row}" for row in sorted(set(there) - set(expected))[:10]]
        if len(there) > len(set(there)):
            found.append(f"{len(there) - len(set(there))} {what}(s) are there twice")
    return found + [f"a chunk has {row[4]} vectors: {row[:3]}" for row in storm[1] if row[4] != 1][:10]


def _ingest(
    options: Options, name: str, look: Callable[[Progress], None], say: Say
) -> tuple[float, Progress]:
    """Wait until it has ended; `look` is called ten times a second."""
    began = told = time.monotonic()
    job: Ingestion = Knowledge(name, embedder=options.embedder).ingest([options.folder])
    pause = threading.Event()
    while (progress := job.progress()).ended_at is None:
        look(progress)
        if time.monotonic() > told + 5:
            told = time.monotonic()
            say(
                f"{told - began:6.1f} s  {progress.settled} of {progress.total} documents, {progress.chunks} chunks, {progress.embedded} vectors"
            )
        if told > began + options.settle_s:
            raise RuntimeError(
                f"the ingestion {job.id} has not ended within {options.settle_s:g} s: {progress}"
            )
        pause.wait(0.1)
    return time.monotonic() - began, progress


class _Faults:
    """Kill a worker every few seconds, and wipe Redis when a third, two thirds ... of the documents are stored."""

    def __init__(self, options: Options, servers: LocalServers, fleet: Fleet, total: int) -> None:
        self._dice = random.Random(options.seed)
        self._servers = servers
        self._fleet = fleet
        self._every_s = options.kill_every_s
        self._wipe_at = [total * (place + 1) // (options.wipes + 1) for place in range(options.wipes)]
        self._next_kill = time.monotonic() + options.kill_every_s
        self.kills = self.wipes = 0

    def look(self, progress: Progress) -> None:
        if time.monotonic() >= self._next_kill:
            self._next_kill += self._every_s
            self._fleet.signal(self._dice.choice(WORKERS), signal.SIGKILL)
            self.kills += 1
        if self.wipes < len(self._wipe_at) and progress.settled >= self._wipe_at[self.wipes]:
            with redis.Redis.from_url(self._servers.redis_url, socket_timeout=10) as client:
                client.flushall()
            self.wipes += 1


def _rows(url: str, name: str) -> Rows:
    with psycopg.connect(url) as connection:
        return (
            connection.execute(_DOCUMENTS, [name]).fetchall(),
            connection.execute(_CHUNKS, [name]).fetchall(),
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run chaos-ingest",
        description="Brings the files of a folder in twice, once while workers are killed and Redis is wiped, and compares. On "
        "servers of its own. Exit 1: a promise was broken.",
    )  # fmt: skip
    parser.add_argument("folder", help="of documents")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="of the choice of workers (7)")
    parser.add_argument(
        "--kill-every", type=float, default=2.0, metavar="N", help="seconds between two kills (2)"
    )
    parser.add_argument("--wipes", type=int, default=2, metavar="N", help="of Redis (2)")
    parser.add_argument("--embedder", default="hash:384", help="(hash:384)")
    parser.add_argument("--what", default="documents", help="what the documents are, for the JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counters there")
    given = parser.parse_args()
    folder = str(Path(given.folder).resolve())
    options = Options(folder, given.seed, given.kill_every, given.wipes, given.embedder)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False)
    verdict = run(options, console.print)
    for name, value in verdict.counters.items():
        console.print(f"{name:32} {value}")
    for line in verdict.broken:
        console.print(f"BROKEN: {line}")
    if given.json:
        shown = {
            "what": given.what,
            "seed": given.seed,
            "counters": verdict.counters,
            "broken": verdict.broken,
        }
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(shown)) + b"\n")
    return int(bool(verdict.broken))


if __name__ == "__main__":
    sys.exit(main())
