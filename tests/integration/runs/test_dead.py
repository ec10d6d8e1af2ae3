"""Dead letters, their groups, and the failed runs that may be retried."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agno_workers.core.tool import Effect
from agno_workers.runs.dead import DeadLetters, Which
from tests.database import FEW, RunDatabase, result


def error(message: str, kind: str = "RunFailed") -> dict[str, object]:
    return {"type": kind, "message": message, "ids": {}}


def failed(db: RunDatabase, message: str = "no", kind: str = "RunFailed", **options: str) -> str:
    turn = db.turn(**options)
    db.journal.fail(turn, error(message, kind), "refused", usage=FEW)
    return turn.run_id


@pytest.fixture
def dead(db: RunDatabase) -> DeadLetters:
    return DeadLetters(db.pool)


def test_errors_that_differ_in_ids_and_numbers_are_one_group(db: RunDatabase, dead: DeadLetters) -> None:
    runs = [
        failed(
            db,
            f"attempt {n} of 0198c0de-0000-7000-8000-00000000000{n} on w{n}@host#1{n}-ab died after 3.{n} s",
        )
        for n in range(3)
    ]
    other = failed(db, "no such model")
    first, second = dead.groups(Which(), 10)
    assert (first.letters, first.message) == (3, "attempt … of … on … died after ….… s")
    assert (first.sample, second.sample) == (max(runs), other)


def test_dead_and_unknown_calls_are_dead_letters(db: RunDatabase, dead: DeadLetters) -> None:
    died, lost, fine = (db.tools(name, effect=Effect.ONCE)[0] for name in ("died", "lost", "fine"))
    db.journal.finish_tool(died, result(died), error("e", "LeaseExpired"), "dead")
    db.journal.finish_tool(lost, result(lost), error("e", "OutcomeUnknown"), "unknown")
    db.journal.finish_tool(fine, result(fine), error("e", "raised"))
    found = {group.tool: (group.status, group.type) for group in dead.groups(Which(), 10)}
    assert found == {"died": ("dead", "LeaseExpired"), "lost": ("unknown", "OutcomeUnknown")}
    assert dead.letter(died.step_id).is_dead
    assert dead.letter(lost.step_id).key == "tool:1:0"
    assert not dead.letter(fine.step_id).is_dead


def test_dead_turn_is_not_a_letter_beside_its_run(db: RunDatabase, dead: DeadLetters) -> None:
    turn = db.turn()
    db.journal.fail(turn, error("e"), "retries", step_status="dead")
    (group,) = dead.groups(Which(), 10)
    assert (group.status, group.tool, group.letters) == ("failed", "turn", 1)


def test_filter_selects_dead_letters(db: RunDatabase, dead: DeadLetters) -> None:
    old = failed(db, kind="A", agent="one")
    failed(db, kind="B", agent="two")
    db.sql("UPDATE agno.run SET ended_at = now() - interval '2 hours' WHERE id = %(id)s", id=old)
    for which, agents in {
        Which(agent="one"): ["one"],
        Which(error="B"): ["two"],
        Which(tool="turn"): ["one", "two"],
        Which(tool="pay"): [],
        Which(within=timedelta(hours=1)): ["two"],
        Which(agent="one", within=timedelta(hours=1)): [],
    }.items():
        assert sorted(group.agent for group in dead.groups(which, 10)) == agents
        assert dead.retryable(which).runs == len(agents)
        assert len(list(dead.failed(which))) == len(agents)


def test_failed_runs_are_listed_once_although_they_fail_again(db: RunDatabase, dead: DeadLetters) -> None:
    runs = [failed(db) for _ in range(7)]
    db.sql("UPDATE agno.run SET ended_at = now() - interval '1 min' WHERE id = ANY(%(ids)s)", ids=runs[:4])
    seen = []
    for run_id in dead.failed(Which(), page=2):
        seen.append(run_id)
        assert db.journal.retry_run(run_id)
        (step,) = db.sql("SELECT id FROM agno.step WHERE run_id = %(id)s AND status = 'ready'", id=run_id)
        turn = db.journal.claim_turn(run_id, step["id"], 1)
        assert turn is not None
        db.journal.fail(turn, error("again"), "refused", usage=FEW)
    assert sorted(seen) == sorted(runs)


def test_delegated_runs_are_counted_separately(db: RunDatabase, dead: DeadLetters) -> None:
    parent, child = failed(db), failed(db)
    db.sql("UPDATE agno.run SET parent_run_id = %(parent)s WHERE id = %(child)s", parent=parent, child=child)
    found = dead.retryable(Which())
    assert (found.runs, found.delegated) == (1, 1)
    assert list(dead.failed(Which())) == [parent]
