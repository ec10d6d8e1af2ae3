"""Faults that the product of cells.py does not cover. The docstring of a case is its row in docs/crash_matrix.md: the fault, and after
the colon what must hold.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agno_workers.core.run import RunStatus, StepStatus
from agno_workers.errors import NotWaiting, RunCancelled, RunFailed, SessionBusy
from agno_workers.sdk.handles import RunHandle
from tests import invariants
from tests.acceptance.matrix.cells import CELLS, WAIT_S, Cell
from tests.acceptance.matrix.fleet import Fleet, lines, repeats
from tests.agents import running


@dataclass(frozen=True)
class Case:
    number: str
    lane: str
    run: Callable[[Fleet, Path], None]

    @property
    def id(self) -> str:
        return f"{self.number} {self.run.__name__}"

    @property
    def done(self) -> str:
        return self._row[0]

    @property
    def holds(self) -> str:
        return self._row[1]

    @property
    def _row(self) -> tuple[str, str]:
        done, _, holds = " ".join((self.run.__doc__ or "").split()).partition(": ")
        return done, holds.removesuffix(".")


CASES: list[Case] = []


def case(number: str, lane: str) -> Callable[[Callable[[Fleet, Path], None]], Callable[[Fleet, Path], None]]:
    """Run a function on the fleet of this lane: `children` (prefork, one dies at a time) or `machines` (threads, all die together)."""

    def add(run: Callable[[Fleet, Path], None]) -> Callable[[Fleet, Path], None]:
        CASES.append(Case(number, lane, run))
        return run

    return add


def call(tool: str, ledger: Path) -> str:
    return f"{tool} {json.dumps({'path': str(ledger)})}"


def delegated(*calls: str) -> str:
    return "\n".join(f"matrix {json.dumps({'task': each})}" for each in calls)


def held(folder: Path) -> Path:
    """Return a file that keeps `hold` and `thinker` running as long as it exists."""
    path = folder / "held"
    path.touch()
    return path


# Clients.


@case("C1", "machines")
def a_client_dies_before_its_submit(fleet: Fleet, folder: Path) -> None:
    """A client process is killed before its submit is stored: nothing is stored; a repeated submit with the key creates the
    run.
    """
    fleet.arm("submit.asked")
    before = fleet.sql("SELECT count(*) FROM agno.run")
    assert fleet.person("submit", "echo", "hi", "c1").returncode == -signal.SIGKILL
    assert fleet.sql("SELECT count(*) FROM agno.run") == before
    assert fleet.client.runs.submit("echo", "hi", idempotency_key="c1").result(timeout=WAIT_S) == "<hi>"


@case("C2", "machines")
def a_client_dies_after_its_submit(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after its submit has committed, before it sends a message or wakes a keeper: the keeper sends
    the message (C3); a repeated submit with the key returns the same run.
    """
    fleet.arm("submit.committed")
    assert fleet.person("submit", "echo", "hi", "c2").returncode == -signal.SIGKILL
    before = fleet.beat()
    stored = fleet.sql("SELECT id::text FROM agno.run WHERE idempotency_key = 'c2'")
    assert fleet.client.runs.get(stored[0]["id"]).result(timeout=WAIT_S) == "<hi>"
    assert fleet.beat() - before <= 24
    assert [{"id": fleet.client.runs.submit("echo", "hi", idempotency_key="c2").id}] == stored


@case("C1", "machines")
def a_client_dies_before_its_chord_is_stored(fleet: Fleet, folder: Path) -> None:
    """A client process is killed before its submit of a chord of runs is stored: no part of it is stored; a repeated submit with
    the keys of its runs creates it.
    """
    stored = "SELECT (SELECT count(*) FROM agno.run) + (SELECT count(*) FROM agno.barrier) AS rows"
    before = fleet.sql(stored)
    fleet.arm("submit.asked")
    assert fleet.person("chord", "c1 chord").returncode == -signal.SIGKILL
    assert fleet.sql(stored) == before
    assert fleet.person("chord", "c1 chord").returncode == 0
    _ends_once(fleet, "c1 chord")


@case("C2", "machines")
def a_client_dies_after_its_chord_is_stored(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after its submit of a chord of runs has committed, before it sends a message: the chord ends; a
    repeated submit with the keys of its runs executes none of them again.
    """
    fleet.arm("submit.committed")
    assert fleet.person("chord", "c2 chord").returncode == -signal.SIGKILL
    _ends_once(fleet, "c2 chord")
    assert fleet.person("chord", "c2 chord").returncode == 0
    _ends_once(fleet, "c2 chord")


def _ends_once(fleet: Fleet, key: str) -> None:
    """Wait until a chord and its repetitions have ended; each of its three runs was executed once."""
    body = "SELECT status FROM agno.run WHERE idempotency_key = %(key)s"
    open_ones = "SELECT id FROM agno.barrier WHERE run_id IS NULL AND fired_at IS NULL UNION ALL SELECT id FROM agno.run WHERE ended_at IS NULL"
    invariants.until(lambda: fleet.sql(body, key=key) == [{"status": "done"}] and not fleet.sql(open_ones))
    executed = "SELECT attempt FROM agno.step s JOIN agno.run r ON r.id = s.run_id WHERE r.idempotency_key LIKE %(key)s || '%%'"
    assert [step["attempt"] for step in fleet.sql(executed, key=key)] == [1, 1, 1]


@case("C11", "machines")
def a_person_dies_after_approving(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after its approval has committed: the call is made once."""
    _answered(fleet, folder, "publish", "approve", "published, approved by ann")


@case("C11", "machines")
def a_person_dies_after_completing(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after the result that it brought has committed: the model reads the result."""
    _answered(fleet, folder, "deliver", "complete", "delivered")


def _answered(fleet: Fleet, folder: Path, tool: str, verb: str, says: str) -> None:
    run = fleet.client.runs.submit("matrix", call(tool, folder / "ledger"))
    invariants.until(lambda: run.requirements)
    (requirement,) = run.requirements
    fleet.arm("answer.recorded")
    assert fleet.person(verb, requirement.id).returncode == -signal.SIGKILL
    assert run.result(timeout=WAIT_S) == says
    assert len(lines(folder / "ledger")) == (verb == "approve")
    with pytest.raises(NotWaiting):
        requirement.reject("too late")


@case("C9", "children")
def a_person_finds_out(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has executed a `once` tool with `on_unknown="ask"`; a client reports that it happened, and
    dies as well: the tool does not run again; the model reads the reported result.
    """
    run = _unknown(fleet, folder)
    fleet.arm("answer.recorded")
    assert fleet.person("resolve", run).returncode == -signal.SIGKILL
    (step,) = fleet.sql("SELECT run_id::text FROM agno.step WHERE id = %(run)s", run=run)
    assert fleet.client.runs.get(step["run_id"]).result(timeout=WAIT_S) == "it went through"
    assert len(lines(folder / "ledger")) == 1


@case("C9", "children")
def a_person_says_that_it_did_not_happen(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has claimed a `once` tool with `on_unknown="ask"`; a client reports that it did not happen,
    asks for another try, and dies as well: the tool runs once.
    """
    step_id = _unknown(fleet, folder, "tool.claimed")
    fleet.arm("answer.recorded")
    assert fleet.person("again", step_id).returncode == -signal.SIGKILL
    (step,) = fleet.sql("SELECT run_id::text FROM agno.step WHERE id = %(step_id)s", step_id=step_id)
    assert fleet.client.runs.get(step["run_id"]).result(timeout=WAIT_S) == "wired"
    assert len(lines(folder / "ledger")) == 1


def _unknown(fleet: Fleet, folder: Path, place: str = "tool.executed") -> str:
    """Return the step of a once tool that a crash interrupted and that waits for a person."""
    fleet.arm(place)
    run = fleet.client.runs.submit("matrix", call("wire", folder / "ledger"))
    invariants.until(lambda: run.requirements)
    (requirement,) = run.requirements
    assert requirement.needs == "resolution"
    return requirement.id


@case("C15", "machines")
def a_worker_that_was_thought_dead_knows_best(fleet: Fleet, folder: Path) -> None:
    """A worker is stopped past its lease after it has executed a `once` tool with `on_unknown="ask"`, and continues before
    anybody has answered: its result counts, and nobody is asked any more.
    """
    fleet.arm("tool.executed", how="STOP")
    run = fleet.client.runs.submit("matrix", call("wire", folder / "ledger"))
    invariants.until(lambda: run.requirements)
    (requirement,) = run.requirements
    fleet.stopped().kill(signal.SIGCONT)
    assert run.result(timeout=WAIT_S) == "wired"
    assert len(lines(folder / "ledger")) == 1
    with pytest.raises(NotWaiting):
        requirement.resolve(False)


# Messages.


@case("C4", "machines")
def sent_and_not_struck_out(fleet: Fleet, folder: Path) -> None:
    """The keeper dies after it has sent the first turn of a run, before it deletes the outbox row: the message is sent twice;
    the second claim gets no row.
    """
    fleet.arm("dispatch.sent")
    run = fleet.client.runs.submit("matrix", call("look", folder / "ledger"))
    assert run.result(timeout=WAIT_S) == "looked"
    # A step, the turn or the tool, may have died with it.
    assert 1 <= len(lines(folder / "ledger")) <= 1 + repeats(fleet.executions(run.id)) <= 2


@case("C12", "children")
def the_body_is_published_and_not_struck_out(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has sent the turn after the barrier: the message is sent twice, and the turn is executed
    once.
    """
    fleet.arm("dispatch.sent", passes=2)  # the submit, and the fan-out
    run = fleet.client.runs.submit("matrix", call("look", folder / "ledger"))
    assert run.result(timeout=WAIT_S) == "looked"
    invariants.until(lambda: not fleet.is_armed("dispatch.sent"))
    assert repeats(fleet.executions(run.id)) == 0


@case("C12", "machines")
def every_message_comes_again(fleet: Fleet, folder: Path) -> None:
    """Each message of an ended run is delivered again: no claim gets a row, and nothing changes."""
    run = fleet.client.runs.submit("boss", delegated(call("note", folder / "ledger")))
    assert run.result(timeout=WAIT_S) == "noted"
    before = fleet.executions(run.id), run.messages, run.run
    for step in before[0]:
        if step.kind != "delegate":
            fleet.redeliver(step)
    assert (fleet.executions(run.id), run.messages, run.run) == before
    assert len(lines(folder / "ledger")) == 1


@case("C13", "children")
def half_a_group_is_published(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has sent two of three tool calls, before it sends the third, which has another queue: the
    keeper sends it; the barrier closes.
    """
    fleet.arm("dispatch.part")
    calls = [call(tool, folder / "ledger") for tool in ("note", "note_apart", "note")]
    run = fleet.client.runs.submit("matrix", "\n".join(calls))
    assert run.result(timeout=WAIT_S) == "noted | noted | noted"
    invariants.until(lambda: not fleet.is_armed("dispatch.part"))
    assert repeats(fleet.executions(run.id)) == 0
    assert len(set(lines(folder / "ledger"))) == len(lines(folder / "ledger")) == 3


@case("C13", "children")
def delegations_are_not_published(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has sent the tool call of a turn, before it sends the first turns of the two runs to which the
    turn delegates: the keeper sends them.
    """
    fleet.arm("dispatch.sent", passes=1)  # the keeper's own, of the submit
    calls = ['add {"a": 1, "b": 2}', delegated(*[call("note", folder / "ledger")] * 2)]
    run = fleet.client.runs.submit("boss", "\n".join(calls))
    assert run.result(timeout=WAIT_S) == "3 | noted | noted"
    invariants.until(lambda: not fleet.is_armed("dispatch.sent"))
    assert repeats(fleet.executions(run.id)) == 0
    assert len(lines(folder / "ledger")) == 2


@case("C14", "machines")
def many_last_parts(fleet: Fleet, folder: Path) -> None:
    """Twenty tool calls of one turn end at about the same time on three workers: the turn after the barrier runs once."""
    run = fleet.client.runs.submit("matrix", "\n".join([call("look", folder / "ledger")] * 20))
    assert run.result(timeout=WAIT_S) == " | ".join(["looked"] * 20)
    assert [(step.key, step.attempt) for step in fleet.executions(run.id) if step.kind == "turn"] == [
        ("turn:1", 1),
        ("turn:2", 1),
    ]


# Cancelled while something is under way.


@case("C16", "machines")
def cancelled_while_the_model_speaks(fleet: Fleet, folder: Path) -> None:
    """A run is cancelled while its model works: the late reply is refused."""
    path = held(folder)
    _cancelled(fleet, "thinker", str(path), path, "agno.turn[")


@case("C16", "machines")
def cancelled_while_a_tool_runs(fleet: Fleet, folder: Path) -> None:
    """A run is cancelled while its tool works: the late result is refused."""
    path = held(folder)
    _cancelled(fleet, "matrix", call("hold", path), path, "agno.tool[")


@case("C16", "machines")
def cancelled_while_a_delegated_run_works(fleet: Fleet, folder: Path) -> None:
    """A run is cancelled while its delegated run works: the delegated run is cancelled as well, and its late result is refused."""
    path = held(folder)
    _cancelled(fleet, "boss", delegated(call("hold", path)), path, "agno.tool[")


def _cancelled(fleet: Fleet, agent: str, asked: str, path: Path, task: str) -> None:
    run = fleet.client.runs.submit(agent, asked)
    invariants.until(running(path))
    (taken,) = [step for step in fleet.executions(run.id) if step.status == StepStatus.RUNNING]
    assert run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=WAIT_S)
    before = fleet.executions(run.id), run.messages, run.run
    path.unlink()
    fleet.wait_for(f"Task {task}{taken.id}] succeeded")
    assert (fleet.executions(run.id), run.messages, run.run) == before
    assert not {step.status for step in before[0]} & {
        StepStatus.READY,
        StepStatus.RUNNING,
        StepStatus.WAITING,
    }


@case("C16", "machines")
def cancelled_while_a_person_is_asked(fleet: Fleet, folder: Path) -> None:
    """A run is cancelled while it waits for a person: the late answer is refused."""
    run = fleet.client.runs.submit("matrix", call("publish", folder / "ledger"))
    invariants.until(lambda: run.requirements)
    (requirement,) = run.requirements
    assert run.cancel()
    with pytest.raises(NotWaiting):
        requirement.approve()
    assert lines(folder / "ledger") == []


@case("C16", "machines")
def cancelled_while_paused(fleet: Fleet, folder: Path) -> None:
    """A run is paused while a tool works, and cancelled: it ends, and no further step starts."""
    path = held(folder)
    run = fleet.client.runs.submit("matrix", call("hold", path))
    invariants.until(running(path))
    assert run.pause()
    path.unlink()
    invariants.until(lambda: [step.status for step in run.steps][-1] == StepStatus.READY)
    assert run.cancel()
    assert [step.attempt for step in fleet.executions(run.id)] == [1, 1, 0]


@case("C16", "machines")
def a_client_dies_in_the_middle_of_cancelling(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after it has cancelled a run, before it cancels the delegated run: the keeper cancels the
    delegated run.
    """
    path = held(folder)
    run = fleet.client.runs.submit("boss", delegated(call("hold", path)))
    invariants.until(running(path))
    fleet.arm("cancel.recorded")
    assert fleet.person("cancel", run.id).returncode == -signal.SIGKILL
    before = fleet.beat()
    invariants.until(
        lambda: {step.status for step in fleet.executions(run.id)} == {StepStatus.DONE, StepStatus.CANCELLED}
    )
    assert fleet.beat() - before <= 24
    assert run.status is RunStatus.CANCELLED
    path.unlink()


# Keepers.


@case("C19", "machines")
def the_leading_keeper_is_killed(fleet: Fleet, folder: Path) -> None:
    """The worker with the active keeper is killed: another worker's keeper takes over within its lease, and sends."""
    leader, before = fleet.leader(), fleet.beat()
    leader.kill()
    assert fleet.client.runs.submit("echo", "hi").result(timeout=WAIT_S) == "<hi>"
    assert fleet.leader() is not leader
    assert fleet.beat() - before <= 24


@case("C19", "machines")
def the_keeper_dies_with_what_it_has_taken(fleet: Fleet, folder: Path) -> None:
    """The keeper is killed after it has taken messages from the outbox: another keeper takes them again a second later."""
    fleet.arm("keeper.taken")
    before = fleet.beat()
    assert fleet.client.runs.submit("echo", "hi").result(timeout=WAIT_S) == "<hi>"
    assert fleet.beat() - before <= 24


@case("C19", "machines")
def the_keeper_dies_with_an_expired_step(fleet: Fleet, folder: Path) -> None:
    """A worker is killed during a tool call; when the lease expires, the keeper that releases the step is killed as well: a
    third worker sends the message from the outbox.
    """
    fleet.arm("tool.claimed")
    fleet.arm("keeper.taken", passes=1)  # of the submit
    run = fleet.client.runs.submit("matrix", call("note", folder / "ledger"))
    assert run.result(timeout=WAIT_S) == "noted"
    assert not fleet.is_armed("keeper.taken")
    assert repeats(fleet.executions(run.id)) == 1
    assert len(lines(folder / "ledger")) == 1


# Poison, patience and size.


@case("C20", "children")
def a_poisonous_turn(fleet: Fleet, folder: Path) -> None:
    """A turn kills its process each time: after `runs.turn_attempts` crashes the run has failed, with the reason; once the
    cause is removed, a retry completes it.
    """
    poison = folder / "poison"
    poison.touch()
    run = fleet.client.runs.submit("poisoned", str(poison))
    with pytest.raises(RunFailed, match="no further attempt"):
        run.result(timeout=WAIT_S)
    assert [(step.status, step.attempt) for step in fleet.executions(run.id)] == [(StepStatus.DEAD, 5)]
    poison.unlink()
    assert run.retry()
    assert run.result(timeout=WAIT_S) == "cured"


@case("C20", "children")
def a_poisonous_tool(fleet: Fleet, folder: Path) -> None:
    """A tool kills its process each time: after `max_attempts` crashes the call is `dead`; the model is told, and the run
    continues.
    """
    lives = folder / "lives"
    lives.write_text("100")
    run = fleet.client.runs.submit("caller", call("kill_worker", lives))
    assert "died in each of 3 attempts" in run.result(timeout=WAIT_S)
    assert lives.read_text() == "97"
    assert [(step.status, step.attempt) for step in fleet.executions(run.id) if step.name] == [
        (StepStatus.DEAD, 3)
    ]


@case("C8", "machines")
def a_long_tool_keeps_its_lease(fleet: Fleet, folder: Path) -> None:
    """A tool works for longer than its lease: the lease is renewed, and the tool is executed once."""
    path = held(folder)
    _long(fleet, "matrix", call("hold", path), path, "released")


@case("C8", "children")
def a_long_turn_keeps_its_lease(fleet: Fleet, folder: Path) -> None:
    """A model works for longer than the lease in a prefork child: the worker's main process renews the lease, and the model is
    called once.
    """
    path = held(folder)
    _long(fleet, "thinker", str(path), path, "thought")


def _long(fleet: Fleet, agent: str, asked: str, path: Path, says: str) -> None:
    run = fleet.client.runs.submit(agent, asked)
    invariants.until(running(path))
    leases: set[object] = set()

    def is_long_past_its_first_lease() -> bool:
        leases.update(
            row["lease_until"]
            for row in fleet.sql("SELECT lease_until FROM agno.step WHERE status = 'running'")
        )
        return len(leases) == 6

    invariants.until(is_long_past_its_first_lease)
    path.unlink()
    assert run.result(timeout=WAIT_S) == says
    assert repeats(fleet.executions(run.id)) == 0


@case("-", "machines")
def a_long_run_grows_evenly(fleet: Fleet, folder: Path) -> None:
    """A run makes a hundred tool calls, one per turn: the second fifty store at most 1.1 times the bytes of the first fifty."""
    run = fleet.client.runs.submit("counter", "100")
    assert run.result(timeout=WAIT_S) == "100 calls"
    early, late = fleet.sql(
        """WITH stored AS (
               SELECT split_part(key, ':', 2)::int AS turn, pg_column_size(step.*) AS bytes FROM agno.step WHERE run_id = %(run_id)s
               UNION ALL SELECT 1 + (seq - 1) / 2, pg_column_size(message.*) FROM agno.message WHERE run_id = %(run_id)s AND seq > 0
               UNION ALL SELECT split_part(body->>'key', ':', 2)::int - 1, pg_column_size(barrier.*) FROM agno.barrier
                         WHERE run_id = %(run_id)s)
           SELECT sum(bytes)::int AS bytes FROM stored WHERE turn <= 100 GROUP BY turn > 50 ORDER BY turn > 50""",
        run_id=run.id,
    )
    assert late["bytes"] <= early["bytes"] * 1.1


# Workflows and teams.


@case("C8", "children")
def a_workflow_dies_again_and_again(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has claimed, computed and recorded a turn of a workflow, and after it has recorded a step, four times in
    one run of six steps: each step is executed once.
    """
    for passes, place in enumerate(("turn.claimed", "turn.replied", "turn.recorded"), 1):
        fleet.arm(place, passes=passes)
    fleet.arm("tool.recorded", passes=4)
    run = fleet.client.runs.submit("marathon", str(folder / "ledger"))
    assert run.result(timeout=WAIT_S) == 6
    assert not any(map(fleet.is_armed, ("turn.claimed", "turn.replied", "turn.recorded", "tool.recorded")))
    assert repeats(fleet.executions(run.id)) == 2
    _all_once(folder / "ledger", 6)


@case("C13", "children")
def half_of_the_calls_of_a_workflow_are_published(fleet: Fleet, folder: Path) -> None:
    """A prefork child dies after it has sent two of three steps of a workflow, before it sends the third, which has another queue: the keeper
    sends it; the next turn runs once.
    """
    fleet.arm("dispatch.part")
    run = fleet.client.runs.submit("apart", str(folder / "ledger"))
    assert run.result(timeout=WAIT_S) == ["noted"] * 3
    invariants.until(lambda: not fleet.is_armed("dispatch.part"))
    assert repeats(fleet.executions(run.id)) == 0
    _all_once(folder / "ledger", 3)


@case("C11", "machines")
def a_worker_dies_when_a_quorum_is_reached(fleet: Fleet, folder: Path) -> None:
    """A worker dies after it has recorded the turn of a workflow that has two of three results, before the third run is cancelled: the keeper
    cancels it; the next step is executed once.
    """
    path, run = _racing(fleet, folder)
    fleet.arm("turn.recorded", passes=1)  # that of the run that comes second
    Path(f"{path}.second").unlink()
    assert run.result(timeout=WAIT_S) == [2, "thought"]
    assert not fleet.is_armed("turn.recorded")
    _all_once(Path(f"{path}.ledger"), 1)
    (third,) = [step for step in fleet.executions(run.id) if step.key == "third"]
    assert third.status == StepStatus.CANCELLED
    child = "SELECT status FROM agno.run WHERE parent_step_id = %(id)s"
    invariants.until(lambda: fleet.sql(child, id=third.id) == [{"status": "cancelled"}])
    path.unlink()


@case("C16", "machines")
def cancelled_while_steps_of_a_workflow_work(fleet: Fleet, folder: Path) -> None:
    """A workflow is cancelled while two runs of its steps work: they are cancelled as well, and their late results are refused."""
    path, run = _racing(fleet, folder)
    assert run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=WAIT_S)
    before = fleet.executions(run.id), run.run
    assert {step.status for step in before[0]} == {StepStatus.DONE, StepStatus.CANCELLED}
    for each in (path, Path(f"{path}.second")):
        each.unlink()
    for step in before[0]:
        if step.agent == "thinker":
            fleet.wait_for(f"Task agno.turn[{step.id}] succeeded")
    assert (fleet.executions(run.id), run.run) == before
    assert lines(Path(f"{path}.ledger")) == []


def _racing(fleet: Fleet, folder: Path) -> tuple[Path, RunHandle]:
    """Return a run of `race` that has one of two results, while two runs work."""
    path = held(folder)
    second = Path(f"{path}.second")
    second.touch()
    run = fleet.client.runs.submit("race", str(path))

    def has_one() -> bool:
        steps = {step.key: step.status for step in fleet.executions(run.id) if step.run_id == run.id}
        turns = {status for key, status in steps.items() if key.startswith("turn:")}
        return steps.get("first") == StepStatus.DONE and turns == {StepStatus.DONE}

    for condition in (running(path), running(second), has_one):
        invariants.until(condition)
    return path, run


@case("C19", "machines")
def the_keeper_dies_at_the_end_of_a_timer(fleet: Fleet, folder: Path) -> None:
    """The keeper is killed after it has ended the timer of a workflow, before it sends the next turn: another keeper sends it; no step is
    executed again.
    """

    def let_time_pass(run: RunHandle) -> None:
        invariants.until(lambda: _waits_for(fleet, run) == ["timer"])
        fleet.arm("keeper.taken")
        fleet.sql(
            "UPDATE agno.step SET expires_at = clock_timestamp() WHERE run_id = %(id)s AND waits_for = 'timer'",
            id=run.id,
        )

    _waited(fleet, folder, "time", None, let_time_pass)
    assert not fleet.is_armed("keeper.taken")


@case("C8", "children")
def a_worker_dies_with_a_signal(fleet: Fleet, folder: Path) -> None:
    """A signal is sent to a workflow that waits for it, and the prefork child that claims the next turn dies: the signal is taken once."""

    def send(run: RunHandle) -> None:
        invariants.until(lambda: _waits_for(fleet, run) == ["signal"])
        fleet.arm("turn.claimed")
        fleet.sql("SELECT agno.send_signal(%(id)s, 'paid', '{\"eur\": 5}')", id=run.id)

    _waited(fleet, folder, "signal", {"eur": 5}, send, repeated=1)


@case("C11", "children")
def a_worker_dies_with_a_signal_that_was_kept(fleet: Fleet, folder: Path) -> None:
    """A signal is sent before the workflow waits for it, and a prefork child dies after it has recorded the turn that does: the signal is taken
    once, and the next turn follows.
    """
    ledger = folder / "ledger"
    path = Path(f"{ledger}.held")
    path.touch()

    def send(run: RunHandle) -> None:
        invariants.until(running(path))
        fleet.sql("SELECT agno.send_signal(%(id)s, 'paid', '7')", id=run.id)
        fleet.arm("turn.recorded")
        path.unlink()

    _waited(fleet, folder, "signal", 7, send)
    assert not fleet.is_armed("turn.recorded")


@case("C11", "machines")
def a_person_dies_after_approving_a_step(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after it has approved a step of a workflow: the next turn follows; no step is executed again."""

    def approve(run: RunHandle) -> None:
        invariants.until(lambda: run.requirements)
        (requirement,) = run.requirements
        fleet.arm("answer.recorded")
        assert fleet.person("approve", requirement.id).returncode == -signal.SIGKILL
        with pytest.raises(NotWaiting):
            requirement.reject("too late")

    _waited(fleet, folder, "person", "ann", approve)


@case("C20", "children")
def a_poisonous_turn_of_a_workflow(fleet: Fleet, folder: Path) -> None:
    """The code between the steps of a workflow kills its process each time: after `runs.turn_attempts` crashes the run has failed; once the cause
    is removed, a retry completes it, and executes no step again.
    """
    poison = folder / "poison"
    poison.touch()
    run = fleet.client.runs.submit("poisoned_flow", str(poison))
    with pytest.raises(RunFailed, match="no further attempt"):
        run.result(timeout=WAIT_S)
    poison.unlink()
    assert run.retry()
    assert run.result(timeout=WAIT_S) == "noted"
    _all_once(Path(f"{poison}.ledger"), 1)


@case("C5", "machines")
def redis_is_wiped_under_workflows_and_teams(fleet: Fleet, folder: Path) -> None:
    """Redis is flushed three times while ten workflows and ten teams run: all end, and each step is executed once."""
    runs = [
        fleet.client.runs.submit(name, call("look", folder / f"{name} {n}") if name == "errand" else delegated(call("look", folder / f"{name} {n}")))
        for n in range(10)
        for name in ("errand", "squad")
    ]  # fmt: skip
    for done in (2, 8, 14):
        invariants.until(lambda done=done: sum(run.status is RunStatus.DONE for run in runs) >= done)  # type: ignore[misc]  # mypy knows no defaults of lambdas
        fleet.wipe_redis()
    assert {run.result(timeout=WAIT_S) for run in runs} == {"looked"}
    assert sum(repeats(fleet.executions(run.id)) for run in runs) == 0
    for ledger in folder.iterdir():
        _all_once(ledger, 1)


def _waited(
    fleet: Fleet, folder: Path, what: str, says: object, act: Callable[[RunHandle], None], *, repeated: int = 0
) -> None:  # fmt: skip
    """Let a workflow wait between two steps, and check that each was executed once."""
    ledger = folder / "ledger"
    run = fleet.client.runs.submit("patient", f"{what} {ledger}")
    act(run)
    assert run.result(timeout=WAIT_S) == says
    assert repeats(fleet.executions(run.id)) == repeated
    waits = [(step.status, step.attempt) for step in fleet.executions(run.id) if step.kind == "wait"]
    assert waits == [(StepStatus.DONE, 0)]
    _all_once(ledger, 2)


def _waits_for(fleet: Fleet, run: RunHandle) -> list[str]:
    rows = fleet.sql(
        "SELECT waits_for FROM agno.step WHERE run_id = %(id)s AND status = 'waiting'", id=run.id
    )
    return [row["waits_for"] for row in rows]


def _all_once(ledger: Path, count: int) -> None:
    assert len(lines(ledger)) == len(set(lines(ledger))) == count


# Background work.


@case("C8", "machines")
def a_worker_dies_with_background_work(fleet: Fleet, folder: Path) -> None:
    """A worker dies after it has claimed the summary of a session, in the middle of background work: another worker makes it."""
    assert _summed_up(fleet, "background.claimed") == 2


@case("C9", "machines")
def a_worker_dies_after_background_work(fleet: Fleet, folder: Path) -> None:
    """A worker dies after its model has written the summary of a session, before anything is recorded: the summary is made again,
    and recorded with the end of its run.
    """
    assert _summed_up(fleet, "background.worked") == 2


@case("C11", "machines")
def a_worker_dies_after_it_recorded_background_work(fleet: Fleet, folder: Path) -> None:
    """A worker dies after it has recorded a summary, while another one was asked for: the work is not made again, and the next
    summary begins.
    """
    assert _summed_up(fleet, "background.recorded", again=True) == 1


@case("C11", "machines")
def a_worker_dies_after_an_answer_that_asks_for_background_work(fleet: Fleet, folder: Path) -> None:
    """A worker dies after it has recorded the answer of a session's fifth run, before it sends anything: the session is summed up,
    once.
    """
    session = f"session {folder}"
    fleet.sql(
        "INSERT INTO agno.session (id, status, next_position) VALUES (%(session)s, 'active', 5)",
        session=session,
    )
    run = fleet.client.runs.submit("noting", "my dog is Rex", session_id=session, queue="none")
    fleet.sql("UPDATE agno.run SET session_position = 5 WHERE id = %(run)s", run=run.id)
    fleet.arm("turn.recorded")
    to_agents = """WITH step AS (UPDATE agno.step SET queue = 'agents' WHERE run_id = %(run)s RETURNING id)
                   INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() FROM step"""
    fleet.sql(to_agents, run=run.id)
    assert run.result(timeout=WAIT_S) == "<my dog is Rex>"
    summaries = "SELECT summary_until FROM agno.session WHERE id = %(session)s"
    invariants.until(lambda: fleet.sql(summaries, session=session) == [{"summary_until": 5}])
    invariants.until(lambda: not fleet.is_armed("turn.recorded"))
    made = """SELECT status, content->>'exchanges' AS exchanges FROM agno.run
              WHERE metadata->>'owner' = %(session)s AND metadata->>'kind' = 'summary'"""
    assert fleet.sql(made, session=session) == [{"status": "done", "exchanges": "1"}]


@case("C15", "machines")
def a_worker_that_was_thought_dead_has_done_background_work(fleet: Fleet, folder: Path) -> None:
    """A worker is stopped after its model has written a summary, until its lease is over: another worker records one; the late
    writes are rolled back.
    """
    assert _summed_up(fleet, "background.worked", how="STOP") == 2
    summaries = "SELECT summary, summary_until FROM agno.session ORDER BY id"
    before = fleet.sql(summaries), fleet.sql("SELECT * FROM agno.background_item")
    stopped = fleet.stopped()
    stopped.kill(signal.SIGCONT)
    stopped.wait_for("succeeded in")
    assert (fleet.sql(summaries), fleet.sql("SELECT * FROM agno.background_item")) == before


def _summed_up(fleet: Fleet, place: str, *, how: str = "", again: bool = False) -> int:
    """Sum up a session with one run while a worker dies; return the attempts of the step that was interrupted."""
    run = fleet.client.runs.submit("echo", "my dog is Rex")
    assert run.result(timeout=WAIT_S) == "<my dog is Rex>"
    session = f"session of {run.id}"
    fleet.sql(
        "INSERT INTO agno.session (id, status, next_position) VALUES (%(session)s, 'active', 2)",
        session=session,
    )
    fleet.sql(
        "UPDATE agno.run SET session_id = %(session)s, session_position = 1 WHERE id = %(run)s",
        session=session, run=run.id,
    )  # fmt: skip
    fleet.arm(place, how=how)
    ask = "SELECT agno.request_background(%(run)s, jsonb_build_array(jsonb_build_object('kind', 'summary', 'owner', %(session)s::text)))"
    for _ in range(2 if again else 1):
        fleet.sql(ask, run=run.id, session=session)
    runs = """SELECT r.status, s.attempt FROM agno.run r JOIN agno.step s ON s.run_id = r.id
              WHERE r.metadata->>'owner' = %(session)s ORDER BY r.created_at"""
    invariants.until(lambda: {row["status"] for row in fleet.sql(runs, session=session)} == {"done"})
    left = "SELECT FROM agno.background_item WHERE owner = %(session)s"
    assert fleet.sql(left, session=session) == []
    (row,) = fleet.sql(
        "SELECT summary, summary_until FROM agno.session WHERE id = %(session)s", session=session
    )
    assert row == {
        "summary": "<Exchanges:\n\nUser: my dog is Rex\nAssistant: <my dog is Rex>>",
        "summary_until": 1,
    }
    return int(fleet.sql(runs, session=session)[0]["attempt"])


# Messages to a session.


@case("C24", "machines")
def a_worker_dies_with_the_end_of_a_live_run(fleet: Fleet, folder: Path) -> None:
    """Runs of a session wait for each other; workers are killed after the last turn of the first has committed, and after the second was
    claimed: all end, in the order of their submits.
    """
    fleet.arm("turn.recorded")
    fleet.arm("turn.claimed", passes=1)
    runs = [fleet.client.runs.submit("echo", str(place), session_id=str(folder)) for place in range(4)]
    assert [run.result(timeout=WAIT_S) for run in runs] == ["<0>", "<1>", "<2>", "<3>"]
    begun = fleet.sql(
        "SELECT id::text FROM agno.run WHERE session_id = %(session)s ORDER BY started_at",
        session=str(folder),
    )
    assert [row["id"] for row in begun] == [run.id for run in runs]
    assert [repeats(fleet.executions(run.id)) for run in runs] == [0, 1, 0, 0]


@case("C24", "machines")
def a_client_dies_after_it_interrupts(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after its submit with `if_busy="interrupt"` has committed: the live run is cancelled, and the new one ends."""
    _replaced(fleet, folder, "interrupt")


@case("C24", "machines")
def a_client_dies_after_it_rolls_back(fleet: Fleet, folder: Path) -> None:
    """The same with `if_busy="rollback"`: the live run is cancelled and left out of the history, and the new one ends."""
    _replaced(fleet, folder, "rollback")


def _replaced(fleet: Fleet, folder: Path, if_busy: str) -> None:
    path, session = held(folder), str(folder)
    live = fleet.client.runs.submit("thinker", str(path), session_id=session)
    invariants.until(running(path))
    fleet.arm("submit.committed")
    assert fleet.person("say", "echo", "stop", session, if_busy).returncode == -signal.SIGKILL
    (row,) = fleet.sql("SELECT id::text FROM agno.run WHERE idempotency_key = %(key)s", key=session)
    assert fleet.client.runs.get(row["id"]).result(timeout=WAIT_S) == "<stop>"
    with pytest.raises(RunCancelled, match="was interrupted"):
        live.result(timeout=WAIT_S)
    assert fleet.sql(
        "SELECT rolled_back_at IS NOT NULL AS is_rolled_back FROM agno.run WHERE id = %(id)s", id=live.id
    ) == [{"is_rolled_back": if_busy == "rollback"}]
    path.unlink()
    assert fleet.person("say", "echo", "stop", session, if_busy).returncode == 0
    assert fleet.sql("SELECT count(*) FROM agno.run WHERE session_id = %(session)s", session=session) == [
        {"count": 2}
    ]


@case("C24", "machines")
def a_message_joins_and_its_turn_dies(fleet: Fleet, folder: Path) -> None:
    """A client process is killed after its submit with `if_busy="steer"` has committed, and a worker after the model has replied to the turn
    that the message joins: the message is in the transcript once; a repeated submit does not add it again.
    """
    path, session = held(folder), str(folder)
    live = fleet.client.runs.submit("matrix", call("hold", path), session_id=session)
    invariants.until(running(path))
    fleet.arm("submit.committed")
    said = 'add {"a": 1, "b": 2}'
    assert fleet.person("say", "matrix", said, session, "steer").returncode == -signal.SIGKILL
    assert fleet.person("say", "matrix", said, session, "steer").returncode == 0
    fleet.arm("turn.replied")
    path.unlink()
    assert live.result(timeout=WAIT_S) == "released | 3"
    assert [message.text for message in live.messages if message.role == "user"] == [call("hold", path), said]
    assert repeats(fleet.executions(live.id)) == 1


@case("C24", "machines")
def a_message_comes_too_late_to_join(fleet: Fleet, folder: Path) -> None:
    """A message is to join a run whose last turn is under way, and a worker is killed after that turn has committed: the message becomes the
    next run.
    """
    path, session = held(folder), str(folder)
    live = fleet.client.runs.submit("thinker", str(path), session_id=session)
    invariants.until(running(path))
    (folder / "other").mkdir()
    other = held(folder / "other")
    late = fleet.client.runs.submit("thinker", str(other), session_id=session, if_busy="steer")
    assert (late.id, late.created) == (live.id, False)
    assert late.steered is not None
    other.unlink()
    fleet.arm("turn.recorded")
    path.unlink()
    assert live.result(timeout=WAIT_S) == "thought"
    assert late.steered.receipt().status == "returned"
    assert late.steered.run().result(timeout=WAIT_S) == "thought"


@case("C24", "machines")
def a_session_is_busy_while_its_worker_is_dead(fleet: Fleet, folder: Path) -> None:
    """A worker is killed with the live run: until that has ended elsewhere, `if_busy="reject"` is refused and stores nothing, and a run with
    `if_busy="parallel"` ends beside it.
    """
    path, session = held(folder), str(folder)
    live = fleet.client.runs.submit("matrix", call("hold", path), session_id=session)
    invariants.until(running(path))
    fleet.arm("tool.claimed")
    beside = fleet.client.runs.submit(
        "matrix", call("note", folder / "ledger"), session_id=session, if_busy="parallel"
    )
    with pytest.raises(SessionBusy):
        fleet.client.runs.submit("echo", "hi", session_id=session, if_busy="reject")
    assert beside.result(timeout=WAIT_S) == "noted"
    path.unlink()
    assert live.result(timeout=WAIT_S) == "released"
    assert (
        fleet.client.runs.submit("echo", "hi", session_id=session, if_busy="reject").result(timeout=WAIT_S)
        == "<hi>"
    )
    assert fleet.sql("SELECT count(*) FROM agno.run WHERE session_id = %(session)s", session=session) == [
        {"count": 3}
    ]


ALL: tuple[Cell | Case, ...] = (*CELLS, *CASES)
