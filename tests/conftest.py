"""Real servers for everybody: one Postgres and one Valkey a test session, a fresh database a test, real workers on demand."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from psycopg import sql

from agno_workers import Client, local, wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.database import migrate
from agno_workers.local import LocalServers
from agno_workers.settings import Settings, load
from agno_workers.wiring import Services

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def servers() -> Iterator[LocalServers]:
    """Postgres and Valkey of this session."""
    folder = Path(tempfile.mkdtemp(prefix="agno-tests-"))
    try:
        with local.servers(folder, fsync=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(servers: LocalServers) -> str:
    """The name of a migrated database, to be copied for each test."""
    name = "agno_template"
    _execute(servers, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate.upgrade(_named(servers.database_url, name))
    return name


@pytest.fixture
def database_url(servers: LocalServers, template: str) -> Iterator[str]:
    """A fresh migrated database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(
        servers,
        sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)),
    )
    yield _named(servers.database_url, name)
    _execute(servers, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def redis_client(servers: LocalServers) -> Iterator[redis.Redis]:
    """An empty Redis."""
    client = redis.Redis.from_url(servers.redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def environment(database_url: str, servers: LocalServers, redis_client: redis.Redis) -> dict[str, str]:
    """`AGNO_*` for a process that works on this test's database and Redis."""
    return {
        "AGNO_DATABASE_URL": database_url,
        "AGNO_BROKER_URL": servers.broker_url,
        "AGNO_CONFIG": str(ROOT / "config" / "test.toml"),
        "AGNO_IMPORTS": "tests.agents",
    }


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("AGNO_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load()


@pytest.fixture
def app(settings: Settings) -> Iterator[AgnoCelery]:
    """The Celery app of this process, as `agent.delay` uses it."""
    wiring.forget()
    yield wiring.celery_app()
    wiring.forget()


@pytest.fixture
def services(app: AgnoCelery) -> Services:
    """This process's services, on this test's database."""
    return wiring.services()


@pytest.fixture
def client(environment: dict[str, str], servers: LocalServers) -> Iterator[Client]:
    """A thin client, as another service would use it."""
    with Client(environment["AGNO_DATABASE_URL"], servers.redis_url) as thin:
        yield thin


class Worker:
    """A real worker process, ready when this returns. Its output is kept in `lines`."""

    def __init__(
        self, environment: dict[str, str], queues: str, pool: str, concurrency: int, *more: str
    ) -> None:
        command = [sys.executable, "-m", "celery", "-A", "agno_workers", "worker", "-Q", queues, "-P", pool]
        command += ["-c", str(concurrency), "-l", "INFO", "-n", f"{uuid.uuid4().hex[:6]}@test", *more]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGNO_")}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for("ready.")

    def wait_for(self, text: str, timeout_s: float = 60) -> str:
        """The first line from now on that holds `text`; fails with all that the worker said."""
        while True:
            try:
                line = self._news.get(timeout=timeout_s)
            except queue.Empty:
                line = None
            if line is None:
                pytest.fail(f"the worker never said {text!r}:\n{''.join(self.lines)}")
            if text in line:
                return line

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill the worker with all its children, as a machine that dies does."""
        try:
            os.killpg(self.process.pid, how)
        except ProcessLookupError:
            return
        if how is signal.SIGKILL:
            self.process.wait(timeout=30)

    def stop(self) -> int:
        """Ask it to end, as a deploy does; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        finally:
            self.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(environment: dict[str, str]) -> Iterator[StartWorker]:
    """Starts workers: `start_worker(queues="agents,tools", pool="threads", concurrency=8, **AGNO_settings)`."""
    started: list[Worker] = []

    def start(
        *more: str, queues: str = "agents,tools", pool: str = "threads", concurrency: int = 8, **changed: str
    ) -> Worker:
        worker = Worker(environment | changed, queues, pool, concurrency, *more)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    """One worker for both queues."""
    return start_worker()


def _execute(servers: LocalServers, statement: sql.Composed) -> None:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(statement)


def _named(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
