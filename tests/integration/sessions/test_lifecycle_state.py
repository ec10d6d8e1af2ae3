"""The state of a session follows its rollbacks and its forks."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.database.pool import jsonb
from agno_workers.errors import InvalidInput
from agno_workers.sdk.sessions import SessionHandle
from tests.database import FEW, RunDatabase, said
from tests.sessions import first_turn, submit


def counting(db: RunDatabase, session: str, *numbers: int) -> list[str]:
    """Have a conversation whose runs set `n` to these numbers, each once; return the ids of the runs."""
    runs = []
    for number in numbers:
        runs.append(submit(db, session, str(number)))
        turn = first_turn(db, runs[-1])
        set_n(db, session, number, runs[-1])
        db.journal.end(turn, said("ok"), FEW, "ok", "end")
    return runs


def set_n(db: RunDatabase, session: str, number: int, run_id: str | None = None) -> None:
    change = {"scope": "session", "owner": session, "key": "n", "operation": "set", "value": number}
    wanted: dict[str, Any] = {
        "changes": jsonb([change]),
        "run": run_id,
        "actor": None if run_id else "operator",
    }
    db.sql("SELECT * FROM agno.write_state('default', %(changes)s, %(run)s, NULL, %(actor)s)", **wanted)


def n_of(db: RunDatabase, session: str) -> Any:
    return SessionHandle(session, db.database).state.get("n")


def test_rollback_restores_the_state_of_the_end_of_a_run(db: RunDatabase) -> None:
    first, second, _ = counting(db, "s", 1, 2, 3)
    set_n(db, "s", 4)
    session = SessionHandle("s", db.database)
    session.rollback(second)
    assert n_of(db, "s") == 2
    session.rollback(first)
    assert n_of(db, "s") == 1
    session.rollback(None)
    assert n_of(db, "s") is None


def test_rollback_is_all_or_nothing(db: RunDatabase) -> None:
    """Changes that are not kept any more can't be undone: the history stays, too."""
    first, _ = counting(db, "s", 1, 2)
    db.sql("DELETE FROM agno.state_change WHERE version = 1")
    db.sql("UPDATE agno.state_change SET at = now() - interval '1 day'")
    db.sql("UPDATE agno.run SET ended_at = ended_at - interval '2 days' WHERE id = %(id)s", id=first)
    with db.unchanged(), pytest.raises(InvalidInput, match="'n'"):
        SessionHandle("s", db.database).rollback(first)


def test_fork_has_the_state_and_its_own_past(db: RunDatabase) -> None:
    first, second, _ = counting(db, "s", 1, 2, 3)
    fork = SessionHandle("s", db.database).fork("f", at=second)
    assert n_of(db, "f") == 2
    assert n_of(db, "s") == 3
    set_n(db, "f", 9)
    copies = list(fork.runs)
    fork.rollback(copies[0])
    assert n_of(db, "f") == 1
    assert n_of(db, "s") == 3
    db.sql("SELECT agno.undo_state(%(id)s)", id=second)
    assert n_of(db, "f") == 1
    assert copies[0].forked_from == first
