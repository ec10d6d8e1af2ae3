"""Another Celery project, with its own tasks and worker, that stores its results and chords in Postgres.

All it knows of agents is a name and a queue.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery

import agno_workers


def connected(broker_url: str) -> Celery:
    """Return the app as such a project makes it; no other app in the tests' process gets its tasks."""
    app = Celery("shop", broker=broker_url, set_as_current=False)
    app.conf.task_default_queue = "shop"
    app.conf.task_routes = {"agno.*": {"queue": "agents"}, "shop.note": {"queue": "notes"}}

    @app.task(shared=False, name="shop.total")
    def total(prices: list[Any]) -> str:
        return " + ".join(map(str, prices))

    @app.task(shared=False, name="shop.price")
    def price(item: str) -> str:
        return f"price of {item}"

    @app.task(shared=False, name="shop.wrapped", queue="packing")
    def wrapped(item: str) -> str:
        return f"({item})"

    @app.task(shared=False, name="shop.broken")
    def broken(*_: Any) -> None:
        raise ValueError("out of stock")

    @app.task(
        shared=False,
        name="shop.restocked",
        bind=True,
        autoretry_for=(ValueError,),
        retry_backoff=False,
        default_retry_delay=0,
    )
    def restocked(self: Any, item: str) -> str:
        if not self.request.retries:
            raise ValueError("out of stock")
        return item

    @app.task(shared=False, name="shop.note")
    def note(value: Any, path: str) -> Any:
        with Path(path).open("a") as file:
            file.write(f"{value}\n")
        return value

    return agno_workers.attach(app)


if "AGNO_BROKER_URL" in os.environ:  # in its worker; the tests make their own
    app = connected(os.environ["AGNO_BROKER_URL"])
