"""Old runs that have ended are deleted with all that belongs to them; open and younger ones stay, and all of their canvas."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from agno_workers.core.messages import user
from agno_workers.runs.prune import pruning
from agno_workers.sessions.memory_store import MemoryOwner, MemoryStore
from tests.database import FEW, INLINE_MAX_BYTES, RunDatabase, said

AGE = timedelta(days=90)
LARGE = "x" * (INLINE_MAX_BYTES + 1)


def ended(db: RunDatabase, text: str = "hi", *, days: int = 100, **options: object) -> str:
    """Return the id of a run that ended so many days ago."""
    turn = db.turn(text=text, **options)
    assert db.journal.end(turn, said("ok"), FEW, "ok", "end").recorded
    db.sql(
        "UPDATE agno.run SET ended_at = ended_at - make_interval(days => %(days)s) WHERE id = %(id)s",
        days=days, id=turn.run_id,
    )  # fmt: skip
    return turn.run_id


def relate(db: RunDatabase, run_id: str, *, parent: str | None = None, **canvas: object) -> None:
    db.sql(
        "UPDATE agno.run SET parent_run_id = %(parent)s, canvas = %(canvas)s WHERE id = %(id)s",
        id=run_id, parent=parent, canvas=Jsonb(canvas) if canvas else None,
    )  # fmt: skip


def pruned(db: RunDatabase) -> set[str]:
    """Delete; return the ids of the runs that stay."""
    with pruning(db.pool, AGE) as found:
        listed = sum(each.runs for each in found.chosen())
        assert found.delete()[0] == listed
    return {str(row["id"]) for row in db.sql("SELECT id FROM agno.run")}


def test_run_whose_background_work_is_open_stays(db: RunDatabase) -> None:
    waits, left = ended(db), ended(db)
    ask = "SELECT agno.request_background(%(run)s, jsonb_build_array(jsonb_build_object('kind', 'summary', 'owner', %(owner)s::text)))"
    for run_id, owner in ((waits, "s1"), (left, "s2")):
        db.sql(ask, run=run_id, owner=owner)
    (open_run,) = db.sql("SELECT run_id::text FROM agno.background WHERE owner = 's1'")
    db.sql("DELETE FROM agno.run WHERE metadata->>'owner' = 's2'")
    assert pruned(db) == {waits, open_run["run_id"]}
    assert db.count("background_item") == 1


def test_memories_that_were_closed_long_ago_are_deleted(db: RunDatabase) -> None:
    store, owner = MemoryStore(db.pool), MemoryOwner("user", "ann")
    kept, closed, old = (store.add(owner, text, actor="ann").id for text in ("kept", "closed", "old"))
    for each in (closed, old):
        store.forget(each, actor="ann")
    db.sql("UPDATE agno.memory SET valid_to = valid_to - interval '91 days' WHERE id = %(id)s", id=old)
    pruned(db)
    assert {each.id for each in store.memories(owner, closed=True)} == {kept, closed}


def test_ended_run_is_deleted_with_all_its_rows(db: RunDatabase) -> None:
    ended(db, LARGE, idempotency_key="k", session_id="s")
    kept = ended(db, LARGE, days=1)
    db.queries.events(kept)
    ended(db, "y" * (INLINE_MAX_BYTES + 1))
    db.sql("UPDATE agno.blob SET used_at = now() - interval '3 days'")
    with pruning(db.pool, AGE) as found:
        (listed,) = found.chosen()
        assert (listed.agent, listed.status, listed.runs, listed.keys, listed.sessions) == (
            "echo",
            "done",
            2,
            1,
            1,
        )
        before = db.everything()
    assert db.everything() == before
    assert pruned(db) == {kept}
    assert {table: db.count(table) for table in ("step", "blob", "outbox")} == {
        "step": 1,
        "blob": 1,
        "outbox": 0,
    }
    assert db.value("SELECT count(DISTINCT run_id) FROM agno.message") == 1
    assert db.queries.transcript(kept)[0] == user(LARGE)


def test_string_that_was_used_lately_stays(db: RunDatabase) -> None:
    ended(db, LARGE)
    db.sql("UPDATE agno.blob SET used_at = now() - interval '3 days'")
    db.submit(LARGE)
    db.sql("DELETE FROM agno.message")  # as if its transaction were not committed
    pruned(db)
    assert db.count("blob") == 1


def test_string_of_the_result_of_a_step_stays(db: RunDatabase) -> None:
    ended(db, LARGE, days=1)
    db.sql("UPDATE agno.step SET result = (SELECT content FROM agno.message WHERE seq = 0)")
    db.sql("DELETE FROM agno.message")
    db.sql("UPDATE agno.blob SET used_at = now() - interval '3 days'")
    pruned(db)
    assert db.count("blob") == 1


def test_open_younger_and_pending_runs_stay_with_all_of_their_unit(db: RunDatabase) -> None:
    open_run, young = db.submit().run_id, ended(db, days=1)
    group, chord = str(uuid4()), str(uuid4())
    stay = {open_run, young}
    for keys in (
        {"parent": open_run},
        {"parent": young},
        {"root_id": young},
        {"group_id": group},
        {"group_id": chord},
    ):
        stay.add(last := ended(db))
        relate(db, last, **keys)
        stay.add(below := ended(db))
        relate(db, below, parent=last)
    relate(db, open_run, group_id=group)
    db.sql("INSERT INTO agno.barrier (id, size, body) VALUES (%(id)s, 2, '{}')", id=chord)
    pending = ended(db)
    db.sql("INSERT INTO agno.outbox (ended_run_id, due_at) VALUES (%(id)s, now())", id=pending)
    whole = [ended(db) for _ in range(3)]
    relate(db, whole[1], parent=whole[0])
    relate(db, whole[2], root_id=whole[0], group_id=str(uuid4()))
    assert pruned(db) == stay | {pending}


def test_run_that_was_retried_meanwhile_stays(db: RunDatabase) -> None:
    run_id = ended(db)
    with pruning(db.pool, AGE) as found:
        db.sql("UPDATE agno.run SET status = 'queued', ended_at = NULL")
        assert found.delete()[0] == 0
    assert db.run(run_id)["id"] in (run_id, UUID(run_id))


def test_batch_goes_with_the_last_of_its_runs(db: RunDatabase) -> None:
    batch = uuid4()
    db.sql("INSERT INTO agno.batch (id, agent, size) VALUES (%(id)s, 'echo', 2)", id=batch)
    runs = [ended(db), ended(db, days=1)]
    db.sql("UPDATE agno.run SET batch_id = %(id)s", id=batch)
    assert pruned(db) == set(runs)
    db.sql("UPDATE agno.run SET ended_at = now() - interval '100 days'")
    assert (pruned(db), db.count("batch")) == (set(), 0)
