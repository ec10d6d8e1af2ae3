"""Rows of messages that no worker carries out."""

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


def test_what_postgres_would_refuse_is_stored_as_far_as_it_can_be(pool: Pool) -> None:
    Quarantine(pool, worker="w").keep(message(text="a\0\ud800" + "x" * 10_000))
    (row,) = pool.run("SELECT * FROM agno.quarantine")
    assert row["head"].startswith("a\ufffd?x")
    assert (len(row["head"]), len(row["detail"]), len(row["task"]), len(row["message_id"])) == (
        2000,
        2000,
        255,
        255,
    )
    assert row["worker"] == "w"


def test_what_came_lately_is_counted_by_reason(pool: Pool) -> None:
    quarantine = Quarantine(pool)
    for reason in ("unreadable", "replayed", "unreadable"):
        quarantine.keep(message(reason))
    pool.run("UPDATE agno.quarantine SET created_at = created_at - interval '2 h' WHERE id = 1")
    counts = [(count.reason, count.messages) for count in quarantine.recent(timedelta(hours=1))]
    assert counts == [("replayed", 1), ("unreadable", 1)]


def test_a_flood_does_not_fill_the_disk(pool: Pool) -> None:
    quarantine = Quarantine(pool, most_an_hour=3)
    assert [quarantine.keep(message()) for _ in range(5)] == [True, True, True, False, False]
    pool.run("UPDATE agno.quarantine SET created_at = created_at - interval '2 h' WHERE id = 1")
    assert quarantine.keep(message())
