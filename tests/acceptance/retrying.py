"""A plain Celery task that retries. Only workers import this."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from agno_workers.tasks.app import app


@app.task(name="retrying.third_time", bind=True, max_retries=5)
def third_time(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)
