"""docs/crash_matrix.md, the cells and the places in the code where a process can be killed are in step."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agno_workers.signals import SIGNALS
from tests.acceptance.matrix import page, stories
from tests.acceptance.matrix.cells import CELLS

ROOT = Path(__file__).parents[2]
INGESTIONS = ("acceptance/test_ingestion_crashes.py", "integration/knowledge/test_ingest.py")
REACHED = re.compile(r'\bsignal\("([^"]+)"')


def test_the_page_is_what_the_cells_say() -> None:
    assert page.PAGE.read_text() == page.text(), "write it: python -m tests.acceptance.matrix.page"


def test_every_row_of_the_matrix_has_cells() -> None:
    assert [number for number in page.PROMISES if number != "-"] == [f"C{number}" for number in range(1, 23)]
    assert {row.number for row in page.rows()} == set(page.PROMISES)


def test_no_two_cells_are_the_same() -> None:
    tests = [row.test for row in page.rows()]
    assert len(tests) == len(set(tests))


@pytest.mark.parametrize("row", page.ELSEWHERE, ids=lambda row: row.test.partition("::")[2])
def test_every_test_that_the_page_names_is_there(row: page.Row) -> None:
    file, _, name = row.test.partition("::")
    assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text()


def test_the_places_in_the_code_are_those_that_are_listed() -> None:
    sources = [
        path
        for path in (ROOT / "agno_workers").rglob("*.py")
        if path.name not in ("failpoints.py", "signals.py")
    ]
    assert {name for path in sources for name in REACHED.findall(path.read_text())} == set(SIGNALS)


def test_somebody_dies_at_every_place() -> None:
    files = [Path(stories.__file__), *(ROOT / "tests" / name for name in INGESTIONS)]
    told = [name for file in files for name in re.findall(r'"([a-z]+\.[a-z]+)"', file.read_text())]
    assert {cell.place for cell in CELLS} | set(told) >= set(SIGNALS)


# The places themselves.


def reaching(at: str, *names: str, how: str = "") -> subprocess.CompletedProcess[str]:
    """A process that comes to these places, one after another, and says when it has passed one."""
    code = "import sys\nfrom agno_workers.signals import signal\nfor name in sys.argv[1:]:\n    signal(name)\n    print(name, flush=True)"
    environment = {**os.environ, "AGNO_CRASH_AT": at} | ({"AGNO_CRASH_HOW": how} if how else {})
    return subprocess.run(
        [sys.executable, "-c", code, *names],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_process_dies_at_its_place_and_at_no_other() -> None:
    died = reaching("turn.claimed", "turn.received", "turn.claimed")
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "turn.received\n")
    assert reaching("", "turn.claimed").returncode == 0


def test_a_process_dies_the_nth_time_by_another_signal() -> None:
    died = reaching("turn.claimed:2", "turn.claimed", "turn.claimed", how="TERM")
    assert (died.returncode, died.stdout) == (-signal.SIGTERM, "turn.claimed\n")


def test_a_token_lets_one_of_many_die(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    assert reaching(f"turn.claimed@{tmp_path / 'token'}", "turn.claimed").returncode == -signal.SIGKILL
    assert reaching(f"turn.claimed@{tmp_path / 'token'}", "turn.claimed").returncode == 0


def test_a_folder_says_where_how_and_who_may_pass(tmp_path: Path) -> None:
    (tmp_path / "tool.executed").write_text("TERM")
    (tmp_path / "tool.executed.0").touch()
    died = reaching(f"@{tmp_path}", "turn.claimed", "tool.executed", "tool.executed")
    assert (died.returncode, died.stdout) == (-signal.SIGTERM, "turn.claimed\ntool.executed\n")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    refused = reaching("turn.claimd")
    assert refused.returncode == 1
    assert "is not a failpoint: write one of submit.asked" in refused.stderr
