"""The life of a session as people change it: pause, end, fork, roll back, delete; and its lists."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest

from agno_workers.core.messages import user
from agno_workers.core.run import Canvas, Run
from agno_workers.core.session import SessionStatus
from agno_workers.core.step import ChildRun, Definition, ToolStep
from agno_workers.core.tool import Effect
from agno_workers.database.pool import jsonb
from agno_workers.errors import (
    InvalidInput,
    SessionBusy,
    SessionForbidden,
    SessionNotFound,
    Unavailable,
)
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.runs.queries import narrowed
from agno_workers.sdk.sessions import SessionHandle
from agno_workers.sessions import store
from agno_workers.sessions.store import SessionRow, Sessions
from tests.database import FEW, RunDatabase, asking, claimed, result, said, tool_steps, unknown_id
from tests.sessions import first_turn, submit, told


@pytest.fixture
def sessions(db: RunDatabase) -> Sessions:
    return db.database.sessions


def handle(db: RunDatabase, session: str, user_id: str | None = None) -> SessionHandle:
    return SessionHandle(session, db.database, user_id=user_id)


def texts(session: SessionHandle) -> list[str]:
    return [message.text for message in session.messages]


def seen_by(db: RunDatabase, run_id: str) -> list[str]:
    """Return the texts of the history that a run's model sees."""
    past = db.sql("SELECT messages FROM agno.past_runs(%(id)s, false, 9, 9, 1000000)", id=run_id)
    return [message["parts"][0]["text"] for row in reversed(past) for message in json.loads(row["messages"])]


# Reads.


def test_session_has_its_runs_and_messages_in_order_from_both_ends(
    db: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PAGE", 2)
    monkeypatch.setattr(Sessions.runs, "__kwdefaults__", {**(Sessions.runs.__kwdefaults__ or {}), "limit": 2})
    old = [db.submit(text, session_id="s").run_id for text in ("x", "y", "z")]
    for run_id in old:
        db.journal.cancel(run_id)
    db.sql(
        "UPDATE agno.run SET session_position = NULL, session_status = NULL"
    )  # as earlier code stores them
    db.sql("DELETE FROM agno.session")
    runs = told(db, "s", "a", "b", "c")
    session = handle(db, "s")
    assert [run.id for run in session.runs] == [*old, *runs]
    assert [run.id for run in reversed(session.runs)] == [*reversed(runs), *reversed(old)]
    assert texts(session) == ["x", "y", "z", "a", "<a>", "b", "<b>", "c", "<c>"]
    assert [message.text for message in reversed(session.messages)][:3] == ["<c>", "c", "<b>"]
    row = session.session
    assert (row.id, row.runs, row.title, row.agent, row.live_run_id, row.waiting) == (
        "s",
        6,
        "a",
        "echo",
        None,
        0,
    )


def test_page_of_runs_goes_on_after_one_that_has_the_same_place(db: RunDatabase, sessions: Sessions) -> None:
    """A message that was returned by an interrupted run, and cancelled before it began."""
    live = submit(db, "s", "a")
    submit(db, "s", "b", if_busy="steer")
    last = submit(db, "s", "c", if_busy="interrupt")
    (returned,) = db.sql("SELECT next_run_id::text AS id FROM agno.steer")
    db.journal.cancel(returned["id"])
    for order in (False, True):
        found: list[str] = []
        at: Run | None = None
        while page := sessions.runs("s", newest_first=order, at=at, limit=1):
            at = page[-1].run
            found.append(at.id)
        assert found == ([last, returned["id"], live] if order else [live, returned["id"], last])


def test_session_names_its_live_and_its_waiting_runs(db: RunDatabase) -> None:
    live = submit(db, "s")
    submit(db, "s", status="waiting")
    row = handle(db, "s").session
    assert (row.live_run_id, row.waiting) == (live, 1)


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.session, lambda s: list(s.runs), lambda s: list(s.messages), lambda s: s.update(title="x"), lambda s: s.pause(),
        lambda s: s.resume(), lambda s: s.end(), lambda s: s.fork("f"), lambda s: s.rollback(None), lambda s: s.delete(), lambda s: s.export(),
    ],
)  # fmt: skip
def test_verb_refuses_another_user_and_an_unknown_session(db: RunDatabase, verb: Any) -> None:
    told(db, "s", "a", user_id="ann")
    with db.unchanged():
        with pytest.raises(SessionForbidden, match="'s' belongs to another user than 'bob'") as caught:
            verb(handle(db, "s", "bob"))
        assert caught.value.session_id == "s"
        with pytest.raises(SessionNotFound, match="no session 'nobody'"):
            verb(handle(db, "nobody", "bob"))


def test_owner_may_use_all_verbs(db: RunDatabase) -> None:
    told(db, "s", "a", user_id="ann")
    session = handle(db, "s", "ann")
    assert texts(session) == ["a", "<a>"]
    assert session.pause()
    assert texts(session.fork("f")) == ["a", "<a>"]
    assert session.delete() == 1


def test_runs_of_others_before_sessions_had_owners_are_not_shown_to_the_owner(db: RunDatabase) -> None:
    told(db, "s", "of bob", user_id="bob")
    db.sql("DELETE FROM agno.session")
    db.sql("UPDATE agno.run SET session_position = NULL, session_status = NULL")
    told(db, "s", "of ann", user_id="ann")
    anns = handle(db, "s", "ann")
    assert texts(anns) == ["of ann", "<of ann>"]
    assert "bob" not in json.dumps(anns.export(), default=str)
    assert texts(anns.fork("s2")) == ["of ann", "<of ann>"]
    assert texts(handle(db, "s")) == ["of bob", "<of bob>", "of ann", "<of ann>"]  # as operators need it


def test_list_has_the_last_active_first_and_pages(db: RunDatabase, sessions: Sessions) -> None:
    told(db, "s1", "a", user_id="ann")
    told(db, "s2", "a", user_id="bob", agent="clerk")
    told(db, "s3", "a", user_id="ann")
    told(db, "s1", "b", user_id="ann")

    def ids(found: Sequence[SessionRow]) -> list[str]:
        return [each.id for each in found]

    assert ids(sessions.all()) == ["s1", "s3", "s2"]
    assert ids(sessions.all(1, before="s1")) == ["s3"]
    assert ids(sessions.all(user_id="ann", since=timedelta(hours=1))) == ["s1", "s3"]
    assert ids(sessions.all(agent="clerk")) == ["s2"]
    sessions.pause("s2")
    assert ids(sessions.all(status="paused")) == ["s2"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"status": "pause"}, "Did you mean 'paused'"),
        ({"users": "ann"}, "no filter 'users'"),
        ({"since": "7d"}, "since is"),
    ]
    for wrong, why in cases:
        with pytest.raises(InvalidInput, match=why):
            sessions.all(**wrong)
    with pytest.raises(SessionNotFound, match="'nobody'"):
        sessions.all(before="nobody")


def test_session_is_created_once(db: RunDatabase, sessions: Sessions) -> None:
    assert sessions.create(
        "s", user_id="ann", title="Trip", metadata={"retention": "audit"}, idle_timeout_s=60
    ) == ("s", True)
    row = sessions.get("s")
    assert (row.status, row.title, row.metadata, row.user_id) == (
        SessionStatus.CREATED,
        "Trip",
        {"retention": "audit"},
        "ann",
    )
    assert row.expires_at
    assert row.created_at
    assert 59 < (row.expires_at - row.created_at).total_seconds() < 61
    assert sessions.create("s", user_id="ann", title="Other") == ("s", False)
    for other in ("bob", None):
        with pytest.raises(SessionForbidden):
            sessions.create("s", user_id=other)
    sessions.update("s", title="New", metadata={})
    assert (sessions.get("s").title, sessions.get("s").metadata) == ("New", {})
    for wrong in ({"id": " "}, {"title": 3}, {"metadata": {"x": object()}}, {"idle_timeout_s": 0}):
        with db.unchanged(), pytest.raises(InvalidInput):
            sessions.create(**wrong)


# Pause, resume, end.


def test_pause_and_resume_change_what_can_be_changed(db: RunDatabase) -> None:
    told(db, "s", "a")
    session = handle(db, "s")
    assert not session.resume()
    assert session.pause()
    assert not session.pause()
    assert str(session.session.status) == "paused"
    assert session.resume()
    assert str(session.session.status) == "active"
    session.end()
    assert not session.pause()
    assert not session.resume()


def test_end_lets_the_live_run_finish_and_cancels_those_that_wait(db: RunDatabase) -> None:
    told(db, "s", "a")
    live = submit(db, "s", "b")
    turn = first_turn(db, live)
    waiting = [submit(db, "s", text, status="waiting") for text in "cd"]
    session = handle(db, "s")
    assert session.end() == 2
    assert session.end() == 0
    assert session.session.status is SessionStatus.ENDED
    assert db.journal.end(turn, said("<b>"), FEW, "<b>", "end").recorded
    assert [db.run(run_id)["reason"] for run_id in waiting] == ["session_ended", "session_ended"]
    assert texts(session) == ["a", "<a>", "b", "<b>", "c", "d"]


def test_ended_session_asks_for_a_last_summary_where_its_agent_keeps_summaries(db: RunDatabase) -> None:
    for session, keeps in (("a", True), ("b", False)):
        turn = first_turn(db, submit(db, session))
        db.database.agents.register([RegisteredAgent(turn.agent, "agents", "later")])
        agent = Definition(session * 64, {"history": {"summary": keeps}})
        db.journal.end(turn, said("x"), FEW, "x", "end", definition=agent)
        handle(db, session).end()
    assert db.sql("SELECT kind, owner FROM agno.background") == [{"kind": "summary", "owner": "a"}]
    assert db.sql("SELECT queue FROM agno.run WHERE kind = 'background'") == [{"queue": "later"}]


# Fork.


def test_fork_has_the_past_up_to_a_run(db: RunDatabase) -> None:
    first, second, third = told(db, "s", "a", "b", "c", user_id="ann")
    db.sql("UPDATE agno.session SET summary = 'ab', summary_until = 2")
    before = rows_of(db, "s")
    session = handle(db, "s")
    fork = session.fork("f", at=second)
    assert rows_of(db, "s") == before
    assert fork.created
    assert texts(fork) == ["a", "<a>", "b", "<b>"]
    copies = list(fork.runs)
    assert [run.forked_from for run in copies] == [first, second]
    assert [(run.content, run.cost_usd, run.turns, run.user_id) for run in copies] == [
        ("<a>", 0, 1, "ann"),
        ("<b>", 0, 1, "ann"),
    ]
    row = fork.session
    assert (row.forked_from, row.user_id, row.status, row.summary, row.title) == (
        "s",
        "ann",
        SessionStatus.ACTIVE,
        "ab",
        "a",
    )
    assert db.database.queries.steps(copies[0].id)[0].key == "turn:1"
    (next_run,) = told(db, "f", "d", user_id="ann")
    assert texts(fork) == ["a", "<a>", "b", "<b>", "d", "<d>"]
    assert seen_by(db, next_run) == ["a", "<a>", "b", "<b>"]
    assert session.fork("f", at=second).created is False
    assert session.fork("f2", at=first).session.summary is None
    whole = session.fork()
    assert [run.forked_from for run in whole.runs] == [first, second, third]
    assert whole.session.summary == "ab"


def test_fork_copies_calls_and_large_results_and_the_state(db: RunDatabase) -> None:
    run_id = submit(db, "s")
    turn = first_turn(db, run_id)
    fanned = db.journal.fan_out(turn, asking("add"), FEW, tool_steps("add"), "agents")
    tool = claimed(db.journal.claim_tool(run_id, fanned.sends[0].step_id, 0))
    (next_turn,) = db.journal.finish_tool(tool, result(tool, "5")).sends
    db.journal.end(
        claimed(db.journal.claim_turn(run_id, next_turn.step_id, 0)), said("five"), FEW, "five", "end"
    )
    db.sql(
        "INSERT INTO agno.stored_result (run_id, seq, id, content) VALUES (%(id)s, 2, 'r1', 'long')",
        id=run_id,
    )
    db.sql(
        "INSERT INTO agno.state (scope, owner, key, value) VALUES ('session', 's', 'n', '1'), ('user', 's', 'n', '2')"
    )
    db.sql(
        "INSERT INTO agno.state_change (scope, owner, key, version, operation, value, run_id) VALUES ('session', 's', 'n', 1, 'set', '1', %(id)s)",
        id=run_id,
    )
    fork = handle(db, "s").fork("f")
    (copy,) = fork.runs
    assert [(step.key, step.status) for step in db.queries.steps(copy.id)] == [
        ("turn:1", "done"),
        ("tool:1:0", "done"),
        ("turn:2", "done"),
    ]
    assert copy.tool_calls == 1
    assert db.value("SELECT content FROM agno.stored_result WHERE run_id = %(id)s", id=copy.id) == "long"
    assert db.sql("SELECT scope, owner, key, value FROM agno.state WHERE owner = 'f'") == [
        {"scope": "session", "owner": "f", "key": "n", "value": 1}
    ]
    assert db.value("SELECT run_id::text FROM agno.state_change WHERE owner = 'f'") == copy.id
    assert fork.export()["state"] == {"n": {"value": 1, "version": 1}}


def test_fork_leaves_out_open_failed_and_rolled_back_runs(db: RunDatabase) -> None:
    told(db, "s", "a")
    failing = submit(db, "s", "b")
    db.journal.fail(first_turn(db, failing), {"type": "X", "message": "x"}, "retries")
    (gone,) = told(db, "s", "c")
    db.sql("UPDATE agno.run SET rolled_back_at = now() WHERE id = %(id)s", id=gone)
    cancelled = submit(db, "s", "d")
    db.journal.cancel(cancelled)
    live = submit(db, "s", "e")
    session = handle(db, "s")
    assert texts(session.fork("f")) == ["a", "<a>", "d"]
    for at, why in (
        (failing, "failed runs are not copied"), (gone, "was rolled back"), (live, "has not ended"), (unknown_id(), "is not a run of session 's'"),
    ):  # fmt: skip
        with db.unchanged(), pytest.raises(InvalidInput, match=why):
            session.fork("g", at=at)
    told(db, "other", "a")
    with (
        db.unchanged(),
        pytest.raises(InvalidInput, match="session 'other' exists, and is not a fork of 's'"),
    ):
        session.fork("other")


def rows_of(db: RunDatabase, session: str) -> list[Any]:
    return db.sql(
        "SELECT to_jsonb(r) AS run, (SELECT jsonb_agg(m ORDER BY seq) FROM agno.message m WHERE run_id = r.id) AS messages FROM agno.run r "
        "WHERE session_id = %(id)s ORDER BY id", id=session,
    )  # fmt: skip


# Roll back.


def test_rollback_takes_later_runs_out_of_the_history(db: RunDatabase) -> None:
    _, second, third = told(db, "s", "a", "b", "c")
    live = submit(db, "s", "d")
    turn = first_turn(db, live)
    waiting = submit(db, "s", "e", status="waiting")
    db.sql("UPDATE agno.session SET summary = 'abc', summary_until = 3")
    session = handle(db, "s")
    done = session.rollback(second)
    assert (done.runs, set(done.cancelled)) == (3, {live, waiting})
    assert texts(session) == ["a", "<a>", "b", "<b>"]
    assert [run.rolled_back_at is None for run in session.runs] == [True, True, False, False, False]
    assert (session.session.summary, session.session.summary_until) == (None, 0)
    assert not db.journal.end(turn, said("<d>"), FEW, "<d>", "end").recorded
    assert db.run(live)["reason"] == "rolled_back"
    with db.unchanged(), pytest.raises(InvalidInput, match="was rolled back"):
        session.rollback(third)
    assert session.rollback(second).runs == 0
    (after,) = told(db, "s", "f")
    assert seen_by(db, after) == ["a", "<a>", "b", "<b>"]
    assert texts(session) == ["a", "<a>", "b", "<b>", "f", "<f>"]
    assert session.rollback(None).runs == 3
    assert texts(session) == []


def test_rollback_refuses_a_run_that_it_cannot_return_to(db: RunDatabase) -> None:
    told(db, "s", "a")
    live = submit(db, "s", "b")
    (elsewhere,) = told(db, "other", "a")
    session = handle(db, "s")
    for to, why in ((live, "has not ended"), (elsewhere, "is not a run of session 's'")):
        with db.unchanged(), pytest.raises(InvalidInput, match=why):
            session.rollback(to)


# Delete.


def test_delete_takes_all_that_belongs_to_a_session(db: RunDatabase) -> None:
    (other,) = told(db, "other", "a")
    db.sql("INSERT INTO agno.state (scope, owner, key, value) VALUES ('user', 's', 'k', '1')")
    others = [
        {"kind": "learn", "owner": "s"},
        {"kind": "consolidate", "owner": "s"},
        {"kind": "summary", "owner": "session:s"},
    ]
    db.sql("SELECT agno.request_background(%(id)s, %(asked)s)", id=other, asked=jsonb(others))
    kept = db.everything()
    runs = told(db, "s", "a", "b")
    db.sql("INSERT INTO agno.state (scope, owner, key, value) VALUES ('session', 's', 'k', '1')")
    db.sql(
        "INSERT INTO agno.state_change (scope, owner, key, version, operation) VALUES ('session', 's', 'k', 1, 'set')"
    )
    db.sql("INSERT INTO agno.memory (id, scope, owner, text) VALUES (gen_random_uuid(), 'session', 's', 'x')")
    asked = [
        {"kind": "summary", "owner": "s"},
        *({"kind": kind, "owner": "session:s"} for kind in ("learn", "consolidate")),
    ]
    db.sql("SELECT agno.request_background(%(id)s, %(asked)s)", id=runs[0], asked=jsonb(asked))
    assert db.count("background") == 6
    db.sql("INSERT INTO agno.context_value (scope, owner, agent, key) VALUES ('session', 's', 'echo', 'k')")
    assert handle(db, "s").delete() == 2
    assert db.everything() == kept


def test_delete_refuses_open_runs_unless_it_may_cancel_them(db: RunDatabase) -> None:
    told(db, "s", "a")
    live = submit(db, "s", "b")
    turn = first_turn(db, live)
    session = handle(db, "s")
    with db.unchanged(), pytest.raises(SessionBusy, match="has 1 open run"):
        session.delete()
    assert session.delete(cancel=True) == 2
    assert not db.journal.end(turn, said("<b>"), FEW, "<b>", "end").recorded
    assert db.count("run") == 0


def test_delete_takes_delegated_runs_and_spares_pending_callbacks(
    db: RunDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_DELETE_WAIT_S", 0)
    (run_id,) = told(db, "s", "a")
    (child,) = told(db, "elsewhere", "b")
    db.sql(
        "UPDATE agno.run SET session_id = NULL, parent_run_id = %(parent)s WHERE id = %(id)s",
        id=child,
        parent=run_id,
    )
    db.sql("UPDATE agno.step SET child_run_id = %(child)s WHERE run_id = %(id)s", id=run_id, child=child)
    db.sql("INSERT INTO agno.outbox (ended_run_id, due_at) VALUES (%(id)s, now())", id=child)
    with pytest.raises(Unavailable, match="repeat the delete"):
        handle(db, "s").delete()
    assert db.count("run") == 2
    db.sql("DELETE FROM agno.outbox")
    assert handle(db, "s").delete() == 2
    assert db.count("run") == 0


def test_rollback_and_delete_cancel_delegated_runs(db: RunDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_DELETE_WAIT_S", 0)
    message = asking("child")
    child = ChildRun("child", "agents", user("do it"))
    verbs: list[Callable[[SessionHandle], object]] = [
        lambda s: s.rollback(None),
        lambda s: s.delete(cancel=True),
    ]
    for verb in verbs:
        turn = first_turn(db, submit(db, "s"))
        call = ToolStep(message.tool_calls[0], "agents", Effect.PURE, 1, child=child)
        db.journal.fan_out(turn, message, FEW, [call], "agents")
        verb(handle(db, "s"))
        assert db.sql("SELECT FROM agno.run WHERE ended_at IS NULL") == []


def test_sessions_that_ended_long_ago_are_found_by_their_class(db: RunDatabase, sessions: Sessions) -> None:
    sessions.create("a")
    sessions.create("b", metadata={"retention": "audit"})
    sessions.create("open")
    sessions.end("a")
    sessions.end("b")
    assert [each.id for each in sessions.prunable(timedelta(0))] == ["a"]
    assert [each.id for each in sessions.prunable(timedelta(0), "audit")] == ["b"]
    assert sessions.prunable(timedelta(days=1)) == []


# Races.


def test_rollback_waits_for_the_end_of_a_live_run_and_takes_it_out(db: RunDatabase) -> None:
    (first,) = told(db, "s", "a")
    live = submit(db, "s", "b")
    turn = first_turn(db, live)
    with db.transaction() as theirs, ThreadPoolExecutor(1) as threads:
        assert db.journal_of("w1", theirs).end(turn, said("<b>"), FEW, "<b>", "end").recorded
        ours = threads.submit(handle(db, "s").rollback, first)
        theirs.commit()
        done = ours.result(timeout=20)
    assert (done.runs, done.cancelled) == (1, ())
    assert texts(handle(db, "s")) == ["a", "<a>"]
    assert db.run(live)["status"] == "done"


def test_session_is_held_with_a_run_that_comes_between(db: RunDatabase) -> None:
    """A submit that locks the session first is in time: its run is cancelled with the others."""
    told(db, "s", "a")
    with db.transaction() as theirs, ThreadPoolExecutor(1) as threads:
        theirs.run("SELECT FROM agno.session WHERE id = 's' FOR NO KEY UPDATE")
        late = (
            db.journal_of("w1", theirs).submit(user("b"), agent="echo", queue="agents", session_id="s").run_id
        )
        ours = threads.submit(handle(db, "s").rollback, None)
        until_blocked(db, ours)
        theirs.commit()
        done = ours.result(timeout=20)
    assert (done.runs, done.cancelled) == (2, (late,))


@pytest.mark.parametrize(("verb", "place"), [("end", 1), ("rollback", 0), ("rollback", 1), ("delete", 1)])
def test_verb_waits_for_a_run_before_it_holds_the_session(db: RunDatabase, verb: str, place: int) -> None:
    """So does a transaction that ends or forks a run: it holds the run, and then waits for the session."""
    run_ids = [*told(db, "s", "a"), submit(db, "s", "b")]
    with db.transaction() as theirs, ThreadPoolExecutor(1) as threads:
        theirs.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE", {"id": run_ids[place]})
        ours = threads.submit(VERBS[verb], handle(db, "s"))
        until_blocked(db, ours)
        theirs.run("SELECT FROM agno.session WHERE id = 's' FOR NO KEY UPDATE NOWAIT")
        theirs.commit()
        ours.result(timeout=20)


def test_verb_holds_no_run_that_stands_for_one_that_it_waits_for(db: RunDatabase) -> None:
    """The end of that one ends the other, too."""
    live = submit(db, "s", "a")
    stands, canvas = "00000000-0000-7000-8000-000000000000", Canvas(link=[{"task": "t"}])
    submit(db, "s", "b", if_busy="steer", id=stands, canvas=canvas)
    with db.transaction() as theirs, ThreadPoolExecutor(1) as threads:
        theirs.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE", {"id": live})
        ours = threads.submit(handle(db, "s").rollback, None)
        until_blocked(db, ours)
        theirs.run("SELECT FROM agno.run WHERE id = %(id)s FOR NO KEY UPDATE NOWAIT", {"id": stands})
        theirs.commit()
        ours.result(timeout=20)


BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def until_blocked(db: RunDatabase, call: Future[Any]) -> None:
    while not db.value(BLOCKED):
        assert not call.done()


VERBS: dict[str, Callable[[SessionHandle], object]] = {
    "end": lambda session: session.end(),
    "rollback": lambda session: session.rollback(None),
    "delete": lambda session: session.delete(cancel=True),
    "pause": lambda session: session.pause() and session.resume(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_verb_races_with_messages_and_with_a_worker(db: RunDatabase, verb: str) -> None:
    """Nobody waits for anybody who waits for them, and each message is answered, cancelled, refused or deleted."""
    for number in range(3):
        session = handle(db, f"{verb}{number}")
        told(db, session.id, "a")
        accepted: list[str] = []
        submitted = threading.Event()

        def write(session: str = session.id, accepted: list[str] = accepted) -> None:
            for _ in range(4):
                with suppress(InvalidInput):  # it has ended
                    accepted.append(submit(db, session))

        def work(submitted: threading.Event = submitted) -> None:
            open_runs = "SELECT r.id::text, s.id::text AS step, s.status FROM agno.run r JOIN agno.step s ON s.run_id = r.id WHERE r.ended_at IS NULL AND s.ended_at IS NULL"
            while (found := db.sql(open_runs)) or not submitted.is_set():
                for row in found:
                    if row["status"] == "ready" and (
                        turn := db.journal.claim_turn(row["id"], row["step"], 0)
                    ):
                        db.journal.end(turn, said("x"), FEW, "x", "end")

        with ThreadPoolExecutor(5) as threads:
            worker = threads.submit(work)
            writers = [threads.submit(write) for _ in range(3)]
            threads.submit(VERBS[verb], session).result(timeout=30)
            for writer in writers:
                writer.result(timeout=30)
            submitted.set()
            worker.result(timeout=30)
        left = {
            row["id"]: row["status"]
            for row in db.sql(
                "SELECT id::text, status FROM agno.run WHERE session_id = %(id)s", id=session.id
            )
        }
        assert set(left.values()) <= {"done", "cancelled"}
        if verb != "delete":
            assert set(accepted) <= set(left)
        if verb == "pause":
            assert set(left.values()) == {"done"}


# Many runs.


def test_session_of_10000_runs_is_read_and_changed_quickly(db: RunDatabase) -> None:
    """The last page reads as many rows as in a short session."""
    (first,) = told(db, "s", "a")
    db.sql("""
        WITH runs AS (
            INSERT INTO agno.run (id, agent, status, queue, session_id, session_position, session_status, content, reason, ended_at, turns)
            SELECT gen_random_uuid(), 'echo', 'done', 'agents', 's', n, 'live', '"<b>"', 'end', now(), 1 FROM generate_series(2, 10000) n RETURNING id)
        INSERT INTO agno.message (run_id, seq, content)
        SELECT id, seq, jsonb_build_object('role', role, 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', 'b')))
        FROM runs, (VALUES (0, 'user'), (1, 'assistant')) AS said (seq, role)""")
    db.sql("ANALYZE agno.run")
    db.sql("ANALYZE agno.message")
    session = handle(db, "s")
    explained = db.sql("EXPLAIN (ANALYZE) " + narrowed(store._SQL["runs"], LAST_PAGE), **LAST_PAGE)
    read = [
        float(rows)
        for row in explained
        for rows in re.findall(r"actual time=\S+ rows=([\d.]+)", row["QUERY PLAN"])
    ]
    assert 20 <= max(read) < 100
    assert [message.text for message in islice(reversed(session.messages), 3)] == ["b"] * 3
    assert session.rollback(first).runs == 9_999
    assert texts(session) == ["a", "<a>"]


LAST_PAGE = {"tenant": "default", "id": "s", "as_user": None, "before_position": 2**62, "last": 20}
