"""Processes that are forked from one that uses its runs."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import pytest

from agno_workers import Client, wiring
from agno_workers.broker.app import AgnoCelery
from tests.agents import echo
from tests.conftest import ROOT, Worker


@pytest.mark.parametrize(
    ("door", "how"), [("client", "fork"), ("client", "multiprocessing"), ("agent", "fork")]
)
def test_forked_processes_get_their_own_runs_and_leave_their_parents_sessions_alone(
    worker: Worker, environment: dict[str, str], door: str, how: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.database.forked", door, how],
        cwd=ROOT, env={"PATH": "", **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"children": 3, "wrong": [], "ended": []}


@contextmanager
def holding(locks: list[Any]) -> Iterator[None]:
    """Hold locks in another thread."""
    are_held, ending = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            are_held.set()
            ending.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    are_held.wait(60)
    yield
    ending.set()
    thread.join()


def test_locks_that_a_thread_of_the_parent_held_do_not_block_a_forked_process(
    app: AgnoCelery, client: Client
) -> None:
    client.runs.submit("echo", "before")
    echo.delay("before")
    pool = client._database.pool._pool
    resources = app.pool._resource, app.producer_pool._resource
    locks = [
        pool._lock,
        pool._tasks.mutex,
        wiring._default().services._lock,
        *(each.mutex for each in resources),
    ]
    locks += [each.lock for each in gc.get_objects() if isinstance(each, cached_property)]  # type: ignore[attr-defined]
    with holding(locks):
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            try:
                client.runs.submit("echo", "after")
                echo.delay("after")
                client.close()
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
