"""`agno-workers sessions`, typed rightly and wrongly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agno_workers.core.session import SessionStatus
from agno_workers.database.pool import Pool
from tests.acceptance.terminal import Type
from tests.database import RunDatabase
from tests.sessions import submit, told

NOBODY = "0198c0de-0000-7000-8000-000000000000"


@pytest.fixture
def db(database_url: str) -> Iterator[RunDatabase]:
    pool = Pool(database_url, size=2, timeout_s=10, statement_timeout_s=30)
    yield RunDatabase(pool)
    pool.close()


def test_sessions_are_listed_and_shown_in_80_columns(type_: Type, db: RunDatabase) -> None:
    assert type_("sessions", "ls").out == "No sessions.\n"
    runs = told(
        db, "chat-17", "Where is my order?", "And the bill?", "Thanks " * 30, user_id="ann", agent="assistant"
    )
    told(db, NOBODY, "hi", user_id="someone-with-a-long-name@example.com")
    submit(db, "chat-17", "one", agent="assistant", user_id="ann")
    submit(db, "chat-17", "two", status="waiting", agent="assistant", user_id="ann")
    db.sql("UPDATE agno.run SET rolled_back_at = now() WHERE id = %(id)s", id=runs[1])
    db.sql("UPDATE agno.run SET reason = 'interrupted' WHERE id = %(id)s", id=runs[0])
    db.sql("UPDATE agno.session SET summary = 'Asked for an order.' WHERE id = 'chat-17'")
    db.sql("INSERT INTO agno.state (scope, owner, key, value) VALUES ('session', 'chat-17', 'cart', '[1]')")

    listed = type_("sessions", "ls", COLUMNS="80").out
    assert all(len(line) <= 80 for line in listed.splitlines())
    assert listed.index("chat-17") < listed.index("00000000")  # the last active first
    assert "Where is my" in listed
    assert NOBODY in type_("sessions", "ls", "--wide", COLUMNS="80").out
    assert [each["id"] for each in type_("sessions", "ls", "--user", "ann", "--json").json] == ["chat-17"]
    assert type_("sessions", "ls", "--agent", "nobody").out == "No such sessions.\n"
    assert [each["id"] for each in type_("sessions", "ls", "--before", "chat-17", "--json").json] == [NOBODY]

    shown = type_("sessions", "show", "chat", COLUMNS="80").out
    table = shown[shown.index("run ") :]
    assert all(len(line) <= 80 for line in table.splitlines())
    for word in (
        "user ann",
        "5 runs, 1 waiting",
        "Asked for an order.",
        "cart",
        "done rolled back",
        "done interrupted",
        "queued waiting",
        "queued live",
    ):
        assert word in shown
    assert shown.index("Where is my order") < shown.index("And the bill") < shown.index("two")
    page = type_("sessions", "show", "chat-17", "--limit", "2").out
    assert "sessions show chat-17 --before" in page
    first = page.partition("--before ")[2].split("`")[0]
    assert "And the bill?" in type_("sessions", "show", "chat-17", "--before", first).out
    assert [each["run"]["id"] for each in type_("sessions", "show", "chat-17", "--json").json["runs"]][
        :3
    ] == runs
    assert type_("sessions", "show", NOBODY[-8:], "--json").json["session"]["id"] == NOBODY


def test_session_is_paused_resumed_and_ended(type_: Type, db: RunDatabase) -> None:
    told(db, "s", "a")
    live = submit(db, "s", "b")
    said = type_("sessions", "pause", "s").out
    assert "Session s is paused: `agno-workers sessions resume s` continues it." in said
    assert f"Run {live} is live and continues." in said
    assert type_("sessions", "pause", "s").out == "Session s is paused already.\n"
    assert "resume s" in type_("sessions", "show", "s").out
    submit(db, "s", "c", status="waiting")
    assert type_("sessions", "resume", "s").out == "Session s continues; 1 run waited.\n"
    assert type_("sessions", "resume", "s").out == "Session s is not paused: it is active.\n"
    refused = type_("sessions", "end", "s")
    assert refused.status == 2
    assert "cancel 1 waiting run" in refused.err
    assert "1 waiting run cancelled" in type_("sessions", "end", "s", "--yes").out
    assert type_("sessions", "end", "s").out == "Session s is ended already.\n"


def test_session_is_forked_rolled_back_exported_and_deleted(
    type_: Type, db: RunDatabase, tmp_path: Path
) -> None:
    first, second = told(db, "s", "a", "b")
    assert type_("sessions", "fork", "s", "--at", first, "--new-id", "f").out == "f\n"
    again = type_("sessions", "fork", "s", "--at", first, "--new-id", "f")
    assert (again.out, "nothing changed" in again.err) == ("f\n", True)
    for wrong in (["--to", first, "--to-beginning"], []):
        assert "--to RUN" in type_("sessions", "rollback", "s", *wrong, "--yes").err
    assert "Add --yes" in type_("sessions", "rollback", "s", "--to", first).err
    assert (
        type_("sessions", "rollback", "s", "--to", first[-8:], "--yes").out
        == "Session s is rolled back: 1 run left its history.\n"
    )
    assert (
        "was rolled back: use an earlier run"
        in type_("sessions", "rollback", "s", "--to", second, "--yes").err
    )

    exported = type_("sessions", "export", "s").json
    assert (exported["version"], [each["message"]["parts"][0]["text"] for each in exported["messages"]]) == (
        1,
        ["a", "<a>"],
    )
    assert type_("sessions", "export", "s", "--output", str(tmp_path / "s.json")).status == 0
    assert json.loads((tmp_path / "s.json").read_text()) == exported
    assert "name a new file" in type_("sessions", "export", "s", "--output", str(tmp_path / "s.json")).err

    submit(db, "s", "c")
    assert "Add --yes" in type_("sessions", "rm", "s").err
    assert "has open runs: wait for them, or add --cancel" in type_("sessions", "rm", "s", "--yes").err
    assert type_("sessions", "rm", "s", "--yes", "--cancel").out == "Deleted session s with 3 runs.\n"
    assert "no session 's'" in type_("sessions", "rm", "s", "--yes").err


def test_ended_sessions_are_pruned(type_: Type, db: RunDatabase) -> None:
    told(db, "s", "a")
    told(db, "open", "a")
    assert type_("sessions", "prune", "--older-than", "1s").out == "No sessions to delete.\n"
    type_("sessions", "end", "s")
    db.sql("UPDATE agno.session SET ended_at = now() - interval '9 days' WHERE id = 's'")
    assert (
        "1 session would be deleted; repeat the command with --yes"
        in type_("sessions", "prune", "--older-than", "7d").out
    )
    assert type_("sessions", "prune", "--older-than", "7d", "--yes").out == "Deleted 1 session with 1 run.\n"
    assert [each["id"] for each in type_("sessions", "ls", "--json").json] == ["open"]
    db.sql("UPDATE agno.session SET last_active_at = now() - interval '9 days'")
    assert type_("sessions", "prune", "--older-than", "7d").out == "No sessions to delete.\n"
    assert type_("sessions", "prune", "--older-than", "7d", "--idle", "--json").json["sessions"] == ["open"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["show", "chatt-17"], "no session 'chatt-17' in this database. Did you mean 'chat-17'?"),
        (["show", "zzzz"], "`agno-workers sessions ls` lists the newest sessions."),
        (["show", "chat"], "'chat' fits several sessions: use more of one of their ids, such as chat-17, chat-18."),
        (["ls", "--status", "pause"], f"--status 'pause' is not a status: use one of {', '.join(SessionStatus)}."),
        (["ls", "--since", "x"], "--since 'x' is not a length of time"),
        (["ls", "--before", "x"], "no session 'x'"),
        (["show", "chat-17", "--before", NOBODY], f"no run '{NOBODY}'"),
        (["fork", "chat-17", "--at", "zz"], "'zz' is not a run id"),
        (["fork", "chat-17", "--new-id", "chat-18"], "session 'chat-18' exists, and is not a fork of 'chat-17'"),
        (["rollback", "chat-17", "--to", NOBODY, "--yes"], f"run {NOBODY} is not a run of session 'chat-17'"),
        (["prune", "--older-than", "soon"], "--older-than 'soon' is not a length of time"),
    ],
)  # fmt: skip
def test_wrong_command_gets_one_sentence(
    type_: Type, db: RunDatabase, arguments: list[str], why: str
) -> None:
    for session in ("chat-17", "chat-18"):
        told(db, session, "a")
    typed = type_("sessions", *arguments)
    assert (typed.status, typed.out) == (2, "")
    assert why in typed.err
    assert len(typed.err.splitlines()) == 1
