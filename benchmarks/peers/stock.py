"""Stock Celery with Redis as broker and result backend, all settings at their defaults."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, chain, chord, group, uuid

app = Celery("stock")


def connect(url: str) -> None:
    app.conf.update(broker_url=url, result_backend=url)


if url := os.environ.get("BENCH_STOCK_URL"):
    connect(url)


@app.task  # type: ignore[untyped-decorator]
def noop(number: int) -> int:
    return number


@app.task  # type: ignore[untyped-decorator]
def block(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task  # type: ignore[untyped-decorator]
def body(results: list[Any]) -> int:
    return len(results)


@app.task  # type: ignore[untyped-decorator]
def turn(_results: list[Any], number: int, turns: int, calls: int, run_id: str) -> str:
    """A turn of an agent: it starts its tools side by side, and the next turn comes after them; the last one is the run's result."""
    if number < turns:
        after = turn.s(number + 1, turns, calls, run_id)
        if number + 1 == turns:
            after.set(task_id=run_id)
        chord([noop.s(call) for call in range(calls)], after).apply_async()
    return "done"


def send_noop() -> Any:
    return noop.apply_async((1,))


def fan_out(width: int) -> Any:
    """Send a chord of no-op tasks, and return the result of its body."""
    return chord([noop.s(number) for number in range(width)], body.s()).apply_async()


def loop(turns: int, calls: int) -> Any:
    """Send the first turn of an agent that calls so many tools in each of its turns but the last."""
    run_id = uuid()
    turn.apply_async(([], 0, turns, calls, run_id))
    return turn.AsyncResult(run_id)


def parallel(width: int) -> Any:
    """Send a chord of tasks that block for a second each."""
    return chord([block.s(1.0) for _ in range(width)], body.s()).apply_async()


def raw(count: int) -> Any:
    """Send so many no-op tasks, and nothing after them."""
    return group(noop.s(number) for number in range(count)).apply_async()


def chained(count: int) -> Any:
    """Send so many no-op tasks, each after the one before."""
    return chain(noop.s(0), *[noop.s() for _ in range(count - 1)]).apply_async()
