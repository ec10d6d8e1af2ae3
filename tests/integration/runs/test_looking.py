"""Queries of runs: events and lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from agno_workers.core.run import RunStatus
from agno_workers.core.step import ClaimedStep
from agno_workers.errors import InvalidInput, RunNotFound
from agno_workers.runs.queries import Event, RunFilters, RunQueries, output
from tests.database import FEW, RunDatabase, asking, claimed, result, said, tool_steps, unknown_id

ERROR = {"type": "RunFailed", "message": "no", "ids": {}}


def ended(db: RunDatabase, text: str, **options: Any) -> ClaimedStep:
    """Return a done run whose answer is its input in capitals."""
    turn = db.turn(text=text, **{"session_id": "s", **options})
    db.journal.end(turn, said(text.upper()), FEW, text.upper(), "end")
    return turn


# Events.


def names(events: list[Event]) -> list[str]:
    return [f"{event.event} {event.name}".strip() for event in events]


def test_events_of_a_run_are_in_the_order_of_time(db: RunDatabase) -> None:
    good, bad = db.tools("good", "bad")
    db.journal.finish_tool(good, result(good))
    (send,) = db.journal.finish_tool(bad, result(bad), {"type": "raised", "message": "no"}).sends
    last = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    db.journal.end(last, said("ok"), FEW, "ok", "end")
    events = db.queries.events(last.run_id)
    assert names(events) == [
        "RunStarted", "ModelCallStarted", "ModelCallCompleted", "ToolCallStarted good", "ToolCallStarted bad",
        "ToolCallCompleted good", "ToolCallError bad", "ModelCallStarted", "ModelCallCompleted", "RunCompleted",
    ]  # fmt: skip
    assert all(one.at <= two.at for one, two in pairwise(events))
    assert events[0].subject == events[-1].subject == last.run_id
    assert [event.error for event in events if event.event == "ToolCallError"] == [{"type": "raised", "message": "no"}]  # fmt: skip


def test_tool_that_succeeded_after_a_crash_has_completed(db: RunDatabase) -> None:
    (tool,) = db.tools("a")
    db.expire(tool.step_id)
    db.journal.release_expired(10)
    again = claimed(db.journal_of("w2").claim_tool(tool.run_id, tool.step_id, 0))
    db.journal.finish_tool(again, result(again))
    (event,) = [event for event in db.queries.events(tool.run_id) if event.event.startswith("ToolCall") and event.event != "ToolCallStarted"]  # fmt: skip
    assert (event.event, event.attempt) == ("ToolCallCompleted", 2)


def test_tool_whose_worker_died_each_time_has_failed(db: RunDatabase) -> None:
    (tool,) = db.tools("a")
    db.journal.finish_tool(tool, result(tool), {"type": "LeaseExpired", "message": "died"}, step_status="dead")  # fmt: skip
    assert "ToolCallError a" in names(db.queries.events(tool.run_id))


@pytest.mark.parametrize(
    ("end", "last"), [("cancel", "RunCancelled"), ("fail", "RunError"), ("none", "ModelCallStarted")]
)
def test_last_event_is_the_end_of_the_run(db: RunDatabase, end: str, last: str) -> None:
    turn = db.turn()
    if end == "cancel":
        db.journal.cancel(turn.run_id)
    if end == "fail":
        db.journal.fail(turn, ERROR, "refused")
    assert db.queries.events(turn.run_id)[-1].event == last


def test_unclaimed_run_has_no_events(db: RunDatabase) -> None:
    assert db.queries.events(db.submit().run_id) == []


def test_a_reader_that_has_seen_event_n_gets_the_events_from_n_plus_one(db: RunDatabase) -> None:
    turn = db.turn()
    seen = db.queries.events(turn.run_id)
    db.journal.end(turn, said("ok"), FEW, "ok", "end")
    assert [event.number for event in seen] == [1, 2]
    assert [event.number for event in db.queries.events(turn.run_id, after=2)] == [3, 4]
    assert [event.number for event in db.queries.events(turn.run_id, after=3)] == [4]
    assert db.queries.events(turn.run_id, after=4) == []
    assert db.queries.events(turn.run_id)[:2] == seen


def test_two_readers_at_the_same_time_see_the_same_numbers(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.end(turn, said("ok"), FEW, "ok", "end")
    with db.transaction() as one, db.transaction() as two:
        first = RunQueries(one).events(turn.run_id)
        second = two.begin(lambda: RunQueries(two).events(turn.run_id))
        assert db.waits(second, two)
        one.commit()
        assert second.result() == first
        two.commit()
    assert [event.number for event in db.queries.events(turn.run_id)] == [1, 2, 3, 4]


def test_an_event_keeps_its_number_when_the_run_is_retried(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.fail(turn, ERROR, "refused")
    seen = db.queries.events(turn.run_id)
    db.journal.retry_run(turn.run_id)
    (step,) = db.sql("SELECT id::text FROM agno.step WHERE status = 'ready'")
    again = claimed(db.journal.claim_turn(turn.run_id, step["id"], 1))
    db.journal.end(again, said("ok"), FEW, "ok", "end")
    events = db.queries.events(turn.run_id)
    assert events[: len(seen)] == seen
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert names(events[len(seen) :]) == ["ModelCallStarted", "ModelCallCompleted", "RunCompleted"]


# Lists.


def test_list_of_an_unknown_status_is_refused(db: RunDatabase) -> None:
    with pytest.raises(InvalidInput, match=r"unknown run status 'don'.* Did you mean 'done'"):
        db.queries.runs(status="don")


def test_lists_are_narrowed_to_a_kind(db: RunDatabase) -> None:
    run = db.submit(user_id="u").run_id
    db.sql("""SELECT agno.request_background(%(id)s, '[{"kind": "summary", "owner": "s"}]')""", id=run)
    assert [listed.run.id for listed in db.queries.runs(kind="agent")] == [run]
    assert db.queries.runs(kind="team") == []
    (background,) = db.queries.runs(kind="background")
    assert background.run.kind == "background"
    assert db.queries.hidden(10, kind="team") == 0


def test_background_work_is_listed_only_when_it_is_asked_for(db: RunDatabase) -> None:
    older, newer = (db.submit(user_id="u").run_id for _ in range(2))
    db.sql("""SELECT agno.request_background(%(id)s, '[{"kind": "summary", "owner": "s"}]')""", id=newer)
    db.sql("""SELECT agno.request_background(%(id)s, '[{"kind": "learn", "owner": "u"}]')""", id=newer)
    assert [listed.run.id for listed in db.queries.runs(user_id="u")] == [newer, older]
    assert len(db.queries.runs(user_id="u", background=True)) == 4
    assert db.queries.hidden(10, user_id="u") == 2
    assert db.queries.hidden(1, user_id="u") == 1
    assert db.queries.hidden(10, user_id="other") == 0
    assert db.queries.hidden(10, background=True) == 0
    assert db.queries.hidden(10, before=newer) == 0
    assert db.queries.hidden(10, db.queries.run(older)) == 2
    assert db.queries.hidden(10, status="done") == 0


def test_runs_are_listed_newest_first_with_their_input(db: RunDatabase) -> None:
    runs = [db.submit(text, agent=agent, session_id="s").run_id for text, agent in (("one", "a"), ("two", "b"))]  # fmt: skip
    db.journal.cancel(runs[0])
    assert [(listed.run.id, listed.asked) for listed in db.queries.runs()] == [(runs[1], "two"), (runs[0], "one")]  # fmt: skip
    assert [listed.run.id for listed in db.queries.runs(limit=1)] == [runs[1]]
    assert [listed.run.id for listed in db.queries.runs(status=RunStatus.CANCELLED)] == [runs[0]]
    assert [listed.run.id for listed in db.queries.runs(agent="b", session_id="s")] == [runs[1]]
    assert db.queries.runs(session_id="t") == []


FILTERS: dict[str, tuple[RunFilters, set[str]]] = {
    "none": ({}, {"ann", "bob", "open", "old"}),
    "user": ({"user_id": "ann"}, {"ann"}),
    "metadata": ({"metadata": {"order": 17}}, {"ann"}),
    "metadata of several": ({"metadata": {"shop": {"city": "Bern"}}}, {"ann", "bob"}),
    "empty metadata": ({"metadata": {}}, {"ann", "bob", "open", "old"}),
    "open": ({"open": True}, {"open", "old"}),
    "not only open": ({"open": False, "user_id": None}, {"ann", "bob", "open", "old"}),
    "status": ({"status": "queued"}, {"open", "old"}),
    "span": ({"since": timedelta(hours=1)}, {"ann", "bob", "open"}),
    "moment": ({"since": datetime.now(UTC) - timedelta(days=3)}, {"ann", "bob", "open", "old"}),
    "several": ({"since": timedelta(hours=1), "open": True, "agent": "echo"}, {"open"}),
    "nothing": ({"user_id": "ann", "status": "queued"}, set()),
}


@pytest.mark.parametrize("name", FILTERS)
def test_runs_are_listed_by_filters(db: RunDatabase, name: str) -> None:
    ended(db, "ann", user_id="ann", metadata={"order": 17, "shop": {"city": "Bern", "zip": 3000}})
    ended(db, "bob", user_id="bob", session_id="t", metadata={"order": 18, "shop": {"city": "Bern"}})
    db.submit("open")
    db.sql(
        "UPDATE agno.run SET created_at = created_at - interval '2 days' WHERE id = %(id)s",
        id=db.submit("old").run_id,
    )
    filters, found = FILTERS[name]
    assert {listed.asked for listed in db.queries.runs(**filters)} == found


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"user": "ann"}, "no filter 'user'.* Did you mean 'user_id'"),
        ({"user_id": 7}, "user_id is a text, not 7"),
        ({"metadata": "order"}, "metadata is a mapping"),
        ({"since": datetime(2026, 1, 1)}, "since is a datetime with a time zone"),  # noqa: DTZ001 - the mistake
        ({"since": 60}, "since is a datetime with a time zone, or a timedelta, not 60"),
        ({"limit": 0}, "limit is at least 1"),
        ({"before": unknown_id()}, "no run"),
        ({"batch_id": "b"}, "'b' is not a batch id"),
    ],
)
def test_filter_that_can_not_be_used_is_refused(db: RunDatabase, filters: Any, said: str) -> None:
    with pytest.raises((InvalidInput, RunNotFound), match=said):
        db.queries.runs(**filters)


def test_pages_of_runs_have_each_run_once_also_when_many_are_of_one_moment(db: RunDatabase) -> None:
    runs = [db.submit(str(number)).run_id for number in range(7)]
    db.sql("UPDATE agno.run SET created_at = '2026-01-01'")
    pages, before = [], None
    while page := [listed.run.id for listed in db.queries.runs(2, before=before)]:
        pages.append(page)
        before = page[-1]
        db.submit("newer")  # changes no later page
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert sorted(run for page in pages for run in page) == sorted(runs)


STUCK = {
    "not claimed": ("", True),
    "claimed by nobody who lives": (
        "UPDATE agno.step SET status = 'running', lease_until = now() - interval '1 hour', started_at = now() - interval '1 hour'", True,
    ),
    "without a step": ("UPDATE agno.step SET status = 'cancelled', ended_at = now() - interval '1 hour'", True),
    "sent again": ("UPDATE agno.step SET sent_at = now()", True),
    "running": ("UPDATE agno.step SET status = 'running', lease_until = now() + interval '5 s', started_at = now()", False),
    "between two steps": ("UPDATE agno.step SET status = 'done', ended_at = now()", False),
    "new": ("UPDATE agno.run SET created_at = now()", False),
    "next turn": ("UPDATE agno.step SET created_at = now()", False),
    "a timer": ("UPDATE agno.step SET not_before = now() + interval '1 hour'", False),
    "due a moment ago": ("UPDATE agno.step SET due_at = now()", False),
    "a person": ("UPDATE agno.step SET status = 'waiting', waits_for = 'confirmation'", False),
    "another run": ("UPDATE agno.step SET status = 'waiting', waits_for = 'run'", False),
    "paused": ("UPDATE agno.run SET paused_at = now()", False),
    "ended": ("UPDATE agno.run SET status = 'cancelled', ended_at = now()", False),
}  # fmt: skip


@pytest.mark.parametrize("name", STUCK)
def test_stuck_runs_make_no_progress_and_wait_for_nothing(db: RunDatabase, name: str) -> None:
    run_id = db.submit().run_id
    for table in ("run", "step"):
        db.sql(f"UPDATE agno.{table} SET created_at = created_at - interval '1 hour'")
    change, is_stuck = STUCK[name]
    if change:
        db.sql(change)
    assert [listed.run.id for listed in db.queries.runs(stuck=True)] == ([run_id] if is_stuck else [])


def test_output_has_the_answer_of_a_run(db: RunDatabase) -> None:
    turn = ended(db, "hi")
    seen = output(db.queries.run(turn.run_id))
    assert (seen.run_id, seen.agent, seen.status, seen.content, seen.reason, seen.usage, seen.turns) == (
        turn.run_id, "echo", RunStatus.DONE, "HI", "end", FEW, 1,
    )  # fmt: skip


def test_queues_count_ready_steps(db: RunDatabase) -> None:
    db.submit()
    db.submit(not_before="2100-01-01T00:00:00Z")
    db.turn()
    turn = db.turn()
    db.journal.fan_out(turn, asking("a", "b"), FEW, tool_steps("a", "b"), "agents")
    queues = db.queries.queues()
    assert {queue: ready for queue, (ready, _) in queues.items()} == {"agents": 1, "tools": 2}
