"""`run`, `ingest` and `search` start servers and workers for themselves when nothing is configured and nothing runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agno_workers import local
from agno_workers.database import migrate
from tests.acceptance.terminal import ROOT, StartProgram, programs
from tests.forking import inherited

STARTS = "nothing is configured and no `agno-workers up` is running: starting"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start_program(state_dir: Path) -> Iterator[StartProgram]:
    """Starts commands without any address."""
    settings = {"AGNO_CONFIG": str(ROOT / "config" / "test.toml"), "AGNO_IMPORTS": "tests.agents"}
    yield from programs(settings | {"AGNO_STATE_DIR": str(state_dir)})


def test_run_starts_what_it_needs_and_leaves_nothing(start_program: StartProgram) -> None:
    run = start_program("run", "shouter", "hi", "--no-wait")  # nobody would work on it afterwards
    line = run.wait_for(STARTS)
    everything = run.family()
    assert run.end() == 0, "".join(run.lines)
    assert line.endswith("Postgres, Valkey and workers for this command. It waits for the result, because the work stops with it.\n")  # fmt: skip
    assert run.lines[-1] == "HI\n"
    assert everything.are_gone()
    ignorant = start_program(
        "run", "shouter", "hi", AGNO_IMPORTS=""
    )  # the agent is registered now, and nobody has it
    assert ignorant.end() == 2
    assert "AGNO_IMPORTS is not set" in ignorant.lines[-1]


def test_ingest_waits_for_its_end_and_search_finds_the_document(
    start_program: StartProgram, tmp_path: Path
) -> None:
    (tmp_path / "fence.md").write_text("# Fences\n\nA fence is a number that only grows.\n")
    ingest = start_program("ingest", str(tmp_path / "fence.md"), "-k", "notes", "--embedder", "hash:64")
    assert ingest.end() == 0, "".join(ingest.lines)
    assert STARTS in ingest.lines[0]
    assert "notes done" in ingest.lines[-1]

    search = start_program("search", "notes", "a fence")
    assert search.end() == 0, "".join(search.lines)
    assert search.lines[0].endswith("starting Postgres and Valkey for this command.\n")
    assert "A fence is a number" in "".join(search.lines)


def test_servers_that_run_are_used(start_program: StartProgram, state_dir: Path) -> None:
    with local.servers(state_dir, fsync=False) as servers:
        migrate.upgrade(servers.database_url)
        run = start_program("run", "shouter", "hi", "--no-wait")
        assert run.end() == 0, "".join(run.lines)
        assert len(run.lines) == 1  # the id

        for program in PROGRAMS:
            ended = _python(program, state_dir)
            assert (ended.returncode, ended.stdout.split()[-1:]) == (0, ["known"]), ended.stderr
        for setting in (
            {"AGNO_LOCAL_SERVERS": "false"},
            {"AGNO_BROKER_URL": servers.broker_url},
            {"AGNO_DATABASE_URL": servers.database_url},
            {"AGNO_CONFIG": str(ROOT / "config" / "production.toml")},
            {"AGNO_STATE_DIR": str(state_dir.parent)},
        ):
            refused = _python(PROGRAMS[0], state_dir, **setting)
            assert re.search(r"SettingsError: AGNO_(DATABASE|BROKER)_URL is not set", refused.stderr), setting

        env = start_program("env")
        assert env.end() == 0
        shell = f'{"".join(env.lines)}printf \'%s %s\' "$AGNO_DATABASE_URL" "$AGNO_BROKER_URL"'
        exported = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
        assert exported == f"{servers.database_url} {servers.broker_url}"

        servers.valkey.socket_dir.chmod(0o777)  # anyone could have put that socket there
        assert start_program("env").end() == 2
    gone = start_program("env")
    assert gone.end() == 2
    assert f"no local servers run in '{state_dir}': start them with `agno-workers up`" in gone.lines[0]


PROGRAMS = [
    "from tests.agents import echo; echo.delay('hi'); print('known')",
    "from agno_workers.tasks import celery; celery.AsyncResult('0198c0de-0000-7000-8000-000000000000').state; print('known')",
]


def _python(program: str, state_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a user who has configured nothing, or only this."""
    environment = inherited() | {"AGNO_STATE_DIR": str(state_dir)} | settings
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
