"""agno's durable queue as a contestant, in four configurations. What was chosen for it is told in `peers/agno_payments.py`."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import psycopg

from benchmarks.payments.contestant import Contestant, End, World
from benchmarks.payments.settings import Setting
from benchmarks.stage import ROOT, WARM_S

_ENDED = "SELECT status, error FROM ai.agno_jobs WHERE id = %s AND status NOT IN ('queued', 'running')"


class Agno(Contestant):
    """One AgentOS process: it takes the submits over HTTP, and its worker executes them."""

    configuration: ClassVar[dict[str, Any]] = {}

    def __init__(self, world: World, python: Path) -> None:
        super().__init__(world)
        self._python = python
        database = f"agno_{type(self).__name__.lower()}"
        with psycopg.connect(world.stage.servers.database_url, autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).rowcount:
                connection.execute(f"CREATE DATABASE {database}")
        self._database_url = world.stage.servers.postgres.url_of(database)
        self._port = _free_port()

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self, *, dies: bool = False) -> None:
        script = str(ROOT / "benchmarks" / "peers" / "agno_payments.py")
        self._keep(
            [
                str(self._python.absolute()), script, self._database_url, str(self._port), self.world.model_url,
                str(self.world.ledger), json.dumps(self.configuration | {"dies": dies}),
            ],
            PYTHONPATH=str(ROOT),
        )  # fmt: skip
        deadline = time.monotonic() + WARM_S
        while not self._is_served():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not start within {WARM_S:g} s")
            time.sleep(0.05)

    def end(self) -> End | None:
        """Once the queue is through with it: what agno's API tells of the run."""
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            ticket = connection.execute(_ENDED, [self._run_and_session[0]]).fetchone()
        if ticket is None:
            return None
        return self._settled(failed=ticket[0] == "failed", error=ticket[1] or "")

    def _settled(self, *, failed: bool, error: str) -> End:
        run = self._run()
        return End(run["status"], error, "" if failed else str(run.get("content") or ""))

    @property
    def _run_and_session(self) -> tuple[str, str]:
        run_id, _, session_id = self.run_id.partition(" ")
        return run_id, session_id

    def _run(self) -> dict[str, Any]:
        run_id, session_id = self._run_and_session
        return _answer(f"{self._address}/agents/cashier/runs/{run_id}?session_id={session_id}")

    def _submitter_says(self, setting: Setting) -> list[str]:
        return ["agno", self._address, "cashier", setting.says]

    def _is_served(self) -> bool:
        try:
            urllib.request.urlopen(f"{self._address}/health", timeout=5).close()
        except OSError:
            return False
        return True


class AgnoDefault(Agno):
    name = "agno, default"
    options = "`QueueConfig(durable=True)`, so one attempt"


class AgnoTwice(Agno):
    name = "agno, max_attempts=2"
    options = "`QueueConfig(durable=True, max_attempts=2)`"
    configuration: ClassVar = {"max_attempts": 2}


class AgnoCheckpoint(Agno):
    name = "agno, max_attempts=2, checkpoint"
    options = '`QueueConfig(durable=True, max_attempts=2)`, `Agent(checkpoint="tool-batch")`'
    configuration: ClassVar = {"max_attempts": 2, "checkpoint": "tool-batch"}


class AgnoByHand(Agno):
    """One attempt, so that nothing runs twice by itself; then a person has agno continue the run from its checkpoint."""

    name = "agno, checkpoint, continued by hand"
    options = (
        '`QueueConfig(durable=True)`, `Agent(checkpoint="tool-batch")`; once the run has failed, a person posts its `/continue`'
        " if there is a checkpoint"
    )
    configuration: ClassVar = {"checkpoint": "tool-batch"}

    def _settled(self, *, failed: bool, error: str) -> End:
        """Without a checkpoint there is nothing to continue: agno would ask the model with an empty transcript."""
        if not failed:
            return super()._settled(failed=failed, error=error)
        if not self._run().get("last_checkpoint_at_message_index"):
            return replace(
                super()._settled(failed=failed, error=error), reason="no checkpoint to continue from"
            )
        run_id, session_id = self._run_and_session
        form = {"session_id": session_id, "stream": "false"}
        _answer(f"{self._address}/agents/cashier/runs/{run_id}/continue", form)
        continued = super()._settled(failed=False, error=error)
        return replace(continued, status=f"{continued.status} by hand")


def version(python: Path) -> str:
    """Which agno an environment has."""
    asked = [str(python.absolute()), "-c", "from importlib.metadata import version; print(version('agno'))"]
    return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def _answer(url: str, form: dict[str, str] | None = None) -> dict[str, Any]:
    asked = urllib.request.Request(url, data=urlencode(form).encode() if form else None)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
