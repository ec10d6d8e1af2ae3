"""Steps that workers can't begin: others get them, no loop is hot, and the run ends after many tries of every worker."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.run import StepKind
from agno_workers.core.tool import Effect
from agno_workers.runs.agents import Agents, RegisteredAgent
from agno_workers.runs.claim import _RETURN
from agno_workers.runs.workers import WorkerIdentity, Workers
from tests.database import RunDatabase, claimed

RAISED = {"type": "ModuleNotFoundError", "message": "raised on w1: No module named 'lxml'", "ids": {}}
UNKNOWN = {"type": "UnknownAgent", "message": "agent 'echo' is not imported in this process", "ids": {}}


def due(db: RunDatabase) -> None:
    db.sql("UPDATE agno.step SET not_before = NULL")


def start(db: RunDatabase, name: str, queue: str = "agents", *agents: str) -> None:
    worker = WorkerIdentity(name, "host", 1, "0.1.0", "threads", agents)
    Workers(db.pool).seen(worker, concurrency=1, queues=[queue], steps=0)


def test_step_is_given_up_after_many_returns(db: RunDatabase) -> None:
    step = db.submit().send
    assert step is not None
    for times in range(1, _RETURN.attempts + 1):
        assert db.journal.exhausted(10) == []
        assert db.journal.return_step(step.step_id, RAISED) == times
        assert db.journal.return_step(step.step_id, RAISED) is None  # a copy of the message
        due(db)
    assert db.journal.release_expired(10) == []
    db.journal.renew([step.step_id])  # it listed its steps before
    (exhausted,) = db.journal.exhausted(10)
    assert exhausted.reason == "worker_error"
    assert exhausted.error["type"] == "ModuleNotFoundError"
    assert exhausted.error["message"].startswith("no worker could begin it in 12 tries")
    assert exhausted.worker == "w1 (gave it up)"


@pytest.mark.parametrize(
    ("queue", "returns"), [("agents", 5 * _RETURN.attempts), ("knowledge", _RETURN.attempts)]
)
def test_step_is_given_up_later_while_another_worker_may_take_it(
    db: RunDatabase, queue: str, returns: int
) -> None:
    start(db, "w1")
    start(db, "other", queue)
    step = db.submit().send
    assert step is not None
    while not db.journal.exhausted(10):
        db.journal.return_step(step.step_id, RAISED)
        due(db)
    assert db.step(step.step_id)["error"]["ids"]["returns"] == returns


def test_each_worker_of_the_queue_has_tried_before_a_step_is_given_up(db: RunDatabase) -> None:
    start(db, "w1")
    start(db, "w2")
    step = db.submit().send
    assert step is not None
    for _ in range(_RETURN.attempts):
        db.journal.return_step(step.step_id, RAISED)
        due(db)
    assert db.journal.exhausted(10) == []
    db.journal_of("w2").return_step(step.step_id, RAISED)
    (exhausted,) = db.journal.exhausted(10)
    assert exhausted.raised["ids"]["workers"] == ["w1", "w2"]


@pytest.mark.parametrize(
    ("case", "is_given_back"),
    [("ready", True), ("held here", True), ("held elsewhere", False), ("once", False), ("done", False), ("cancelled", False)],
)  # fmt: skip
def test_raising_worker_gives_back_only_what_nobody_executes(
    db: RunDatabase, case: str, is_given_back: bool
) -> None:
    """What was raised after the claim counts too. A `once` tool may have been called: its lease decides."""
    (tool,) = db.fan_out("pay", effect=Effect.ONCE if case == "once" else Effect.PURE).sends
    claiming = db.journal_of("w2") if case == "held elsewhere" else db.journal
    claim = None if case == "ready" else claiming.claim(StepKind.TOOL, tool.run_id, tool.step_id, 0)
    if case == "done":
        db.journal.fail(claim, RAISED, "x")
    elif case == "cancelled":
        db.journal.cancel(tool.run_id)
    if is_given_back:
        assert db.journal.return_step(tool.step_id, RAISED) == 1
        row = db.step(tool.step_id)
        assert (row["status"], row["attempt"]) == ("ready", 0)
        return
    with db.unchanged():
        assert db.journal.return_step(tool.step_id, RAISED) is None


def test_counts_of_unknown_agents_and_of_errors_are_apart(db: RunDatabase) -> None:
    """An unknown agent is waited for without an end, and none of its returns counts as an error."""
    turn = db.turn()
    for times in range(1, 5 * _RETURN.attempts + 2):
        assert db.journal.return_step(turn.step_id, UNKNOWN, 1) == times
        due(db)
        assert claimed(db.journal.claim_turn(turn.run_id, turn.step_id, 0)).attempt == 1
    assert db.journal.return_step(turn.step_id, RAISED) == 1


def test_registered_agent_gets_its_steps_at_once(db: RunDatabase) -> None:
    def return_step(agent: str, error: dict[str, Any]) -> str:
        turn = db.turn(agent=agent)
        db.journal.return_step(turn.step_id, error, 1)
        return turn.step_id

    wanted, other, delayed = return_step("a", UNKNOWN), return_step("b", UNKNOWN), return_step("a", RAISED)
    db.sql("UPDATE agno.step SET not_before = clock_timestamp() + interval '60 s'")
    Agents(db.pool).register([RegisteredAgent("a", "agents")])
    assert [step.step_id for step in db.journal.take_due(10)] == [wanted]
    assert None not in (db.step(other)["not_before"], db.step(delayed)["not_before"])


@pytest.mark.parametrize(
    ("queue", "agent", "is_soon"),
    [("agents", "echo", True), ("agents", "other", False), ("tools", "echo", False)],
)
def test_step_is_sent_again_soon_if_a_living_worker_knows_its_agent(
    db: RunDatabase, queue: str, agent: str, is_soon: bool
) -> None:
    start(db, "w2", queue, agent)
    turn = db.turn()
    for _ in range(_RETURN.attempts):
        db.journal.return_step(turn.step_id, UNKNOWN, 1)
        wait_s = db.value("SELECT extract(epoch FROM not_before - clock_timestamp())::float8 FROM agno.step")
        due(db)
        db.journal.claim_turn(turn.run_id, turn.step_id, 0)
    assert (wait_s <= 4 * 1.25) is is_soon
