"""One Postgres and one Valkey for all processes of a test session, and private pairs for tests that kill servers.

    python -m tests.servers FOLDER PID

starts the shared pair, prints a line when both answer, and ends them when process PID ends, even by SIGKILL. The first test
process that needs servers runs it; each then works in databases of its own. A private pair starts from a copy of the same
cluster, so initdb and the migrations run once.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from agno_workers.database import migrate
from agno_workers.local import LocalServers, Postgres, Valkey
from agno_workers.local.supervisor import ProcessSpec
from agno_workers.registry import Registry
from agno_workers.repositories import Database
from agno_workers.runs.agents import RegisteredAgent

ROOT = Path(__file__).parent.parent
TEMPLATE = "agno_template"
"""The migrated database in each cluster that tests copy."""
DATABASES = 1024
DATABASES_A_PROCESS = 16


class RoomyPostgres(Postgres):
    """A Postgres with connections for the workers of all test processes, and few buffers, because many servers start."""

    def _spec(self) -> ProcessSpec:
        spec = super()._spec()
        return replace(
            spec, command=[*spec.command, "-c", "max_connections=800", "-c", "shared_buffers=64MB"]
        )


class RoomyValkey(Valkey):
    """A Valkey with a logical database for each test process."""

    def _spec(self) -> ProcessSpec:
        spec = super()._spec()
        return replace(spec, command=[*spec.command, "--databases", str(DATABASES)])


@dataclass(frozen=True)
class Servers(LocalServers):
    """A running pair, with the logical database of Valkey that a test works in."""

    number: int = 0

    @property
    def broker_url(self) -> str:
        return f"{self.valkey.broker_url}?virtual_host={self.number}"

    @property
    def redis_url(self) -> str:
        return f"{self.valkey.redis_url}?db={self.number}"

    def numbered(self, number: int) -> Servers:
        """The same pair, another logical database."""
        return replace(self, number=number)


def shared(folder: Path, parent: int, process: int) -> Servers:
    """Return the session's pair for test process number `process`; start it if no process has yet."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            _start(folder, parent)
    return _pair(folder / "shared", process * DATABASES_A_PROCESS)


def private(folder: Path, seed: Path) -> Servers:
    """Start a pair in `folder` that one test process may kill. `seed` is the folder of the shared pair."""
    subprocess.run(["cp", "-a", seed / "seed", folder], check=True)
    pair = _pair(folder)
    try:
        pair.valkey.start()
        pair.postgres.start()
    except BaseException:
        pair.stop()
        raise
    return pair


def _pair(folder: Path, number: int = 0) -> Servers:
    return Servers(RoomyPostgres(folder, fsync=False), RoomyValkey(folder), number)


def _start(folder: Path, parent: int) -> None:
    log = folder / "servers.log"
    command = [sys.executable, "-m", "tests.servers", str(folder), str(parent)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"the test servers did not start:\n{log.read_text()}")
    process.stdout.close()
    process.returncode = 0  # it outlives this process: no warning that it still runs


def _make_seed(folder: Path) -> None:
    """Make a stopped cluster with the migrated template in it."""
    with Postgres(folder, fsync=False) as postgres:
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        url = postgres.url_of(TEMPLATE)
        migrate.upgrade(url)
        with Database(url) as database:  # as a worker with AGNO_IMPORTS=tests.agents does
            agents = Registry.importing("tests.agents").all()
            database.agents.register(RegisteredAgent(agent.name, agent.queue or "agents") for agent in agents)


def main(folder: Path, parent: int) -> None:
    """Run the shared pair until `parent` ends."""
    handle = os.pidfd_open(parent)
    try:
        _make_seed(folder / "seed")
        pair = private(folder / "shared", folder)
        try:
            (folder / "ready").touch()
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            select.select([handle], [], [])
        finally:
            pair.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
