"""`./run` on machines that lack something: one sentence, exit 2, and nothing changed. And the lock that it installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What `./run` reads, in a folder where it has not been used yet."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("run", "pyproject.toml", "requirements.lock", "setup.py"):
        shutil.copy(PROJECT / name, folder)
    return folder


def test_help_needs_no_environment(project: Path) -> None:
    shown = run(project)
    assert shown.returncode == 0
    assert shown.stdout.startswith("./run demo [PATH]")
    assert shown.stdout == run(project, "--help").stdout
    assert not (project / ".venv").exists()


def test_an_old_python_is_refused(project: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9.18 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    refused = run(project, "python", AGNO_PYTHON=str(old))
    assert refused.returncode == 2
    assert "needs Python 3.11 or newer, and" in refused.stderr
    assert "is 3.9.18: name a newer one, as in AGNO_PYTHON=python3.12 ./run" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (project / ".venv").exists()


def test_a_missing_python_is_named(project: Path) -> None:
    refused = run(project, "python", AGNO_PYTHON="python9")
    assert refused.returncode == 2
    assert "'python9' does not run here" in refused.stderr


def test_a_folder_that_cannot_be_written_to_is_named(project: Path) -> None:
    refused = run(project, "python", AGNO_VENV="/proc/venv")
    assert refused.returncode == 2
    assert refused.stderr.startswith("agno-workers can't write to '/proc/venv': name a folder of your own")
    assert refused.stderr.count("\n") == 1


def test_an_environment_of_this_lock_is_used_at_once(project: Path) -> None:
    """No installer is at hand, so anything but using it would fail."""
    venv = project / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    made_from = f"{project}\n".encode() + b"".join(
        (project / name).read_bytes() for name in ("requirements.lock", "pyproject.toml", "setup.py")
    )
    (venv / "stamp").write_bytes(
        subprocess.run("cksum", input=made_from, capture_output=True, check=True).stdout
    )

    shown = run(project, "python", "-c", "import os; print(os.environ['AGNO_CONFIG'])", AGNO_PYTHON="python9")
    assert shown.stdout == f"{project}/config/development.toml\n"

    with (project / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert run(project, "python", "-c", "", AGNO_PYTHON="python9").returncode == 2


def test_the_lock_has_every_dependency() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[^\w.-]", requirement)[0] for group in groups for requirement in group}
    locked = set(re.findall(r"^([\w.-]+)==", (PROJECT / "requirements.lock").read_text(), re.MULTILINE))
    assert wanted <= locked, "put ./run before the command in the head of requirements.lock"


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [project / "run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PATH": os.environ["PATH"], **environment},
    )
