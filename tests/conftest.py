"""Real servers for everybody: one Postgres and one Valkey a test session, a clean database a test, real workers on demand."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from agno_workers import Client, wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.settings import Settings, load
from agno_workers.wiring import Services
from tests.places import Place, Places
from tests.servers import TEMPLATE, Servers, private, shared
from tests.worker import ROOT, Worker

__all__ = ["ROOT", "StartWorker", "Worker"]

# Programs under test inherit an ignored SIGINT, which shells set for background jobs; they must receive Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `--hypothesis-profile full` looks longer for what nobody has thought of.
for name, max_examples in {"quick": 10, "usual": 50, "full": 500}.items():
    hypothesis.settings.register_profile(name, max_examples=max_examples, deadline=None)
hypothesis.settings.load_profile("usual")

PROCESSES = {"start_worker", "keep_worker", "start_program"}
"""Fixtures that start processes of ours."""
NOT_QUICK = (
    "tests/acceptance/", "tests/contract/canvas/", "tests/integration/local/", "tests/integration/knowledge/test_",
    "tests/integration/processes/", "tests/integration/test_flower.py", "tests/integration/runs/test_interleavings.py",
)  # fmt: skip
"""Tests that start processes by themselves, load models, or take long."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that start no worker and take no time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        dropped = [item for item in items if not _is_quick(item)]
        items[:] = [item for item in items if _is_quick(item)]
        config.hook.pytest_deselected(items=dropped)


def _is_quick(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    is_slow = item.get_closest_marker("slow") is not None
    return not (is_slow or fixtures & PROCESSES or item.nodeid.startswith(NOT_QUICK))


# Processes of xdist share the servers.


@pytest.fixture(scope="session")
def session_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of the session's servers, which delete it when they end."""
    session = getattr(request.config, "workerinput", {}).get("testrunuid", uuid.uuid4().hex)
    return Path(tempfile.gettempdir()) / f"agno-tests-{session[:12]}"


@pytest.fixture(scope="session")
def shared_servers(request: pytest.FixtureRequest, session_folder: Path) -> Servers:
    """Postgres and Valkey of this session, with a logical database for this process."""
    worker = getattr(request.config, "workerinput", {}).get("workerid")
    parent = os.getppid() if worker else os.getpid()
    return shared(session_folder, parent, int(worker.removeprefix("gw")) if worker else 0)


@pytest.fixture(scope="session")
def servers(shared_servers: Servers) -> Servers:
    """The servers of a test. A module whose tests kill them or change their configuration overrides this by `own_servers`."""
    return shared_servers


@pytest.fixture(scope="session")
def own_servers(shared_servers: Servers, session_folder: Path) -> Iterator[Servers]:
    """Postgres and Valkey of this process alone, for tests that kill them or change their configuration."""
    folder = session_folder / f"own-{os.getpid()}"
    pair = private(folder, session_folder)
    yield pair
    pair.stop()


@pytest.fixture(scope="session")
def template() -> str:
    """The name of a migrated database, to be copied."""
    return TEMPLATE


@pytest.fixture(scope="session")
def all_places() -> dict[Servers, Places]:
    """The places of each pair of servers."""
    return {}


@pytest.fixture
def place(
    request: pytest.FixtureRequest, servers: Servers, all_places: dict[Servers, Places]
) -> Iterator[Place]:
    """A clean database and a clean Redis. Live workers are in it only for a test that asks for them."""
    places = all_places.setdefault(servers, Places(servers))
    workers = "keep_worker" in request.fixturenames
    place = places.take(workers=workers)
    yield place
    places.put_back(place, workers=workers)


@pytest.fixture
def database_url(place: Place) -> str:
    """A clean migrated database."""
    return place.database_url


@pytest.fixture
def redis_client(place: Place) -> Iterator[redis.Redis]:
    """A clean Redis."""
    with redis.Redis.from_url(place.servers.redis_url) as client:
        yield client


@pytest.fixture
def environment(place: Place) -> dict[str, str]:
    """`AGNO_*` for a process that works on this test's database and Redis."""
    return {
        "AGNO_DATABASE_URL": place.database_url,
        "AGNO_BROKER_URL": place.servers.broker_url,
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
def client(place: Place) -> Iterator[Client]:
    """A thin client, as another service would use it."""
    with Client(place.database_url, place.servers.redis_url) as thin:
        yield thin


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


@pytest.fixture(scope="module")
def _workers_of_module(all_places: dict[Servers, Places]) -> Iterator[None]:
    yield
    for places in all_places.values():
        places.stop_workers()


@pytest.fixture
def keep_worker(_workers_of_module: None, place: Place, environment: dict[str, str]) -> StartWorker:
    """Like `start_worker`, but the worker stays alive for the module's other tests, so no test may end it or change it."""

    def keep(
        *more: str, queues: str = "agents,tools", pool: str = "threads", concurrency: int = 8, **changed: str
    ) -> Worker:
        return place.worker(environment | changed, queues, pool, concurrency, *more)

    return keep


@pytest.fixture
def worker(keep_worker: StartWorker) -> Worker:
    """One worker for both queues, which no test may end or change."""
    return keep_worker()
