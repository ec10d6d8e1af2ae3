"""A supervised process: its output, its exit status, its descendants, and its secrets."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from agno_workers.errors import EmbeddedError
from agno_workers.local.supervised import Supervised
from agno_workers.local.supervisor import ProcessSpec


def shell(script: str, **environment: str) -> ProcessSpec:
    return ProcessSpec(["/bin/sh", "-c", script], "/", {"PATH": os.defpath, **environment})


def test_lines_and_exit_status_reach_us() -> None:
    lines: list[str] = []
    process = Supervised(shell("echo out; echo err >&2; exit 3"), on_line=lines.append)
    assert process.wait() == 3
    assert lines == ["out", "err"]


def test_descendants_end_with_the_process(tmp_path: Path) -> None:
    process = Supervised(shell(f"setsid sleep 60 & echo $! > {tmp_path}/pid"), tmp_path / "log")
    assert process.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_process_that_ignores_the_stop_signal_is_killed(tmp_path: Path) -> None:
    spec = replace(shell("trap '' TERM; echo ready; sleep 60"), stop_timeout_s=0.2, pipe_stdout=True)
    process = Supervised(spec, tmp_path / "log")
    assert process.read_line() == "ready"
    watch = os.pidfd_open(process.pid)
    process.terminate()
    assert process.wait() == 128 + signal.SIGKILL
    assert select.select([watch], [], [], 0)[0]
    os.close(watch)


def test_the_environment_is_on_no_command_line(tmp_path: Path) -> None:
    spec = replace(shell("echo ready; sleep 60; :", KEY="not-for-others"), pipe_stdout=True)
    process = Supervised(spec, tmp_path / "log")
    try:
        assert process.read_line() == "ready"
        assert "not-for-others" in Path(f"/proc/{process.pid}/environ").read_text()
        parent = Path(f"/proc/{process.pid}/stat").read_text().split()[3]
        for pid in (str(process.pid), parent):
            assert "not-for-others" not in Path(f"/proc/{pid}/cmdline").read_text()
    finally:
        process.kill()


def test_a_program_that_does_not_exist_is_named_in_the_log(tmp_path: Path) -> None:
    process = Supervised(ProcessSpec(["/nothing/here"], "/", {}), tmp_path / "log")
    assert process.wait() == 127
    assert "/nothing/here: " in (tmp_path / "log").read_text()


def test_a_supervisor_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_workers.local.supervisor.__file__", str(tmp_path / "missing.py"))
    with pytest.raises(EmbeddedError, match=r"could not be started: .*missing.py"):
        Supervised(shell("true"), tmp_path / "log")
