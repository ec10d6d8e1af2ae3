"""What a stranger gets from `pip install`: the wheel, and the project that its `init` writes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import agno_workers

ROOT = Path(__file__).parents[2]
SOURCES = ("agno_workers", "tasks", "config", "Procfile", "docker-compose.yml", "MANIFEST.in")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a source distribution, and of it a wheel, in a copy; return the folder with what is in the wheel."""
    source, built, unpacked = (tmp_path_factory.mktemp(name) for name in ("source", "built", "unpacked"))
    files = [ROOT / name for name in SOURCES] + [path for path in ROOT.iterdir() if path.is_file()]
    subprocess.run(["cp", "-R", "-P", *map(str, dict.fromkeys(files)), str(source)], check=True, timeout=60)
    command = [
        "uv",
        "build",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        str(built),
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked


def test_the_wheel_has_every_file_of_the_package(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "agno_workers", "tasks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git work tree")
    names = {name for name in listed.stdout.split("\0") if name and name != "agno_workers/tasks"}
    packed = {f"agno_workers/{name}" if name.startswith("tasks/") else name for name in names}
    assert {name for name in packed if not (installed / name).is_file()} == set()
    assert not (installed / "tasks").exists()
    assert not (installed / "tests").exists()


def test_init_writes_a_project_whose_agent_works(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    project.mkdir()
    (project / ".gitignore").write_text("mine\n")
    written = _command(installed, tmp_path, "init", "shop")
    assert ".gitignore kept as it is" in written
    assert (project / ".gitignore").read_text() == "mine\n"
    for name in (
        "Procfile",
        "docker-compose.yml",
        "config/flower.py",
        "config/alerts.yml",
        "config/production.toml",
        *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("config/k8s/*")),
    ):
        assert (project / name).read_bytes() == (ROOT / name).read_bytes()
    assert (
        f"agno-workers[knowledge,objects]=={agno_workers.__version__}" in (project / "Dockerfile").read_text()
    )
    assert "\nAGNO_IMPORTS=agents\n" in (project / "config/env.example").read_text()
    assert "writer" in _command(installed, project, "agents", "ls", AGNO_IMPORTS="agents")
    assert "can't be written" in _command(installed, tmp_path, "init", "shop/Procfile", status=2)


def _command(installed: Path, folder: Path, *words: str, status: int = 0, **variables: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGNO_", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "agno_workers.cli.main", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(installed), "AGNO_STATE_DIR": str(folder / "state")} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr
