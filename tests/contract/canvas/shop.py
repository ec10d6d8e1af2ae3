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
    """Return the app as such a project makes it."""
    shop = Celery("shop", broker=broker_url, set_as_current=False)
    shop.conf.update(task_default_queue="shop", task_routes={"agno.*": {"queue": "agents"}})
    return agno_workers.attach(shop)


if "AGNO_BROKER_URL" in os.environ:  # in its worker; the tests make their own
    app = connected(os.environ["AGNO_BROKER_URL"])

    @app.task(name="shop.total")
    def total(prices: list[Any]) -> str:
        return " + ".join(map(str, prices))

    @app.task(name="shop.price")
    def price(item: str) -> str:
        return f"price of {item}"

    @app.task(name="shop.broken")
    def broken(*_: Any) -> None:
        raise ValueError("out of stock")

    @app.task(name="shop.note")
    def note(value: Any, path: str) -> Any:
        with Path(path).open("a") as file:
            file.write(f"{value}\n")
        return value
