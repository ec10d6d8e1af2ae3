"""What operators see of runs: lines in a worker's log, Celery's events (Flower), and Celery's signals (Sentry)."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from celery import Celery

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.errors import ModelRejected
from tests.conftest import StartWorker, Worker

WAIT_S = 30


@pytest.fixture(params=["threads", "prefork"])
def worker(keep_worker: StartWorker, request: pytest.FixtureRequest) -> Worker:
    """A worker that sends events, with a handler of `task_failure`."""
    worker = keep_worker(
        "-E", pool=request.param, concurrency=2, AGNO_IMPORTS="tests.agents,tests.integration.watching"
    )
    worker.forget_lines()
    return worker


@contextmanager
def events(app: Celery) -> Iterator[SimpleQueue[dict[str, Any]]]:
    """Yield the events of tasks from now on."""
    got: SimpleQueue[dict[str, Any]] = SimpleQueue()
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": got.put})
        listening = threading.Event()
        receiver.on_consume_ready = lambda *_, **__: listening.set()
        thread = threading.Thread(
            target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False), daemon=True
        )
        thread.start()
        assert listening.wait(WAIT_S)
        yield got
        receiver.should_stop = True


def first(got: SimpleQueue[dict[str, Any]], kind: str, step_id: str) -> dict[str, Any]:
    while True:
        event = got.get(timeout=WAIT_S)
        if event.get("uuid") == step_id and event["type"] == kind:
            return event


def test_failed_run_is_a_failed_task(worker: Worker, client: Client, app: AgnoCelery) -> None:
    with events(app) as got:
        run = client.runs.submit("failing", "the secret of the input")
        with pytest.raises(ModelRejected):
            run.wait(WAIT_S)
        (step,) = run.steps
        event = first(got, "task-failed", step.id)
    assert "ModelRejected" in event["exception"]
    line = worker.wait_for("ended: failed")
    told = "".join(worker.lines)
    assert f"run {run.id} of agent failing started" in told
    assert "ERROR/" in line
    assert (
        f"run {run.id} of agent failing ended: failed (model_rejected): ModelRejected: the key is wrong"
        in line
    )
    assert "Traceback" not in told
    signal = f"task_failure agno.turn {step.id} ModelRejected by ModelRejected, ['generation', 'run_id', 'step_id']"
    assert signal in told
    assert "the secret of the input" not in told + str(event)


def test_lines_of_a_good_run_name_the_run_and_its_agent(
    worker: Worker, client: Client, app: AgnoCelery, request: pytest.FixtureRequest
) -> None:
    is_prefork = request.node.callspec.params["worker"] == "prefork"
    with events(app) as got:
        run = client.runs.submit("caller", 'add {"a": 1, "b": 2}')
        assert run.wait(WAIT_S).content == "3"
        tasks = run.steps if is_prefork else run.steps[:2]  # the tool's task is also that of the last turn
        for step in tasks:
            assert f"run {run.id} of agent caller" in first(got, "task-succeeded", step.id)["result"]
    worker.wait_for(f"run {run.id} of agent caller ended: done (end)")
    for _ in tasks:
        if len([line for line in worker.lines if "succeeded" in line]) < len(tasks):
            worker.wait_for("succeeded")
    about = [line for line in worker.lines if re.search(r"Task agno|run \S+ of", line)]
    assert all(run.id in line for line in about), about
    kinds = [re.sub(r".*(started|received|succeeded|ended).*\n", r"\1", line) for line in about]
    assert sorted(kinds) == ["ended", *["received"] * len(tasks), "started", *["succeeded"] * len(tasks)]
