"""Submits: one transaction each; a repeated one returns the existing run."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from agno_workers.core.messages import user
from agno_workers.core.request import run_request
from agno_workers.core.run import Canvas, RunStatus, StepKind
from agno_workers.core.step import StepMessage
from agno_workers.database.pool import Connection
from agno_workers.errors import IdempotencyConflict, InvalidInput, RunNotFound, UnknownAgent
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.runs.base import utc
from agno_workers.runs.queries import known_id
from agno_workers.sdk.batch import submit_many
from tests.database import RunDatabase, unknown_id

SOON = utc(datetime.now(UTC) + timedelta(hours=1))


def test_submit_stores_run_message_turn_and_outbox_row(db: RunDatabase) -> None:
    submitted = db.submit(
        "hi", session_id="s", user_id="u", idempotency_key="k", metadata={"a": None}, priority=3
    )
    assert submitted.created
    run = db.queries.run(submitted.run_id)
    assert (run.status, run.agent, run.session_id, run.user_id, run.idempotency_key) == (
        RunStatus.QUEUED, "echo", "s", "u", "k",
    )  # fmt: skip
    assert run.metadata == {"a": None}
    assert db.queries.transcript(run.id) == [user("hi")]
    (step,) = db.queries.steps(run.id)
    pending = db.value("SELECT id FROM agno.outbox")
    assert submitted.send == StepMessage(pending, run.id, step.id, 0, StepKind.TURN, "agents", 3)
    assert (step.key, step.kind, step.queue, step.attempt) == ("turn:1", StepKind.TURN, "agents", 0)


@pytest.mark.parametrize("known", ["id", "idempotency_key"])
def test_repeated_submit_returns_the_existing_run(db: RunDatabase, known: str) -> None:
    same: dict[str, Any] = {known: unknown_id()}
    first = db.submit("first", **same)
    with db.unchanged():
        again = db.submit("first", **same)
    assert (again.run_id, again.created, again.send) == (first.run_id, False, None)


def test_key_of_a_run_with_another_input_is_a_conflict(db: RunDatabase, caller: Connection) -> None:
    first = db.submit("first", idempotency_key="k")
    canvas = run_request(
        "echo", ["second"], {"idempotency_key": "k", "run_id": unknown_id()}, canvas=Canvas(chain=[{}])
    )
    doors = (
        lambda: db.submit("second", idempotency_key="k"),
        lambda: db.database.submissions.submit(msgspec.structs.replace(canvas, allow_unknown=True)),
        lambda: db.database.submissions.submit_canvas([msgspec.structs.replace(canvas, allow_unknown=True)], []),
        lambda: submit_many(db.database.batches, "echo", ["first", "second"], keys=["k", "k"], allow_unknown=True),
        lambda: submit_many(db.database.batches, "echo", ["a", "b"], keys=["new", "new"], allow_unknown=True),
    )  # fmt: skip
    for door in doors:
        with (
            db.unchanged(),
            pytest.raises(
                IdempotencyConflict, match=r"'(k|new)' of agent 'echo' belongs to run .* another input"
            ) as refused,
        ):
            door()
        assert refused.value.run_id == first.run_id or "'new'" in str(refused.value)
    with pytest.raises(psycopg.errors.UniqueViolation) as in_sql:
        submit_in_sql(caller, "'echo', 'second', idempotency_key => 'k', allow_unknown => true")
    assert in_sql.value.diag.message_detail == first.run_id


def test_repeated_submit_returns_an_ended_run(db: RunDatabase) -> None:
    first = db.submit(idempotency_key="k")
    db.journal.cancel(first.run_id)
    with db.unchanged():
        assert db.submit(idempotency_key="k").run_id == first.run_id


@pytest.mark.parametrize("door", ["submit", "canvas", "sql", "batch", "fork"])
def test_key_is_the_users_own(db: RunDatabase, caller: Connection, door: str) -> None:
    """Also no user is a user of their own."""

    def submit(user_id: str | None) -> str:
        if door == "sql":
            run_id = submit_in_sql(caller, "'echo', 'hi', idempotency_key => 'k', user_id => %s", user_id)
            caller.commit()
            return run_id
        if door == "batch":
            batch = submit_many(db.database.batches, "echo", ["hi"], keys=["k"], user_id=user_id, allow_unknown=True)  # fmt: skip
            return next(batch.runs).id
        if door == "fork":
            return db.database.forks.fork(forked[user_id], None, idempotency_key="k")
        own_id: dict[str, Any] = (
            {"id": unknown_id(), "canvas": Canvas(group_id=unknown_id())} if door == "canvas" else {}
        )
        submitted = db.submit(user_id=user_id, idempotency_key="k", **own_id)
        return submitted.run_id

    users = ["ann", "bob", None]
    forked = {user_id: db.submit(user_id=user_id).run_id for user_id in users if door == "fork"}
    runs = {user_id: submit(user_id) for user_id in users}
    assert len(set(runs.values())) == 3
    assert [db.run(run_id)["user_id"] for run_id in runs.values()] == users
    again = {user_id: submit(user_id) for user_id in users}
    if door == "canvas":  # each waits for its own id, and stands for the user's first run
        assert [db.run(runs[user_id])["canvas"]["alike"] for user_id in users] == [[run_id] for run_id in again.values()]  # fmt: skip
    else:
        assert again == runs


@pytest.mark.parametrize("name", ["idempotency_key", "user_id"])
def test_blank_key_or_user_is_refused(db: RunDatabase, caller: Connection, name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        run_request("echo", ["hi"], {name: " "})
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=name):
        submit_in_sql(caller, f"'echo', 'hi', {name} => ''")


def test_agents_may_share_a_key_and_runs_without_a_key_are_new(db: RunDatabase) -> None:
    runs = [db.submit(agent=agent, idempotency_key="k").run_id for agent in ("echo", "writer")]
    runs += [db.submit().run_id for _ in range(2)]
    assert len(set(runs)) == 4


@pytest.mark.parametrize("known", ["id", "idempotency_key"])
def test_concurrent_submits_with_one_key_return_one_run(db: RunDatabase, known: str) -> None:
    same: dict[str, Any] = {known: unknown_id()}
    with db.transaction() as one, db.transaction() as two:
        first = db.journal_of("", one).submit(user("hi"), agent="echo", queue="agents", **same)
        second = two.begin(
            lambda: db.journal_of("", two).submit(user("hi"), agent="echo", queue="agents", **same)
        )
        assert db.waits(second, two)
        one.commit()
        assert (second.result().run_id, second.result().created) == (first.run_id, False)
        two.commit()
    assert (db.count("run"), db.count("step"), db.count("outbox"), db.count("message")) == (1, 1, 1, 1)  # fmt: skip


def test_submit_stores_the_run_when_a_concurrent_one_is_rolled_back(db: RunDatabase) -> None:
    with db.transaction() as one, db.transaction() as two:
        db.journal_of("", one).submit(user("hi"), agent="echo", queue="agents", idempotency_key="k")
        second = two.begin(
            lambda: db.journal_of("", two).submit(
                user("hi"), agent="echo", queue="agents", idempotency_key="k"
            )
        )
        assert db.waits(second, two)
        one.rollback()
        assert second.result().created
        two.commit()
    assert db.count("run") == 1


def test_run_with_a_timer_has_no_pending_message(db: RunDatabase) -> None:
    submitted = db.submit(not_before=SOON)
    assert submitted.created
    assert submitted.send is None
    assert db.count("outbox") == 0
    (step,) = db.queries.steps(submitted.run_id)
    assert (step.sent_at, utc(step.not_before)) == (None, SOON)


def test_submit_without_an_agent_is_refused(db: RunDatabase) -> None:
    with db.unchanged(), pytest.raises(InvalidInput, match="agent is empty"):
        db.submit(agent="")


@pytest.mark.parametrize("option", ["idempotency_key", "session_id"])
def test_too_large_key_is_invalid_input(db: RunDatabase, option: str) -> None:
    with db.unchanged(), pytest.raises(InvalidInput, match="too large for Postgres"):
        db.submit(**{option: secrets.token_hex(5000)})


@pytest.mark.parametrize("text", ["", "nonsense", "0198c0de-0000-7000-8000-00000000000", "' OR true --", "\0", "\ud800"])  # fmt: skip
def test_invalid_id_is_run_not_found(db: RunDatabase, text: str) -> None:
    db.submit()
    for look in (db.queries.run, db.queries.steps, db.queries.transcript, db.queries.events):
        with pytest.raises(RunNotFound, match="is not a run id"):
            look(text)
    with pytest.raises(RunNotFound):
        db.queries.run(unknown_id())


@pytest.mark.parametrize("given", ["0198C0DE-0000-7000-8000-000000000000", "{0198c0de-0000-7000-8000-000000000000}", "0198c0de000070008000000000000000"])  # fmt: skip
def test_id_in_any_spelling_is_the_same(given: str) -> None:
    assert known_id(given) == "0198c0de-0000-7000-8000-000000000000"


# SELECT agno.submit(...), in a caller's own transaction.


@pytest.fixture
def caller(db: RunDatabase) -> Iterator[Connection]:
    db.database.agents.register(
        [RegisteredAgent("echo", "agents"), RegisteredAgent("researcher", "research")]
    )
    connection = db.pool.dedicated()
    connection.autocommit = False
    yield connection
    connection.close()


def submit_in_sql(caller: Connection, arguments: str, *values: Any) -> str:
    row = caller.execute(f"SELECT agno.submit({arguments}) AS id", values).fetchone()
    assert row is not None
    return str(row["id"])


def test_sql_submit_needs_an_agent_and_an_input(db: RunDatabase, caller: Connection) -> None:
    run_id = submit_in_sql(caller, "'echo', 'hi'")
    caller.commit()
    run = db.queries.run(run_id)
    assert (run.agent, run.status, run.metadata, run.session_id) == ("echo", RunStatus.QUEUED, {}, None)
    assert db.queries.transcript(run_id) == [user("hi")]
    (pending,) = db.journal.take(10, 60)
    assert isinstance(pending, StepMessage)
    assert (pending.run_id, pending.queue, pending.kind) == (run_id, "agents", StepKind.TURN)
    assert db.journal.claim_turn(pending.run_id, pending.step_id, 0)


def test_sql_submit_has_the_options_of_python(db: RunDatabase, caller: Connection) -> None:
    wanted = unknown_id()
    run_id = submit_in_sql(
        caller, "'echo', 'hi', session_id => 's', user_id => 'u', idempotency_key => 'k', metadata => %s, queue => 'slow', id => %s, not_before => %s, if_busy => 'parallel'",
        '{"a": [1]}', wanted, SOON,
    )  # fmt: skip
    caller.commit()
    run = db.queries.run(run_id)
    assert (run.id, run.session_id, run.user_id, run.idempotency_key, run.metadata) == (wanted, "s", "u", "k", {"a": [1]})  # fmt: skip
    (step,) = db.queries.steps(run_id)
    assert (step.queue, utc(step.not_before)) == ("slow", SOON)
    assert db.count("outbox") == 0


@pytest.mark.parametrize("agent", ["''", "NULL", "' '", r"E'\t\n'"])
def test_sql_submit_without_an_agent_is_an_error(db: RunDatabase, caller: Connection, agent: str) -> None:
    with (
        db.unchanged(),
        pytest.raises(psycopg.errors.InvalidParameterValue, match="Pass the name of an agent"),
    ):
        submit_in_sql(caller, f"{agent}, 'hi'")


@pytest.mark.parametrize("queue", ["''", "' '", r"E'\t\n'"])
def test_sql_submit_with_an_empty_queue_is_an_error(db: RunDatabase, caller: Connection, queue: str) -> None:
    with (
        db.unchanged(),
        pytest.raises(psycopg.errors.InvalidParameterValue, match="Name a queue, or leave it out"),
    ):
        submit_in_sql(caller, f"'echo', 'hi', queue => {queue}")


def test_sql_submit_with_too_much_metadata_is_an_error(db: RunDatabase, caller: Connection) -> None:
    with (
        db.unchanged(),
        pytest.raises(psycopg.errors.InvalidParameterValue, match="metadata takes 70010 bytes"),
    ):
        submit_in_sql(caller, "'echo', 'hi', metadata => jsonb_build_object('x', repeat('y', 70000) || 'z')")


def test_sql_submit_without_a_queue_uses_the_agents_queue(db: RunDatabase, caller: Connection) -> None:
    run_id = submit_in_sql(caller, "'echo', 'hi', queue => NULL")
    caller.commit()
    assert db.run(run_id)["queue"] == "agents"


@pytest.mark.parametrize("queue", [None, "urgent"])
def test_submit_uses_the_registered_queue_of_the_agent(
    db: RunDatabase, caller: Connection, queue: str | None
) -> None:
    run_id = submit_in_sql(caller, "'researcher', 'hi', queue => %s", queue)
    caller.commit()
    request = run_request("researcher", ["hi"], {"queue": queue})
    submitted = db.database.submissions.submit(request)
    assert [db.run(each)["queue"] for each in (run_id, submitted.run_id)] == [queue or "research"] * 2


def test_submit_for_an_unknown_agent_is_refused(db: RunDatabase, caller: Connection) -> None:
    with db.unchanged():
        with pytest.raises(psycopg.errors.UndefinedObject, match="Registered: echo, researcher"):
            submit_in_sql(caller, "'reseacher', 'hi'")
        with pytest.raises(UnknownAgent, match="Did you mean 'researcher'"):
            db.database.submissions.submit(run_request("reseacher", ["hi"], {}))
    allowed = run_request("reseacher", ["hi"], {"allow_unknown": True})
    assert db.run(db.database.submissions.submit(allowed).run_id)["queue"] == "agents"


def test_repeated_submit_returns_its_run_although_the_agent_is_unknown_now(db: RunDatabase) -> None:
    """A backup that is restored may have the run without the agent, or the agent's row may be deleted."""
    known = run_request("reseacher", ["hi"], {"allow_unknown": True, "idempotency_key": "k"})
    first = db.database.submissions.submit(known)
    with db.unchanged():
        for options in ({"idempotency_key": "k"}, {"run_id": first.run_id}):
            again = db.database.submissions.submit(run_request("reseacher", ["hi"], options))
            assert (again.run_id, again.created) == (first.run_id, False)


def test_refused_submit_leaves_the_callers_transaction_usable(db: RunDatabase, caller: Connection) -> None:
    submissions = db.database.submissions
    kept = submissions.submit(run_request("echo", ["hi"], {}), caller)
    with pytest.raises(UnknownAgent):
        submissions.submit(run_request("reseacher", ["hi"], {}), caller)
    caller.commit()
    assert db.run(kept.run_id)["agent"] == "echo"


def test_sql_submit_is_rolled_back_with_its_transaction(db: RunDatabase, caller: Connection) -> None:
    with db.unchanged():
        submit_in_sql(caller, "'echo', 'hi', idempotency_key => 'k'")
        caller.rollback()


def test_sql_submit_with_a_known_key_returns_the_existing_run(db: RunDatabase, caller: Connection) -> None:
    first = db.submit(idempotency_key="k")
    with db.unchanged():
        assert submit_in_sql(caller, "'echo', 'hi', idempotency_key => 'k'") == first.run_id
        caller.commit()


def test_keeper_is_notified_when_a_sql_submit_commits(db: RunDatabase, caller: Connection) -> None:
    listener = db.pool.dedicated()
    try:
        listener.execute("LISTEN agno_outbox")
        submit_in_sql(caller, "'echo', 'hi'")
        assert not list(listener.notifies(timeout=0))
        caller.commit()
        assert [heard.channel for heard in listener.notifies(timeout=10, stop_after=1)] == ["agno_outbox"]
    finally:
        listener.close()


def test_countdown_is_counted_from_the_submit_by_the_clock_of_postgres(db: RunDatabase) -> None:
    request = run_request("a", ["hi"], {"countdown": 60, "deadline_s": 5, "allow_unknown": True})
    assert request.not_before is None, "the caller's clock may differ"
    submitted = db.journal.submissions.submit(request)
    assert submitted.send is None
    asked = """
        SELECT not_before = due_at AND not_before - run.created_at BETWEEN interval '50 s' AND interval '60 s'
               AND deadline_at - not_before = interval '5 s'
        FROM agno.step JOIN agno.run ON run.id = run_id WHERE run_id = %(id)s"""
    assert db.value(asked, id=submitted.run_id) is True


@pytest.mark.parametrize("countdown", [0, -5, -1.5])
def test_countdown_that_is_over_is_due_at_once(db: RunDatabase, countdown: float) -> None:
    request = run_request("a", ["hi"], {"countdown": countdown, "allow_unknown": True})
    assert db.journal.submissions.submit(request).send is not None


@pytest.mark.parametrize("countdown", [float("nan"), float("inf"), 1e300, True, "5"], ids=str)
def test_countdown_that_is_not_seconds_is_refused(countdown: Any) -> None:
    with pytest.raises(InvalidInput, match="countdown must be seconds"):
        run_request("a", ["hi"], {"countdown": countdown})
