"""One database and one worker per module, because the canvas tests are many and small."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from celery import Celery
from celery.canvas import Signature
from kombu import Exchange, Queue
from psycopg import sql

from agno_workers import Client, wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.local import LocalServers
from tests import invariants
from tests.conftest import ROOT, Worker
from tests.contract.canvas import shop

WAIT_S = 30
"""The timeout of a result; only a failing test waits so long."""
PLAIN = ("-I", "tests.contract.canvas.plain")
"""The option of a worker that imports the plain tasks."""

DUE = """
    UPDATE agno.delayed_task SET due_at = now(), message = jsonb_set(message, '{headers,eta}', '"2026-01-01T00:00:00+00:00"')"""
"""Let the time of all delayed tasks come."""

Plain = Callable[..., Signature]


@pytest.fixture(scope="module")
def database_url(servers: LocalServers, template: str) -> Iterator[str]:
    """A migrated database for the whole module."""
    name = f"canvas_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to read the rows."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def redis_client(servers: LocalServers) -> Iterator[redis.Redis]:
    """A Redis that is empty when the module begins."""
    client = redis.Redis.from_url(servers.redis_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture(scope="module")
def environment(database_url: str, servers: LocalServers, redis_client: redis.Redis) -> dict[str, str]:
    """`AGNO_*` of a process that uses this module's database and Redis."""
    return {
        "AGNO_DATABASE_URL": database_url,
        "AGNO_BROKER_URL": servers.broker_url,
        "AGNO_CONFIG": str(ROOT / "config" / "test.toml"),
        "AGNO_IMPORTS": "tests.agents",
    }


@pytest.fixture(scope="module")
def app(environment: dict[str, str]) -> Iterator[AgnoCelery]:
    """The Celery app of this process, as `agent.delay` uses it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AGNO_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        wiring.forget()
        yield wiring.celery_app()
        wiring.forget()


@pytest.fixture(scope="module")
def worker(environment: dict[str, str]) -> Iterator[Worker]:
    """One worker for both queues, with the plain tasks."""
    started = Worker(environment, "agents,tools", "threads", 8, *PLAIN)
    yield started
    started.kill()


@pytest.fixture(scope="module")
def client(environment: dict[str, str], servers: LocalServers) -> Iterator[Client]:
    with Client(environment["AGNO_DATABASE_URL"], servers.redis_url) as thin:
        yield thin


@pytest.fixture(scope="module")
def plain(app: AgnoCelery) -> Plain:
    """Return the signature of a plain task: `plain("add", 1, 2)`."""

    def signature(name: str, *args: Any, **kwargs: Any) -> Signature:
        return app.signature(f"plain.{name}", args=args, kwargs=kwargs)

    return signature


@pytest.fixture(scope="module")
def stranger(servers: LocalServers) -> Iterator[Celery]:
    """A Celery app that knows only the broker."""
    celery = Celery("stranger", broker=servers.broker_url, set_as_current=False)
    yield celery
    celery.close()


@pytest.fixture(scope="module")
def customer(servers: LocalServers, app: AgnoCelery) -> Iterator[Celery]:
    """The shop's app in a process that sends."""
    celery = shop.connected(servers.broker_url)
    yield celery
    celery.close()


@pytest.fixture
def by_topic(stranger: Celery) -> Iterator[dict[str, Any]]:
    """Options of a message that reaches the queue `agents` by an exchange that no worker knows."""
    with stranger.connection_for_write() as connection:
        queue = Queue("agents", Exchange("media", type="topic"), routing_key="media.#")
        yield {"queue": queue, "routing_key": "media.agents", "connection": connection}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A file; the tool `hold` runs until it is deleted."""
    path = tmp_path / "held"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def _invariants(worker: Worker, app: AgnoCelery, database_url: str) -> Iterator[None]:
    yield
    invariants.hold(database_url)


def sections(*results: str) -> str:
    """Return the answer of `echo` as the body of a chord with these results."""
    numbered = [f"[{number}]\n{result}" for number, result in enumerate(results, 1)]
    return "<" + "\n\n".join(numbered) + ">"


def run_of(celery: Celery, agent: str, *inputs: Any, **asked: Any) -> Signature:
    """Return the signature with which an app without our code submits a run."""
    return celery.signature(
        "agno.run", args=inputs, kwargs={"agent": agent, **asked}, options={"queue": "agents"}
    )
