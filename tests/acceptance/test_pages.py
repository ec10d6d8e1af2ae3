"""The README's own programs and commands, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
from celery import chord

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from tests.agents import caller, echo
from tests.conftest import ROOT, StartWorker

AGENTS, *PROGRAMS = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
)
WAIT_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's agents.py."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "agents.py").write_text(AGENTS)
    return folder


@pytest.fixture
def project(folder: Path, environment: dict[str, str], keep_worker: StartWorker) -> dict[str, str]:
    """The environment of a program in that folder. A worker serves its agents."""
    theirs = {"AGNO_IMPORTS": "agents", "PYTHONPATH": str(folder)}
    keep_worker(queues="agents,tools,knowledge", **theirs)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGNO_")}
    return inherited | environment | theirs


def test_the_programs_print_answers(project: dict[str, str], client: Client) -> None:
    by_agent, by_batch, by_client, by_message, by_knowledge, nothing = (
        _run(project, "-c", program).splitlines() for program in PROGRAMS
    )
    assert by_agent[0].startswith("What is a barrier? Usage(")
    assert "Compare them." in "".join(by_agent[1:])
    assert sorted(by_batch) == ["What is a fence? What is a fence?", "What is a lease? What is a lease?"]
    many, found = by_knowledge
    assert int(many.split()[0]) > 5
    assert found.endswith(".md")
    assert nothing == []  # it defines an agent
    assert by_client == ["What is a fence?"]
    assert client.runs.get(by_message[-1]).result(timeout=WAIT_S) == "What is a queue?"


def test_the_command_prints_the_answer(project: dict[str, str]) -> None:
    (line,) = re.findall(r"^\./run (agno-workers run .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    _program, *arguments = shlex.split(line, comments=True)
    assert _run(project, "-m", "agno_workers.cli.main", *arguments).strip() == "What is a lease?"
    assert "writer" in _run(project, "-m", "agno_workers.cli.main", "runs", "ls")


def test_the_statement_submits(project: dict[str, str], client: Client) -> None:
    statements = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with psycopg.connect(project["AGNO_DATABASE_URL"]) as connection:
        ids = [connection.execute(statement).fetchone() for statement in statements]
    assert ids
    for row in ids:
        assert row is not None
        assert client.runs.get(str(row[0])).result(timeout=WAIT_S) == "Thank the customer of order 17."


def test_a_chord_over_runs_survives_a_redis_that_forgets(
    app: AgnoCelery, start_worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    start_worker()
    held, started = tmp_path / "held", tmp_path / "held.running"
    held.touch()
    result = chord([caller.s(f'hold {{"path": "{held}"}}'), echo.s("beside it")], echo.s()).delay()
    give_up = time.monotonic() + WAIT_S
    while not started.exists():
        assert time.monotonic() < give_up, "the tool never began"
        time.sleep(0.05)
    redis_client.flushdb()
    held.unlink()
    assert result.get(timeout=WAIT_S) == "<[1]\nreleased\n\n[2]\n<beside it>>"


def _run(environment: dict[str, str], *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=2 * WAIT_S
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
