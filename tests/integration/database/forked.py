"""A program that forks while it and its threads use their runs, as a preloaded web server does:

    python -m tests.integration.database.forked client|agent fork|multiprocessing

It prints one line of JSON: the results that were not those of the process that asked, and its sessions in Postgres that ended.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext

import psycopg

from agno_workers import Client, wiring
from tests.agents import echo

CHILDREN = 3
PATIENCE_S = 40
"""A process that hangs ends itself."""


class ClientDoor:
    """The runs of a thin client."""

    def __init__(self) -> None:
        url, broker_url = os.environ["AGNO_DATABASE_URL"], os.environ["AGNO_BROKER_URL"]
        redis_url = broker_url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
        self._client = Client(url, redis_url)
        self.close = self._client.close

    def ask(self, text: str) -> Iterator[object]:
        run = self._client.runs.submit("echo", text)
        events = list(run.events(timeout=60))
        yield run.result(timeout=60)
        yield run.messages[0].text if events else "no events"

    def ask_all(self, texts: list[str]) -> Iterator[object]:
        for position, run in self._client.batches.submit("echo", texts).results(timeout=60):
            yield position, run.content


class AgentDoor:
    """An app's agent, whose runs and messages are sent through Celery."""

    def close(self) -> None:
        wiring.forget()

    def ask(self, text: str) -> Iterator[object]:
        run = echo.delay(text)
        events = list(run.events(timeout=60))
        yield run.get(timeout=60)
        yield run.handle.messages[0].text if events else "no events"

    def ask_all(self, texts: list[str]) -> Iterator[object]:
        for position, run in echo.map(texts).results(timeout=60):
            yield position, run.content


Door = ClientDoor | AgentDoor


def wrong(door: Door, who: str) -> list[str]:
    """Return what came back and was not what this process asked for."""
    try:
        found = [
            f"{who}: {text} became {given}"
            for text in (f"{who}-{number}" for number in range(2))
            for given in door.ask(text)
            if given not in (text, f"<{text}>")
        ]
        many = [f"{who}-a", f"{who}-b"]
        given = set(door.ask_all(many))
    except Exception:
        return [f"{who}: {traceback.format_exc()}"]
    return found + (
        [] if given == {(0, f"<{who}-a>"), (1, f"<{who}-b>")} else [f"{who}: {many} became {given}"]
    )


def child(door: Door, who: str, output: int) -> None:
    """Tell the parent what was wrong; some children close what they inherited, others leave that to Python."""
    signal.alarm(PATIENCE_S)
    with closing(door) if who.endswith("0") else nullcontext():
        os.write(output, (json.dumps(wrong(door, who)) + "\n").encode())
    del door
    gc.collect()


def forked(door: Door, output: int) -> list[Callable[[], object]]:
    """Start the children; return what waits for each."""
    if sys.argv[2] == "multiprocessing":
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=child, args=(door, f"child-{n}", output)) for n in range(CHILDREN)
        ]
        for process in processes:
            process.start()
        return [process.join for process in processes]
    waits: list[Callable[[], object]] = []
    for number in range(CHILDREN):
        pid = os.fork()
        if not pid:
            child(door, f"child-{number}", output)
            sys.exit(0)
        waits.append(lambda pid=pid: os.waitpid(pid, 0))  # type: ignore[misc]  # a default is typed as any
    return waits


def sessions() -> set[int]:
    """Return the sessions in Postgres of this process."""
    found = [each for each in gc.get_objects() if isinstance(each, psycopg.Connection)]
    return {connection.info.backend_pid for connection in found if not connection.closed}


def main() -> None:
    signal.alarm(PATIENCE_S)
    faulthandler.register(signal.SIGALRM, chain=True)
    door = ClientDoor() if sys.argv[1] == "client" else AgentDoor()
    problems = wrong(door, "before")
    before = sessions()
    ending, asked = threading.Event(), threading.Event()

    def ask() -> None:
        while not ending.is_set():
            problems.extend(wrong(door, "thread"))
            asked.set()

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait(60)
    read, write = os.pipe()
    waits = forked(door, write)
    problems.extend(wrong(door, "parent"))
    for wait in waits:
        wait()
    ending.set()
    thread.join()
    problems.extend(wrong(door, "after"))
    os.close(write)
    with os.fdopen(read) as lines:
        told = [json.loads(line) for line in lines]
    problems.extend(problem for each in told for problem in each)
    with psycopg.connect(os.environ["AGNO_DATABASE_URL"]) as connection:
        alive = {pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity")}
    print(json.dumps({"children": len(told), "wrong": problems, "ended": sorted(before - alive)}))  # noqa: T201 - the result
    door.close()


if __name__ == "__main__":
    main()
