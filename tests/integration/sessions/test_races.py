"""Clients, workers and people at once, on real transactions: no deadlock, no message lost or doubled, and the invariants hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from agno_workers.database.pool import Pool
from agno_workers.errors import SessionBusy
from tests import invariants
from tests.database import FEW, RunDatabase, said

ERROR = {"type": "ModelRejected", "message": "no", "ids": {}}
POLICIES = ("queue", "queue", "steer", "steer", "interrupt", "rollback", "parallel", "reject")
CLIENTS, SUBMITS, WORKERS = 4, 40, 4


@pytest.fixture
def wide(db_url: str) -> Iterator[RunDatabase]:
    """A database with a connection for each thread."""
    pool = Pool(db_url, size=CLIENTS + WORKERS, timeout_s=10, statement_timeout_s=30)
    db = RunDatabase(pool)
    db.empty()
    yield db
    db.empty()
    pool.close()


def test_all_that_may_happen_to_a_session_happens_at_once(wide: RunDatabase) -> None:
    with ThreadPoolExecutor(CLIENTS + WORKERS) as threads:
        clients = [threads.submit(_talk, wide, number) for number in range(CLIENTS)]
        workers = [threads.submit(_work, wide, number, clients) for number in range(WORKERS)]
        accepted = [text for client in clients for text in client.result()]
        for worker in workers:
            worker.result()
    assert {name: rows for name, text in invariants.ALWAYS.items() if (rows := wide.sql(text))} == {}
    read = Counter(
        row["text"]
        for row in wide.sql("SELECT content->'parts'->0->>'text' AS text FROM agno.message WHERE content->>'role' = 'user'")
    )  # fmt: skip
    assert {text: read[text] for text in accepted} == dict.fromkeys(accepted, 1)


def _talk(db: RunDatabase, number: int) -> list[str]:
    """Submit messages, and sometimes cancel, pause or retry runs; return what was accepted."""
    chance, accepted = random.Random(number), []
    for place in range(SUBMITS):
        text, if_busy, session = f"{number} {place}", chance.choice(POLICIES), chance.choice("ab")
        try:
            run = db.submit(
                text, session_id=session, if_busy=if_busy, idempotency_key=chance.choice([None, text])
            )
        except SessionBusy:
            continue
        accepted.append(text)
        match chance.randrange(12):
            case 0:
                db.journal.cancel(run.run_id)
            case 1:
                db.journal.pause(run.run_id), db.journal.resume(run.run_id)
            case 2:
                db.journal.cancel_all(_some(db, "ended_at IS NULL"))
            case 3:
                [db.journal.retry_run(run_id) for run_id in _some(db, "status = 'failed'")[:1]]
    return accepted


def _work(db: RunDatabase, number: int, clients: Sequence[Future[Any]]) -> None:
    """Execute what is ready, until all clients are done and no run is open."""
    chance, journal = random.Random(1000 + number), db.journal_of(f"w{number}")
    while True:
        is_over = all(client.done() for client in clients)
        ready = db.sql(
            "SELECT id, run_id, generation FROM agno.step WHERE status = 'ready' ORDER BY random() LIMIT 1"
        )
        if not ready and is_over and not _some(db, "ended_at IS NULL"):
            return
        for step in ready:
            turn = journal.claim_turn(step["run_id"], step["id"], step["generation"])
            if turn is None:
                continue
            match chance.randrange(4):
                case 0:
                    journal.next_turn(turn, said("hm"), FEW, "agents")
                case 1:
                    journal.fail(turn, ERROR, "refusal", said("no"), FEW)
                case _:
                    journal.end(turn, said("ok"), FEW, "ok", "end")


def _some(db: RunDatabase, where: str) -> list[str]:
    return [row["id"] for row in db.sql(f"SELECT id FROM agno.run WHERE {where} ORDER BY random() LIMIT 10")]
