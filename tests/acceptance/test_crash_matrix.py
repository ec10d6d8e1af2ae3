"""The crash matrix, cell by cell (docs/crash_matrix.md): a process dies at a named place, and what was promised holds.

Real workers, servers and signals. Bounds are counted in rounds of the keeper, not in seconds: a slow machine is no failure.
The cells run in parallel, in lanes with their own workers and database; each test waits for its cell.
Faults of whole servers are in test_crashes.py.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from tests.acceptance.matrix.cases import ALL, Case
from tests.acceptance.matrix.cells import Cell
from tests.acceptance.matrix.fleet import Fleet
from tests.conftest import ROOT
from tests.places import named
from tests.servers import Servers

LANES = ("children", "children", "machines", "machines", "machines")
FLEETS = {
    "children": {
        "pool": "prefork",
        "size": 1,
        "lease_s": 600.0,
    },  # nobody waits for a lease when a child dies
    "machines": {"pool": "threads", "size": 3},
}


@pytest.fixture(scope="module")
def environments(servers: Servers, template: str) -> Iterator[Callable[[int], dict[str, str]]]:
    """`AGNO_*` of the lane of that number: a database and a Redis of its own."""
    names: list[str] = []

    def environment(number: int) -> dict[str, str]:
        name = f"matrix_{uuid.uuid4().hex[:12]}"
        query = "CREATE DATABASE {} TEMPLATE {}"
        _execute(servers, sql.SQL(query).format(sql.Identifier(name), sql.Identifier(template)))
        names.append(name)
        lane = servers.numbered(servers.number + 1 + number)
        with redis.Redis.from_url(lane.redis_url) as client:
            client.flushdb()
        return {
            "AGNO_DATABASE_URL": named(servers.database_url, name),
            "AGNO_BROKER_URL": lane.broker_url,
            "AGNO_CONFIG": str(ROOT / "config" / "test.toml"),
            "AGNO_IMPORTS": "tests.agents,tests.programs",
        }

    yield environment
    for name in names:
        _execute(servers, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest,
    servers: Servers,
    environments: Callable[[int], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[None]]]:
    """What becomes of each cell that is asked for."""
    asked = [item.callspec.params["cell"] for item in request.session.items if _has_cell(item, request)]  # type: ignore[attr-defined]  # of parametrised items
    futures: dict[str, Future[None]] = {cell.id: Future() for cell in asked}
    todo = {lane: deque(cell for cell in asked if cell.lane == lane) for lane in FLEETS}
    stopping: list[bool] = []

    def work(number: int, lane: str) -> None:
        if not todo[lane]:
            return
        options: dict[str, Any] = FLEETS[lane]
        redis_url = servers.numbered(servers.number + 1 + number).redis_url
        fleet = Fleet(environments(number), tmp_path_factory.mktemp(lane), redis_url=redis_url, **options)
        try:
            while not stopping:
                cell = todo[lane].popleft()
                try:
                    run_cell(cell, fleet, tmp_path_factory.mktemp("cell"))
                except BaseException as error:  # pytest.fail is no Exception
                    futures[cell.id].set_exception(error)
                else:
                    futures[cell.id].set_result(None)
        except IndexError:
            pass  # no cell is left
        finally:
            fleet.close()

    with ThreadPoolExecutor(len(LANES)) as lanes:
        working = [lanes.submit(work, number, lane) for number, lane in enumerate(LANES, 1)]
        for lane in working:
            lane.add_done_callback(lambda done: _tell(futures, done.exception()))
        yield futures
        stopping.append(True)


@pytest.mark.parametrize("cell", ALL, ids=[cell.id for cell in ALL])
def test_nothing_is_lost_and_nothing_doubled(cell: Cell | Case, outcomes: dict[str, Future[None]]) -> None:
    outcomes[cell.id].result()


def run_cell(cell: Cell | Case, fleet: Fleet, folder: Path) -> None:
    try:
        cell.run(fleet, folder)
    except BaseException:
        fleet.abandon()
        raise
    fleet.settle()


def _tell(futures: dict[str, Future[None]], error: BaseException | None) -> None:
    """A lane that can't work says so to all who wait."""
    for future in futures.values():
        if error is not None and not future.done():
            future.set_exception(error)


def _has_cell(item: pytest.Item, request: pytest.FixtureRequest) -> bool:
    return item.path == request.path and "cell" in getattr(getattr(item, "callspec", None), "params", {})


def _execute(servers: Servers, statement: sql.Composed) -> None:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(statement)
