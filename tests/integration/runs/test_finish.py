"""Results: the first result of a step is recorded with its consequences; a later one changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from agno_workers.core.messages import Message, ToolResult, Usage, user
from agno_workers.core.run import RunStatus, StepKind, StepStatus
from agno_workers.core.step import ClaimedStep, CommitResult, RunEnd
from tests.database import (
    FEW,
    AllRepositories,
    RunDatabase,
    asking,
    claimed,
    result,
    said,
    tool_steps,
)

ERROR = {"type": "RunFailed", "message": "no", "ids": {}}
Finish = Callable[[AllRepositories, ClaimedStep], CommitResult]

FINISHES: dict[str, Finish] = {
    "end": lambda journal, turn: journal.end(turn, said("ok"), FEW, "ok", "end"),
    "fail": lambda journal, turn: journal.fail(turn, ERROR, "refused", said("no"), FEW),
    "ask_again": lambda journal, turn: journal.next_turn(turn, said("hm"), FEW, "agents"),
    "fan_out": lambda journal, turn: journal.fan_out(turn, asking("add"), FEW, tool_steps("add"), "agents"),
}
finishes = pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES)


def test_end_records_reply_answer_and_sums(db: RunDatabase) -> None:
    turn = db.turn()
    recorded = db.journal.end(turn, said("ok"), FEW, {"answer": 1}, "end")
    assert recorded == CommitResult(True, ended=RunEnd(turn.run_id, "echo", RunStatus.DONE, "end"))
    run = db.queries.run(turn.run_id)
    assert (run.status, run.content, run.reason, run.error) == (RunStatus.DONE, {"answer": 1}, "end", None)
    assert (run.usage, run.turns, run.tool_calls) == (FEW, 1, 0)
    assert run.ended_at is not None
    assert db.queries.transcript(run.id) == [user("hi"), *said("ok")]
    assert [step.status for step in db.queries.steps(run.id)] == [StepStatus.DONE]


@pytest.mark.parametrize("content", ["", None, 0, False, [], {"a": None}, 2**70, 0.1, "\u2028 ☃ 🎈 שלום"])
def test_answer_is_stored_unchanged(db: RunDatabase, content: object) -> None:
    turn = db.turn()
    db.journal.end(turn, said(""), FEW, content, "end")
    assert db.queries.run(turn.run_id).content == content


def test_failure_is_recorded_on_the_run_and_its_step(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.fail(turn, ERROR, "retries", step_status="dead")
    run = db.queries.run(turn.run_id)
    assert (run.status, run.error, run.reason, run.turns, run.usage) == (
        RunStatus.FAILED, ERROR, "retries", 0, Usage(),
    )  # fmt: skip
    (step,) = db.queries.steps(run.id)
    assert (step.status, step.error) == (StepStatus.DEAD, ERROR)


def test_next_turn_commits_with_its_message(db: RunDatabase) -> None:
    turn = db.turn(priority=3)
    (send,) = db.journal.next_turn(turn, [*said("hm"), user("again")], FEW, "slow").sends
    assert (send.kind, send.queue, send.priority) == (StepKind.TURN, "slow", 3)
    assert db.step(send.step_id)["priority"] == 3
    assert db.value("SELECT step_id FROM agno.outbox WHERE id = %(id)s", id=send.outbox_id) == send.step_id
    second = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    assert (second.key, second.seq) == ("turn:2", 3)


@finishes
def test_second_result_of_a_turn_changes_nothing(db: RunDatabase, finish: Finish) -> None:
    turn = db.turn()
    assert finish(db.journal, turn).recorded
    for second in FINISHES.values():
        with db.unchanged():
            assert second(db.journal, turn) == CommitResult(False)


@finishes
def test_turn_of_a_cancelled_run_records_nothing(db: RunDatabase, finish: Finish) -> None:
    turn = db.turn()
    db.journal.cancel(turn.run_id)
    with db.unchanged():
        assert finish(db.journal, turn) == CommitResult(False)


@finishes
@pytest.mark.parametrize("meanwhile", ["lease over", "released", "claimed by another", "to be tried later"])
def test_late_first_result_of_a_turn_is_recorded(db: RunDatabase, finish: Finish, meanwhile: str) -> None:
    turn = db.turn()
    other: ClaimedStep | None = None
    if meanwhile == "to be tried later":
        db.journal.retry(turn.step_id, turn.attempt, 3600, ERROR)
    else:
        db.expire(turn.step_id)
    if meanwhile == "released":
        assert len(db.journal.release_expired(10)) == 1
    if meanwhile == "claimed by another":
        other = claimed(db.journal_of("w2").claim_turn(turn.run_id, turn.step_id, 0))
    assert finish(db.journal, turn).recorded
    if other is not None:
        with db.unchanged():
            assert finish(db.journal_of("w2"), other) == CommitResult(False)


def test_fan_out_writes_messages_for_its_tools_only(db: RunDatabase) -> None:
    turn = db.turn(priority=3)
    recorded = db.journal.fan_out(turn, asking("a", "b"), FEW, tool_steps("a", "b"), "slow")
    assert [(send.kind, send.queue, send.priority) for send in recorded.sends] == [(StepKind.TOOL, "tools", 3)] * 2  # fmt: skip
    assert recorded.body is not None
    assert (recorded.body.queue, recorded.body.priority, recorded.body.outbox_id) == ("slow", 3, None)
    assert {send.outbox_id for send in recorded.sends} == {row["id"] for row in db.sql("SELECT id FROM agno.outbox")}  # fmt: skip
    assert [step.key for step in db.queries.steps(turn.run_id)] == ["turn:1", "tool:1:0", "tool:1:1"]
    run = db.queries.run(turn.run_id)
    assert (run.status, run.tool_calls, run.turns, run.usage) == (RunStatus.WAITING, 2, 1, FEW)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_results_have_the_order_of_the_calls(db: RunDatabase, order: tuple[int, ...]) -> None:
    tools = db.tools("a", "b", "c", priority=3)
    finished = [db.journal.finish_tool(tools[place], result(tools[place], str(place))) for place in order]
    assert all(recorded.recorded for recorded in finished)
    assert [len(recorded.sends) for recorded in finished] == [0, 0, 1]
    (send,) = finished[-1].sends
    assert (send.kind, send.queue, send.priority) == (StepKind.TURN, "agents", 3)
    turn = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    assert turn.transcript == (user("hi"), asking("a", "b", "c"), *(result(tools[place], str(place)) for place in range(3)))  # fmt: skip
    assert (turn.key, turn.seq) == ("turn:2", 5)
    assert [row["seq"] for row in db.sql("SELECT seq FROM agno.message ORDER BY seq")] == list(range(5))


def test_turn_after_a_fan_out_is_the_announced_one(db: RunDatabase) -> None:
    recorded = db.fan_out("a")
    tool = claimed(db.journal.claim_tool(recorded.sends[0].run_id, recorded.sends[0].step_id, 0))
    (send,) = db.journal.finish_tool(tool, result(tool)).sends
    assert recorded.body is not None
    assert send.step_id == recorded.body.step_id


def test_barrier_of_a_hundred_parts_fires_once(db: RunDatabase) -> None:
    tools = db.tools(*["a"] * 100)
    sends = [send for tool in reversed(tools) for send in db.journal.finish_tool(tool, result(tool)).sends]
    assert len(sends) == 1
    (barrier,) = db.sql("SELECT size, arrived, fired_at IS NOT NULL AS fired FROM agno.barrier")
    assert barrier == {"size": 100, "arrived": 100, "fired": True}


def test_second_result_of_a_tool_changes_nothing(db: RunDatabase) -> None:
    tool, _ = db.tools("a", "b")
    assert db.journal.finish_tool(tool, result(tool, "first")).recorded
    with db.unchanged():
        assert db.journal.finish_tool(tool, result(tool, "second")) == CommitResult(False)
        assert db.journal.finish_tool(tool, result(tool, "x" * 200_000)) == CommitResult(False)


def test_second_result_of_the_last_tool_starts_no_turn(db: RunDatabase) -> None:
    (tool,) = db.tools("a")
    assert len(db.journal.finish_tool(tool, result(tool)).sends) == 1
    with db.unchanged():
        assert db.journal.finish_tool(tool, result(tool)) == CommitResult(False)


@pytest.mark.parametrize("meanwhile", ["lease over", "released", "claimed by another"])
def test_late_first_result_of_a_tool_is_recorded(db: RunDatabase, meanwhile: str) -> None:
    (tool,) = db.tools("a")
    db.expire(tool.step_id)
    if meanwhile == "released":
        assert len(db.journal.release_expired(10)) == 1
    if meanwhile == "claimed by another":
        assert db.journal_of("w2").claim_tool(tool.run_id, tool.step_id, 0)
    assert len(db.journal.finish_tool(tool, result(tool, "late")).sends) == 1
    assert db.queries.transcript(tool.run_id)[-1] == result(tool, "late")
    assert db.journal_of("w3").claim_tool(tool.run_id, tool.step_id, 0) is None


def test_tool_of_a_cancelled_run_records_nothing(db: RunDatabase) -> None:
    tool, _ = db.tools("a", "b")
    db.journal.cancel(tool.run_id)
    with db.unchanged():
        assert db.journal.finish_tool(tool, result(tool)) == CommitResult(False)


def test_exhausted_step_takes_no_late_result(db: RunDatabase) -> None:
    tool, _ = db.tools("a", "b")
    assert db.journal.finish_tool(tool, result(tool, "?"), ERROR, step_status="unknown").recorded
    with db.unchanged():
        assert db.journal.finish_tool(tool, result(tool, "ok")) == CommitResult(False)
    assert db.step(tool.step_id)["status"] == "unknown"


def test_writes_of_a_transactional_tool_commit_with_its_result(db: RunDatabase) -> None:
    (tool,) = db.tools("a")
    with db.pool.connection() as connection, connection.transaction(force_rollback=True):
        assert db.journal.finish_tool(tool, result(tool), connection=connection).recorded
    assert db.step(tool.step_id)["status"] == "running"
    with db.pool.connection() as connection, connection.transaction():
        db.journal.finish_tool(tool, result(tool), connection=connection)
    assert db.step(tool.step_id)["status"] == "done"


def test_concurrent_last_tools_start_one_turn(db: RunDatabase) -> None:
    one, two = db.tools("a", "b")
    with db.transaction() as first, db.transaction() as second:
        assert db.journal_of("w1", first).finish_tool(one, result(one)).sends == ()
        later = second.begin(lambda: db.journal_of("w2", second).finish_tool(two, result(two)))
        assert db.waits(later, second)
        first.commit()
        assert len(later.result().sends) == 1
        second.commit()
    assert db.value("SELECT count(*) FROM agno.step WHERE key = 'turn:2'") == 1


def test_last_tool_starts_no_turn_when_the_other_is_rolled_back(db: RunDatabase) -> None:
    one, two = db.tools("a", "b")
    with db.transaction() as first, db.transaction() as second:
        db.journal_of("w1", first).finish_tool(one, result(one))
        later = second.begin(lambda: db.journal_of("w2", second).finish_tool(two, result(two)))
        assert db.waits(later, second)
        first.rollback()
        assert later.result() == CommitResult(True)
        second.commit()
    assert len(db.journal.finish_tool(one, result(one)).sends) == 1


def test_sums_add_up_over_turns(db: RunDatabase) -> None:
    turn = db.turn()
    for _ in range(3):
        (send,) = db.journal.next_turn(turn, said("hm"), Usage(1, 2, 3, 4, 5), "agents").sends
        turn = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    db.journal.end(turn, said("ok"), Usage(1, 2, 3, 4, 5), "ok", "end")
    run = db.queries.run(turn.run_id)
    assert (run.usage, run.turns) == (Usage(4, 8, 12, 16, 20), 4)


def test_end_may_record_results_of_calls_that_were_not_made(db: RunDatabase) -> None:
    turn = db.turn()
    skipped = Message("tool", (ToolResult("call_0", "a", "not called", True),))
    db.journal.end(turn, [asking("a"), skipped], FEW, "", "limit:turns")
    assert db.queries.transcript(turn.run_id) == [user("hi"), asking("a"), skipped]


@finishes
def test_only_the_end_of_a_run_notifies_its_caller(db: RunDatabase, finish: Finish) -> None:
    turn = db.turn()
    listener = db.pool.dedicated()
    try:
        listener.execute("LISTEN agno_result")
        finish(db.journal, turn)
        ended = db.queries.run(turn.run_id).status.is_terminal
        db.sql("SELECT pg_notify('agno_result', 'last')")
        heard = [notice.payload for notice in listener.notifies(timeout=10, stop_after=2 if ended else 1)]
        assert heard == ([turn.run_id, "last"] if ended else ["last"])
    finally:
        listener.close()
