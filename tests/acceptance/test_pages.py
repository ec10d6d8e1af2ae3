"""The programs, commands and statements of the pages are executed as they are written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
from celery import chord

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from tests.agents import caller, echo
from tests.conftest import ROOT, StartWorker
from tests.forking import inherited
from tests.invariants import until

WAIT_S = 60
ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f-]{27}$", re.MULTILINE)
"""A line with the id of a run."""
NOT_EXECUTED = {"up", "demo"}
"""Commands that start servers of their own; tests/acceptance has a test of each."""


@dataclass
class Page:
    """The code blocks of a page, in order."""

    name: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        return re.findall(
            r"```(python|sh|sql)\n(.*?)```", (ROOT / self.name).read_text(encoding="utf-8"), re.DOTALL
        )

    @property
    def files(self) -> dict[str, str]:
        """Blocks that begin with the name of a file, such as `# agents.py`."""
        return {
            name: code for language, code in self.blocks if language == "python" and (name := _file(code))
        }


@dataclass
class Folder:
    """A reader's folder and shell."""

    path: Path
    environment: dict[str, str]
    client: Client

    def follow(self, page: Page, start_worker: StartWorker, **more: str) -> str:
        """Write the page's files, start a worker for them, execute its blocks in order, and return all output."""
        for name, code in page.files.items():
            (self.path / name).write_text(code, encoding="utf-8")
        modules = ",".join(name.removesuffix(".py") for name in page.files)
        own = {"AGNO_IMPORTS": modules, "PYTHONPATH": f"{self.path}{os.pathsep}{ROOT}"}
        start_worker(queues="agents,tools,knowledge", **own)
        shell = inherited() | self.environment | own | more
        output = ""
        for language, code in page.blocks:
            match language:
                case "python" if example := re.match(r"# (examples/\S+\.py)\n", code):
                    # Tests of its own execute it: test_examples.py.
                    assert code == example[0] + (ROOT / example[1]).read_text(encoding="utf-8")
                case "python" if file := _file(code):
                    output += _execute(shell, "-c", f"import {file.removesuffix('.py')}")
                case "python":
                    output += _execute(shell, "-c", code)
                case "sql":
                    output += self._submit(code)
                case _:
                    for line in re.findall(r"^\./run agno-workers (.*)$", code, re.MULTILINE):
                        output += self._command(shell, shlex.split(line, comments=True), output)
        return output

    def _submit(self, statement: str) -> str:
        with psycopg.connect(self.environment["AGNO_DATABASE_URL"]) as connection:
            row = connection.execute(statement).fetchone()
        assert row
        return f"{row[0]}\n"

    def _command(self, shell: dict[str, str], words: list[str], output: str) -> str:
        if words[0] in NOT_EXECUTED:
            return ""
        if "ID" in words:
            run_id = ID.findall(output)[-1]
            words = [run_id if word == "ID" else word for word in words]
            if "approve" in words:
                until(lambda: self.client.runs.get(run_id).requirements)
        return _execute(shell, "-m", "agno_workers.cli.main", *words)


@pytest.fixture
def folder(tmp_path: Path, environment: dict[str, str], client: Client) -> Folder:
    return Folder(tmp_path, environment, client)


def test_readme(folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow(Page("README.md"), start_worker)
    assert output.startswith("What is a lease?\n")
    assert "What is a barrier?" in output
    assert "Compare them." in output


def test_tutorial(folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow(Page("docs/tutorial.md"), start_worker)
    assert "RunStatus.DONE Usage(" in output or "done Usage(" in output
    for question in ("What is a lease?", "What is a fence?"):
        assert f"{question} -> {question}\n" in output
    assert re.search(r"^1 RunStarted$", output, re.MULTILINE)
    assert "'wirter'" in output
    assert "pay {'euros': 120}\nThe supplier is paid.\n" in output
    assert output.count("The supplier is paid.") >= 3  # by command, in Python, in a chord
    assert "Write one sentence about both." in output
    for run in folder.client.runs.list():
        folder.client.runs.get(run.id).wait(timeout=WAIT_S)


def test_howto_celery(folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow(Page("docs/howto-celery.md"), start_worker)
    assert output.startswith("LEASES\n['a', 'B']\n")
    assert folder.client.runs.get(ID.findall(output)[0]).result(timeout=WAIT_S) == "What is a queue?"
    assert output.endswith("What is a queue?\nWhat is a queue?\n")


def test_howto_fastapi(folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow(Page("docs/howto-fastapi.md"), start_worker)
    assert "RunCompleted" in output
    assert output.endswith("What is a lease?\nWhat is a fence?\nWhat is a barrier?\n")


def test_howto_django(folder: Folder, start_worker: StartWorker) -> None:
    assert folder.follow(Page("docs/howto-django.md"), start_worker) == ""


def test_howto_agno(folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow(Page("docs/howto-agno.md"), start_worker)
    assert output.startswith("Where is order 17? done ")


def test_howto_deploy(folder: Folder, start_worker: StartWorker) -> None:
    key = "k" * 32
    assert ID.match(folder.follow(Page("docs/howto-deploy.md"), start_worker, AGNO_SIGNING__KEYS=key))


def test_explanation(folder: Folder, start_worker: StartWorker) -> None:
    assert folder.follow(Page("docs/explanation.md"), start_worker) == ""


def test_knowledge(folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow(Page("docs/knowledge.md"), start_worker)
    assert "docs/explanation.md" in output
    assert "crm:note-17" in output


def test_chord_over_runs_survives_a_redis_that_loses_its_data(
    app: AgnoCelery, start_worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    start_worker()
    held, started = tmp_path / "held", tmp_path / "held.running"
    held.touch()
    result = chord([caller.s(f'hold {{"path": "{held}"}}'), echo.s("beside it")], echo.s()).delay()
    until(started.exists, WAIT_S)
    redis_client.flushdb()
    held.unlink()
    assert result.get(timeout=WAIT_S) == "<[1]\nreleased\n\n[2]\n<beside it>>"


def _file(code: str) -> str | None:
    found = re.match(r"# (\w+\.py)\n", code)
    return found and found.group(1)


def _execute(shell: dict[str, str], *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=shell, capture_output=True, text=True, timeout=2 * WAIT_S
    )
    assert ended.returncode == 0, f"{arguments}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout
