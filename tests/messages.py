"""Messages as they are stored in Redis, and the rows of the quarantine."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from tests import invariants

NOTHING_AFTER = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
Message = dict[str, Any]


def message(task: str = "plain.same", body: Any = None, **ids: Any) -> Message:
    """Return a message as Celery stores it in Redis."""
    task_id = ids.get("id", str(uuid.uuid4()))
    return {
        "body": encoded([["x"], {}, NOTHING_AFTER] if body is None else body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": task, "id": task_id, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": task_id, "parent_id": None,
            "argsrepr": "()", "kwargsrepr": "{}", "origin": "test", "ignore_result": False, "replaced_task_nesting": 0,
            "stamped_headers": None, "stamps": {},
        },
        "properties": {
            "correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "agents"}, "delivery_tag": str(uuid.uuid4()),
        },
    }  # fmt: skip


def encoded(body: Any) -> str:
    return base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()


def decoded(body: str) -> Any:
    """Return the decoded body, or None for an unreadable one."""
    try:
        return json.loads(base64.b64decode(body))
    except ValueError:
        return None


class Quarantined:
    """The rows of the quarantine."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    def __call__(self) -> list[DictRow]:
        with psycopg.connect(self._url, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM agno.quarantine ORDER BY id").fetchall()

    def reasons(self, count: int) -> list[str]:
        """Wait for so many rows, and return their reasons."""
        invariants.until(lambda: len(self()) >= count)
        return [row["reason"] for row in self()]
