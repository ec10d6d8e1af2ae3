"""Nothing accepted is lost while whole servers fail: cells of the crash matrix (docs/crash_matrix.md) that need servers of
their own. Deaths at named places are in test_crash_matrix.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import LiteralString
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.rows import dict_row

from agno_workers import Client, wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.broker.queues import EPOCH_KEY
from agno_workers.core.request import run_request
from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.core.step import Submitted
from agno_workers.database import identity
from agno_workers.database.connect import connect
from agno_workers.errors import RunNotFound, Unavailable
from agno_workers.sdk.verbs import RunResult
from agno_workers.wiring import Services
from tests import invariants
from tests.acceptance.matrix.cases import call, delegated
from tests.agents import boss, caller, echo, matrix, running, thinker
from tests.chaos.proxy import Mode, Network, Proxy
from tests.conftest import StartWorker, Worker
from tests.messages import Quarantined
from tests.refusals import refusing
from tests.servers import Servers
from tests.steps import execute_step, first_step

WAIT_S = 30
NEVER = "600"
"""Seconds: what comes sooner came by another way."""
SHORT = {"AGNO_RUNS__LEASE_S": "1.5", "AGNO_RUNS__RENEW_EVERY_S": "0.5"}
"""Where a lease has to run out."""


@pytest.fixture(scope="session")
def servers(own_servers: Servers) -> Servers:
    """These tests kill servers."""
    return own_servers


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    """One worker for both queues, for this test alone."""
    return start_worker()


@pytest.fixture(autouse=True)
def _nothing_is_left_over(database_url: str, start_worker: StartWorker) -> Iterator[None]:
    """After every crash the invariants hold, while the test's workers still live."""
    yield
    invariants.hold(database_url)
    invariants.usage_adds_up(database_url)


def test_c3_what_was_committed_but_never_published_is_published_by_the_keeper(
    services: Services, worker: Worker
) -> None:
    submitted = _submit_unpublished(services, "hi")
    assert RunResult(submitted.run_id, app=services.dispatch._app).get(timeout=WAIT_S) == "<hi>"


@pytest.mark.parametrize("how", ["flushed", "empty after a restart", "older after a failover"])
def test_c5_after_redis_lost_its_memory_all_that_is_ready_is_sent_again(
    how: str, services: Services, redis_client: redis.Redis, servers: Servers, start_worker: StartWorker, held: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    ledger = tmp_path / "ledger"
    start_worker(concurrency=1, AGNO_KEEPER__RESEND_AFTER_S=NEVER)
    busy = matrix.delay(call("hold", held))
    invariants.until(
        running(held)
    )  # the worker has a keeper, and no hand free; it takes one or two messages along
    waiting = [echo.delay(str(number)) for number in range(20)]
    calling, delegating = matrix.delay(call("look", ledger)), boss.delay(delegated(call("look", ledger)))
    for run in (calling, delegating):  # its tool, or the first turn of the run that it delegates to, is ready
        services.dispatch.publish(
            execute_step(services.engine, first_step(services.database.queries, run.id))
        )
    epoch = services.database.maintenance.epoch()
    invariants.until(lambda: _remembered(redis_client) > 1)
    before = _beat(services)
    match how:
        case "flushed":
            redis_client.flushdb()
        case "empty after a restart":
            servers.valkey.kill()
            servers.valkey.start(fresh=True)
        case _:
            redis_client.delete("agents", "tools")
            redis_client.set(EPOCH_KEY, f"{epoch} 1")
    invariants.until(lambda: sum(_length(redis_client, queue) for queue in ("agents", "tools")) >= 20)
    assert _beat(services) - before <= 7  # 3 s
    held.unlink()
    assert busy.get(timeout=WAIT_S) == "released"
    assert [run.get(timeout=WAIT_S) for run in waiting] == [f"<{number}>" for number in range(20)]
    assert [run.get(timeout=WAIT_S) for run in (calling, delegating)] == ["looked", "looked"]
    assert services.database.maintenance.epoch() == epoch


def test_c24_runs_of_a_session_keep_their_order_through_kills_and_a_wipe_of_redis(
    services: Services, redis_client: redis.Redis, start_worker: StartWorker, held: Path, tmp_path: Path
) -> None:
    """Some are many turns and tools long; a worker dies with the live run, and Redis forgets what it was sent."""
    ledger = tmp_path / "ledger"
    first, second = start_worker(**SHORT), start_worker(**SHORT)
    asked = [call("note", ledger) if place % 2 else call("look", ledger) for place in range(20)]
    asked[5] = asked[12] = call("hold", held)
    runs = [matrix.delay(each, session_id="s") for each in asked]
    ended = "SELECT count(*) AS ended FROM agno.run WHERE session_id = 's' AND ended_at IS NOT NULL"
    invariants.until(running(held))
    first.kill()
    redis_client.flushdb()
    start_worker(**SHORT)
    held.unlink()
    invariants.until(lambda: services.database.pool.run(ended)[0]["ended"] > 8)
    second.kill()
    redis_client.flushdb()
    said = [run.get(timeout=WAIT_S) for run in runs]
    assert [said[5], said[12]] == ["released", "released"]
    rows = services.database.pool.run(
        "SELECT id, session_position FROM agno.run WHERE session_id = 's' ORDER BY started_at"
    )
    assert [row["id"] for row in rows] == [run.id for run in runs]
    assert [row["session_position"] for row in rows] == list(range(1, 21))


def test_c6_a_message_that_a_dying_worker_took_along_is_sent_again(
    services: Services, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    redis_client.set(EPOCH_KEY, services.database.maintenance.epoch())
    runs = [echo.delay(f"{number}") for number in range(16)]
    assert redis_client.lmpop(1, "agents", direction="RIGHT", count=16) is not None  # as one round trip takes
    assert redis_client.llen("agents") == 0
    start_worker()
    assert [run.get(timeout=WAIT_S) for run in runs] == [f"<{number}>" for number in range(16)]


def test_c4_a_message_that_is_sent_twice_is_carried_once(
    services: Services, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    run = echo.delay("hi")
    message = redis_client.lindex("agents", 0)
    assert isinstance(message, bytes)
    redis_client.lpush("agents", message, message)
    worker = start_worker()
    assert run.get(timeout=WAIT_S) == "<hi>"
    for _ in range(3):
        worker.wait_for("Task agno.turn[")
    assert [step.attempt for step in run.handle.steps] == [1]


# A commit arrives, its answer does not.


@pytest.fixture
def line(servers: Servers) -> Iterator[Proxy]:
    """A line to Postgres that can lose answers."""
    folder = parse_qs(urlsplit(servers.database_url).query)["host"][0]
    with Network() as network:
        yield network.proxy(f"{folder}/.s.PGSQL.5432")


def through(line: Proxy, database_url: str) -> str:
    parts = urlsplit(database_url)
    return f"postgresql://{parts.netloc.rstrip('@')}@127.0.0.1:{line.port}{parts.path}"


def test_c10_a_submit_whose_answer_is_lost_is_safe_to_repeat(
    line: Proxy, database_url: str, services: Services, worker: Worker
) -> None:
    with Client(through(line, database_url), timeout_s=2) as client:
        client.runs.submit("echo", "warm").result(timeout=WAIT_S)
        line.set(Mode.LOSE_ANSWERS)
        with pytest.raises(Unavailable):
            client.runs.submit("echo", "hi", idempotency_key="k")
        line.set(Mode.PASS)
        (stored,) = services.database.pool.run("SELECT id FROM agno.run WHERE idempotency_key = 'k'")
        again = client.runs.submit("echo", "hi", idempotency_key="k")
        assert (again.id, again.result(timeout=WAIT_S)) == (stored["id"], "<hi>")


@pytest.mark.parametrize("kind", ["turn", "tool"])
def test_c10_a_result_whose_commit_was_not_answered_is_found_recorded(
    kind: str, line: Proxy, database_url: str, services: Services, start_worker: StartWorker, held: Path
) -> None:
    start_worker(AGNO_DATABASE_URL=through(line, database_url))
    run = thinker.delay(str(held)) if kind == "turn" else matrix.delay(call("hold", held))
    invariants.until(running(held))
    line.set(Mode.LOSE_ANSWERS)
    held.unlink()
    invariants.until(
        lambda: StepStatus.DONE in {step.status for step in run.handle.steps if step.kind == kind}
    )
    line.set(Mode.PASS)
    assert run.get(timeout=WAIT_S) == ("thought" if kind == "turn" else "released")
    assert {step.attempt for step in run.handle.steps} == {1}
    invariants.hold(database_url)  # before the test ends, which cuts off the worker


@pytest.mark.parametrize(
    ("tool", "attempts", "says"),
    [("note", 2, "noted"), ("send", 1, "!It is not known whether send took effect")],
)
def test_c10_a_claim_whose_commit_was_not_answered_expires_by_its_effect(
    tool: str, attempts: int, says: str, line: Proxy, database_url: str, services: Services, start_worker: StartWorker,
    tmp_path: Path,
) -> None:  # fmt: skip
    cut_off = start_worker(queues="tools", AGNO_DATABASE_URL=through(line, database_url), **SHORT)
    runs = [matrix.delay(call(each, tmp_path / "ledger")) for each in ("look", tool)]
    before, owed = [
        execute_step(services.engine, first_step(services.database.queries, run.id)) for run in runs
    ]
    services.dispatch.publish(before)  # so that the worker is connected
    cut_off.wait_for("succeeded in")
    run = runs[1]
    line.set(Mode.LOSE_ANSWERS)
    services.dispatch.publish(owed)
    cut_off.wait_for("raised unexpected")
    assert run.handle.steps[1].attempt == 1
    line.set(Mode.PASS)
    start_worker(**SHORT)
    assert run.get(timeout=WAIT_S).startswith(says)
    assert [step.attempt for step in run.handle.steps if step.name] == [attempts]


# A cancel.


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_c16_a_cancel_reaches_a_tool_of_a_delegated_run_within_a_heartbeat_without_remote_control(
    start_worker: StartWorker, services: Services, redis_client: redis.Redis, tmp_path: Path, pool: str
) -> None:
    renewal = {"AGNO_RUNS__LEASE_S": NEVER, "AGNO_RUNS__RENEW_EVERY_S": "1"}
    start_worker("--", "worker.enable_remote_control=false", pool=pool, concurrency=4, **renewal)
    run = boss.delay(delegated(call("listen", tmp_path / "tool")))
    invariants.until(running(tmp_path / "tool"))
    before = _beat(services)
    assert run.handle.cancel()
    invariants.until((tmp_path / "tool.heard").exists)
    assert not redis_client.exists("_kombu.binding.celery.pidbox")  # nobody listens to remote control
    assert _beat(services) - before <= 11  # 5 s; a renewal comes each second


# Servers that are away.


def test_c17_while_redis_is_down_work_is_accepted_and_recorded_and_goes_on_when_it_is_back(
    servers: Servers, worker: Worker, app: AgnoCelery, held: Path
) -> None:
    working = matrix.delay(call("hold", held))
    invariants.until(running(held))
    servers.valkey.kill()
    try:
        submitted = echo.delay("hi")
        assert submitted.run_status is RunStatus.QUEUED
        held.unlink()
        invariants.until(lambda: working.handle.steps[1].status == StepStatus.DONE)
    finally:
        servers.valkey.start()
    assert [run.get(timeout=WAIT_S) for run in (submitted, working)] == ["<hi>", "released"]
    assert {step.attempt for run in (submitted, working) for step in run.handle.steps} == {1}


@pytest.mark.parametrize("name", ["READONLY", "MISCONF", "NOPERM of a command", "WRONGTYPE", "NOAUTH"])
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_c23_while_redis_refuses_commands_work_is_accepted_and_goes_on_afterwards(
    pool: str, name: str, keep_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, held: Path
) -> None:
    worker = keep_worker("--without-mingle", pool=pool, concurrency=2)
    working = matrix.delay(call("hold", held))
    invariants.until(running(held))
    worker.forget_lines()
    with refusing(redis_client, name) as refused:
        worker.wait_for("this worker takes no messages")
        submitted = echo.delay("hi")
        assert submitted.run_status is RunStatus.QUEUED
        held.unlink()
        invariants.until(lambda: working.handle.steps[1].status == StepStatus.DONE)
    assert [run.get(timeout=WAIT_S) for run in (submitted, working)] == ["<hi>", "released"]
    assert {step.attempt for run in (submitted, working) for step in run.handle.steps} == {1}
    (told,) = [line for line in worker.lines if "this worker takes no messages" in line]
    assert refused.told in told
    assert len(worker.lines) < 30


def test_c23_while_redis_is_full_queues_are_emptied_and_the_keeper_sends_the_rest_afterwards(
    worker: Worker, app: AgnoCelery, redis_client: redis.Redis
) -> None:
    queued = echo.delay("queued")
    redis_client.config_set("maxmemory", "1")
    try:
        submitted = echo.delay("hi")
        worker.wait_for("the keeper waits for Redis")
        assert queued.get(timeout=WAIT_S) == "<queued>"
    finally:
        redis_client.config_set("maxmemory", "0")
    assert submitted.get(timeout=WAIT_S) == "<hi>"
    assert worker.process.poll() is None
    assert len([line for line in worker.lines if "waits for Redis" in line or "can't be used" in line]) <= 2


def test_c23_a_worker_whose_wait_for_messages_is_ended_waits_again(
    worker: Worker, app: AgnoCelery, redis_client: redis.Redis
) -> None:
    def unblock() -> bool:
        here = str(redis_client.connection_pool.connection_kwargs["db"])  # kept workers wait in another one
        clients = [each for each in redis_client.client_list() if each["db"] == here]
        waiting = [int(each["id"]) for each in clients if each["cmd"] == "blmpop"]
        return any(redis_client.client_unblock(each, error=True) for each in waiting)

    invariants.until(unblock)
    worker.wait_for("UNBLOCKED")
    assert echo.delay("hi").get(timeout=WAIT_S) == "<hi>"
    assert worker.process.poll() is None


def test_c23_connections_to_a_server_that_became_a_replica_are_opened_again(
    app: AgnoCelery, services: Services, redis_client: redis.Redis
) -> None:
    """Behind one address, the next connection leads to the new master."""
    with app.connection_for_write() as connection:
        clients = [services.redis, connection.default_channel.client]
        before = [client.client_id() for client in clients]
        with refusing(redis_client, "READONLY"):
            for client in clients:
                with pytest.raises(redis.ReadOnlyError):
                    client.set("x", 1)
        assert not {client.client_id() for client in clients} & set(before)


def test_c18_while_postgres_is_down_results_are_held_and_a_transaction_is_begun_anew(
    servers: Servers, start_worker: StartWorker, app: AgnoCelery, tmp_path: Path, database_url: str
) -> None:
    files = [tmp_path / name for name in ("turn", "tool", "transaction")]
    for file in files:
        file.touch()
    start_worker(**SHORT)
    runs = [
        thinker.delay(str(files[0])),
        matrix.delay(call("hold", files[1])),
        matrix.delay(call("book_slowly", files[2])),
    ]
    invariants.until(lambda: all(running(file)() for file in files))
    servers.postgres.kill()
    try:
        for file in files:
            file.unlink()
    finally:
        servers.postgres.start()
    assert [run.get(timeout=WAIT_S) for run in runs] == ["thought", "released", "booked"]
    most = [max(step.attempt for step in run.handle.steps) for run in runs]
    assert all(
        number <= allowed for number, allowed in zip(most, (1, 1, 2), strict=True)
    )  # Postgres may forget a claim
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM public.booking").fetchone() == (1,)


def test_while_postgres_is_down_the_log_has_a_bad_message_and_the_row_comes_later(
    servers: Servers, worker: Worker, app: AgnoCelery, redis_client: redis.Redis, database_url: str
) -> None:
    quarantine = Quarantined(database_url)
    servers.postgres.kill()
    try:
        redis_client.lpush("agents", *[b"hello"] * 20)
        for _ in range(20):
            worker.wait_for("is quarantined as unreadable")
        assert redis_client.llen("agents") == 0
    finally:
        servers.postgres.start()
    assert quarantine.reasons(20) == ["unreadable"] * 20
    assert echo.delay("after").get(timeout=WAIT_S) == "<after>"


def test_c22_a_restored_backup_goes_on_from_where_it_was(
    servers: Servers, redis_client: redis.Redis, app: AgnoCelery, database_url: str, start_worker: StartWorker, held: Path
) -> None:  # fmt: skip
    first = start_worker()
    middle = boss.delay(delegated(call("hold", held)))
    invariants.until(running(held))
    first.kill()
    queued = echo.delay("queued")
    database = Database(servers, database_url)
    database.back_up()
    old_epoch = wiring.services().database.maintenance.epoch()
    held.unlink()
    second = start_worker()
    assert [outcome(database_url, run) for run in (middle, queued)] == ["released", "<queued>"]
    second.kill()
    unknown = echo.delay("unknown")
    dropped = unknown.handle.steps[0].id
    database.restore()
    with connect(database_url, timeout_s=10, autocommit=True, row_factory=dict_row) as connection:
        identity.adopt(connection, "", cancel_open=False, lease_s=15)
    third = start_worker(AGNO_KEEPER__RESEND_AFTER_S=NEVER)
    assert [outcome(database_url, run) for run in (middle, queued)] == ["released", "<queued>"]
    assert any("Postgres is older than Redis" in line for line in third.lines)
    invariants.until(
        lambda: any(f"{dropped}] succeeded" in line for line in list(third.lines))
    )  # it claimed nothing
    with pytest.raises(RunNotFound):
        outcome(database_url, unknown)
    epoch = wiring.services().database.maintenance.epoch()
    assert epoch != old_epoch
    invariants.until(lambda: _epoch(redis_client) == epoch)


def outcome(database_url: str, run: RunResult) -> object:
    with Client(database_url) as client:
        return client.runs.get(run.id).result(timeout=WAIT_S)


class Database:
    """A backup of this test's database, and bringing it back."""

    def __init__(self, servers: Servers, url: str) -> None:
        self._servers = servers
        self._name = urlsplit(url).path.removeprefix("/")
        self._backup = f"{self._name}_backup"

    def back_up(self) -> None:
        self._do("CREATE DATABASE {backup} TEMPLATE {name}")

    def restore(self) -> None:
        self._do("DROP DATABASE {name} WITH (FORCE)", "ALTER DATABASE {backup} RENAME TO {name}")

    def _do(self, *statements: LiteralString) -> None:
        wiring.forget()  # nobody may be connected
        with psycopg.connect(self._servers.database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,)
            )
            for statement in statements:
                names = {"name": sql.Identifier(self._name), "backup": sql.Identifier(self._backup)}
                connection.execute(sql.SQL(statement).format(**names))


def test_work_that_outlives_every_lease_ends_with_its_first_result(
    services: Services, start_worker: StartWorker, held: Path
) -> None:
    services.database.pool.run("""
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER no_renewal BEFORE UPDATE ON agno.step FOR EACH ROW
        WHEN (OLD.status = 'running' AND NEW.status = 'running' AND NEW.lease_until > OLD.lease_until AND NEW.attempt = OLD.attempt)
        EXECUTE FUNCTION public.refuse()""")
    start_worker(AGNO_RUNS__LEASE_S="0.8", AGNO_RUNS__RENEW_EVERY_S="0.4")
    run = thinker.delay(str(held))
    services.database.pool.run("UPDATE agno.step SET max_attempts = 100")
    invariants.until(lambda: run.handle.steps[0].attempt > 3)  # three leases have run out
    held.unlink()
    assert run.get(timeout=WAIT_S) == "thought"
    assert (run.run.turns, len(run.handle.messages)) == (1, 2)


def test_tool_that_holds_the_gil_for_longer_than_a_lease_costs_no_step_its_lease(
    start_worker: StartWorker, client: Client, services: Services, tmp_path: Path
) -> None:
    """A keeper elsewhere would make the tool run again, and end the `once` tool beside it as unknown."""
    start_worker()
    start_worker(queues="elsewhere")
    ledger, fifo = tmp_path / "ledger", tmp_path / "fifo"
    os.mkfifo(fifo)
    Path(f"{ledger}.hold").touch()
    payment = client.runs.submit("caller", f'pay {{"path": "{ledger}"}}')
    invariants.until(ledger.exists)
    blocker = client.runs.submit("caller", f'hold_gil {{"path": "{fifo}"}}')
    invariants.until(running(fifo))
    held = services.database.pool.run("SELECT id, lease_until FROM agno.step WHERE status = 'running'")
    assert len(held) == 2
    renewed = "SELECT FROM agno.step WHERE id = %(id)s AND lease_until > %(lease_until)s + interval '3 s'"
    # A lease of the tests lasts 3 s.
    invariants.until(lambda: all(services.database.pool.run(renewed, first) for first in held))
    fifo.write_bytes(b".")
    Path(f"{ledger}.hold").unlink()
    assert [run.result(timeout=WAIT_S) for run in (payment, blocker)] == ["paid", "released"]
    assert len(ledger.read_text().splitlines()) == 1
    assert [step.attempt for run in (payment, blocker) for step in run.steps if step.kind == "tool"] == [1, 1]


def test_c21_a_step_keeps_its_lease_until_a_worker_that_was_asked_to_end_is_done(
    start_worker: StartWorker, services: Services, tmp_path: Path
) -> None:
    ledger, hold = tmp_path / "ledger", tmp_path / "ledger.hold"
    hold.touch()
    ending = start_worker(**SHORT)
    run = caller.delay(f'pay {{"path": "{ledger}"}}')
    invariants.until(ledger.exists)
    ending.kill(signal.SIGTERM)
    ending.wait_for("Warm shutdown")
    start_worker(**SHORT)
    leases: set[datetime] = set()

    def renewed_three_times() -> bool:  # well past the lease that it had when the worker was asked to end
        leases.update(
            row["lease_until"]
            for row in services.database.pool.run("SELECT lease_until FROM agno.step WHERE effect = 'once'")
        )
        return len(leases) == 4

    invariants.until(renewed_three_times)
    hold.unlink()
    assert run.get(timeout=WAIT_S) == "paid"


def test_a_run_submitted_in_sql_lives_and_dies_with_the_callers_transaction(
    database_url: str, client: Client, worker: Worker
) -> None:
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT agno.submit('echo', 'kept', allow_unknown => true)").fetchone()
        connection.commit()
        dropped = connection.execute(
            "SELECT agno.submit('echo', 'dropped', allow_unknown => true)"
        ).fetchone()
        connection.rollback()
    assert kept is not None
    assert dropped is not None
    assert client.runs.get(str(kept[0])).result(timeout=WAIT_S) == "<kept>"
    with pytest.raises(Exception, match="no run"):
        client.runs.get(str(dropped[0])).result(timeout=1)


def _beat(services: Services) -> int:
    """How often the keepers have renewed their lease, which they do each half second."""
    (row,) = services.database.pool.run("SELECT beat FROM agno.meta WHERE key = 'keeper'")
    return int(row["beat"])


def _length(client: redis.Redis, queue: str) -> int:
    length = client.llen(queue)
    assert isinstance(length, int)
    return length


def _epoch(client: redis.Redis) -> str:
    """The epoch that Redis repeats."""
    return _told(client)[0]


def _remembered(client: redis.Redis) -> int:
    """The round that Redis has heard of."""
    return int(_told(client)[1])


def _told(client: redis.Redis) -> list[str]:
    value = client.get(EPOCH_KEY)
    assert value is None or isinstance(value, bytes)
    return value.decode().split() if value else ["", "0"]


def _submit_unpublished(services: Services, text: str) -> Submitted:
    """A client that dies between its commit and its publish."""
    request = run_request("echo", [text], {"queue": "agents", "allow_unknown": True})
    return services.database.submissions.submit(request)
