"""The programs in examples/, started by the commands of the pages that show them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, StartWorker
from tests.forking import inherited

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a program in a folder of examples; it is killed with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        own = {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "examples" / folder, ROOT))),
            "AGNO_IMPORTS": "",
        }
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path, env=inherited() | environment | own | more, text=True, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def test_celery(start: Start, start_worker: StartWorker) -> None:
    page = (ROOT / "docs/howto-celery.md").read_text(encoding="utf-8")
    ours, own = re.findall(r"^(?:AGNO_IMPORTS=shop )?celery -A (.* worker -Q .*)$", page, re.MULTILINE)
    assert ours == "agno_workers worker -Q agents,tools"
    folder = os.pathsep.join(map(str, (ROOT / "examples/celery", ROOT)))
    start_worker(AGNO_IMPORTS="shop", PYTHONPATH=folder)
    start("celery", "-m", "celery", "-A", *shlex.split(own), "-P", "threads", "-c", "4", "-l", "ERROR")
    calls = start("celery", "-m", "calls")
    output, _ = calls.communicate(timeout=90)
    assert output.splitlines()[:5] == [
        "A QUEUE",
        "What is a queue?",
        "ORDER 17",
        "['a', 'order 18']",
        "locks | order 19",
    ]
    assert "Compare them." in output
    assert output.endswith("A CALLBACK\n")
