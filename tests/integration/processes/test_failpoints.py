"""A process dies at the place that `AGNO_CRASH_AT` names, and nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


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
