"""docs/crash_matrix.md, the cells and the places in the code where a process can be killed are in step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agno_workers.signals import SIGNALS
from tests.acceptance.matrix import cases, page
from tests.acceptance.matrix.cells import CELLS

ROOT = Path(__file__).parents[2]
INGESTIONS = ("acceptance/test_ingestion_crashes.py", "integration/knowledge/test_ingest.py")
REACHED = re.compile(r'\bsignal\("([^"]+)"')


def test_the_page_is_what_the_cells_say() -> None:
    assert page.PAGE.read_text() == page.text(), "write it: python -m tests.acceptance.matrix.page"


def test_every_row_of_the_matrix_has_cells() -> None:
    assert [number for number in page.PROMISES if number != "-"] == [f"C{number}" for number in range(1, 25)]
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
    files = [Path(cases.__file__), *(ROOT / "tests" / name for name in INGESTIONS)]
    told = [name for file in files for name in re.findall(r'"([a-z]+\.[a-z]+)"', file.read_text())]
    assert {cell.place for cell in CELLS} | set(told) >= set(SIGNALS)
