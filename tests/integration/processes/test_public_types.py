"""The public face: the names that are promised, and what a type checker reports in a user's file."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agno_workers
from agno_workers import errors, types

ROOT = Path(__file__).parents[3]
USER_FILE = """
from agno_workers import Agent, Batch, Client, Knowledge, Limits, NoSuchName, RunHandle, RunOutput, RunResult, tool
from agno_workers.errors import LimitReached, ModelUnavailable, RunFailed
from agno_workers.types import Progress, Run, SearchResult

@tool(effect="at_least_once")
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

agent = Agent(name="a", model="openai:x", tools=[add], knowledge=Knowledge("docs"), limits=Limits(on_limit="return"))
run: RunResult = agent.delay("hello", session_id="s-1", deadline_s=60, idempotency_key="k")
agent.delay("hello", sesion_id="s-1")  # wrong
agent.s("hello", deadline_s="soon")  # wrong
Knowledge("docs").ingest("docs/", idempotency_key="k", batch=True)
Knowledge("docs").ingest("docs/", deadline=60)  # wrong
batch: Batch = agent.map(["a", "b"], keys=["1", None], priority=3)
agent.map(["a"], prio=3)  # wrong
Limits(on_limit="stop")  # wrong
with Client("postgresql://") as client:
    handle: RunHandle = client.runs.submit("a", "hello", run_id="x", countdown=1.5, tenant="t")
    client.runs.submit("a", "hello", task_id="x")  # wrong
    runs: list[Run] = client.runs.list(status="failed")
    output: RunOutput = handle.wait(timeout=1)
    handle.redrive()  # wrong
    found: list[SearchResult] = client.knowledge("docs").search("hello", search_type="keyword")
    client.knowledge("docs").search("hello", search_type="fuzzy")  # wrong
    client.knowledge("docs").ingest(["docs/"], priorty=1)  # wrong
    progress: Progress = client.ingestions.get("x").wait()
    try:
        client.batches.submit("a", ["b"]).wait()
    except LimitReached as error:
        text: str | None = error.content
    except RunFailed as error:
        why: str | None = error.reason
        error.run  # wrong
    except ModelUnavailable as error:
        seconds: float | None = error.retry_after_s
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> set[int]:
    """The lines of USER_FILE that mypy reports."""
    file = tmp_path_factory.mktemp("user") / "user_file.py"
    file.write_text(USER_FILE)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", "--no-error-summary", str(file)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    lines = re.findall(r"user_file\.py:(\d+): error:", checked.stdout)
    assert lines, checked.stdout + checked.stderr
    return {int(line) for line in lines}


def test_type_checker_reports_the_misspelt_names_and_options_and_nothing_else(reported: set[int]) -> None:
    lines = USER_FILE.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# wrong" in line or "NoSuchName" in line}
    assert reported == wrong, [lines[number - 1] for number in reported ^ wrong]


@pytest.mark.parametrize("module", [agno_workers, types], ids=["agno_workers", "types"])
def test_every_promised_name_can_be_imported(module: object) -> None:
    names: list[str] = getattr(module, "__all__")  # noqa: B009 - mypy does not know it of an object
    assert names
    assert not [name for name in names if not hasattr(module, name)]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'agno_workers' has no attribute 'Agnet'"):
        importlib.import_module("agno_workers").Agnet  # noqa: B018


def test_top_level_errors_are_those_of_the_errors_module() -> None:
    for name in agno_workers.__all__:
        if hasattr(errors, name):
            assert getattr(agno_workers, name) is getattr(errors, name)
