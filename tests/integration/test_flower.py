"""Flower as the Procfile starts it: it shows, to those who sign in, and it changes nothing."""

from __future__ import annotations

import base64
import json
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from celery import Celery

from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import RunStatus
from tests.agents import caller, holding, running
from tests.conftest import StartWorker, Worker
from tests.forking import inherited
from tests.places import with_workers
from tests.servers import Servers

ROOT = Path(__file__).parents[2]
SIGNED_IN = "Basic " + base64.b64encode(b"me:secret").decode()
Flower = Callable[..., tuple[int, str]]
T = TypeVar("T")


@pytest.fixture(scope="module")
def ask(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """Ask the running Flower: `ask(path, auth=..., method=...)` gives status and body."""
    environment = {
        "AGNO_DATABASE_URL": servers.database_url,
        "AGNO_BROKER_URL": with_workers(servers).broker_url,
        "AGNO_CONFIG": str(ROOT / "config" / "test.toml"),
        "FLOWER_BASIC_AUTH": "me:secret",
    }
    yield from _running(environment, tmp_path_factory.mktemp("flower") / "flower.log")


@pytest.fixture
def worker(keep_worker: StartWorker) -> Worker:
    """A worker that sends events."""
    return keep_worker("-E")


def test_without_a_password_nobody_gets_in(ask: Flower) -> None:
    wrong = "Basic " + base64.b64encode(b"me:guess").decode()
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
        assert ask(path)[0] == 401, path
        assert ask(path, auth=wrong)[0] == 401, path
        assert ask(path, auth=SIGNED_IN)[0] == 200, path


def test_who_is_signed_in_can_change_nothing(ask: Flower, worker: Worker) -> None:
    (name,) = _until(lambda: json.loads(ask("/api/workers?refresh=true", auth=SIGNED_IN)[1]))
    for action in (
        f"worker/shutdown/{name}",
        f"worker/pool/restart/{name}",
        f"worker/pool/grow/{name}",
        f"worker/pool/shrink/{name}?n=7",
        f"worker/pool/autoscale/{name}?min=1&max=2",
        f"worker/queue/add-consumer/{name}?queue=x",
        f"worker/queue/cancel-consumer/{name}?queue=agents",
        "task/revoke/0198c0de-0000-7000-8000-000000000000?terminate=true",
        "task/abort/0198c0de-0000-7000-8000-000000000000",
        "task/timeout/agno.turn?workername=x&hard=1",
        "task/rate-limit/agno.turn?workername=x&ratelimit=1",
        "task/apply/agno.tool",
        "task/async-apply/agno.tool",
        "task/send-task/agno.run",
    ):
        status, _ = ask(f"/api/{action}", auth=SIGNED_IN, method="POST")
        assert status == 403, f"{action} was answered with {status}"
        assert ask(f"/api/{action}", method="POST")[0] in (401, 403)
    assert worker.process.poll() is None


def test_revoke_of_a_flower_that_may_write_cancels_the_run(
    worker: Worker, app: AgnoCelery, environment: dict[str, str], tmp_path: Path
) -> None:
    """Ours is read-only; another one may use the button."""
    own = tmp_path / "flower.py"
    own.write_text((ROOT / "config/flower.py").read_text().replace("read_only = True", "read_only = False"))
    held = tmp_path / "held"
    held.touch()
    run = caller.delay(holding(held))
    _until(running(held))
    environment = environment | {"FLOWER_BASIC_AUTH": "me:secret"}
    for ask in _running(environment, tmp_path / "flower.log", config=own):
        assert ask(f"/api/task/revoke/{run.id}?terminate=true", auth=SIGNED_IN, method="POST")[0] == 200
    assert run.run_status is RunStatus.CANCELLED
    held.unlink()


def test_what_a_run_is_about_is_not_shown(ask: Flower, worker: Worker, app: AgnoCelery) -> None:
    run = caller.delay('boom {"text": "private words"}')
    assert run.get(timeout=60) == "!private words"
    shown = _until(
        lambda: seen if (seen := ask("/api/tasks", auth=SIGNED_IN)[1]).count("agno.turn") >= 2 else ""
    )
    assert "agno.tool" in shown
    assert run.id in shown
    assert "private words" not in shown


def test_pages_hide_what_a_foreign_app_put_into_its_message(
    ask: Flower, worker: Worker, app: AgnoCelery, environment: dict[str, str]
) -> None:
    with Celery(broker=environment["AGNO_BROKER_URL"], set_as_current=False) as foreign:
        sent = foreign.send_task("agno.run", args=["private words"], kwargs={"agent": "echo"}, queue="agents")
    assert app.AsyncResult(sent.id).get(timeout=60) == "<private words>"
    page = _until(lambda: seen[1] if (seen := ask(f"/task/{sent.id}", auth=SIGNED_IN))[0] == 200 else "")
    assert "(not shown)" in page
    assert "private words" not in page


def test_no_password_given_is_one_made_up(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    for ask in _running(environment, log):
        assert ask("/workers")[0] == 401
        pair = log.read_text().partition("sign in as ")[2].split()[0]
        assert ask("/workers", auth="Basic " + base64.b64encode(pair.encode()).decode())[0] == 200


def _running(environment: dict[str, str], log: Path, config: Path | None = None) -> Iterator[Flower]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (line,) = (line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("flower:"))
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *shlex.split(line.partition(":")[2])[1:], *([f"--conf={config}"] if config else [])],
            cwd=ROOT, env=inherited("FLOWER_") | environment | {"FLOWER_PORT": str(port)}, stdout=output, stderr=output,
        )  # fmt: skip

    def ask(path: str, auth: str = "", method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        if auth:
            request.add_header("Authorization", auth)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return ask("/healthcheck")[0] == 200
        except OSError:
            return False

    try:
        _until(answers)
        yield ask
    finally:
        process.terminate()
        process.wait(timeout=20)


def _until(look: Callable[[], T], timeout_s: float = 60) -> T:
    """What `look` gives as soon as that is something: Flower has no signal to wait for."""
    give_up = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < give_up, "Flower did not show it in time"
        time.sleep(0.2)
    return found
