"""`agno-workers demo` succeeds, and survives a kill of its workers and of itself."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from agno_workers import Client, local
from tests.acceptance.terminal import Program, StartProgram, programs

HOLDING = '''
"""A script for the demo: a turn over a text with HOLD in it goes on when the file {hold} is gone."""
import time
from pathlib import Path

from agno_workers.errors import ModelRejected
from agno_workers.models.scripted import Scripted, Turn


def write(request):
    text = request.messages[-1].text
    if "REJECT" in text:
        return Turn(error=ModelRejected("this text is refused", provider="scripted", model="holding"))
    while "HOLD" in text and Path("{hold}").exists():
        time.sleep(0.02)  # the model at work
    return Turn(text=f"read {{len(text)}} characters")


Scripted("holding", write)
'''


@pytest.fixture
def start_program(environment: dict[str, str], tmp_path: Path) -> Iterator[StartProgram]:
    """Starts the demo with short leases, and a model that waits until `hold` is deleted."""
    (tmp_path / "demo_script.py").write_text(HOLDING.format(hold=tmp_path / "hold"))
    ours = {
        "AGNO_IMPORTS": "demo_script",
        "AGNO_RUNS__LEASE_S": "2",
        "AGNO_STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": str(tmp_path),
    }
    yield from programs(environment | ours)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.md").write_text(f"# {name}\n\nSome words of {name} to be read.\n")
    return folder


@pytest.fixture
def hold(tmp_path: Path, texts: Path) -> Path:
    """A demo over `texts` waits in the middle until this file is deleted."""
    (texts / "one.md").write_text("HOLD")
    (tmp_path / "hold").touch()
    return tmp_path / "hold"


def test_the_demo_succeeds_in_80_columns_on_the_servers_of_an_up(
    start_program: StartProgram, texts: Path, tmp_path: Path
) -> None:
    nowhere = {"AGNO_DATABASE_URL": "", "AGNO_BROKER_URL": ""}
    with local.servers(tmp_path / "state", fsync=False) as servers:
        demo = start_program("demo", str(texts), "--model", "scripted:demo", COLUMNS="80", **nowhere)
        assert demo.end() == 0, "".join(demo.lines)
        said = " ".join("".join(demo.lines).split())
        (run_id,) = re.findall(r"agno-workers runs show (\S+)", said)
        with Client(servers.database_url) as client:
            assert client.runs.get(run_id).run.tool_calls == 8
    assert "The servers stop now" not in said
    for sentence in (
        "use the Postgres and Valkey that `agno-workers up` runs, and start three Celery workers",
        "no model writes here, a script does",
        "9 words in 3 line(s). It begins: Some words of one to be read.",
        "A script chooses the eight calls, not a model.",
        "Everything is correct: 6 runs done, 19 steps recorded once each, the chord's body ran once",
    ):
        assert sentence in said
    bar = re.compile(r"^    count_code_blocks +░*█+ +[\d.]+ m?s +[\d.]+ m?s$")
    assert any(bar.match(line.rstrip()) for line in demo.lines)
    too_wide = [line for line in demo.lines if len(line.rstrip()) > 80]
    assert not [
        line for line in too_wide if "AGNO_STATE_DIR=" not in line
    ]  # what is to be copied is not broken


def test_a_model_that_refuses_fails_the_demo(start_program: StartProgram, texts: Path) -> None:
    (texts / "two.md").write_text("REJECT")
    demo = start_program("demo", str(texts), "--model", "scripted:holding")
    assert demo.end() == 1
    assert "this text is refused" in "".join(demo.lines)


def test_a_worker_killed_in_the_middle_changes_nothing(
    start_program: StartProgram, texts: Path, hold: Path
) -> None:
    demo = start_program("demo", str(texts), "--model", "scripted:holding")
    worker = _worker(demo)
    demo.wait_for("analyst one.md: running")
    os.kill(worker, signal.SIGKILL)
    demo.wait_for(f"process {worker} ended (SIGKILL), starting it again now")
    hold.unlink()
    assert demo.end() == 0, "".join(demo.lines)
    assert re.search(
        r"the chord's body ran once, \d attempt\(s\) repeated after a worker was lost\.", "".join(demo.lines)
    )


def test_a_demo_that_is_interrupted_leaves_nothing(
    start_program: StartProgram, texts: Path, hold: Path, database_url: str
) -> None:
    demo = start_program("demo", str(texts), "--model", "scripted:holding")
    demo.wait_for("analyst one.md: running")
    everything = demo.family()
    demo.signal(signal.SIGINT)
    demo.wait_for("Stopped early")
    assert demo.end() == 128 + signal.SIGINT
    assert everything.are_gone()
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT count(*) FROM agno.run WHERE ended_at IS NULL").fetchone()
    assert left == (0,)


def test_a_demo_that_is_killed_leaves_no_process_and_the_next_one_cleans_up(
    start_program: StartProgram, texts: Path, hold: Path, tmp_path: Path
) -> None:
    ours = {"AGNO_DATABASE_URL": "", "AGNO_BROKER_URL": ""}
    demo = start_program("demo", str(texts), "--model", "scripted:holding", **ours)
    demo.wait_for("analyst one.md: running")
    everything = demo.family()
    assert len(everything) > 8  # supervisors, workers, Valkey, Postgres and its children
    demo.signal(signal.SIGKILL)
    assert everything.are_gone()

    hold.unlink()
    again = start_program("demo", str(texts), "--model", "scripted:holding", **ours)
    assert again.end() == 0, "".join(again.lines)
    assert "cancelled the runs of a killed demo: 1" in "".join(again.lines)
    assert f"the runs stay in {tmp_path / 'state'}." in " ".join("".join(again.lines).split())


def _worker(demo: Program) -> int:
    """Return the process that executes the turns."""
    return int(demo.wait_for("agents: process ").split()[-1])
