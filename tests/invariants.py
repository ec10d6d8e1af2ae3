"""What holds after every test, whatever was killed, flushed or sent twice: nothing is left over, and the sums are right."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

_SETTLES_IN_S = 20.0

# Each gives a row for each violation: what it is about, and how it is wrong.
_VIOLATIONS = {
    "a run is not terminal": """
        SELECT id, agent, status FROM agno.run WHERE ended_at IS NULL""",
    "a step is left open": """
        SELECT id, key, status FROM agno.step WHERE status IN ('ready', 'running')""",
    "a message is left in the outbox": """
        SELECT id, step_id, ended_run_id, chord_id FROM agno.outbox""",
    "the barrier of a finished run did not fire, or with parts missing or too many": """
        SELECT b.id, b.arrived, b.size, b.fired_at FROM agno.barrier b
        JOIN agno.run r ON r.id = b.run_id AND r.generation = b.generation
        WHERE r.status = 'done' AND (b.fired_at IS NULL OR b.arrived <> b.size)""",
    "a user's chord did not fire, or with parts missing or too many": """
        SELECT b.id, b.arrived, b.size, b.fired_at FROM agno.barrier b
        WHERE b.run_id IS NULL AND (b.fired_at IS NULL OR b.arrived IS DISTINCT FROM b.size
            OR b.arrived <> (SELECT count(*) FROM agno.chord_part p WHERE p.barrier_id = b.id))""",
    "a transcript has a gap": """
        SELECT m.run_id, count(*), max(m.seq) FROM agno.message m JOIN agno.run r ON r.id = m.run_id
        WHERE r.status <> 'cancelled' GROUP BY m.run_id HAVING count(*) <> max(m.seq) + 1 OR min(m.seq) <> 0""",
    "run.tool_calls is not the number of its tool steps": """
        SELECT r.id, r.tool_calls, count(s.id) FROM agno.run r LEFT JOIN agno.step s ON s.run_id = r.id AND s.kind = 'tool'
        GROUP BY r.id HAVING r.tool_calls <> count(s.id)""",
    "run.turns is not the number of its turns that are done": """
        SELECT r.id, r.turns, count(s.id) FROM agno.run r
        LEFT JOIN agno.step s ON s.run_id = r.id AND s.kind = 'turn' AND s.status = 'done'
        WHERE r.status = 'done' GROUP BY r.id HAVING r.turns <> count(s.id)""",
    "run.turns is not the number of replies in its transcript": """
        SELECT r.id, r.turns, count(m.seq) FROM agno.run r
        LEFT JOIN agno.message m ON m.run_id = r.id AND agno.inflate(m.content)->>'role' = 'assistant'
        GROUP BY r.id HAVING r.turns <> count(m.seq)""",
}


def hold(database_url: str, timeout_s: float = _SETTLES_IN_S) -> None:
    """Fails, with every row that is wrong, unless the invariants hold within `timeout_s`."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        if not comes(lambda: not _violations(connection), timeout_s) and (found := _violations(connection)):
            pytest.fail("\n".join(["these invariants do not hold:", *found[:20]]))


def comes(condition: Callable[[], object], timeout_s: float = _SETTLES_IN_S) -> bool:
    """Whether a condition of the outside world comes true in time."""
    tick = threading.Event()
    for _ in range(round(timeout_s * 50)):
        if condition():
            return True
        tick.wait(0.02)
    return False


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait for a condition of the outside world, such as a file that a tool writes; fails when it never comes."""
    if not comes(condition, timeout_s):
        pytest.fail(f"the condition did not come within {timeout_s} s")


def _violations(connection: psycopg.Connection) -> list[str]:
    return [
        f"{name}: {' '.join(map(str, row))}"
        for name, statement in _VIOLATIONS.items()
        for row in connection.execute(statement).fetchall()
    ]
