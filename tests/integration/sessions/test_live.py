"""Messages to a session: one run is live, and the next message waits, is refused, replaces it, joins it, or runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_workers.core.messages import user
from agno_workers.core.request import RunRequest
from agno_workers.core.run import Canvas
from agno_workers.core.step import ChildRun, ClaimedStep, FollowUp, StepMessage, Submitted, ToolStep
from agno_workers.core.tool import Effect
from agno_workers.database.pool import jsonb
from agno_workers.errors import IdempotencyConflict, InvalidInput, SessionBusy, SessionEnded, SessionForbidden
from agno_workers.runs.batch import Batches, Common, Item
from agno_workers.runs.queries import Event
from tests.database import (
    FEW,
    STATEMENTS,
    RunDatabase,
    Transaction,
    asking,
    claimed,
    record,
    result,
    said,
    unknown_id,
)

ERROR = {"type": "ModelRejected", "message": "no", "ids": {}}


def say(db: RunDatabase, text: str = "hi", session: str = "s", **options: Any) -> Submitted:
    return db.submit(text, session_id=session, **options)


def claim(db: RunDatabase, run_id: str) -> ClaimedStep | None:
    """Claim the turn that a run begins or continues with; None when the run waits."""
    (turn,) = db.sql(
        "SELECT id, generation FROM agno.step WHERE run_id = %(id)s AND kind = 'turn' AND ended_at IS NULL", id=run_id
    )  # fmt: skip
    return db.journal.claim_turn(run_id, turn["id"], turn["generation"])


def begin(db: RunDatabase, run_id: str) -> ClaimedStep:
    return claimed(claim(db, run_id))


def end(db: RunDatabase, run_id: str, turn: ClaimedStep | None = None) -> None:
    assert db.journal.end(turn or begin(db, run_id), said("ok"), FEW, "ok", "end").recorded


def fail(db: RunDatabase, run_id: str) -> None:
    assert db.journal.fail(begin(db, run_id), ERROR, "refusal", said("no"), FEW).recorded


def states(db: RunDatabase, session: str = "s") -> dict[str, tuple[int | None, str]]:
    """Return position and status of the session's runs that have not ended, by their first words."""
    rows = db.sql(
        """SELECT m.content->'parts'->0->>'text' AS text, r.session_position, r.session_status FROM agno.run r
           JOIN agno.message m ON m.run_id = r.id AND m.seq = 0 WHERE r.session_id = %(session)s AND r.ended_at IS NULL
           ORDER BY r.session_position""",
        session=session,
    )
    return {row["text"]: (row["session_position"], row["session_status"]) for row in rows}


def events(db: RunDatabase, run_id: str) -> list[str]:
    found: Sequence[Event] = db.queries.events(run_id)
    return [event.event for event in found]


def pause(db: RunDatabase, status: str = "paused") -> None:
    db.sql("UPDATE agno.session SET status = %(status)s WHERE id = 's'", status=status)
    if status == "active":
        db.sql("SELECT agno.wake_session('default', 's')")


def sent(db: RunDatabase, run_id: str) -> list[StepMessage]:
    found: list[StepMessage] = db.journal.pending(run_id)
    return found


# The session itself.


def test_first_message_makes_the_session_with_its_first_words_as_title(db: RunDatabase) -> None:
    say(
        db,
        "What is   new in Postgres 18, and which of it matters to a service with many small queues?",
        user_id="ann",
    )
    say(db, "And then?", user_id="ann")
    (session,) = db.sql("SELECT user_id, agent, title, status, next_position, expires_at FROM agno.session")
    assert session == {
        "user_id": "ann", "agent": "echo", "title": "What is new in Postgres 18, and which of it matters to a…",
        "status": "active", "next_position": 3, "expires_at": None,
    }  # fmt: skip


def test_title_of_a_large_first_message_is_its_beginning(db: RunDatabase) -> None:
    say(db, "large " * 20_000)
    assert db.value("SELECT title FROM agno.session").startswith("large large")


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("ann", "ben", "belongs to another user"),
        ("ann", None, "belongs to a user, and this submit names none"),
        (None, "ben", "belongs to nobody, and this submit names a user"),
    ],
)
@pytest.mark.parametrize("door", ["submit", "sql", "batch"])
def test_session_of_another_user_is_refused(
    db: RunDatabase, first: str | None, second: str | None, why: str, door: str
) -> None:
    say(db, user_id=first)
    doors: dict[str, Callable[[], object]] = {
        "submit": lambda: say(db, user_id=second),
        "batch": lambda: bulk(db, user_id=second),
        "sql": lambda: db.sql(
            "SELECT agno.submit('echo', 'hi', 's', user_id => %(u)s, allow_unknown => true)", u=second
        ),
    }
    with db.unchanged(), pytest.raises(Exception, match=why) as caught:
        doors[door]()
    if door != "sql":
        assert isinstance(caught.value, SessionForbidden)
        assert caught.value.session_id == "s"


@pytest.mark.parametrize(("status", "said_so"), [("ended", "was ended"), ("timed_out", "timed out")])
def test_session_that_has_ended_takes_no_message(db: RunDatabase, status: str, said_so: str) -> None:
    end(db, say(db, idempotency_key="k").run_id)
    db.sql("UPDATE agno.session SET status = %(status)s, ended_at = clock_timestamp()", status=status)
    with db.unchanged(), pytest.raises(SessionEnded, match=said_so):
        say(db)
    with db.unchanged():
        assert not say(db, idempotency_key="k").created  # a repeated submit was accepted before


def test_child_runs_and_runs_without_a_session_have_no_place(db: RunDatabase) -> None:
    db.submit(), db.submit(session_id="")
    assert db.sql("SELECT id FROM agno.run WHERE session_position IS NOT NULL") == []
    assert db.count("session") == 0


# queue


def test_messages_wait_for_each_other_and_begin_in_their_order(db: RunDatabase) -> None:
    one, two, three = (say(db, text) for text in ("one", "two", "three"))
    assert (two.send, claim(db, two.run_id)) == (None, None)
    assert states(db) == {"one": (1, "live"), "two": (2, "waiting"), "three": (3, "waiting")}
    end(db, one.run_id)
    assert states(db) == {"two": (2, "live"), "three": (3, "waiting")}
    assert [send.run_id for send in sent(db, two.run_id)] == [two.run_id]
    fail(db, two.run_id)
    assert db.journal.cancel(three.run_id)
    assert say(db, "four").send is not None


def test_waiting_run_that_ends_holds_nobody_up(db: RunDatabase) -> None:
    one, two, three, four = (say(db, text) for text in ("one", "two", "three", "four"))
    db.sql("UPDATE agno.run SET deadline_at = clock_timestamp() WHERE id = %(id)s", id=three.run_id)
    assert db.journal.cancel(two.run_id)
    assert db.journal.end_overdue(three.run_id)
    end(db, one.run_id)
    assert states(db) == {"four": (4, "live")}
    end(db, four.run_id)


def test_paused_run_keeps_its_place(db: RunDatabase) -> None:
    one, two, _ = say(db, "one"), say(db, "two"), say(db, "three")
    db.journal.pause(two.run_id)
    end(db, one.run_id)
    assert states(db) == {"two": (2, "live"), "three": (3, "waiting")}
    assert claim(db, two.run_id) is None
    assert db.journal.resume(two.run_id)
    end(db, two.run_id)


def test_retried_run_begins_before_all_that_wait_at_its_old_position(db: RunDatabase) -> None:
    one, two, _ = say(db, "one"), say(db, "two"), say(db, "three")
    fail(db, one.run_id)
    assert db.journal.retry_run(one.run_id)
    assert states(db) == {"one": (1, "waiting"), "two": (2, "live"), "three": (3, "waiting")}
    assert claim(db, one.run_id) is None
    end(db, two.run_id)
    assert states(db) == {"one": (1, "live"), "three": (3, "waiting")}
    end(db, one.run_id)


def test_retried_run_begins_at_once_where_the_session_is_free(db: RunDatabase) -> None:
    one = say(db, "one")
    fail(db, one.run_id)
    assert db.journal.retry_run(one.run_id)
    assert states(db) == {"one": (1, "live")}
    end(db, one.run_id)


def test_fork_begins_at_once_and_takes_the_free_place(db: RunDatabase) -> None:
    one = say(db, "one")
    (turn,) = db.queries.steps(one.run_id)
    beside, _ = db.journal.fork(turn.id, asked=user("beside"))
    end(db, one.run_id)
    free, _ = db.journal.fork(turn.id, asked=user("free"))
    assert states(db) == {"beside": (2, "parallel"), "free": (3, "live")}
    end(db, beside)
    end(db, free)


def test_run_of_earlier_code_holds_nobody_up(db: RunDatabase) -> None:
    old = say(db, "old")
    db.sql("UPDATE agno.run SET session_position = NULL, session_status = NULL")
    new = say(db, "new")
    end(db, new.run_id)
    end(db, old.run_id)


def test_timed_message_takes_its_place_when_it_is_due(db: RunDatabase) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    timed = say(db, "timed", not_before=soon)
    first = say(db, "first")
    assert first.send is not None  # the conversation goes on until then
    assert states(db) == {"first": (1, "live"), "timed": (None, "scheduled")}
    assert db.journal.maintenance.due_in_session(10) == []
    db.sql("UPDATE agno.step SET not_before = clock_timestamp() WHERE run_id = %(id)s", id=timed.run_id)
    assert db.journal.maintenance.due_in_session(10) == [timed.run_id]
    assert db.journal.maintenance.expired_waits(10) == []
    db.journal.take_place(timed.run_id)
    db.journal.take_place(timed.run_id)
    assert states(db) == {"first": (1, "live"), "timed": (2, "waiting")}
    assert db.journal.maintenance.due_in_session(10) == []
    end(db, first.run_id)
    end(db, timed.run_id)


def test_wait_for_the_session_is_no_part_of_the_time_that_the_agent_has(db: RunDatabase) -> None:
    one, two = say(db, "one"), say(db, "two")
    db.sql("UPDATE agno.step SET created_at = created_at - interval '1 hour'")
    end(db, one.run_id)
    begin(db, two.run_id)
    deadline_at = db.journal.set_deadline(two.run_id, 60)
    assert deadline_at is not None
    assert deadline_at > db.journal.now()


def test_paused_session_begins_no_run_until_it_is_resumed(db: RunDatabase) -> None:
    one, _ = say(db, "one"), say(db, "two")
    pause(db)
    end(db, one.run_id)
    assert say(db, "beside", if_busy="parallel").send is None
    with pytest.raises(SessionBusy, match="it is paused"):
        say(db, if_busy="reject")
    assert [status for _, status in states(db).values()] == ["waiting"] * 2
    pause(db, "active")
    assert states(db) == {"two": (2, "live"), "beside": (3, "waiting")}


def test_submits_from_many_threads_have_an_order_without_gaps(db: RunDatabase) -> None:
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda place: say(db, str(place)), range(50)))
    rows = db.sql("SELECT id, session_position, session_status FROM agno.run ORDER BY session_position")
    assert [row["session_position"] for row in rows] == list(range(1, 51))
    assert [row["session_status"] for row in rows] == ["live"] + ["waiting"] * 49
    assert [run.run_id for run in runs if run.send is not None] == [rows[0]["id"]]
    for row in rows:
        end(db, row["id"])
    begun = db.sql("SELECT id FROM agno.run ORDER BY started_at")
    assert [row["id"] for row in begun] == [row["id"] for row in rows]


def bulk(db: RunDatabase, *keys: str | None, **options: Any) -> list[str]:
    batches, batch_id = Batches(db.pool, db.journal.store), "0198c0de-0000-7000-8000-000000000001"
    items = [Item(user(f"item {place}"), key) for place, key in enumerate(keys or (None, None, None))]
    batches.submit(batch_id, items, Common("echo", "agents", allow_unknown=True, session_id="s", **options))
    return [run.id for run in batches.runs(batch_id)]


def test_runs_of_a_batch_wait_in_the_order_of_their_inputs(db: RunDatabase) -> None:
    known, live = db.submit("item 1", idempotency_key="k"), say(db, "live")
    bulk(db, "z", "k", "a")
    assert states(db) == {"live": (1, "live"), "item 0": (2, "waiting"), "item 2": (4, "waiting")}
    end(db, live.run_id)
    end(db, known.run_id)
    assert states(db)["item 0"] == (2, "live")


def test_batch_begins_its_first_run_in_a_free_session(db: RunDatabase) -> None:
    first, second, _ = bulk(db)
    assert [status for _, status in states(db).values()] == ["live", "waiting", "waiting"]
    end(db, first)
    end(db, second)
    assert db.value("SELECT title FROM agno.session") == "item 0"


def test_batch_may_run_beside_the_live_run_or_be_refused(db: RunDatabase) -> None:
    say(db, "live")
    with db.unchanged(), pytest.raises(SessionBusy):
        bulk(db, if_busy="reject")
    bulk(db, if_busy="parallel")
    assert [status for _, status in states(db).values()] == ["live"] + ["parallel"] * 3
    assert len(db.journal.maintenance.take_due(10)) == 3


# reject, interrupt, rollback, parallel


def test_rejected_message_leaves_nothing(db: RunDatabase) -> None:
    first = say(db, if_busy="reject", idempotency_key="k")
    with db.unchanged(), pytest.raises(SessionBusy, match="has not ended") as caught:
        say(db, if_busy="reject")
    assert (caught.value.session_id, caught.value.run_id) == ("s", first.run_id)
    assert (
        say(db, if_busy="reject", idempotency_key="k").run_id == first.run_id
    )  # a known key is not a message
    end(db, first.run_id)
    assert say(db, if_busy="reject").created


@pytest.mark.parametrize("how", ["interrupt", "rollback"])
def test_message_replaces_the_live_run_and_begins_before_those_that_wait(db: RunDatabase, how: str) -> None:
    one, two = say(db, "one"), say(db, "two")
    late = begin(db, one.run_id)
    three = say(db, "three", if_busy=how)
    assert three.send is not None
    run = db.run(one.run_id)
    assert (run["status"], run["reason"], run["session_status"]) == ("cancelled", "interrupted", "replaced")
    assert (run["rolled_back_at"] is not None) == (how == "rollback")
    assert not db.journal.end(late, said("late"), FEW, "late", "end").recorded
    assert states(db) == {"two": (2, "waiting"), "three": (3, "live")}
    end(db, three.run_id)
    assert states(db) == {"two": (4, "live")}  # it comes after `three` in the history, too
    end(db, two.run_id)


def test_rollback_undoes_the_changes_of_state(db: RunDatabase) -> None:
    one = say(db, "one")
    change = {"scope": "session", "owner": "s", "key": "count", "operation": "increment", "value": 1}
    db.sql("SELECT agno.change_state(%(run)s, NULL, %(changes)s)", run=one.run_id, changes=jsonb([change]))
    assert db.value("SELECT value FROM agno.state") == 1
    say(db, "two", if_busy="rollback")
    assert db.value("SELECT value FROM agno.state") is None


def test_message_that_replaces_while_the_live_run_ends_replaces_the_next_one(db: RunDatabase) -> None:
    """It locks the live run, then the session; by then another run is live."""
    one, two = say(db, "one"), say(db, "two")
    turn = begin(db, one.run_id)
    with db.transaction() as ending, db.transaction() as replacing:
        ending_journal = db.journal_of("w1", ending)
        assert ending_journal.end(turn, said("ok"), FEW, "ok", "end").recorded
        submitting = replacing.begin_and_commit(lambda: _submit(db, replacing, "three", if_busy="interrupt"))
        assert db.waits(submitting, replacing)
        ending.commit()
        submitting.result()
    assert db.run(two.run_id)["reason"] == "interrupted"
    assert states(db) == {"three": (3, "live")}


def _submit(db: RunDatabase, transaction: Transaction, text: str, **options: Any) -> Submitted:
    return db.journal_of("w1", transaction).submit(
        user(text), agent="echo", queue="agents", session_id="s", **options
    )


def test_message_that_comes_while_the_live_run_ends_is_not_left_behind(db: RunDatabase) -> None:
    one = say(db, "one")
    turn = begin(db, one.run_id)
    with db.transaction() as ending, db.transaction() as submitting:
        _submit(db, submitting, "two")
        ended = ending.begin_and_commit(
            lambda: db.journal_of("w1", ending).end(turn, said("ok"), FEW, "ok", "end")
        )
        assert db.waits(ended, ending)
        submitting.commit()
        ended.result()
    assert states(db) == {"two": (2, "live")}


def test_parallel_run_begins_at_once_and_takes_no_place(db: RunDatabase) -> None:
    one, _, beside = say(db, "one"), say(db, "two"), say(db, "beside", if_busy="parallel")
    assert beside.send is not None
    end(db, beside.run_id)
    assert states(db) == {"one": (1, "live"), "two": (2, "waiting")}
    end(db, one.run_id)
    assert states(db) == {"two": (4, "live")}


@pytest.mark.parametrize("if_busy", ["reject", "interrupt", "rollback", "steer"])
def test_message_with_a_time_of_its_own_can_only_wait_or_run_beside(db: RunDatabase, if_busy: str) -> None:
    with db.unchanged(), pytest.raises(InvalidInput, match="a time of its own"):
        say(db, if_busy=if_busy, countdown_s=60.0)


# steer


def steer(db: RunDatabase, text: str, **options: Any) -> Submitted:
    return say(db, text, if_busy="steer", **options)


def test_message_joins_the_live_run_at_its_next_turn(db: RunDatabase) -> None:
    run = db.tools("look", session_id="s")[0]
    joined = [steer(db, "use the newer one"), steer(db, "and hurry")]
    assert [(each.run_id, each.created, each.send) for each in joined] == [(run.run_id, False, None)] * 2
    db.journal.finish_tool(run, result(run))
    turn = begin(db, run.run_id)
    assert [message.text for message in turn.messages][-2:] == ["use the newer one", "and hurry"]
    assert db.journal.store.end(turn, record(turn, *said("done")), "done", "end").recorded
    assert [message.role for message in db.queries.transcript(run.run_id)] == [
        "user", "assistant", "tool", "user", "user", "assistant",
    ]  # fmt: skip
    receipts = [db.database.steering.receipt(str(each.steer_id)) for each in joined]
    assert [(each.status, each.step_id) for each in receipts] == [("committed", turn.step_id)] * 2
    assert [event for event in events(db, run.run_id) if event.startswith("Message")] == [
        "MessageReceived", "MessageReceived", "MessageSteered", "MessageSteered",
    ]  # fmt: skip


def test_turn_that_is_executed_twice_records_the_messages_of_the_commit(db: RunDatabase) -> None:
    run = say(db, "one")
    late = begin(db, run.run_id)
    steer(db, "and this")
    db.expire(late.step_id)
    turn = begin(db, run.run_id)
    assert [len(each.steers) for each in (late, turn)] == [0, 1]
    assert db.journal.store.next_turn(turn, record(turn, *said("hm")), "agents").recorded
    assert not db.journal.store.next_turn(late, record(late, *said("hm")), "agents").recorded
    assert begin(db, run.run_id).steers == ()


def test_messages_that_did_not_join_are_the_next_run(db: RunDatabase) -> None:
    run, waiting = say(db, "one"), say(db, "waiting")
    turn = begin(db, run.run_id)
    first, second = steer(db, "first", metadata={"a": 1}, priority=3), steer(db, "second")
    end(db, run.run_id, turn)
    receipts = [db.database.steering.receipt(str(each.steer_id)) for each in (first, second)]
    assert {(each.status, each.run_id) for each in receipts} == {("returned", run.run_id)}
    (next_run,) = {str(each.next_run_id) for each in receipts}
    assert states(db) == {"waiting": (2, "waiting"), "first": (3, "live")}
    row = db.run(next_run)
    assert (row["metadata"], row["priority"], row["queue"]) == ({"a": 1}, 3, "agents")
    assert [message.text for message in begin(db, next_run).messages] == ["first", "second"]
    assert events(db, run.run_id)[-3:] == ["MessageReturned", "MessageReturned", "RunCompleted"]
    end(db, next_run, begin_again(db, next_run))
    assert states(db) == {"waiting": (4, "live")}
    end(db, waiting.run_id)


def begin_again(db: RunDatabase, run_id: str) -> ClaimedStep:
    db.sql(
        "UPDATE agno.step SET lease_until = clock_timestamp() WHERE run_id = %(id)s AND status = 'running'",
        id=run_id,
    )
    return begin(db, run_id)


def test_messages_to_a_run_that_is_interrupted_come_after_the_one_that_interrupts(db: RunDatabase) -> None:
    say(db, "one")
    steer(db, "joined")
    say(db, "waiting")
    stop = say(db, "stop", if_busy="interrupt")
    assert states(db) == {"joined": (1, "waiting"), "waiting": (2, "waiting"), "stop": (3, "live")}
    end(db, stop.run_id)
    assert states(db) == {"waiting": (2, "waiting"), "joined": (4, "live")}


def test_messages_stay_when_the_turn_that_they_joined_is_retried(db: RunDatabase) -> None:
    run = say(db, "one")
    joined = steer(db, "and this")
    turn = begin(db, run.run_id)
    assert db.journal.store.fail(turn, ERROR, "refusal", record(turn, *said("no"))).recorded
    for text in ("no", "ok"):
        assert db.journal.retry_run(run.run_id)
        again = begin(db, run.run_id)
        assert [message.text for message in again.messages] == ["one", "and this"]
        if text == "no":
            assert db.journal.store.fail(again, ERROR, "refusal", record(again, *said("no"))).recorded
    assert db.journal.store.end(again, record(again, *said("ok")), "ok", "end").recorded
    assert db.database.steering.receipt(str(joined.steer_id)).step_id == turn.step_id
    assert events(db, run.run_id).count("MessageSteered") == 1


def test_returned_message_that_is_retried_before_it_began_gets_a_place_of_its_own(db: RunDatabase) -> None:
    say(db, "one")
    joined = steer(db, "joined", deadline_s=60)
    stop = say(db, "stop", if_busy="interrupt")
    next_id = str(db.database.steering.receipt(str(joined.steer_id)).next_run_id)
    past_deadline(db, next_id)
    assert db.journal.retry_run(next_id)
    assert states(db) == {"joined": (1, "waiting"), "stop": (2, "live")}
    end(db, stop.run_id)
    assert states(db) == {"joined": (3, "live")}


def test_message_that_is_returned_by_a_retried_run_gets_a_place_of_its_own(db: RunDatabase) -> None:
    one, two = say(db, "one"), say(db, "two", deadline_s=60)
    past_deadline(db, two.run_id)
    end(db, one.run_id)
    assert db.journal.retry_run(two.run_id)
    assert states(db) == {"two": (2, "live")}
    turn = begin(db, two.run_id)
    steer(db, "joined")
    end(db, two.run_id, turn)
    assert states(db) == {"joined": (3, "live")}


def past_deadline(db: RunDatabase, run_id: str) -> None:
    """Let a run that waits fail at its deadline."""
    db.sql("UPDATE agno.run SET deadline_at = created_at WHERE id = %(id)s", id=run_id)
    assert db.journal.end_overdue(run_id)


def test_key_of_a_message_joins_once(db: RunDatabase) -> None:
    run = say(db, "one")
    turn = begin(db, run.run_id)
    first = steer(db, "and this", idempotency_key="k")
    with db.unchanged():
        again = steer(db, "and this", idempotency_key="k")
    assert (again.run_id, again.steer_id) == (run.run_id, first.steer_id)
    with db.unchanged(), pytest.raises(IdempotencyConflict, match="another text"):
        steer(db, "and that", idempotency_key="k")
    end(db, run.run_id, turn)
    with db.unchanged():
        later = say(db, "and this", idempotency_key="k")
    assert (later.run_id, later.created) == (
        db.database.steering.receipt(str(first.steer_id)).next_run_id,
        False,
    )


@pytest.mark.parametrize("what", ["a free session", "another agent"])
def test_message_that_cannot_join_waits_as_any_other(db: RunDatabase, what: str) -> None:
    if what == "another agent":
        say(db, "live", agent="other")
    submitted = steer(db, "hi")
    assert (submitted.created, submitted.steer_id) == (True, None)
    assert (submitted.send is None) == (what == "another agent")


def test_steer_with_a_task_id_in_a_canvas_ends_with_the_live_run(db: RunDatabase) -> None:
    run = say(db, "one")
    mine = unknown_id()
    joined = steer(db, "and this", id=mine, canvas=Canvas(link=[{"task": "t"}]))
    assert joined.run_id == mine
    assert not steer(db, "and this", id=mine, canvas=Canvas(link=[{"task": "t"}])).created
    turn = begin(db, run.run_id)
    assert db.journal.store.end(turn, record(turn, *said("ok")), "ok", "end").recorded
    assert db.run(mine)["content"] == "ok"


@pytest.mark.parametrize("how", ["ends", "is interrupted"])
def test_returned_message_with_a_task_id_ends_with_the_run_that_it_becomes(db: RunDatabase, how: str) -> None:
    run = say(db, "one")
    turn = begin(db, run.run_id)
    mine, again = unknown_id(), unknown_id()
    for task_id in (mine, again):
        steer(db, "and this", id=task_id, idempotency_key="k", canvas=Canvas(link=[{"task": "t"}]))
    if how == "ends":
        end(db, run.run_id, turn)
    else:
        end(db, say(db, "stop", if_busy="interrupt").run_id)
    assert [db.run(task_id)["status"] for task_id in (mine, again)] == ["waiting", "waiting"]
    (next_run,) = db.sql("SELECT id::text FROM agno.run WHERE session_status = 'live' AND ended_at IS NULL")
    db.journal.end(begin(db, next_run["id"]), said("yes"), FEW, "yes", "end")
    assert [db.run(task_id)["content"] for task_id in (mine, again)] == ["yes", "yes"]


# Idle sessions.


def test_idle_session_times_out_and_one_with_an_open_run_does_not(db: RunDatabase) -> None:
    db.sql("INSERT INTO agno.session (id, idle_timeout_s) VALUES ('s', 60), ('idle', 60)")
    one = say(db, "one")
    assert db.value(
        "SELECT expires_at > clock_timestamp() + interval '50 s' FROM agno.session WHERE id = 's'"
    )
    db.sql("UPDATE agno.session SET expires_at = clock_timestamp()")
    assert "sessions" in db.journal.lead(5).due
    db.journal.time_out_sessions(10)
    found = {row["id"]: row["status"] for row in db.sql("SELECT id, status FROM agno.session")}
    assert found == {"s": "active", "idle": "timed_out"}
    end(db, one.run_id)
    db.sql("UPDATE agno.session SET expires_at = clock_timestamp()")
    db.journal.time_out_sessions(10)
    assert db.value("SELECT count(*) FROM agno.session WHERE ended_at IS NOT NULL") == 2
    assert "sessions" not in db.journal.lead(5).due


# Locks.


def test_canvases_with_the_same_sessions_do_not_deadlock(db: RunDatabase) -> None:
    """Each of them names the sessions in another order."""

    def canvas(transaction: Transaction, *sessions: str) -> Any:
        requests = [
            RunRequest(agent="echo", input=user("hi"), queue="agents", allow_unknown=True, id=unknown_id(), session_id=session)
            for session in sessions
        ]  # fmt: skip
        return db.journal_of("", transaction).submissions.submit_canvas(requests, [])

    with db.transaction() as gate, db.transaction() as one, db.transaction() as two:
        gate.run("INSERT INTO agno.session (id) VALUES ('a')")
        for each in (one, two):
            each.run("SET LOCAL deadlock_timeout = '10ms'")
        first = one.begin_and_commit(lambda: canvas(one, "a", "b"))
        assert db.waits(first, one)
        second = two.begin_and_commit(lambda: canvas(two, "b", "a"))
        assert db.waits(second, two)
        gate.rollback()
        first.result()
        second.result()
    found = db.sql("SELECT session_status FROM agno.run WHERE session_id = 'a' ORDER BY session_position")
    assert [row["session_status"] for row in found] == ["live", "waiting"]


def test_end_of_the_live_run_and_cancel_of_the_next_one_do_not_deadlock(db: RunDatabase) -> None:
    """The end holds the session and waits for the next run; the cancel of that run needs no session."""
    one, two, three = (say(db, text) for text in ("one", "two", "three"))
    turn = begin(db, one.run_id)
    with db.transaction() as cancelling, db.transaction() as ending:
        for each in (cancelling, ending):
            each.run("SET LOCAL deadlock_timeout = '10ms'")
        cancelling.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE", {"id": two.run_id})
        ended = ending.begin_and_commit(
            lambda: db.journal_of("w1", ending).end(turn, said("ok"), FEW, "ok", "end")
        )
        assert db.waits(ended, ending)
        assert db.journal_of("", cancelling).cancel(two.run_id)
        cancelling.commit()
        assert ended.result().recorded
    assert states(db) == {"three": (3, "live")}
    end(db, three.run_id)


def test_cancel_of_many_runs_waits_for_none_while_it_holds_others(db: RunDatabase) -> None:
    """A retried run waits for a younger one. The end of that one holds the session and waits for the retried run, which the cancel holds."""
    one, two, other = say(db, "one"), say(db, "two"), db.submit()
    fail(db, one.run_id)
    assert db.journal.retry_run(one.run_id)
    how = {"status": "cancelled", "reason": "cancelled", "error": ERROR}
    stops = [{"id": run.run_id, "how": how} for run in (one, two, other)]
    with db.transaction() as ending, db.transaction() as cancelling:
        ending.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE", {"id": two.run_id})
        stopped = cancelling.begin(
            lambda: cancelling.run(STATEMENTS["runs/control.stop_many"], {"stops": jsonb(stops)})
        )
        assert not db.waits(stopped, cancelling)
        assert stopped.result() == [{"stopped": 2}]
    assert db.journal.cancel_all([run.run_id for run in (one, two, other)]) == 3
    assert states(db) == {}


def test_fork_of_a_waiting_run_does_not_hold_it_while_it_waits_for_the_session(db: RunDatabase) -> None:
    """The end of the live run holds the session, and wakes the waiting one."""
    say(db, "one")
    two = say(db, "two")
    (turn,) = db.sql("SELECT id::text FROM agno.step WHERE run_id = %(id)s", id=two.run_id)
    with db.transaction() as ending, db.transaction() as forking:
        ending.run("SELECT FROM agno.session FOR NO KEY UPDATE")
        forked = forking.begin_and_commit(lambda: db.journal_of("", forking).fork(turn["id"]))
        assert db.waits(forked, forking)
        ending.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE NOWAIT", {"id": two.run_id})
        ending.commit()
        assert forked.result()[1]


def test_cancel_of_many_runs_holds_no_background_work_while_it_waits(db: RunDatabase) -> None:
    """The end of another run asks for both kinds of work in their order, and may hold the one that the cancel wants next."""
    asked = (FollowUp("index", "s"), FollowUp("summary", "s"))
    run = say(db, "one")
    db.journal.end(begin(db, run.run_id), said("ok"), FEW, "ok", "end", follow_ups=asked)
    works = [row["id"] for row in db.sql("SELECT run_id::text AS id FROM agno.background")]
    how = {"status": "cancelled", "reason": "cancelled", "error": ERROR}
    stops = jsonb([{"id": run_id, "how": how} for run_id in works])
    assert db.sql(STATEMENTS["runs/control.stop_many"], stops=stops) == [{"stopped": 0}]
    assert db.journal.cancel_all(works) == 2


def test_delegation_of_a_session_run_has_no_place(db: RunDatabase) -> None:

    run = say(db, "one")
    message = asking("child")
    child = ToolStep(
        message.tool_calls[0], "agents", Effect.PURE, 1, child=ChildRun("child", "agents", user("do it"))
    )
    assert db.journal.fan_out(begin(db, run.run_id), message, FEW, [child], "agents").recorded
    assert db.sql("SELECT session_position, session_id FROM agno.run WHERE agent = 'child'") == [
        {"session_position": None, "session_id": None}
    ]
