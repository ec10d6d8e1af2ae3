"""Statements that lock several rows, run against each other: those without a lock on the run never wait while they hold locks.

The plans are those of large tables (no sequential scans), where one statement goes by id and another by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from agno_workers.core.step import StepMessage
from tests.database import RunDatabase, Transaction


def as_if_large(transaction: Transaction) -> Transaction:
    transaction.run("SET LOCAL enable_seqscan = off")
    transaction.run("SET LOCAL deadlock_timeout = '10ms'")
    return transaction


def lock(transaction: Transaction, table: str, *ids: object) -> None:
    for row_id in ids:
        transaction.run(f"SELECT FROM agno.{table} WHERE id = %(id)s FOR UPDATE", {"id": row_id})


def test_cancel_and_renewal_of_the_same_steps_do_not_deadlock(db: RunDatabase) -> None:
    """By id the steps are 2, 3, 10; by key `tool:1:10` comes before `tool:1:2`. Who locks in one order and waits meets
    who locks in the other.
    """
    tools = db.tools(*["a"] * 11)
    carried = {place: tools[place].step_id for place in (2, 3, 10)}
    with ExitStack() as stack:
        gate, renewing, cancelling = (as_if_large(stack.enter_context(db.transaction())) for _ in range(3))
        lock(gate, "step", carried[3])
        renewed = renewing.begin_and_commit(
            lambda: db.journal_of("w1", renewing).renew(list(carried.values()))
        )
        db.waits(renewed, renewing)
        cancelled = cancelling.begin_and_commit(lambda: db.journal_of("", cancelling).cancel(tools[0].run_id))
        db.waits(cancelled, cancelling)
        gate.commit()
        assert renewed.result() == set()
        assert cancelled.result()


def test_cancel_and_the_deletion_of_its_messages_do_not_deadlock(db: RunDatabase) -> None:
    sends = db.fan_out("a", "b", "c").sends
    ids = outbox_ids(sends)
    move_to_the_end(db, ids[:2])
    with ExitStack() as stack:
        gate, striking, cancelling = (stack.enter_context(db.transaction()) for _ in range(3))
        as_if_large(striking)
        cancelling.run("SET LOCAL deadlock_timeout = '10ms'")
        lock(gate, "outbox", ids[1])
        struck = striking.begin_and_commit(lambda: db.journal_of("", striking).published(ids))
        assert db.waits(struck, striking)
        cancelled = cancelling.begin_and_commit(lambda: db.journal_of("", cancelling).cancel(sends[0].run_id))
        db.waits(cancelled, cancelling)
        gate.commit()
        struck.result()
        assert cancelled.result()
    assert db.count("outbox") == 0


def test_concurrent_deletions_of_a_message_do_not_deadlock(
    db: RunDatabase,
) -> None:
    ids = outbox_ids(db.fan_out("a", "b", "c").sends)
    move_to_the_end(db, ids[:2])
    with ExitStack() as stack:
        gate, publisher, keeper = (stack.enter_context(db.transaction()) for _ in range(3))
        as_if_large(publisher)
        keeper.run("SET LOCAL enable_indexscan = off")
        keeper.run("SET LOCAL enable_bitmapscan = off")
        keeper.run("SET LOCAL deadlock_timeout = '10ms'")
        lock(gate, "outbox", ids[1])
        one = publisher.begin_and_commit(lambda: db.journal_of("", publisher).published(ids))
        assert db.waits(one, publisher)
        two = keeper.begin_and_commit(lambda: db.journal_of("", keeper).published(ids))
        assert db.waits(two, keeper)
        gate.commit()
        one.result()
        two.result()
    assert db.count("outbox") == 0


def outbox_ids(sends: Sequence[StepMessage]) -> list[int]:
    return [send.outbox_id for send in sends if send.outbox_id is not None]


def move_to_the_end(db: RunDatabase, ids: Sequence[int]) -> None:
    """Update the rows as a keeper does, so that a table scan returns them last."""
    for row_id in ids:
        db.sql("UPDATE agno.outbox SET due_at = due_at WHERE id = %(id)s", id=row_id)
