"""Many runs submitted together: all of them or none, each once, and none is lost before its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from agno_workers import Agent, Batch, Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.core.messages import user
from agno_workers.core.run import RunStatus
from agno_workers.errors import InvalidInput, RunNotFound, WaitTimeout
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.batch import Batches, Common, Item
from agno_workers.sdk.batch import submit_many
from agno_workers.wiring import Services
from tests import invariants
from tests.agents import echo
from tests.conftest import ROOT, StartWorker, Worker
from tests.servers import Servers

WAIT_S = 60
EMPTY = {"run": 0, "message": 0, "step": 0, "batch": 0, "blob": 0}


@pytest.fixture(scope="session")
def servers(own_servers: Servers) -> Servers:
    """These tests kill Redis."""
    return own_servers


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def bulk(services: Services) -> Batches:
    return Batches(services.database.pool, services.database.journal, RunNumbers(inline_max_bytes=1024))


def rows(database: psycopg.Connection) -> dict[str, int]:
    return {table: value(database, f"SELECT count(*) FROM agno.{table}") for table in EMPTY}


def value(database: psycopg.Connection, statement: str, *params: Any) -> Any:
    row = database.execute(statement, params).fetchone()
    assert row is not None
    return row[0]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_the_runs_of_a_batch_are_done_and_their_results_have_the_positions_of_their_inputs(
    client: Client, worker: Worker, database_url: str
) -> None:
    batch = client.batches.submit("echo", numbers(300))
    found = dict(batch.results(timeout=WAIT_S))
    assert {position: run.content for position, run in found.items()} == {n: f"<{n}>" for n in range(300)}
    assert [run.content for run in batch.runs] == [f"<{n}>" for n in range(300)]
    progress = batch.wait(timeout=1)
    assert (progress.size, progress.done, progress.share, progress.eta_s) == (300, 300, 1.0, 0.0)
    invariants.hold(database_url)


def test_results_come_as_runs_end_and_the_wait_for_the_others_times_out(
    client: Client, services: Services
) -> None:
    batch = client.batches.submit("echo", numbers(3))
    runs = list(batch.runs)
    services.database.journal.cancel(runs[1].id)
    results = batch.results(timeout=0.3)
    position, run = next(results)
    assert (position, run.status) == (1, RunStatus.CANCELLED)
    assert run.error is not None
    with pytest.raises(WaitTimeout, match="and continues"):
        next(results)
    with pytest.raises(WaitTimeout, match=batch.id):
        batch.wait(timeout=0.1)


def test_results_that_were_timed_early_and_committed_late_are_not_missed(
    client: Client, database: psycopg.Connection
) -> None:
    batch = client.batches.submit("echo", numbers(3))
    ids = [run.id for run in batch.runs]

    def end(run_id: str, ago: str) -> None:
        statement = "UPDATE agno.run SET status = 'done', ended_at = now() - %s::interval WHERE id = %s"
        database.execute(statement, (ago, run_id))

    end(ids[2], "0 s")
    results = batch.results(timeout=5)
    assert next(results)[0] == 2
    end(ids[1], "1 s")
    assert next(results)[0] == 1
    end(ids[0], "1 hour")
    assert [position for position, _ in results] == [0]


def test_a_wrong_input_is_named_by_its_position_and_nothing_is_stored(
    client: Client, database: psycopg.Connection
) -> None:
    with pytest.raises(InvalidInput, match="input 2: the input of agent 'echo' is empty"):
        client.batches.submit("echo", ["a", "b", "  ", "d"])
    with pytest.raises(InvalidInput, match=r"input 1: .*can't be sent as JSON"):
        client.batches.submit("echo", ["a", object()])
    with pytest.raises(InvalidInput, match="input 1: it has no key"):
        client.batches.submit("echo", ["a", "b"], keys=["k"])
    with pytest.raises(InvalidInput, match="more keys than inputs"):
        client.batches.submit("echo", ["a"], keys=["k", "l"])
    with pytest.raises(InvalidInput, match="one str"):
        client.batches.submit("echo", "abc")
    with pytest.raises(InvalidInput, match=r"input 1: .* has 80,000 characters"):
        client.batches.submit("echo", ["a", "b"], keys=["k", os.urandom(40_000).hex()])
    with pytest.raises(InvalidInput, match="priority"):
        client.batches.submit("echo", ["a"], priority=10)
    with pytest.raises(InvalidInput, match="deadline_s"):
        client.batches.submit("echo", ["a"], deadline_s=0)
    with pytest.raises(InvalidInput, match="is not a UUID"):
        client.batches.submit("echo", ["a"], batch_id="batch-1")
    assert rows(database) == EMPTY


def test_error_while_reading_the_inputs_stores_nothing(client: Client, database: psycopg.Connection) -> None:
    def read() -> Iterator[str]:
        yield "a"
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        client.batches.submit("echo", read())
    assert rows(database) == EMPTY
    assert client.batches.submit("echo", ["a"]).size == 1


def test_client_killed_in_the_middle_of_the_copy_stores_nothing(
    environment: dict[str, str], database: psycopg.Connection, tmp_path: Path
) -> None:
    halfway = tmp_path / "halfway"
    program = f"""
import os, signal, pathlib
from agno_workers import Client

def inputs():
    for number in range(20_000):
        yield f"input {{number}}" * 10
    pathlib.Path({str(halfway)!r}).touch()
    signal.pause()

Client(os.environ["AGNO_DATABASE_URL"]).batches.submit("echo", inputs())
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=os.environ | environment)
    try:
        invariants.until(halfway.exists)
        copying = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%COPY pg_temp.agno_item%%' AND pid <> pg_backend_pid()"
        assert value(database, copying) == 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=WAIT_S)
    invariants.until(lambda: value(database, copying) == 0)
    assert rows(database) == EMPTY


def test_a_batch_without_inputs_is_done_at_once(client: Client) -> None:
    batch = client.batches.submit("echo", [])
    assert list(batch.results(timeout=1)) == []
    progress = batch.wait(timeout=1)
    assert (progress.size, progress.is_over, progress.share) == (0, True, 1.0)


def test_agent_map_uses_the_agents_queue_and_the_common_options(
    app: AgnoCelery, database: psycopg.Connection
) -> None:
    agent = Agent(name="echo", model="scripted:echo", queue="slow")
    batch = agent.map(
        ["a", "b"],
        priority=3,
        session_id="s\x00",
        user_id="u\tv\\",
        metadata={"order": 17, "text": "\x00\\"},
        deadline_s=60,
    )
    stored = database.execute(
        "SELECT DISTINCT r.queue, r.priority, r.session_id, r.user_id, r.metadata, s.queue, s.priority, s.max_attempts,"
        " extract(epoch FROM deadline_at - r.created_at)::float8 BETWEEN 59.9 AND 60"
        " FROM agno.run r JOIN agno.step s ON s.run_id = r.id WHERE r.batch_id = %s",
        (batch.id,),
    ).fetchall()
    assert stored == [("slow", 3, "s\ufffd", "u\tv\\", {"order": 17, "text": "\ufffd\\"}, "slow", 3, 5, True)]


def test_any_text_arrives_unchanged(client: Client, worker: Worker) -> None:
    texts = [
        "tab\tnewline\nreturn\rbackslash\\n \\N \\.",
        "\\.",
        'quotes " \' {"$blob": "x"}',
        "naïve 😀",
        "\\\\t",
    ]
    batch = client.batches.submit("echo", texts)
    assert [run.content for _, run in sorted(batch.results(timeout=WAIT_S))] == [
        f"<{text}>" for text in texts
    ]


def test_large_inputs_are_stored_once_and_come_back_whole(bulk: Batches, client: Client, database: psycopg.Connection) -> None:  # fmt: skip
    large = "x" * 5000
    batch = submit_many(bulk, "echo", [large, "small", large, large + "y"], queue="agents")
    assert value(database, "SELECT count(*) FROM agno.blob") == 2
    asked = [client.runs.get(run.id).messages[0].text for run in batch.runs]
    assert asked == [large, "small", large, large + "y"]


def test_an_item_whose_key_is_taken_gets_the_run_that_has_it(
    client: Client, worker: Worker, database: psycopg.Connection
) -> None:
    before = client.runs.submit("echo", "first", idempotency_key="a")
    batch = client.batches.submit("echo", ["1", "first", "3", "1", "5"], keys=["b", "a", "c", "b", None])
    found = {position: (run.run_id, run.content) for position, run in batch.results(timeout=WAIT_S)}
    assert {position: content for position, (_, content) in found.items()} == {
        0: "<1>", 1: "<first>", 2: "<3>", 3: "<1>", 4: "<5>",
    }  # fmt: skip
    assert found[1][0] == before.id
    assert found[3][0] == found[0][0]
    assert value(database, "SELECT count(*) FROM agno.run") == 4
    progress = batch.progress()
    assert (progress.size, progress.done) == (5, 5)
    assert sorted(run.id for run in batch.runs) == sorted({run_id for run_id, _ in found.values()})


def test_keys_may_come_from_a_function_and_are_the_agents_own(client: Client, database: psycopg.Connection) -> None:  # fmt: skip
    first = client.batches.submit("echo", numbers(10), keys=lambda text: f"key-{text}")
    again = client.batches.submit("echo", numbers(10), keys=lambda text: f"key-{text}")
    other = client.batches.submit("shouter", numbers(10), keys=lambda text: f"key-{text}")
    assert [run.id for run in again.runs] == [run.id for run in first.runs]
    assert {run.agent for run in other.runs} == {"shouter"}
    assert value(database, "SELECT count(*) FROM agno.run") == 20
    assert value(database, "SELECT count(*) FROM agno.step") == 20


def test_batch_id_of_an_existing_batch_returns_that_batch(client: Client, database: psycopg.Connection) -> None:  # fmt: skip
    batch_id = str(uuid.uuid4())
    first = client.batches.submit("echo", numbers(3), batch_id=batch_id)

    unread = iter(numbers(3))
    again = client.batches.submit("echo", unread, batch_id=batch_id.upper())
    assert next(unread) == "0"
    assert again.id == first.id == batch_id
    assert rows(database) == {**EMPTY, "run": 3, "message": 3, "step": 3, "batch": 1}
    with pytest.raises(InvalidInput, match="belongs to agent 'echo'"):
        client.batches.submit("shouter", numbers(3), batch_id=batch_id)


def test_the_runs_of_a_batch_can_be_listed_alone(client: Client, services: Services) -> None:
    client.batches.submit("echo", numbers(3))
    batch = client.batches.submit("echo", ["a", "b"])
    assert sorted(item.asked for item in services.database.queries.runs(batch_id=batch.id)) == ["a", "b"]


def test_unknown_batch_is_an_error(client: Client) -> None:
    with pytest.raises(RunNotFound, match="is not in this database"):
        client.batches.get(str(uuid.uuid4())).progress()
    with pytest.raises(RunNotFound, match="is not a batch id"):
        client.batches.get("batch-1")


@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "blobs"])
def test_two_batches_with_the_same_keys_or_blobs_in_opposite_orders_neither_deadlock_nor_double(
    bulk: Batches, database: psycopg.Connection, keyed: bool
) -> None:
    """Let both copy all their items before the first continues, so that both insert at the same time."""
    count, together = 2000, threading.Barrier(2)

    def submit(order: range) -> str:
        def items() -> Iterator[Item]:
            for n in order:
                yield Item(user(f"{n} {'x' * 2000}"), f"key-{n}" if keyed else None)
            together.wait(timeout=30)

        batch_id = str(uuid.uuid4())
        assert bulk.submit(batch_id, items(), Common("echo", "agents"))
        return batch_id

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.map(submit, (range(count), range(count - 1, -1, -1)))
    made = count if keyed else 2 * count
    assert rows(database) == {"run": made, "message": made, "step": made, "batch": 2, "blob": count}
    assert ({run.id for run in bulk.runs(one)} == {run.id for run in bulk.runs(two)}) is keyed
    assert bulk.progress(one).queued == bulk.progress(two).queued == count


def test_two_submits_of_one_batch_id_at_the_same_time_make_one_batch(
    client: Client, database: psycopg.Connection
) -> None:
    batch_id, together = str(uuid.uuid4()), threading.Barrier(4)

    def submit(_: int) -> Batch:
        together.wait(timeout=30)
        return client.batches.submit("echo", numbers(500), batch_id=batch_id)

    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(submit, range(4)))
    assert {batch.size for batch in batches} == {500}
    assert rows(database) == {**EMPTY, "run": 500, "message": 500, "step": 500, "batch": 1}


def test_cancelled_batch_cancels_open_runs_and_discards_late_results(
    client: Client, services: Services, database_url: str
) -> None:
    before = client.runs.submit("echo", "first", idempotency_key="a")
    batch = client.batches.submit("echo", ["first", *numbers(449)], keys=["a", *[None] * 449])
    assert batch.cancel() == 450
    assert batch.cancel() == 0
    assert before.status is RunStatus.CANCELLED
    progress = batch.wait(timeout=1)
    assert (progress.cancelled, progress.is_over) == (450, True)
    assert progress.cancelled_at is not None
    assert {run.generation for run in batch.runs} == {1}
    assert len(list(batch.results(timeout=5))) == 450
    invariants.hold(database_url)


def test_cancelled_batch_cancels_delegated_runs(client: Client, database: psycopg.Connection) -> None:
    batch = client.batches.submit("echo", numbers(2))
    child = client.runs.submit("echo", "delegated")
    parent = next(iter(batch.runs))
    database.execute("UPDATE agno.run SET parent_run_id = %s, depth = 1 WHERE id = %s", (parent.id, child.id))
    assert batch.cancel() == 2
    assert child.status is RunStatus.CANCELLED


def test_keeper_finishes_an_interrupted_cancel(
    bulk: Batches, client: Client, database: psycopg.Connection
) -> None:
    batch = client.batches.submit("echo", numbers(450))
    other = client.batches.submit("echo", numbers(3))
    database.execute(
        "UPDATE agno.batch SET cancelled_at = now() - interval '1 min' WHERE id = %s", (batch.id,)
    )
    cancelled = []
    while ended := bulk.cancel_abandoned():
        cancelled.append(ended)
    assert sum(cancelled) == 450
    assert max(cancelled) < 450
    assert batch.progress().cancelled == 450
    assert other.progress().queued == 3


def test_two_cancels_of_one_batch_at_the_same_time_cancel_each_run_once(client: Client) -> None:
    batch = client.batches.submit("echo", numbers(1000))
    with ThreadPoolExecutor(3) as threads:
        cancelled = list(threads.map(lambda _: batch.cancel(), range(3)))
    assert sum(cancelled) == 1000


def test_a_batch_that_is_submitted_while_redis_is_down_is_done_when_it_is_back(
    servers: Servers, worker: Worker, app: AgnoCelery, database_url: str
) -> None:
    servers.valkey.kill()
    try:
        batch = echo.map(numbers(250))
        assert batch.progress().queued == 250
    finally:
        servers.valkey.start()
    assert batch.wait(timeout=WAIT_S).done == 250
    invariants.hold(database_url)


def test_redis_that_loses_everything_during_a_batch_loses_no_run(
    client: Client, worker: Worker, redis_client: redis.Redis, database_url: str
) -> None:
    batch = client.batches.submit("echo", numbers(1000))
    for wiped_at in (100, 400, 700):
        invariants.until(lambda at=wiped_at: batch.progress().ended >= at)  # type: ignore[misc]
        redis_client.flushdb()
    assert batch.wait(timeout=WAIT_S).done == 1000
    assert sorted(position for position, _ in batch.results(timeout=5)) == list(range(1000))
    invariants.hold(database_url)


def test_worker_killed_during_a_batch_loses_no_run(
    client: Client, start_worker: StartWorker, database_url: str
) -> None:
    doomed = start_worker()
    batch = client.batches.submit("echo", numbers(400))
    invariants.until(lambda: batch.progress().ended >= 100)
    doomed.kill()
    start_worker()
    assert batch.wait(timeout=WAIT_S).done == 400
    invariants.hold(database_url)
