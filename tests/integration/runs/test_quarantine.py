"""The rows of rejected messages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agno_workers.broker.quarantine import Quarantine, Quarantined
from agno_workers.database.pool import Pool
from agno_workers.wiring import Services


@pytest.fixture
def pool(services: Services) -> Pool:
    return services.database.pool


def message(reason: str = "unreadable", text: str = "head") -> Quarantined:
    return Quarantined(reason, text, "agents", text, text, text, 4)


def test_text_that_postgres_refuses_is_cleaned_and_stored(pool: Pool) -> None:
    Quarantine(pool, worker="w").store(message(text="a\0\ud800" + "x" * 10_000))
    (row,) = pool.run("SELECT * FROM agno.quarantine")
    assert row["head"].startswith("a\ufffd?x")
    assert (len(row["head"]), len(row["detail"]), len(row["task"]), len(row["message_id"])) == (
        2000,
        2000,
        255,
        255,
    )
    assert row["worker"] == "w"


def test_recent_messages_are_counted_by_reason(pool: Pool) -> None:
    quarantine = Quarantine(pool)
    for reason in ("unreadable", "replayed", "unreadable"):
        quarantine.store(message(reason))
    pool.run("UPDATE agno.quarantine SET created_at = created_at - interval '2 h' WHERE id = 1")
    counts = [(count.reason, count.messages) for count in quarantine.count_recent(timedelta(hours=1))]
    assert counts == [("replayed", 1), ("unreadable", 1)]


def test_no_more_messages_are_stored_than_the_hourly_limit(pool: Pool) -> None:
    quarantine = Quarantine(pool, max_per_hour=3)
    assert [quarantine.store(message()) for _ in range(5)] == [True, True, True, False, False]
    pool.run("UPDATE agno.quarantine SET created_at = created_at - interval '2 h' WHERE id = 1")
    assert quarantine.store(message())
