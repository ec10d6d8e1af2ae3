"""The programs, commands and statements of the pages are executed as they are written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
from celery import chord

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import StepStatus
from tests.agents import caller, echo
from tests.conftest import ROOT, StartWorker, Worker
from tests.forking import inherited
from tests.invariants import until
from tests.worker import start_forked

WAIT_S = 60
QUEUES = "agents,tools,background,knowledge"
"""Those of `agno-workers up`."""
ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f-]{27}$", re.MULTILINE)
"""A line with the id of a run."""
COMMAND = re.compile(r"^(?:\./run )?agno-workers (.*)$", re.MULTILINE)
NOT_EXECUTED = {"up", "demo", "init", "metrics", "worker"}
"""Commands that start servers or write files; tests/acceptance has a test of each."""
TOGETHER = "reference-"
"""Pages with this prefix share a worker: their files and agents have different names."""


@dataclass(frozen=True)
class Page:
    """The code blocks of a page, in order, without those marked `<!-- not run: REASON -->`."""

    name: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        found = re.findall(
            r"(<!-- not run: .*? -->\n)?```(\w*)\n(.*?)```", (ROOT / self.name).read_text(encoding="utf-8"), re.DOTALL
        )  # fmt: skip
        return [
            (language, code)
            for mark, language, code in found
            if not mark and language in ("python", "sh", "sql")
        ]  # fmt: skip

    @property
    def files(self) -> dict[str, str]:
        """Blocks that begin with the name of a file, such as `# agents.py`."""
        return {
            name: code for language, code in self.blocks if language == "python" and (name := _file(code))
        }

    @property
    def is_executable(self) -> bool:
        return any(language != "sh" or COMMAND.search(code) for language, code in self.blocks)


PAGES = [Page("README.md"), *(Page(f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("*.md")))]
TESTING = Page("docs/howto-testing.md")
ALONE = [page for page in PAGES if page.is_executable and TOGETHER not in page.name and page != TESTING]
EXPECTED = {
    "README.md": ["What is a barrier[?]", "Compare them."],
    "docs/howto-fastapi.md": [
        "RunCompleted",
        r"What is a lease[?]\nWhat is a fence[?]\nWhat is a barrier[?]\n\Z",
    ],
    "docs/howto-langgraph.md": [r"^It is out\.$"],
    "docs/howto-agno.md": ["^Where is order 17[?] done "],
    "docs/howto-celery.md": [r"^LEASES\n\['a', 'B'\]\n", r"What is a queue[?]\nWhat is a queue[?]\n\Z"],
    "docs/howto-deploy.md": [ID.pattern],
    "docs/knowledge.md": ["docs/explanation.md", "crm:note-17"],
    "docs/sessions.md": [
        r"after \['I am Ann.', 'I am Ann.', 'Where is order 17[?]', 'Where is order 17[?]'\]",
        r"^{'cart': \['desk'\]} 1 0$",
        r"^state 'cart' of session 'chat-7' has changed: it was read at version 1, and is at version 2 now\.",
        r"^\[\('append', \['lamp'\], 'client'\), \('append', \['desk'\], None\)\]\n{'cart': \['desk'\]}$",
    ],
    "docs/workflows.md": [
        "^{'topic': 'Leases of steps', 'words': '3', 'german': 'Leases of steps'}$",
        r"^\['writer', 'checks/translator', 'checks/count_words', 'as_page'\]$",
        r"^An article: Barriers!!$",
        r"^workflow 'review': the input does not fit: input\.is_legal: Field required",
        r"^step 'hotel' failed: ValueError: the hotel is full\. Undone: flight\.$",
        "^order 17 is shipped False$",
        r"^Welcome Acme[.] It pays later: step 'charge' failed: ValueError: no money$",
        r"^\['profile', 'risk', 'docs', 'greeting', 'charge'\]$",
        r"^workflow 'onboard': the input does not fit: customer.name: Field required",
        r"^2 of 3$",
    ],
    "docs/tutorial.md": [
        "done Usage\\(",
        r"What is a lease[?] -> What is a lease[?]\n",
        r"What is a fence[?] -> What is a fence[?]\n",
        "^1 RunStarted$",
        "'wirter'",
        r"pay {'euros': 120}\nThe supplier is paid.\n",
        "Write one sentence about both.",
        "10 shelves, attempt 2",
        r"^1 document\nPayments \\| Ann approves payments above 100 EUR.$",
        r"^See \[1\]: Ann approves.\n1 Payments cited$",
        r"^Ann approves payments, and is greeted.\nclerk was run .*\nwriter was run ",
    ],
}
"""Patterns in the output of a page."""


@dataclass
class Folder:
    """A reader's folder and shell."""

    path: Path
    environment: dict[str, str]
    client: Client
    blocks: int = 0

    def follow(self, pages: Sequence[Page], start_worker: StartWorker, **more: str) -> str:
        """Write the pages' files, start a worker for them, execute the blocks in order, and return all output."""
        files = {name: code for page in pages for name, code in page.files.items()}
        for name, code in files.items():
            (self.path / name).write_text(code, encoding="utf-8")
        modules = ",".join(name.removesuffix(".py") for name in files)
        own = {"AGNO_IMPORTS": modules, "PYTHONPATH": f"{self.path}{os.pathsep}{ROOT}"}
        worker = start_worker(queues=QUEUES, **own)
        shell = inherited() | self.environment | own | more
        output = ""
        for language, code in (block for page in pages for block in page.blocks):
            match language:
                case "python" if example := re.match(r"# (examples/\S+\.py)\n", code):
                    # Tests of its own execute it: test_examples.py.
                    assert code == example[0] + (ROOT / example[1]).read_text(encoding="utf-8")
                case "python" if file := _file(code):
                    output += self._python(shell, f"import {file.removesuffix('.py')}")
                case "python":
                    output += self._python(shell, code)
                case "sql":
                    output += self._submit(code)
                case _:
                    for line in code.splitlines():
                        if found := COMMAND.match(line):
                            output += self._command(shell, shlex.split(found[1], comments=True), output)
                        elif line.startswith("pkill -9"):
                            self._kill(worker, ID.findall(output)[-1])
                            worker = start_worker(queues=QUEUES, **own)
                            self.client.runs.get(ID.findall(output)[-1]).wait(timeout=WAIT_S)
        return output

    def _kill(self, worker: Worker, run_id: str) -> None:
        """Kill the worker while it executes a tool of the run."""
        steps = self.client.runs.get(run_id)
        until(lambda: any(step.name and step.status is StepStatus.RUNNING for step in steps.steps))
        worker.kill()

    def _python(self, shell: dict[str, str], code: str) -> str:
        self.blocks += 1
        name = f"block_{self.blocks}"
        (self.path / f"{name}.py").write_text(code, encoding="utf-8")
        return _execute(shell, name)

    def _submit(self, statement: str) -> str:
        with psycopg.connect(self.environment["AGNO_DATABASE_URL"]) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        return f"{row[0]}\n" if row else ""

    def _command(self, shell: dict[str, str], words: list[str], output: str) -> str:
        if words[0] in NOT_EXECUTED:
            return ""
        if "ID" in words:
            run_id = ID.findall(output)[-1]
            words = [run_id if word == "ID" else word for word in words]
            if "approve" in words:
                until(lambda: self.client.runs.get(run_id).requirements)
        return _execute(shell, "agno_workers.cli.main", *words)


@pytest.fixture
def folder(tmp_path: Path, environment: dict[str, str], client: Client) -> Folder:
    return Folder(tmp_path, environment, client)


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.name)
def test_page(page: Page, folder: Folder, start_worker: StartWorker) -> None:
    output = folder.follow([page], start_worker, AGNO_SIGNING__KEYS="k" * 32)
    for pattern in EXPECTED.get(page.name, []):
        assert re.search(pattern, output, re.MULTILINE), f"{pattern}\n{output}"
    for run in folder.client.runs.list() if page.files else ():
        if run.deadline_at is None:
            folder.client.runs.get(run.id).wait(timeout=WAIT_S)


def test_page_about_tests(folder: Folder) -> None:
    """Its fixture starts the workers, on the servers of this test."""
    for name, code in TESTING.files.items():
        (folder.path / name).write_text(code, encoding="utf-8")
    shell = inherited() | folder.environment | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        command, cwd=folder.path, env=shell, capture_output=True, text=True, timeout=2 * WAIT_S
    )
    assert "5 passed" in ended.stdout, ended.stdout + ended.stderr


def test_reference_pages(folder: Folder, start_worker: StartWorker) -> None:
    folder.follow([page for page in PAGES if TOGETHER in page.name], start_worker)


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A link or an anchor that leads nowhere, and a page that the navigation lacks, is a warning."""
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.glob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)\b[^>]*(?:src|href)=\"(https?:[^\"]*)", page.read_text("utf-8")
        )
        assert not loaded, page.name
    assert (tmp_path / "searchindex.js").exists()


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


def _execute(shell: dict[str, str], *command: str) -> str:
    """Return the output of `python -m COMMAND`."""
    process, output = start_forked(list(command), shell)
    with output:
        text = output.read()
    assert process.wait(timeout=WAIT_S) == 0, f"{command}\n{text}"
    return text
