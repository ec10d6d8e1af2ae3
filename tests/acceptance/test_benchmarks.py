"""The benchmarks run from start to end and print their tables. How fast it is, is not asserted: machines differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("agent", "time to build an agent with instructions"),
        ("fanout", "10 tools and the turn after them, p50"),
    ],
)
def test_a_quick_benchmark_prints_its_table(name: str, measured: str, tmp_path: Path) -> None:
    kept = (ROOT / "benchmarks" / "results").glob("*.json")
    before = {path: path.stat().st_mtime_ns for path in kept}
    ran = bench(
        name, "--quick", "--json", str(tmp_path / "reports.json"), "--agno-python", str(tmp_path / "none")
    )
    assert ran.returncode == 0, ran.stderr
    assert measured in ran.stdout
    (report,) = json.loads((tmp_path / "reports.json").read_bytes())
    assert report["quick"]
    assert all(min(row["ours"]) > 0 for row in report["rows"])
    assert {path: path.stat().st_mtime_ns for path in before} == before, (
        "a quick look must not replace results"
    )


def test_an_unknown_benchmark_is_refused() -> None:
    refused = bench("fan-out")
    assert refused.returncode == 2
    assert "'fan-out'" in refused.stderr


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=dict(os.environ) | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=110,
    )
