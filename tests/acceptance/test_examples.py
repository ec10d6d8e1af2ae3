"""The programs in examples/, started by the commands of the pages that show them."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import invariants
from tests.conftest import ROOT, StartWorker
from tests.forking import inherited

Start = Callable[..., subprocess.Popen[str]]


def page(name: str) -> str:
    return (ROOT / f"docs/howto-{name}.md").read_text(encoding="utf-8")


def python_path(folder: str) -> str:
    return os.pathsep.join(map(str, (ROOT / "examples" / folder, ROOT)))


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start a program in a folder of examples; it is killed with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        own = {
            "PYTHONPATH": python_path(folder),
            "AGNO_IMPORTS": "",
        }
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path, env=inherited() | environment | own | more, text=True, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def test_celery(start: Start, start_worker: StartWorker) -> None:
    ours, own = re.findall(
        r"^(?:AGNO_IMPORTS=shop )?celery -A (.* worker -Q .*)$", page("celery"), re.MULTILINE
    )
    assert ours == "agno_workers worker -Q agents,tools,background"
    start_worker(AGNO_IMPORTS="shop", PYTHONPATH=python_path("celery"))
    start("celery", "-m", "celery", "-A", *shlex.split(own), "-P", "threads", "-c", "4", "-l", "ERROR")
    calls = start("celery", "-m", "calls")
    output, _ = calls.communicate(timeout=90)
    assert output.splitlines()[:5] == [
        "A QUEUE",
        "What is a queue?",
        "ORDER 17",
        "['a', 'order 18']",
        "locks | order 19",
    ]
    assert "Compare them." in output
    assert output.endswith("A CALLBACK\n")


def test_assistant_remembers_on_wednesday_what_it_was_told_on_monday(
    start: Start, start_worker: StartWorker
) -> None:
    start_worker(queues="agents,tools,background", AGNO_IMPORTS="examples.assistant", PYTHONPATH=str(ROOT))
    output, _ = start("", "-m", "examples.assistant").communicate(timeout=90)
    for line in (
        "Assistant: You said: I am allergic to nuts. Put bread on my list.",
        "(history: the model saw 4 messages of the run before)",
        "(learned after the answer: ['Ann is allergic to nuts.'])",
        "Assistant: It is Wednesday: olives, since nuts are not for you.",
        "(recalled: ['Ann is allergic to nuts.']; context: {'today': 'Wednesday'})",
        "(the message is committed: one run read both)",
        "(state of the user: {'shopping': ['melon']})",
    ):
        assert line in output


PROGRAMS = {
    "research_team": [
        "Two things have one name. A lease is a right for a time",
        "(historian worked in a run of its own: done)",
        "(engineer worked in a run of its own: done)",
    ],
    "onboarding": [
        "Welcome! Please sign: contract for Ana, terms.",
        "A person is asked: Accept Captain Nemo?",
        "Welcome! Please sign: contract for Captain Nemo, terms.",
    ],
    "triage_handoff": [
        "Helpdesk: Your invoice is for two chairs. Is anything wrong with it?",
        "(turns of: helpdesk, billing)",
        "Helpdesk: Done: order 17 is paid back.",
        "(turns of: billing, refunds, refunds)",
    ],
    "review_loop": [
        "A lease ends by itself.",
        "(wordy, round 1: revise, 18 words: make it shorter.)",
        "(wordy, round 2: approve, Clear and short.)",
        "(lost, round 1: reject, This is not about leases.)",
    ],
    "batch_map": ["* Page 0 of\n", "* Page 11 of\n", "1 file(s) could not be read."],
}
"""Examples of teams and workflows, and what each prints."""


def test_teams_and_workflows(start: Start, start_worker: StartWorker, tmp_path: Path) -> None:
    """One worker has all of them, and they run at the same time."""
    start_worker(AGNO_IMPORTS=",".join(f"examples.{name}" for name in PROGRAMS), PYTHONPATH=str(ROOT))
    started = {name: start("", "-m", f"examples.{name}", *_arguments(name, tmp_path)) for name in PROGRAMS}
    for name, lines in PROGRAMS.items():
        output, _ = started[name].communicate(timeout=90)
        assert not [line for line in lines if line not in output], f"{name}:\n{output}"


def _arguments(name: str, folder: Path) -> list[str]:
    """Return the arguments of an example."""
    if name != "batch_map":
        return []
    pages = folder / "pages"
    pages.mkdir()
    for number in range(12):
        (pages / f"{number}.txt").write_text(f"Page {number} of a book.")
    (pages / "broken.txt").write_bytes(b"\xff")
    return [str(pages)]


def test_fastapi(start: Start, start_worker: StartWorker, tmp_path: Path) -> None:
    """A reader that connects again gets the other events, each once."""
    agents = re.search(r"```python\n(# agents\.py\n.*?)```", page("fastapi"), re.DOTALL)
    assert agents
    (tmp_path / "agents.py").write_text(agents[1], encoding="utf-8")
    start_worker(AGNO_IMPORTS="agents", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start("fastapi", "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        invariants.until(lambda: is_up(http))
        key = {"Idempotency-Key": "k"}
        run = http.post("/runs", json={"question": "What is a lease?"}, headers=key)
        assert run.status_code == 202
        address = f"/runs/{run.json()['id']}"
        frames = list(followed(http, address))
        numbers = [int(frame["id"]) for frame in frames if "id" in frame]
        assert numbers == list(range(1, len(numbers) + 1))
        assert frames[-1]["event"] == "RunCompleted"
        assert "Text" in [frame["event"] for frame in frames]
        again = [int(frame["id"]) for frame in followed(http, address, "2") if "id" in frame]
        assert again == numbers[2:]
        shown = http.get(address).json()
        assert (shown["status"], shown["content"]) == ("done", "What is a lease?")
        assert http.delete(address).json() == {"cancelled": False}
        assert http.post("/runs", json={"question": "What is a lease?"}, headers=key).json() == run.json()
        nobody = "/runs/0198c0de-0000-7000-8000-000000000000"
        for wrong in ("/runs/17", nobody, f"{nobody}/events"):
            assert http.get(wrong).status_code == 404
        assert http.post("/runs", json={"question": " "}).status_code == 422


def followed(http: httpx.Client, address: str, last: str | None = None) -> Iterator[dict[str, str]]:
    """Yield the server-sent events of a run, as an EventSource reads them; `last` is the last number that it has seen."""
    headers = {"Last-Event-ID": last} if last else {}
    with http.stream("GET", f"{address}/events", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        frame: dict[str, str] = {}
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if not line and frame:
                yield frame
                frame = {}
            elif name:
                frame[name] = value


def is_up(http: httpx.Client) -> bool:
    try:
        return http.get("/openapi.json").status_code == 200
    except httpx.TransportError:
        return False


DJANGO = """
import django
django.setup()
from django.db import connection, transaction
from django.test import Client
from orders.models import Order
from agno_workers import Client as Runs
import os

web, runs = Client(), Runs(os.environ["AGNO_DATABASE_URL"])
made = web.post("/orders", {"text": "two chairs"}).json()
print(runs.runs.get(made["run"]).result(timeout=60), runs.runs.get(made["run"]).run.metadata == {"order": made["order"]})
later = web.post("/orders/later", {"text": "a table"}).json()
(run,) = [each for each in runs.runs.list() if each.idempotency_key == f"order-{later['order']}"]
print(runs.runs.get(run.id).result(timeout=60))

from django.test import RequestFactory
from orders import views
before = len(runs.runs.list()), Order.objects.count()
for view in (views.create, views.create_then_submit):
    try:
        with transaction.atomic():
            view(RequestFactory().post("/orders", {"text": "a bed"}))
            raise RuntimeError("the rest of the request fails")
    except RuntimeError:
        pass
print((len(runs.runs.list()), Order.objects.count()) == before)
"""


def test_django(start: Start, start_worker: StartWorker) -> None:
    """Workers import agents that import models; an order and its run are committed together or not at all."""
    own = {"DJANGO_SETTINGS_MODULE": "project.settings", "AGNO_IMPORTS": "orders.agents"}
    made, _ = (migrated := start("django", "-m", "manage", "migrate", "--run-syncdb", **own)).communicate(
        timeout=60
    )
    assert migrated.returncode == 0, made
    start_worker(PYTHONPATH=python_path("django"), **own)
    said, _ = start("django", "-c", DJANGO, **own).communicate(timeout=90)
    assert said == "two chairs True\na table\nTrue\n"
    listed, _ = start("django", "-m", "agno_workers.cli.main", "agents", "ls", **own).communicate(timeout=60)
    assert "clerk" in listed
