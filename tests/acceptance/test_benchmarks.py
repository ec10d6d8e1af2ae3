"""The benchmarks run from start to end and print their tables. How fast it is, is not asserted: machines differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)  # seconds; each starts servers and up to four workers


@pytest.mark.parametrize(
    ("names", "measured"),
    [
        ("agent bulk team", "submitting 500 runs, per run"),
        ("fanout", "stock loop of 5 chords"),
        ("growth sessions", "grows as n to the power of"),
    ],
)
def test_quick_benchmarks_print_one_table(names: str, measured: str, tmp_path: Path) -> None:
    kept = [*(ROOT / "benchmarks" / "results").glob("*.json"), *(ROOT / "docs" / "img").glob("*.png")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    found = tmp_path / "reports.json"
    ran = bench(*names.split(), "--quick", "--json", str(found), "--agno-python", str(tmp_path / "none"))
    assert ran.returncode == 0, ran.stderr
    assert measured in ran.stdout
    assert ran.stdout.count("agno-workers  ") == 1, "there is one head"
    reports = json.loads(found.read_bytes())
    assert [report["name"] for report in reports] == names.split()
    assert all(report["quick"] for report in reports)
    assert all(min(row["ours"]) > 0 for report in reports for row in report["rows"] if row["unit"])
    assert {path: path.stat().st_mtime_ns for path in before} == before, (
        "a quick look must not replace results"
    )


def test_a_broken_benchmark_leaves_the_others(tmp_path: Path) -> None:
    """Results of minutes are worth as much without the one that failed."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    ran = bench("agent", "submit", "--quick", "--agno-python", str(broken))
    assert ran.returncode == 1
    assert "agent failed" in ran.stderr
    assert "one call" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"), [(["fan-out"], "'fan-out'"), (["submit", "--concurrency", "0"], "--concurrency 0")]
)
def test_an_unknown_benchmark_or_a_worker_without_threads_is_refused(arguments: list[str], said: str) -> None:
    refused = bench(*arguments)
    assert refused.returncode == 2
    assert said in refused.stderr


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=dict(os.environ) | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=280,
    )
