"""The negative control: stock Celery with the result backend that it recommends for chords."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery


def connected(redis_url: str) -> Celery:
    """Celery with its defaults."""
    celery = Celery("stock", broker=redis_url, backend=redis_url, set_as_current=False)
    celery.conf.task_default_queue = "stock"
    return celery


if "STOCK_REDIS_URL" in os.environ:  # in its worker
    app = connected(os.environ["STOCK_REDIS_URL"])

    @app.task(name="stock.same")
    def same(value: str) -> str:
        return value

    @app.task(name="stock.hold")
    def hold(path: str) -> str:
        Path(path + ".running").touch()
        while Path(path).exists():
            time.sleep(0.02)  # this is the task at work, not a test that waits
        return "released"

    @app.task(name="stock.join")
    def join(items: list[str], path: str) -> str:
        Path(path).touch()
        return "+".join(items)
