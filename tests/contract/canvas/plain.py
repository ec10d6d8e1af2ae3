"""Plain Celery tasks on the workers' own app, as a project has beside its agents. Only workers import this:
the tests send by name, as any other service would.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from agno_workers.tasks.app import app
from tests.agents import echo, shouter


@app.task(name="plain.upper")
def upper(text: str) -> str:
    return text.upper()


@app.task(name="plain.add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="plain.join")
def join(items: list[Any]) -> str:
    """Return the results of the header, nested as they arrived."""
    return "+".join(f"({join(item)})" if isinstance(item, list) else str(item) for item in items)


@app.task(name="plain.same")
def same(value: Any) -> Any:
    return value


@app.task(name="plain.kind")
def kind(value: Any) -> str:
    return type(value).__name__


@app.task(name="plain.silent", ignore_result=True)
def silent(value: Any) -> Any:
    return value


@app.task(name="plain.big")
def big(characters: int) -> str:
    return "ä" * characters


@app.task(name="plain.fail")
def fail(*_: Any) -> None:
    raise ValueError("plain failure")


@app.task(name="plain.fail_with")
def fail_with(text: str) -> None:
    raise ValueError(text)


@app.task(name="plain.note")
def note(value: Any, path: str) -> Any:
    """Write a line to a file for each execution."""
    with Path(path).open("a") as file:
        file.write(f"{value}\n")
    return value


@app.task(name="plain.retried", bind=True)
def retried(self: Any, value: Any, path: str) -> Any:
    """Ask for a retry in an hour, and write as `note` does then."""
    if self.request.retries == 0:
        raise self.retry(countdown=3600)
    return note(value, path)


@app.task(name="plain.heard")
def heard(request: Any, exc: BaseException, traceback: Any) -> None:
    """A new-style errback, which the worker itself calls: it writes to the file that the error names."""
    if found := re.search(r"tell:([^']+)", str(exc)):
        with Path(found[1]).open("a") as file:
            file.write(f"{request.id} {type(exc).__name__}\n")


@app.task(name="plain.family", bind=True)
def family(self: Any, *_: Any) -> list[str | None]:
    return [self.request.root_id, self.request.parent_id]


@app.task(name="plain.hold")
def hold(path: str) -> str:
    Path(path + ".running").touch()
    while Path(path).exists():
        time.sleep(0.02)  # this is the task at work, not a test that waits
    return "released"


@app.task(name="plain.becomes_a_run", bind=True)
def becomes_a_run(self: Any, text: str) -> Any:
    return self.replace(echo.s(text))


@app.task(name="plain.becomes_a_group", bind=True)
def becomes_a_group(self: Any, *texts: str) -> Any:
    from celery import group

    return self.replace(group([echo.s(text) for text in texts], app=app))


@app.task(name="plain.becomes_a_chain", bind=True)
def becomes_a_chain(self: Any, text: str) -> Any:
    return self.replace(echo.s(text) | shouter.s())


@app.task(name="plain.delays_a_run", bind=True)
def delays_a_run(self: Any, text: str) -> list[str]:
    handle = echo.delay(text)
    return [handle.id, type(handle).__name__]
