"""Users' own tasks on our workers: one that is not due outlives the worker that received it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery, chord

from agno_workers.broker.app import AgnoCelery
from tests import invariants
from tests.agents import echo
from tests.conftest import StartWorker
from tests.contract.canvas.conftest import DUE, PLAIN, WAIT_S, Plain

_ALL = "SELECT task_id FROM agno.delayed_task"


@pytest.mark.parametrize("when", ["countdown", "eta", "naive eta", "retry"])
def test_task_that_is_not_due_outlives_its_worker_and_redis(
    app: AgnoCelery, plain: Plain, start_worker: StartWorker, database: psycopg.Connection, redis_client: redis.Redis, tmp_path: Path, when: str,
) -> None:  # fmt: skip
    later = datetime.now(UTC) + timedelta(hours=1)
    options: dict[str, dict[str, object]] = {
        "countdown": {"countdown": 3600},
        "eta": {"eta": later},
        "naive eta": {"eta": later.replace(tzinfo=None)},
        "retry": {},
    }
    doomed = start_worker(*PLAIN, queues="late")
    note = plain("retried" if when == "retry" else "note", "a", path=str(tmp_path / "notes"))
    result = note.apply_async(queue="late", **options[when])
    invariants.until(lambda: database.execute(_ALL).fetchall() == [(result.id,)])
    doomed.kill()
    redis_client.flushdb()
    database.execute(DUE)
    app.control.add_consumer("late", reply=True)
    assert result.get(timeout=WAIT_S) == "a"
    app.control.cancel_consumer("late", reply=True)
    assert (tmp_path / "notes").read_text() == "a\n"
    invariants.until(lambda: database.execute(_ALL).fetchall() == [])


def test_delayed_task_keeps_its_canvas(plain: Plain, database: psycopg.Connection) -> None:
    header = [
        plain("upper", "a").set(countdown=3600),
        echo.s("b"),
        plain("same", datetime(2026, 1, 1, tzinfo=UTC)).set(countdown=3600),
    ]
    result = chord(header, plain("join") | plain("upper"))()
    invariants.until(lambda: len(database.execute(_ALL).fetchall()) == 2)
    database.execute(DUE)
    assert result.get(timeout=WAIT_S) == "A+<B>+2026-01-01 00:00:00+00:00"


def test_task_is_sent_again_to_the_queue_that_it_came_from(
    app: AgnoCelery, stranger: Celery, by_topic: dict[str, Any], database: psycopg.Connection, tmp_path: Path
) -> None:
    """Not to the routing key of its sender; and without a word about the compression that its sender chose."""
    note = {"path": str(tmp_path / "notes")}
    sent = stranger.send_task("plain.retried", ["a"], note, compression="zlib", **by_topic)
    invariants.until(lambda: database.execute(_ALL).fetchall() == [(sent.id,)])
    database.execute(DUE)
    assert app.AsyncResult(sent.id).get(timeout=WAIT_S) == "a"


def test_delayed_task_that_cannot_be_sent_is_put_off_and_given_up(
    app: AgnoCelery, plain: Plain, database: psycopg.Connection
) -> None:
    result = plain("same", "a").apply_async(countdown=3600)
    invariants.until(lambda: database.execute(_ALL).fetchall() == [(result.id,)])
    database.execute("UPDATE agno.delayed_task SET message = jsonb_set(message, '{body}', '\"{\"')")
    waits = "SELECT failures, due_at > now() + interval '19 s' FROM agno.delayed_task"
    database.execute("UPDATE agno.delayed_task SET due_at = now()")
    invariants.until(lambda: database.execute(waits).fetchall() == [(1, True)])
    database.execute("UPDATE agno.delayed_task SET due_at = now(), failures = 7")
    with pytest.raises(RuntimeError, match="can't be sent: JSONDecodeError"):
        app.AsyncResult(result.id).get(timeout=WAIT_S)
    kept = "SELECT task, reason FROM agno.quarantine WHERE message_id = %s"
    assert database.execute(kept, [result.id]).fetchall() == [("plain.same", "unsendable")]
    invariants.until(lambda: database.execute(_ALL).fetchall() == [])
