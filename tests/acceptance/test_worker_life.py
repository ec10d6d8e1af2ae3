"""A worker says that it is there, leaves in time and leaves nothing undone, and ends when it receives no messages."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.cli.main import main
from agno_workers.core.run import StepStatus
from agno_workers.runs.workers import Workers
from agno_workers.wiring import Services
from tests import invariants
from tests.agents import caller, echo, holding, running, slow
from tests.chaos.proxy import Mode, Network
from tests.conftest import StartWorker, Worker
from tests.servers import Servers

WAIT_S = 30
LONG = "600"
"""A grace time, or a lease, that no test waits for: what comes sooner came by another way."""


@pytest.fixture(scope="session")
def servers(own_servers: Servers) -> Servers:
    """These tests kill servers."""
    return own_servers


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    """One worker for both queues, for this test alone."""
    return start_worker()


@pytest.fixture
def environment(environment: dict[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """As for all tests, and what a test changes for its workers and itself alike."""
    changed: dict[str, str] = getattr(request, "param", {})
    return environment | changed


@pytest.fixture(autouse=True)
def _nothing_is_left_over(database_url: str, start_worker: StartWorker) -> Iterator[None]:
    yield
    invariants.hold(database_url)


@pytest.fixture
def workers(services: Services) -> Workers:
    return Workers(services.database.pool)


def ends(worker: Worker) -> int:
    return worker.process.wait(timeout=WAIT_S)


def is_gone(pid: int) -> bool:
    """Whether a process is over, though nobody may have asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# Who is there.


def test_a_worker_is_known_with_what_it_listens_to_and_carries(
    start_worker: StartWorker, app: AgnoCelery, workers: Workers, held: Path
) -> None:
    worker = start_worker(concurrency=3)
    (known,) = workers.all()
    assert (known.pid, known.pool, known.concurrency) == (worker.process.pid, "threads", 3)
    assert (known.queues, known.hostname) == (("agents", "tools"), socket.gethostname())
    run = caller.delay(holding(held))
    invariants.until(lambda: workers.all()[0].steps == 1)
    held.unlink()
    assert run.get(timeout=WAIT_S) == "released"
    invariants.until(lambda: workers.all()[0].steps == 0)


def test_queues_that_come_and_go_at_run_time_are_seen(
    worker: Worker, app: AgnoCelery, workers: Workers
) -> None:
    # "ready" is said a moment before the worker listens to remote control: asked until it answers.
    invariants.until(lambda: app.control.add_consumer("heavy", reply=True))
    invariants.until(lambda: app.control.cancel_consumer("tools", reply=True))
    invariants.until(lambda: workers.all()[0].queues == ("agents", "heavy"))


def test_a_worker_that_ends_is_stopped_and_one_that_is_killed_is_lost(
    start_worker: StartWorker, workers: Workers
) -> None:
    stopped, killed = start_worker(), start_worker()
    assert stopped.stop() == 0
    killed.kill()

    def states() -> dict[int, str]:
        return {each.pid: each.state(renew_every_s=1.0, lease_s=3.0) for each in workers.all()}

    assert states()[stopped.process.pid] == "stopped"
    invariants.until(lambda: states()[killed.process.pid] == "lost")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_guard_of_the_leases_ends_with_its_worker(worker: Worker, how: signal.Signals) -> None:
    pid = worker.process.pid

    def guards() -> list[int]:
        threads = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        return [child for child in children if b"lease_guard" in Path(f"/proc/{child}/cmdline").read_bytes()]

    invariants.until(guards)
    (guard,) = guards()
    os.kill(guard, signal.SIGTERM)  # as a terminal or a supervisor does, that signals the whole group
    os.kill(pid, how)
    ends(worker)
    invariants.until(lambda: is_gone(guard))


def test_workers_that_are_long_gone_are_forgotten_when_one_starts(
    start_worker: StartWorker, services: Services, workers: Workers
) -> None:
    start_worker().kill()
    services.database.pool.run("UPDATE agno.worker SET seen_at = seen_at - make_interval(hours => 25)")
    worker = start_worker()
    assert [each.pid for each in workers.all()] == [worker.process.pid]


def test_the_command_lists_workers_and_the_doctor_asks_after_the_silent(
    start_worker: StartWorker, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    start_worker(queues="heavy").kill()
    start_worker(queues="agents")
    services.database.pool.run(
        "UPDATE agno.worker SET seen_at = seen_at - make_interval(hours => 1) WHERE queues = '[\"heavy\"]'"
    )
    services.database.pool.run("UPDATE agno.worker SET version = '0.0.1' WHERE queues = '[\"agents\"]'")
    start_worker(queues="tools")
    assert _told(capsys, "workers", "ls").count("alive") == 2
    listed = {
        each["queues"][0]: each["state"]
        for each in json.loads(_told(capsys, "workers", "ls", "--all", "--json"))
    }
    assert listed == {"heavy": "lost", "agents": "alive", "tools": "alive"}
    found = json.loads(_told(capsys, "doctor", "--json"))
    silent, versions = [each["text"] for each in found if each["about"] == "workers"]
    assert "has not reported for 1 h" in silent
    assert versions.startswith("different versions: 0.0.1, ")
    queues = [each["text"] for each in found if each["about"] == "queues"]
    assert queues == ["agents: 1 worker", "tools: 1 worker"]


def test_the_doctor_fails_for_a_queue_whose_worker_is_lost(
    start_worker: StartWorker, app: AgnoCelery, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = start_worker()
    worker.kill()
    run = echo.delay("hi")
    services.database.pool.run("UPDATE agno.worker SET seen_at = seen_at - make_interval(secs => 4)")
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    assert "No worker consumes the queue 'agents' (1 step" in " ".join(capsys.readouterr().out.split())
    run.cancel()


def _told(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    assert ended.value.code == 0
    return capsys.readouterr().out


# Leaving.


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_what_is_not_done_within_the_grace_time_is_carried_by_another(
    start_worker: StartWorker, services: Services, held: Path, pool: str
) -> None:
    ending = start_worker(
        pool=pool, concurrency=2, AGNO_RUNS__LEASE_S=LONG, AGNO_WORKER__SHUTDOWN_GRACE_S="1"
    )
    run = caller.delay(holding(held))
    invariants.until(running(held))
    at_work = int(Path(f"{held}.running").read_text())  # on prefork a child
    Path(f"{held}.running").unlink()
    other = start_worker(pool=pool, concurrency=2, AGNO_RUNS__LEASE_S=LONG)
    ending.process.terminate()
    ending.wait_for("handing over 1 step(s)")
    invariants.until(running(held), timeout_s=3)  # long before the lease is over
    assert ends(ending) == 0
    invariants.until(lambda: is_gone(at_work))
    held.unlink()
    assert run.get(timeout=WAIT_S) == "released"
    (step,) = services.database.pool.run(
        "SELECT attempt, max_attempts, tries FROM agno.step WHERE name = 'hold'"
    )
    assert (step["attempt"], step["tries"], step["attempt"] - step["max_attempts"]) == (2, 0, 1 - 3)
    assert other.process.poll() is None


def test_turn_in_the_task_of_a_tool_is_handed_over(
    start_worker: StartWorker, app: AgnoCelery, held: Path
) -> None:
    ending = start_worker(AGNO_RUNS__LEASE_S=LONG, AGNO_WORKER__SHUTDOWN_GRACE_S="1")
    run = slow.delay(str(held))
    invariants.until(running(held))
    start_worker(AGNO_RUNS__LEASE_S=LONG)
    Path(f"{held}.running").unlink()
    ending.process.terminate()
    ending.wait_for("handing over 1 step(s)")
    invariants.until(running(held), timeout_s=3)
    assert ends(ending) == 0
    held.unlink()
    assert run.get(timeout=WAIT_S) == "released"


def test_turns_with_a_rate_limit_wait_for_it(worker: Worker, app: AgnoCelery, services: Services) -> None:
    invariants.until(lambda: app.control.rate_limit("agno.turn", "1/h", reply=True))
    run = caller.delay('add {"a": 1, "b": 2}')
    invariants.until(lambda: len(services.database.queries.steps(run.id)) == 3)
    turn = services.database.queries.steps(run.id)[-1]
    worker.wait_for(f"Task agno.turn[{turn.id}] received")
    assert services.database.queries.steps(run.id)[-1].status is StepStatus.READY
    assert run.cancel()


def test_a_second_signal_hands_over_at_once(start_worker: StartWorker, app: AgnoCelery, held: Path) -> None:
    ending = start_worker(AGNO_RUNS__LEASE_S=LONG, AGNO_WORKER__SHUTDOWN_GRACE_S=LONG)
    run = caller.delay(holding(held))
    invariants.until(running(held))
    ending.process.terminate()
    ending.wait_for("Warm shutdown")
    ending.process.terminate()
    assert ends(ending) == 0
    held.unlink()
    start_worker(AGNO_RUNS__LEASE_S=LONG)
    assert run.get(timeout=WAIT_S) == "released"


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
def test_sigquit_and_ctrl_c_twice_hand_over_at_once(
    start_worker: StartWorker, app: AgnoCelery, held: Path, how: signal.Signals
) -> None:
    ending = start_worker(AGNO_RUNS__LEASE_S=LONG, AGNO_WORKER__SHUTDOWN_GRACE_S=LONG)
    run = caller.delay(holding(held))
    invariants.until(running(held))
    ending.process.send_signal(how)
    if how is signal.SIGINT:
        ending.wait_for("Warm shutdown")
        ending.process.send_signal(how)
    ending.wait_for("handing over 1 step(s)")
    ends(ending)
    held.unlink()
    start_worker(AGNO_RUNS__LEASE_S=LONG)
    assert run.get(timeout=WAIT_S) == "released"


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_once_tool_is_waited_for_and_runs_once(
    start_worker: StartWorker, workers: Workers, held: Path, tmp_path: Path, pool: str
) -> None:
    ledger, hold = tmp_path / "ledger", tmp_path / "ledger.hold"
    hold.touch()
    ending = start_worker(pool=pool, concurrency=2, AGNO_WORKER__SHUTDOWN_GRACE_S="0.5")
    run = caller.delay(f'pay {{"path": "{ledger}"}}\n{holding(held)}')
    invariants.until(lambda: ledger.exists() and running(held)())
    start_worker()
    ending.process.terminate()
    ending.wait_for("handing over 1 step(s)")
    held.unlink()
    assert ending.process.poll() is None
    assert [] in [list(each.queues) for each in workers.all()]  # it takes nothing more, and says so
    hold.unlink()
    assert ends(ending) == 0
    assert run.get(timeout=WAIT_S) == "paid | released"
    assert len(ledger.read_text().splitlines()) == 1
    assert [step.status for step in run.handle.steps if step.name == "pay"] == [StepStatus.DONE]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_an_idle_worker_ends_at_once(start_worker: StartWorker, workers: Workers, pool: str) -> None:
    worker = start_worker(pool=pool, concurrency=2, AGNO_WORKER__SHUTDOWN_GRACE_S=LONG)
    assert worker.stop() == 0
    assert workers.all()[0].stopped_at is not None


def test_killed_worker_leaves_nothing_in_the_temporary_directory(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(pool="prefork", concurrency=1, TMPDIR=str(tmp_path)).kill()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize(
    "environment",
    [{}, {"AGNO_SIGNING__KEYS": "a key of more than thirty-two letters"}],
    ids=["unsigned", "signed"],
    indirect=True,
)
def test_what_was_taken_and_not_begun_goes_to_another_while_the_first_still_works(
    start_worker: StartWorker, redis_client: redis.Redis, services: Services, held: Path, pool: str
) -> None:
    slow = {"AGNO_WORKER__SHUTDOWN_GRACE_S": LONG, "AGNO_KEEPER__RESEND_AFTER_S": LONG}
    ending = start_worker(pool=pool, concurrency=1, **slow)
    other = start_worker(queues="elsewhere", **slow)
    run = caller.delay(holding(held))
    invariants.until(running(held))
    waiting = echo.delay("hi")
    ending.wait_for(waiting.handle.steps[0].id)  # it was received
    ending.process.terminate()
    invariants.until(lambda: redis_client.llen("agents") == 1)
    services.app.control.add_consumer("agents")
    assert waiting.get(timeout=WAIT_S) == "<hi>"
    assert ending.process.poll() is None
    held.unlink()
    services.app.control.add_consumer("tools")
    assert run.get(timeout=WAIT_S) == "released"
    assert ends(ending) == 0
    assert other.process.poll() is None


def test_worker_with_many_threads_holds_few_messages_that_it_has_not_started(
    start_worker: StartWorker, app: AgnoCelery
) -> None:
    start_worker(pool="threads", concurrency=64)
    found: list[Any] = []

    def has_answered() -> bool:  # a worker that has just started may miss a question
        found.extend((app.control.inspect(timeout=1.0, limit=1).stats() or {}).values())
        return bool(found)

    invariants.until(has_answered)
    assert found[0]["pool"]["max-concurrency"] == 64
    assert found[0]["prefetch_count"] == 16


# A connection that is lost.


@pytest.mark.parametrize("lasts", [True, False], ids=["away", "reset"])
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_what_was_taken_and_not_begun_outlives_a_connection_that_is_lost(
    servers: Servers, start_worker: StartWorker, services: Services, client: Client, held: Path, pool: str,
    lasts: bool,
) -> None:  # fmt: skip
    """From a foreign app, since there is nothing in Postgres from which the keeper could send it again."""
    foreign = Celery(broker=servers.broker_url, set_as_current=False)
    with Network() as network:
        line = network.proxy(urlsplit(servers.redis_url).path)
        through = {"AGNO_BROKER_URL": f"redis://127.0.0.1:{line.port}/0"}
        worker = start_worker("-I", "tests.contract.canvas.plain", pool=pool, concurrency=1, **through)
        run = caller.delay(holding(held))
        invariants.until(running(held))
        later = foreign.send_task("plain.upper", ["later"], queue="agents", countdown=5)
        sent = foreign.send_task("agno.run", ["hi"], {"agent": "echo"}, queue="agents")
        worker.wait_for(sent.id)  # it was received, and waits for the only slot
        line.set(Mode.RESET)
        worker.wait_for("this worker takes no messages" if lasts else "Connection to broker lost")
        line.set(Mode.PASS)
        worker.wait_for("Connected to")
        held.unlink()
        assert run.get(timeout=WAIT_S) == "released"
        invariants.until(
            lambda: services.database.pool.run("SELECT FROM agno.run WHERE id = %(id)s", {"id": sent.id})
        )
        assert client.runs.get(sent.id).result(timeout=WAIT_S) == "<hi>"
        assert services.app.AsyncResult(later.id).get(timeout=WAIT_S) == "LATER"
        worker.stop()
        assert sum(f"plain.upper[{later.id}] succeeded" in said for said in worker.lines) == 1


# A worker that receives nothing.


class Proxy:
    """Between a worker and Redis. `swallow_messages` drops the replies on connections that wait for messages."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._swallows = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        self.url = f"redis://127.0.0.1:{self._door.getsockname()[1]}/0"

    def swallow_messages(self) -> None:
        self._swallows.set()

    def close(self) -> None:
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._path)
                waits = threading.Event()
                threading.Thread(target=self._pump, args=(near, far, waits, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, waits, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, waits: threading.Event, back: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if b"BLMPOP" in chunk and not back:
                    waits.set()
                if not (back and waits.is_set() and self._swallows.is_set()):
                    sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(servers: Servers) -> Iterator[Proxy]:
    proxy = Proxy(servers.redis_url.removeprefix("unix://").partition("?")[0])
    yield proxy
    proxy.close()


def test_a_worker_that_receives_nothing_hands_its_steps_over_and_exits_with_an_error(
    start_worker: StartWorker, app: AgnoCelery, proxy: Proxy, held: Path
) -> None:
    short = {
        "AGNO_WORKER__CANARY_EVERY_S": "0.3",
        "AGNO_WORKER__SHUTDOWN_GRACE_S": "0.3",
        "AGNO_RUNS__LEASE_S": LONG,
    }
    worker = start_worker(AGNO_BROKER_URL=proxy.url, **short)
    run = caller.delay(holding(held))
    invariants.until(running(held))
    proxy.swallow_messages()
    worker.wait_for("worker is not receiving messages")
    assert ends(worker) == 1
    held.unlink()
    start_worker(AGNO_RUNS__LEASE_S=LONG)
    assert run.get(timeout=WAIT_S) == "released"


def test_a_busy_worker_passes_its_self_test(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, workers: Workers, held: Path
) -> None:
    busy = start_worker(pool="threads", concurrency=1, AGNO_WORKER__CANARY_EVERY_S="0.2")
    run = caller.delay(holding(held))
    invariants.until(running(held))
    others = [echo.delay(str(number)) for number in range(3)]  # they take the credit for messages, too
    name = f"agno.canary.{workers.all()[0].name}"
    invariants.until(lambda: redis_client.llen(name) > 6)
    assert redis_client.ttl(name) > 0  # nothing is left of it when its worker is killed
    assert not redis_client.keys("_kombu.binding.*canary*")
    held.unlink()
    assert run.get(timeout=WAIT_S) == "released"
    assert [other.get(timeout=WAIT_S) for other in others] == ["<0>", "<1>", "<2>"]
    invariants.until(lambda: redis_client.llen(name) == 0)
    assert busy.process.poll() is None


def test_a_worker_outlives_a_redis_that_is_away_for_long(
    start_worker: StartWorker, app: AgnoCelery, servers: Servers, workers: Workers
) -> None:
    worker = start_worker(AGNO_WORKER__CANARY_EVERY_S="0.2")
    servers.valkey.kill()
    try:
        worker.wait_for("this worker takes no messages: Redis can't be reached")
    finally:
        servers.valkey.start()
    assert echo.delay("hi").get(timeout=WAIT_S) == "<hi>"
    assert worker.process.poll() is None
