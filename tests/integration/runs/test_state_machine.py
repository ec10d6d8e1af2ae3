"""A state machine: transactions in any order, on a real Postgres, break no invariant and lose no run.

Hypothesis invents the histories of runs: workers that claim, execute, die or return late results; messages that are lost,
duplicated or forged; people who answer or do not; a keeper that repairs; cancels, pauses, retries and forks in between; programs, whose
calls end in any order, are cancelled and wait for signals, timers and people. After each
transaction `invariants.ALWAYS` must hold. At the end only the keeper, one worker and one person remain, Redis is empty, and each
run must end: `calm`.

The test sets the times of leases, timers and deadlines in their rows instead of waiting.

    AGNO_EXAMPLES=3000 ./run test tests/integration/runs/test_state_machine.py      other examples, and more of them
    AGNO_SHORTEST=1 ./run test ...              reduce a failing example to the shortest one: takes minutes
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from uuid6 import uuid7

from agno_workers.core.messages import Message, ToolCall, Usage, user
from agno_workers.core.program import Progress
from agno_workers.core.request import RunRequest
from agno_workers.core.run import Canvas, StepKind, WaitsFor
from agno_workers.core.step import (
    CallStep,
    CanvasContinuation,
    ChildRun,
    ClaimedStep,
    CommitResult,
    CompactionOrder,
    CompactionRecord,
    ExhaustedStep,
    ExpiredWait,
    StepMessage,
    ToolStep,
)
from agno_workers.core.tool import Effect, Policy, ToolOutcome
from agno_workers.database.pool import Connection, Pool, Row
from agno_workers.engine import tool as tool_calls
from agno_workers.engine.active_steps import ActiveSteps
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, NotWaiting
from agno_workers.local import LocalServers
from agno_workers.registry import Registry
from agno_workers.runs.agents import Agents, RegisteredAgent
from agno_workers.runs.base import RunNumbers
from agno_workers.runs.batch import Batches, Common, Item
from agno_workers.runs.queries import Waiting
from agno_workers.runs.results import Results
from agno_workers.runs.submit import Chord
from agno_workers.runs.workers import Workers
from agno_workers.sdk.approvals import Requirement
from agno_workers.sessions.compaction import decline_exhausted
from agno_workers.streams import Streams
from tests import invariants
from tests.database import (
    FEW,
    INLINE_MAX_BYTES,
    CountingPool,
    RunDatabase,
    asking,
    claimed,
    record,
    said,
)

InOrder = TypeVar("InOrder", StepMessage, ExhaustedStep, ExpiredWait, Waiting)
EXAMPLES = int(os.environ.get("AGNO_EXAMPLES", "0"))
FEW_RUNS, MAX_RUNS = 4, 12
ERROR = {"type": "ModelRejected", "message": "no", "ids": {}}
WORKERS = ("w1", "w2", "w3")
CHILD = "child"
PROGRAM = "program"
CALLS: dict[str, Policy | Effect] = {
    "look_up": Effect.PURE,
    "write": Effect.IDEMPOTENT,
    "pay": Effect.ONCE,
    "pay_or_ask": Policy(on_unknown="ask", within_s=60),
    "pay_and_check": Policy(reconcile=True),
    "pay_and_check_or_ask": Policy(reconcile=True, on_unknown="ask"),
    "if_allowed": Policy(needs=WaitsFor.CONFIRMATION, within_s=60),
    "unless_forbidden": Policy(needs=WaitsFor.CONFIRMATION, within_s=60, on_timeout="approve"),
    "only_if_allowed": Policy(needs=WaitsFor.CONFIRMATION, within_s=60, on_timeout="fail"),
    "filled_in": Policy(needs=WaitsFor.ANSWER, fields=("iban",), within_s=60),
    "elsewhere": Policy(needs=WaitsFor.EXECUTION, within_s=60),
}
"""The calls of a model: an effect, the policy of a `once` tool, or CHILD, a delegation."""

PROGRAM_CALLS: dict[str, tuple[StepKind, WaitsFor | None, Policy]] = {
    "double": (StepKind.TOOL, None, Policy()),
    "pay": (StepKind.TOOL, None, Policy(on_unknown="ask", within_s=60)),
    "if_allowed": (StepKind.TOOL, WaitsFor.CONFIRMATION, Policy(needs=WaitsFor.CONFIRMATION, within_s=60, on_timeout="approve")),
    CHILD: (StepKind.DELEGATE, WaitsFor.RUN, Policy(within_s=60)),
    PROGRAM: (StepKind.DELEGATE, WaitsFor.RUN, Policy()),
    "timer": (StepKind.WAIT, WaitsFor.TIMER, Policy()),
    "paid": (StepKind.WAIT, WaitsFor.SIGNAL, Policy()),
    "paid in time": (StepKind.WAIT, WaitsFor.SIGNAL, Policy(within_s=60)),
    "approval": (StepKind.WAIT, WaitsFor.CONFIRMATION, Policy(needs=WaitsFor.CONFIRMATION, within_s=60)),
    "approval or fail": (StepKind.WAIT, WaitsFor.CONFIRMATION, Policy(needs=WaitsFor.CONFIRMATION, within_s=60, on_timeout="fail")),
}  # fmt: skip
"""The calls of a program."""

_THERE = """
    SELECT coalesce(bool_or(r.ended_at IS NULL), false) AS open, coalesce(bool_or(r.status = 'failed'), false) AS failed,
           coalesce(bool_or(r.paused_at IS NOT NULL AND r.ended_at IS NULL), false) AS paused,
           coalesce(bool_or(s.status = 'running'), false) AS running,
           coalesce(bool_or(s.status = 'running' AND s.lease_until < clock_timestamp()), false) AS late,
           coalesce(bool_or(s.status = 'waiting' AND s.waits_for <> 'run'), false) AS asking,
           coalesce(bool_or(s.status = 'waiting' AND s.expires_at < clock_timestamp()), false) AS expired,
           coalesce(bool_or(s.status = 'ready'), false) AS ready, coalesce(bool_or(s.not_before IS NOT NULL), false) AS timer,
           coalesce(bool_or(r.ended_at IS NULL AND r.deadline_at < clock_timestamp()), false) AS overdue,
           coalesce(bool_or(r.parent_run_id IS NOT NULL), false) AS child,
           EXISTS (SELECT FROM agno.outbox) AS owed
    FROM agno.run r LEFT JOIN agno.step s ON s.run_id = r.id"""
picks = st.integers(0, 11)
some_calls = st.lists(st.sampled_from([*CALLS, CHILD, "pay_or_ask"]), min_size=1, max_size=3)
program_calls = st.lists(st.sampled_from([*PROGRAM_CALLS]), max_size=4)
fates = st.sampled_from(["sent", "sent", "sent", "not struck out", "lost", "not sent"])
"""The fate of messages: `lost` ones were deleted from the outbox; `not sent` ones stayed in it after a crash."""


@dataclass
class Carried:
    """A claim of a worker that may have lost it or died."""

    worker: str
    claim: ClaimedStep
    is_executed: bool = False
    progress: Progress | None = None
    """What a program saw when its turn was claimed."""


class Result(NamedTuple):
    run_id: str
    generation: int
    key: str


def if_any(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A precondition of rules that need such rows."""

    def of_it(road: RunMachine) -> bool:
        return road.there[what]

    return precondition(of_it)


class RunMachine(RuleBasedStateMachine):
    """The rules of the state machine, and counters for facts that the rows do not have."""

    def __init__(self, pool: CountingPool, streams: Streams) -> None:
        super().__init__()
        self.db = RunDatabase(pool)
        self.db.empty()
        self.journal = self.db.journal
        self.workers = Workers(pool)
        self.results = Results(pool)
        self.bulk = Batches(
            pool, self.journal.store, RunNumbers(inline_max_bytes=INLINE_MAX_BYTES, turn_attempts=3)
        )
        self.engine = _engine(self.db, streams)
        self.mail: list[StepMessage] = []
        """Messages on their way to workers."""
        self.carried: list[Carried] = []
        self.hopeless: list[ExhaustedStep] = []
        self.expired: list[ExpiredWait] = []
        self.asked: list[Requirement] = []
        """Lists that keepers and people have read; they may be stale."""
        self.runs: list[str] = []
        """All accepted runs, in order."""
        self.by_key: dict[str, str] = {}
        self.batches: list[str] = []
        self.there: dict[str, bool] = {}
        """The kinds of rows that exist, so that no rule runs without its rows."""
        self.recorded: Counter[Result] = Counter()
        self.replies: Counter[str] = Counter()
        self.executions: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        """Repeated executions of a `once` step that a hook or a person allowed."""

    # Somebody wants something.

    @initialize()
    def submit(self) -> None:
        self._submitted(self.journal.submit(user("hi"), agent="a", queue="agents"), "sent")

    @precondition(lambda self: len(self.runs) < FEW_RUNS)
    @rule(
        key=st.sampled_from([None, "k1", "k1"]),
        how=st.sampled_from(["plain", "timer", "canvas", "canvas", "deadline"]),
        fate=fates,
    )
    def submit_with(self, key: str | None, how: str, fate: str) -> None:
        ways: dict[str, dict[str, Any]] = {
            "plain": {},
            "timer": {"not_before": "2999-01-01"},
            "canvas": {"id": str(uuid7()), "canvas": {"link": [{"task": "t"}]}},
            "deadline": {"deadline_s": 60},
        }
        submitted = self.journal.submit(
            user("hi"), agent="a", queue="agents", idempotency_key=key, **ways[how]
        )
        assert submitted.created == (key is None or key not in self.by_key)
        if key is not None and how != "canvas":
            assert self.by_key.setdefault(key, submitted.run_id) == submitted.run_id
        elif key is not None:
            self.by_key.setdefault(key, submitted.run_id)
        self._submitted(submitted, fate)

    @precondition(lambda self: len(self.runs) < FEW_RUNS)
    @rule()
    def submit_program(self) -> None:
        self._submitted(self.journal.submit(user("hi"), agent=PROGRAM, queue="agents"), "sent")

    @precondition(lambda self: len(self.runs) < FEW_RUNS)
    @rule()
    def submit_by_sql(self) -> None:
        self._accept(self.db.value("SELECT agno.submit('a', 'hi', allow_unknown => true)"))

    @precondition(lambda self: len(self.runs) < FEW_RUNS)
    @rule(fate=fates, is_mixed=st.booleans())
    def submit_chord(self, fate: str, is_mixed: bool) -> None:
        """A chord with plain tasks is stored before it is counted."""
        chord = Chord(str(uuid7()), {"task": "body"}, None if is_mixed else 2)
        requests = [
            RunRequest(
                agent="a", input=user("hi"), queue="agents", allow_unknown=True, id=str(uuid7()),
                canvas=Canvas(chord=True, group_id=chord.id, group_index=place),
            )
            for place in range(2)
        ]  # fmt: skip
        for submitted in self.journal.submissions.submit_canvas(requests, [chord]):
            self._submitted(submitted, fate)
        if is_mixed:
            self.results.size_chord(chord.id, 2)

    @precondition(lambda self: len(self.runs) < FEW_RUNS)
    @rule(key=st.sampled_from([None, "k1"]))
    def submit_many(self, key: str | None) -> None:
        batch = str(uuid7())
        assert self.bulk.submit(
            batch, [Item(user("one")), Item(user("hi"), key)], Common("a", "agents", allow_unknown=True)
        )
        for run in self.bulk.runs(batch):
            self._accept(run.id)
            if run.idempotency_key:
                assert self.by_key.setdefault(run.idempotency_key, run.id) == run.id
        self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule(pick=picks)
    def cancel_batch(self, pick: int) -> None:
        self.bulk.cancel(_one(self.batches, pick))

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        run = self._run(pick)
        assert self.journal.cancel(run["id"]) == (run["ended_at"] is None)

    @if_any("open")
    @rule(pick=picks)
    def stop_without_the_children(self, pick: int) -> None:
        """A caller cancels a run, and dies before it cancels the children."""
        run = self._run(pick)
        stopped = self.journal._stop(
            run["id"], {"status": "cancelled", "reason": "cancelled", "error": ERROR}
        )
        assert stopped == (run["ended_at"] is None)

    @if_any("open")
    @rule(pick=picks)
    def pause(self, pick: int) -> None:
        run = self._run(pick)
        assert self.journal.pause(run["id"]) == (run["ended_at"] is None and run["paused_at"] is None)

    @if_any("paused")
    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        run = self._run(pick)
        family = {run["id"]}
        for row in self._rows("ended_at IS NULL"):  # a child comes after its parent
            if row["parent_run_id"] in family:
                family.add(row["id"])
        paused = [row["id"] for row in self._rows("paused_at IS NOT NULL AND ended_at IS NULL")]
        assert self.journal.resume(run["id"]) == bool(family.intersection(paused))

    @if_any("failed")
    @rule(pick=picks)
    def retry_run(self, pick: int) -> None:
        run = self._run(pick, "status = 'failed'")
        has_worked = any(
            step["kind"] == "turn" and step["run_id"] == run["id"] for step in self._steps("true")
        )  # else it stands for another run
        is_root = run["parent_run_id"] is None
        assert self.journal.retry_run(run["id"]) == (run["status"] == "failed" and has_worked and is_root)

    @precondition(lambda self: len(self.runs) < MAX_RUNS)
    @rule(pick=picks, is_edited=st.booleans(), key=st.sampled_from([None, None, "f1"]))
    def fork(self, pick: int, is_edited: bool, key: str | None) -> None:
        step = _one(self._steps("kind <> 'compact'"), pick)
        is_program = self.db.run(step["run_id"])["agent"] == PROGRAM
        is_edited = is_edited and not is_program
        edits: dict[str, Any] = {}
        if is_edited and step["kind"] == "turn":
            edits = {"asked": user("something else")}
        elif is_edited:
            edits = {"call": ToolCall(step["call"]["id"], step["name"], '{"edited": true}')}
            edits |= {"asked": user("do something else")} if step["kind"] == "delegate" else {}
        open_beside = [
            other["key"]
            for other in self._steps("ended_at IS NULL AND kind IN ('tool', 'delegate')")
            if other["run_id"] == step["run_id"] and other["id"] != step["id"] and step["kind"] != "turn"
            and not is_program and other["key"].split(":")[1] == step["key"].split(":")[1]
        ]  # fmt: skip
        try:
            run_id, created = self.journal.fork(step["id"], idempotency_key=key, **edits)
        except InvalidInput:
            assert open_beside or is_program
            return
        assert not open_beside or is_program
        its_key = f"{key} of {self.db.run(run_id)['agent']}"
        assert created == (key is None or its_key not in self.by_key)
        if key is not None:
            assert self.by_key.setdefault(its_key, run_id) == run_id
        self._accept(run_id)
        if created and step["kind"] == "delegate" and not is_program:
            (child,) = self.db.sql("SELECT * FROM agno.run WHERE parent_run_id = %(id)s", id=run_id)
            assert (child["agent"], child["depth"], child["status"]) == (CHILD, 1, "queued")
            self._accept(child["id"])

    @if_any("open")
    @rule(pick=picks, name=st.sampled_from(["paid", "paid", "other"]), key=st.sampled_from([None, "s1"]))
    def send_signal(self, pick: int, name: str, key: str | None) -> None:
        run = self._run(pick, "ended_at IS NULL")
        is_sent = key is not None and self.db.sql(
            "SELECT FROM agno.signal WHERE run_id = %(id)s AND name = %(name)s AND key = 's1'",
            id=run["id"],
            name=name,
        )
        if run["ended_at"] is not None and not is_sent:
            with pytest.raises(NotWaiting), self.db.unchanged():
                self.journal.signal(run["id"], name, 1, key)
        else:
            assert self.journal.signal(run["id"], name, 1, key) == (not is_sent)

    # Workers.

    @precondition(lambda self: self.mail)
    @rule(pick=picks, worker=st.sampled_from(WORKERS), is_doubled=st.booleans())
    def receive(self, pick: int, worker: str, is_doubled: bool) -> None:
        self._receive(pick, worker, is_doubled)

    def _receive(self, pick: int, worker: str, is_doubled: bool) -> Carried | None:
        send = _one(self.mail, pick)
        if not is_doubled:
            self.mail.remove(send)
        journal = self.db.journal_of(worker)
        claim = journal.claim(send.kind, send.run_id, send.step_id, send.generation)
        if claim is None:
            return None
        if claim.kind is not StepKind.TOOL and claim.agent != PROGRAM:
            first, since = ([0], claim.compacted.until_seq) if claim.compacted else ([], 0)
            assert [seq for seq, _ in claim.numbered] == [
                *first,
                *range(since, claim.seq + len(claim.steers)),
            ]
        carried = Carried(worker, claim)
        if claim.agent == PROGRAM and claim.kind is StepKind.TURN:
            carried.progress = journal.progress(claim)
        self.carried.append(carried)
        return carried

    @precondition(lambda self: self.mail)
    @rule(pick=picks, how=st.sampled_from(["run", "step", "generation", "kind"]))
    def receive_forged(self, pick: int, how: str) -> None:
        """A message with ids that do not belong together claims nothing."""
        true = _one(self.mail, pick)
        forged = {
            "run": replace(true, run_id=str(uuid7())),
            "step": replace(true, step_id=str(uuid7())),
            "generation": replace(true, generation=true.generation + 1),
            "kind": replace(true, kind=StepKind.TOOL if true.kind is StepKind.TURN else StepKind.TURN),
        }[how]
        take = self.journal.claim_turn if forged.kind is StepKind.TURN else self.journal.claim_tool
        if how == "run" and forged.kind is StepKind.TOOL:
            return
        with self.db.unchanged():
            assert take(forged.run_id, forged.step_id, forged.generation) is None

    @precondition(lambda self: self.mail)
    @rule(pick=picks, calls=some_calls, fate=fates, is_bad=st.booleans())
    def work(self, pick: int, calls: list[str], fate: str, is_bad: bool) -> None:
        """A worker executes a message and records the result."""
        self._work(pick, calls, fate, is_bad=is_bad)

    @precondition(lambda self: self.mail)
    @rule(calls=some_calls, times=st.integers(1, 4))
    def work_on(self, calls: list[str], times: int) -> None:
        for _ in range(times):
            if self.mail:
                self._work(-1, calls, "sent")

    @precondition(lambda self: self.mail)
    @rule(pick=picks, is_executed=st.booleans(), fate=fates)
    def work_and_die(self, pick: int, is_executed: bool, fate: str) -> None:
        """A worker dies with a claimed step, preferably a call, and the keeper notices."""
        self.mail.sort(key=lambda send: send.kind)
        carried = self._receive(pick % 3, "w2", is_doubled=False)
        if carried is not None:
            if is_executed and carried.claim.kind is StepKind.TOOL:
                self._execute(carried)
            self.db.expire(carried.claim.step_id)
            self.expire_leases(is_late=False, fate=fate)

    def _work(self, pick: int, calls: list[str], fate: str, *, is_bad: bool = False) -> None:
        carried = self._receive(pick, "w1", is_doubled=False)
        if carried is not None:
            self.carried.remove(carried)
            if carried.claim.kind is StepKind.TOOL:
                self._execute(carried)
                self._tool_ends(carried.claim, ToolOutcome("said", is_error=is_bad), fate)
            elif carried.claim.kind is StepKind.COMPACT:
                self._compaction_ends(carried.claim, fate, is_declined=is_bad)
            elif carried.progress is not None:
                names = [[*PROGRAM_CALLS][sum(map(ord, name)) % len(PROGRAM_CALLS)] for name in calls]
                self._program_goes_on(
                    carried, ["double", *names], fate, cancels=pick % 3, wake_after=1, ends=is_bad
                )
            elif is_bad:
                self._turn_ends(carried.claim, self.journal.fail, fate, ERROR, "refusal", said("no"), FEW)
            elif carried.claim.turns < 2 and len(self.runs) < MAX_RUNS:
                self._fan_out(carried.claim, calls, fate)
            else:
                self._turn_ends(carried.claim, self.journal.end, fate, said("ok"), FEW, "ok", "end")

    @precondition(lambda self: any(carried.progress for carried in self.carried))
    @rule(
        pick=picks, is_doubled=st.booleans(), calls=program_calls, cancels=st.integers(0, 3), wake_after=st.integers(1, 3),
        ends=st.sampled_from([False, False, False, True]), fate=fates,
    )  # fmt: skip
    def program_goes_on(
        self,
        pick: int,
        is_doubled: bool,
        calls: list[str],
        cancels: int,
        wake_after: int,
        ends: bool,
        fate: str,
    ) -> None:
        """A program makes calls, cancels open ones and is armed again, though other ends may have come since it read them."""
        carried = _one([each for each in self.carried if each.progress], pick)
        if not is_doubled:
            self.carried.remove(carried)
        self._program_goes_on(carried, calls, fate, cancels=cancels, wake_after=wake_after, ends=ends)

    @precondition(lambda self: any(carried.progress for carried in self.carried))
    @rule(pick=picks)
    def program_fails(self, pick: int) -> None:
        carried = _one([each for each in self.carried if each.progress], pick)
        self._turn_ends(carried.claim, self.journal.fail, "sent", ERROR, "error")

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks, is_doubled=st.booleans(), calls=some_calls, fate=fates)
    def fan_out(self, pick: int, is_doubled: bool, calls: list[str], fate: str) -> None:
        if len(self.runs) >= MAX_RUNS:
            calls = [name for name in calls if name != CHILD] or ["write"]
        self._fan_out(self._turn(pick, is_doubled), calls, fate)

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks, is_doubled=st.booleans(), how=st.sampled_from(["again", "misfit"]), fate=fates)
    def ask_again(self, pick: int, is_doubled: bool, how: str, fate: str) -> None:
        words = said("hm") if how == "again" else [*said("hm"), user("try again")]
        self._turn_ends(self._turn(pick, is_doubled), self.journal.next_turn, fate, words, FEW, "agents")

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks, is_doubled=st.booleans(), fate=fates)
    def end(self, pick: int, is_doubled: bool, fate: str) -> None:
        self._turn_ends(self._turn(pick, is_doubled), self.journal.end, fate, said("ok"), FEW, "ok", "end")

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks, is_doubled=st.booleans(), how=st.sampled_from(["silently", "with words", "dead"]))
    def fail(self, pick: int, is_doubled: bool, how: str) -> None:
        words = (said("no"), FEW) if how == "with words" else ()
        step_status = "dead" if how == "dead" else "done"
        turn = self._turn(pick, is_doubled)
        self._turn_ends(
            turn, self.journal.fail, "sent", ERROR, "model_rejected", *words, step_status=step_status
        )

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks, is_doubled=st.booleans(), fate=fates)
    def begin_compaction(self, pick: int, is_doubled: bool, fate: str) -> None:
        claim = self._turn(pick, is_doubled)
        step, run = self.db.step(claim.step_id), self.db.run(claim.run_id)
        is_held = step["status"] == "running" and step["attempt"] == claim.attempt and run["ended_at"] is None
        order = CompactionOrder((claim.call or {}).get("compactions", 0) + 1, window=100, keep=0)
        begun = self.journal.begin_compaction(claim, order, "agents")
        assert begun.recorded == is_held
        self._publish(begun.sends, fate)

    @precondition(lambda self: self._holds(StepKind.COMPACT))
    @rule(pick=picks, is_doubled=st.booleans(), is_declined=st.booleans(), fate=fates)
    def end_compaction(self, pick: int, is_doubled: bool, is_declined: bool, fate: str) -> None:
        claim = self._take(pick, StepKind.COMPACT, is_doubled).claim
        self._compaction_ends(claim, fate, is_declined=is_declined)

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks)
    def try_turn_later(self, pick: int) -> None:
        self.journal.retry_later(self._turn(pick, is_doubled=True), 60, ERROR)

    @if_any("ready")
    @rule(
        pick=picks, worker=st.sampled_from(WORKERS), knows_agent=st.booleans(), times=st.sampled_from([1, 12])
    )
    def step_does_not_begin(self, pick: int, worker: str, knows_agent: bool, times: int) -> None:
        """A worker gets its message, and does not know the agent, or raises before the step begins."""
        journal = self.db.journal_of(worker)
        for step in times * [*_at_most_one(self._steps("status = 'ready' AND not_before IS NULL"), pick)]:
            attempt = None
            if not knows_agent:
                ids = step["run_id"], step["id"], step["generation"]
                if (claim := journal.claim(StepKind(step["kind"]), *ids)) is None:
                    return
                attempt = claim.attempt
            error = ERROR | {"type": "ImportError" if knows_agent else "UnknownAgent"}
            if journal.return_step(step["id"], error, attempt) is None:
                return  # it was given up in an earlier time
            self.db.sql(
                "UPDATE agno.step SET not_before = NULL, sent_at = clock_timestamp() WHERE id = %(id)s AND status = 'ready'",
                id=step["id"],
            )

    @if_any("timer")
    @rule()
    def worker_with_the_agents_starts(self) -> None:
        known = {run["agent"] for run in self.db.sql("SELECT agent FROM agno.run")}
        Agents(self.db.pool).register(RegisteredAgent(name, "agents") for name in known)

    @precondition(lambda self: self._holds(StepKind.TURN))
    @rule(pick=picks)
    def set_deadline(self, pick: int) -> None:
        self.journal.set_deadline(self._turn(pick, is_doubled=True).run_id, 60)

    @precondition(lambda self: self._holds(StepKind.TOOL))
    @rule(
        pick=picks,
        is_doubled=st.booleans(),
        outcome=st.sampled_from(["ok", "ok", "raised", "again", "dies", "nobody knows"]),
        fate=fates,
    )
    def execute(self, pick: int, is_doubled: bool, outcome: str, fate: str) -> None:
        carried = self._take(pick, StepKind.TOOL, is_doubled)
        claim = carried.claim
        if outcome == "nobody knows" and claim.reconciling:
            self._publish(tool_calls.leave_unknown(self.engine, claim, "the hook does not know").sends, fate)
            return
        if outcome == "again" and not carried.is_executed:
            tool_calls.finish(self.engine, claim, None, ToolOutcome("in an hour", True, "again", 3600))
            return
        if not carried.is_executed:
            self._execute(carried)
        if outcome != "dies":
            self._tool_ends(claim, ToolOutcome("said", is_error=outcome == "raised"), fate)

    @precondition(lambda self: self.carried)
    @rule(worker=st.sampled_from(WORKERS), is_blocked=st.booleans())
    def renew(self, worker: str, is_blocked: bool) -> None:
        """Renew the leases; where the worker's threads are blocked, its guard does so first."""
        mine = {carried.claim.step_id for carried in self.carried if carried.worker == worker}
        if is_blocked:
            _, statement, params = self.db.journal_of(worker).renewal()
            self.db.pool.run(statement, params)
        lost = self.db.journal_of(worker).renew(sorted(mine))
        held = {
            step["id"]: step["lease_until"]
            for step in self._steps(f"status = 'running' AND worker = '{worker}'")
        }
        assert not lost & held.keys()
        assert all(held[step_id] > self.journal.now() for step_id in mine & held.keys())

    @precondition(lambda self: self.carried)
    @rule(pick=picks)
    def end_lease(self, pick: int) -> None:
        """A child process of a worker died, and the worker ends its lease."""
        carried = _one(self.carried, pick)
        self.db.journal_of(carried.worker).end_lease(carried.claim.step_id)

    @if_any("running")
    @rule(worker=st.sampled_from(WORKERS), fate=fates)
    def hand_over(self, worker: str, fate: str) -> None:
        self._publish(self.workers.hand_over(worker), fate)

    # Time goes by.

    @if_any("running")
    @rule(pick=picks)
    def lease_runs_out(self, pick: int) -> None:
        for step in _at_most_one(self._steps("status = 'running'"), pick):
            self.db.sql("UPDATE agno.step SET lease_until = '2000-01-01' WHERE id = %(id)s", id=step["id"])

    @if_any("asking")
    @rule(pick=picks)
    def wait_runs_out(self, pick: int) -> None:
        for step in _at_most_one(self._steps("status = 'waiting' AND expires_at IS NOT NULL"), pick):
            self.db.sql("UPDATE agno.step SET expires_at = '2000-01-01' WHERE id = %(id)s", id=step["id"])

    @if_any("timer")
    @rule()
    def timers_come(self) -> None:
        self.db.sql("UPDATE agno.step SET not_before = '2000-01-01' WHERE not_before IS NOT NULL")

    @if_any("open")
    @rule(pick=picks)
    def deadline_comes(self, pick: int) -> None:
        self.db.sql("UPDATE agno.run SET deadline_at = '2000-01-01' WHERE id = %(id)s", id=self._run(pick)["id"])  # fmt: skip

    @precondition(lambda self: self.mail)
    @rule(pick=picks)
    def redis_forgets(self, pick: int) -> None:
        if pick == 0:
            self.mail.clear()
        else:
            self.mail.remove(_one(self.mail, pick))

    # The keeper.

    @if_any("late")
    @rule(is_late=st.booleans(), fate=fates)
    def expire_leases(self, is_late: bool, fate: str) -> None:
        self._publish(self.journal.release_expired(100), fate)
        self.hopeless += self._in_order(self.journal.exhausted(100))
        if not is_late:
            self._fail_exhausted(fate)

    @precondition(lambda self: self.hopeless)
    @rule(fate=fates)
    def bury_late(self, fate: str) -> None:
        self._fail_exhausted(fate)

    @if_any("expired")
    @rule(is_late=st.booleans(), fate=fates)
    def expire_waits(self, is_late: bool, fate: str) -> None:
        self.expired += self._in_order(self.journal.expired_waits(100))
        if not is_late:
            self._expire(fate)

    @precondition(lambda self: self.expired)
    @rule(fate=fates)
    def expire_late(self, fate: str) -> None:
        self._expire(fate)

    @if_any("expired")
    @rule()
    def end_due_timers(self) -> None:
        self.journal.end_due_timers(100)
        assert not self._steps("waits_for = 'timer' AND expires_at < clock_timestamp() - interval '1 hour'")

    @if_any("overdue")
    @rule()
    def end_overdue(self) -> None:
        for run_id in self.journal.overdue_runs(100):
            is_open = (
                self.db.run(run_id)["ended_at"] is None
            )  # a run that stands for another one ends with it
            assert self.journal.end_overdue(run_id) == is_open
        assert not self.journal.overdue_runs(100)

    @if_any("child")
    @rule()
    def end_orphans(self) -> None:
        while orphans := self.journal.orphans(100):
            for run_id in orphans:
                self.journal.cancel(run_id)
        assert not self.db.sql("""
            SELECT c.id FROM agno.run c JOIN agno.step s ON s.id = c.parent_step_id
            WHERE c.ended_at IS NULL AND s.status <> 'waiting'""")

    @if_any("timer")
    @rule(fate=fates)
    def send_due(self, fate: str) -> None:
        self._publish(self.journal.take_due(100), fate)

    @if_any("owed")
    @rule(fate=fates)
    def publish_outbox(self, fate: str) -> None:
        self.db.sql("UPDATE agno.outbox SET due_at = '2000-01-01'")
        pending = self.journal.take(100, 0)
        self._publish([item for item in pending if isinstance(item, StepMessage)], fate)
        for item in pending:
            if isinstance(item, CanvasContinuation) and self.results.hold_continuation(item.outbox_id):
                self._go_on(item, fate)

    @if_any("ready")
    @rule(how=st.sampled_from(["lost", "overdue", "forgotten"]), fate=fates)
    def resend(self, how: str, fate: str) -> None:
        ago = "sent_at = sent_at - interval '1 hour', resend_at = resend_at - interval '1 hour'"
        self.db.sql(f"UPDATE agno.step SET {ago} WHERE status = 'ready'")
        match how:
            case "lost":
                self._publish(self.journal.take_lost(self.journal.sent_queues(), 3, 100), fate)
            case "overdue":
                self._publish(self.journal.take_overdue(self.journal.sent_queues(), 100), fate)
            case _:
                self._publish(next(self.journal.forgotten(self.journal.now(), 100), []), fate)

    # People.

    @precondition(lambda self: self.there["asking"] or self.asked)
    @rule(
        pick=picks,
        verdict=st.sampled_from(["yes", "yes", "no", "again"]),
        is_stale=st.booleans(),
    )
    def answer(self, pick: int, verdict: str, is_stale: bool) -> None:
        """A person answers a waiting call, from a list that may be stale."""
        waiting = self._in_order(self.db.queries.waiting())
        fresh = [Requirement(one, self.db.database) for one in waiting]
        for requirement in _at_most_one(self.asked if is_stale else fresh, pick):
            waits = self.db.step(requirement.id)["waits_for"] == requirement.needs
            try:
                self._say(requirement, verdict)
            except NotWaiting:
                assert not waits
            else:
                assert waits
        self.asked = (self.asked + fresh)[-6:]

    # What must be true.

    @invariant()
    def nothing_is_broken(self) -> None:
        assert not self._broken(invariants.ALWAYS)
        (self.there,) = self.db.sql(_THERE)

    @invariant()
    def what_happened_once_happened_once(self) -> None:
        assert not [result for result, times in self.recorded.items() if times > 1]
        for step_id, times in self.executions.items():
            assert times <= 1 + self.allowed[step_id]

    def teardown(self) -> None:
        self.calm()

    def calm(self) -> None:
        """Redis is empty and all workers are dead; from now on nothing fails, and every run must end."""
        self.mail.clear()
        self.carried.clear()
        for _ in range(40):
            for run in self._rows("paused_at IS NOT NULL AND ended_at IS NULL"):
                self.journal.resume(run["id"])
            self.db.sql("UPDATE agno.step SET lease_until = '2000-01-01' WHERE status = 'running'")
            self.timers_come()
            self.expire_leases(is_late=False, fate="sent")
            self.end_due_timers()
            self.expire_waits(is_late=False, fate="sent")
            self.end_overdue()
            self.end_orphans()
            self.send_due("sent")
            self.resend("lost", "sent")
            self.publish_outbox("sent")
            for waiting in self.db.queries.waiting():
                self._say(Requirement(waiting, self.db.database), "yes")
            for wait in self._steps("waits_for = 'signal'"):
                self.journal.signal(wait["run_id"], wait["name"])
            self.db.sql("UPDATE agno.step SET expires_at = '2000-01-01' WHERE waits_for = 'timer'")
            while self.mail:
                self._carry_on()
            self.nothing_is_broken()
            if not self._broken(invariants.AT_REST):
                break
        self.what_happened_once_happened_once()
        assert not self._broken({**invariants.ALWAYS, **invariants.AT_REST})
        assert {row["id"]: row["input_tokens"] for row in self._rows()} == {
            run_id: FEW.input_tokens * self.replies[run_id] for run_id in self.runs
        }

    def _carry_on(self) -> None:
        carried = self._receive(0, "w1", is_doubled=False)
        if carried is not None:
            self.carried.remove(carried)
            if carried.claim.kind is StepKind.TOOL:
                self._execute(carried)
                self._tool_ends(carried.claim, ToolOutcome("ok"), "sent")
            elif carried.claim.kind is StepKind.COMPACT:
                self._compaction_ends(carried.claim, "sent")
            elif carried.progress is not None:
                self._program_goes_on(carried, [], "sent", cancels=0, wake_after=1, ends=True)
            else:
                self._turn_ends(carried.claim, self.journal.end, "sent", said("ok"), FEW, "ok", "end")

    # How it is done.

    def _program_goes_on(
        self, carried: Carried, calls: Sequence[str], fate: str, *, cancels: int, wake_after: int, ends: bool
    ) -> None:
        claim, progress = carried.claim, claimed(carried.progress)
        opened = sorted(key for key, made in progress.calls.items() if made.outcome is None)
        cancel = opened[:cancels]
        if len(self.runs) >= MAX_RUNS:
            calls = [name for name in calls if name not in (CHILD, PROGRAM)]
        steps = [self._call_step(claim, name, place) for place, name in enumerate(calls)]
        waiting = len(opened) - len(cancel) + len(steps)
        if ends or waiting == 0:
            self._turn_ends(claim, self.journal.end, fate, said("ok"), None, "ok", "end", is_program=True)
            return
        recorded = self._turn_ends(
            claim, self.journal.make_calls, fate, record(claim, usage=None, is_program=True), steps, "agents", barrier_id=progress.barrier_id,
            wake_at=progress.arrived + len(cancel) + min(wake_after, waiting), cancel=cancel,
        )  # fmt: skip
        for send in recorded.children:
            self._accept(send.run_id)
        self._publish(recorded.children, fate)

    def _call_step(self, claim: ClaimedStep, name: str, place: int) -> CallStep:
        kind, waits_for, policy = PROGRAM_CALLS[name]
        called = "paid" if name == "paid in time" else name
        is_timer = waits_for is WaitsFor.TIMER
        told = {
            StepKind.DELEGATE: "run",
            StepKind.TOOL: "function",
            StepKind.WAIT: "approval" if waits_for is WaitsFor.CONFIRMATION else waits_for,
        }[kind]
        return CallStep(
            f"{name}-{claim.turns}-{place}", kind, "agents" if kind is StepKind.DELEGATE else "tools", called,
            {"id": "", "name": called, "kind": told},
            {StepKind.TOOL: Effect.ONCE if name == "pay" else Effect.IDEMPOTENT}.get(kind), 2, policy, waits_for,
            expires_at=self.journal.now() + timedelta(hours=1) if is_timer else None,
            child=ChildRun(name, "agents", user("do it")) if kind is StepKind.DELEGATE else None,
        )  # fmt: skip

    def _accept(self, run_id: str) -> None:
        if run_id not in self.runs:
            self.runs.append(run_id)

    def _submitted(self, submitted: Any, fate: str) -> None:
        self._accept(submitted.run_id)
        self._publish([submitted.send] if submitted.send else [], fate)

    def _publish(self, sends: Sequence[StepMessage], fate: str) -> None:
        if fate in ("sent", "not struck out"):
            self.mail += self._in_order(sends)
        if fate in ("sent", "lost"):
            self.journal.published([send.outbox_id for send in sends if send.outbox_id is not None])

    def _go_on(self, pending: CanvasContinuation, fate: str) -> None:
        if fate in ("sent", "lost"):
            self.journal.published([pending.outbox_id])
        else:
            self.results.release_continuation(pending.outbox_id)

    def _turn(self, pick: int, is_doubled: bool) -> ClaimedStep:
        return self._take(pick, StepKind.TURN, is_doubled).claim

    def _holds(self, kind: StepKind) -> bool:
        """Return True if a worker holds such a step, but for the turns of programs."""
        return any(carried.claim.kind is kind and carried.progress is None for carried in self.carried)

    def _take(self, pick: int, kind: StepKind, is_doubled: bool) -> Carried:
        carried: Carried = _one(
            [one for one in self.carried if one.claim.kind is kind and one.progress is None], pick
        )
        if not is_doubled:
            self.carried.remove(carried)
        return carried

    def _fan_out(self, claim: ClaimedStep, calls: Sequence[str], fate: str) -> None:
        steps = [_tool_step(f"call_{claim.turns}_{place}", name) for place, name in enumerate(calls)]
        message = Message("assistant", tuple(step.call for step in steps))
        recorded = self._turn_ends(claim, self.journal.fan_out, fate, message, FEW, steps, "agents")
        for send in recorded.children:
            self._accept(send.run_id)
        self._publish(recorded.children, fate)

    def _turn_ends(self, claim: ClaimedStep, move: Callable[..., CommitResult], fate: str, *result: Any, **more: Any) -> CommitResult:  # fmt: skip
        """The first result is recorded, and later ones are refused."""
        wanted = self._is_wanted(claim)
        recorded = move(claim, *result, **more)
        assert recorded.recorded == wanted
        if recorded.recorded:
            self.recorded[Result(claim.run_id, claim.generation, claim.key)] += 1
            self.replies[claim.run_id] += any(isinstance(value, Usage) for value in result)
            self._publish(recorded.sends, fate)
            if recorded.parent_run_id is not None:
                self._publish(self.journal.pending(recorded.parent_run_id), fate)
            if recorded.continues is not None:
                for pending in self.results.pending_continuations(*recorded.continues):
                    self._go_on(pending, fate)
        return recorded

    def _tool_ends(self, claim: ClaimedStep, outcome: ToolOutcome, fate: str) -> None:
        if claim.arrival is not None:
            outcome = replace(outcome, content=f'"{outcome.content}"')
        wanted = self._is_wanted(claim)
        recorded = tool_calls.finish(self.engine, claim, None, outcome)
        assert recorded.recorded == wanted
        self.recorded[Result(claim.run_id, claim.generation, claim.key)] += recorded.recorded
        self._publish(recorded.sends, fate)

    def _compaction_ends(self, claim: ClaimedStep, fate: str, *, is_declined: bool = False) -> None:
        since = claim.compacted.until_seq if claim.compacted else 1
        found = CompactionRecord(
            claim.seq, keeps_first=True, summary="so far", tokens_before=2, tokens_after=1
        )
        outcome = "it is too short" if is_declined or claim.seq <= since else found
        self._turn_ends(claim, self.journal.end_compaction, fate, outcome, FEW)

    def _is_wanted(self, claim: ClaimedStep) -> bool:
        run, step = self.db.run(claim.run_id), self.db.step(claim.step_id)
        is_open = step["status"] in ("ready", "running") or step["waits_for"] == "resolution"
        return is_open and run["ended_at"] is None and run["generation"] == claim.generation

    def _execute(self, carried: Carried) -> None:
        """A `once` tool after a crash calls its hook first, which knows the outcome."""
        claim = carried.claim
        if claim.reconciling and self.executions[claim.step_id]:
            return
        if claim.reconciling:
            self.allowed[claim.step_id] += 1
        if claim.effect is Effect.ONCE:
            self.executions[claim.step_id] += 1
        carried.is_executed = True

    def _fail_exhausted(self, fate: str) -> None:
        while self.hopeless:
            step = self.hopeless.pop(0)
            end = decline_exhausted if step.kind is StepKind.COMPACT else tool_calls.fail_exhausted
            self._publish(end(self.engine, step).sends, fate)

    def _expire(self, fate: str) -> None:
        while self.expired:
            self._publish(tool_calls.expire(self.engine, self.expired.pop(0)).sends, fate)

    def _say(self, requirement: Requirement, verdict: str) -> None:
        match requirement.needs:
            case WaitsFor.RESOLUTION:
                happened = bool(self.executions[requirement.id])
                requirement.resolve(happened, again=verdict == "again" and not happened)
                self.allowed[requirement.id] += not happened
            case _ if verdict == "no":
                requirement.reject("no")
            case WaitsFor.CONFIRMATION:
                requirement.approve()
            case WaitsFor.ANSWER:
                requirement.answer({"iban": "DE00"})
            case _:
                requirement.complete("done elsewhere")

    def _broken(self, statements: dict[str, str]) -> list[Row]:
        whole = " UNION ALL ".join(
            f"SELECT '{name.replace(chr(39), chr(39) * 2)}' AS what, to_jsonb(t) AS row FROM ({statement}\n) t"
            for name, statement in statements.items()
        )
        return self.db.sql(whole)

    def _rows(self, where: str = "true") -> list[Row]:
        rows = self.db.sql(f"SELECT * FROM agno.run WHERE {where}")
        return sorted(rows, key=lambda row: self.runs.index(row["id"]))

    def _run(self, pick: int, where: str = "true") -> Row:
        """Pick a run, preferably one of those."""
        run: Row = _one(self._rows(where) or self._rows(), pick)
        return run

    def _steps(self, where: str) -> list[Row]:
        rows = self.db.sql(f"SELECT * FROM agno.step WHERE {where}")
        return sorted(rows, key=lambda row: (self.runs.index(row["run_id"]), row["generation"], row["key"]))

    def _in_order(self, items: Sequence[InOrder]) -> list[InOrder]:
        """Sort rows by their creation, since SQL returns any order and Hypothesis needs the same one."""
        return sorted(items, key=lambda item: (self.runs.index(item.run_id), item.step_id))


def _tool_step(call_id: str, name: str) -> ToolStep:
    call = ToolCall(call_id, name)
    if name == CHILD:
        return ToolStep(call, "agents", Effect.PURE, 1, child=ChildRun(CHILD, "agents", user("do it")))
    how = CALLS[name]
    if isinstance(how, Effect):
        return ToolStep(call, "tools", how, 2)
    return ToolStep(call, "tools", Effect.ONCE, 2, how)


def _one(items: Sequence[Any], pick: int) -> Any:
    return items[pick % len(items)]


def _at_most_one(items: Sequence[Any], pick: int) -> Sequence[Any]:
    return [_one(items, pick)] if items else []


def _no_model(model: Any) -> Any:
    raise AssertionError(f"nobody asks {model}")


@pytest.fixture(scope="module")
def counting_pool(db_url: str) -> Iterator[CountingPool]:
    pool = CountingPool(db_url)
    yield pool
    pool.close()


@pytest.mark.slow
@pytest.mark.timeout(3600 if EXAMPLES else 300)
def test_invariants_hold_in_any_order_and_every_run_ends(
    counting_pool: CountingPool, servers: LocalServers
) -> None:
    """Ids and times differ each time, so no seed reaches every move each time: further seeds follow until all were made."""
    streams = Streams(redis.Redis.from_url(servers.redis_url), max_events=10, ttl_s=60)
    how = settings(
        max_examples=EXAMPLES or 45,
        stateful_step_count=60,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if "AGNO_SHORTEST" in os.environ else (Phase.generate,),
        report_multiple_bugs=False,
    )

    class ThisMachine(RunMachine):
        def __init__(self) -> None:
            super().__init__(counting_pool, streams)

    missing = list(invariants.MOVES)
    for number in range(1 if EXAMPLES else 20):
        if missing or number < 2:
            run_state_machine_as_test(ThisMachine if EXAMPLES else seed(number)(ThisMachine), settings=how)
            ran = counting_pool.ran.keys() | counting_pool.functions()
            missing = [name for name in invariants.MOVES if name not in ran]
    assert not missing


# Failures that the state machine found.


@pytest.mark.parametrize("kind", ["turn", "tool"])
def test_message_for_the_wrong_task_claims_nothing(db: RunDatabase, kind: str) -> None:
    """Otherwise a tool's step would call the model, and a `once` tool would be executed again after a crash."""
    turn = claimed(db.submit().send)
    (tool,) = db.fan_out("a", agent="b").sends
    with db.unchanged():
        if kind == "turn":
            assert db.journal.claim_turn(tool.run_id, tool.step_id, 0) is None
        else:
            assert db.journal.claim_tool(turn.run_id, turn.step_id, 0) is None


def test_confirmation_is_not_an_answer_to_a_resolution(db: RunDatabase) -> None:
    turn = db.turn()
    policy = Policy(needs=WaitsFor.CONFIRMATION, on_unknown="ask")
    (call,) = asking("pay").tool_calls
    db.journal.fan_out(turn, asking("pay"), FEW, [ToolStep(call, "tools", Effect.ONCE, 3, policy)], "agents")
    (waiting,) = db.queries.waiting()
    early, stale = (Requirement(waiting, db.database) for _ in range(2))
    early.approve()
    claim = claimed(db.journal.claim_tool(turn.run_id, waiting.step_id, 0))
    assert db.journal.ask_person(claim, ERROR)
    with pytest.raises(NotWaiting), db.unchanged():
        stale.reject("no")


def test_child_of_a_retried_parent_is_an_orphan(db: RunDatabase) -> None:
    parent, child = _delegation(db)
    db.journal._stop(parent.run_id, {"status": "failed", "reason": "nobody_answered", "error": ERROR})
    assert db.journal.retry_run(parent.run_id)
    assert db.journal.orphans(10) == [child.run_id]


def test_child_that_is_delegated_during_a_resume_continues(db: RunDatabase) -> None:
    """A pool that lets a running turn delegate just before the resume."""
    turn = db.turn()
    db.journal.pause(turn.run_id)

    class Between(Pool):
        def __init__(self) -> None:
            self.is_first = True

        @contextmanager
        def connection(self) -> Iterator[Connection]:
            if self.is_first:
                self.is_first = False
                db.journal.fan_out(turn, asking(CHILD), FEW, [_tool_step("call_0", CHILD)], "agents")
            with db.pool.connection() as connection:
                yield connection

    assert db.journal_of("", Between()).resume(turn.run_id)
    assert db.sql("SELECT agent FROM agno.run WHERE paused_at IS NOT NULL") == []


def test_deadline_of_a_retried_run_counts_from_the_retry(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.fail(turn, ERROR, "refusal", said("no"), FEW)
    db.sql("UPDATE agno.run SET created_at = created_at - interval '1 hour'")
    db.sql("UPDATE agno.step SET created_at = created_at - interval '1 hour'")
    db.journal.retry_run(turn.run_id)
    deadline_at = db.journal.set_deadline(turn.run_id, 60)
    assert deadline_at is not None
    assert deadline_at > db.journal.now()


def test_fork_can_be_forked_at_a_copied_call(db: RunDatabase) -> None:
    one, two = db.tools("a", "b")
    for tool in (one, two):
        tool_calls.finish(_engine(db), tool, None, ToolOutcome("ok"))
    fork, _ = db.journal.fork(one.step_id)
    (copied,) = [step.id for step in db.queries.steps(fork) if step.key == two.key]
    (mine,) = [step.id for step in db.queries.steps(fork) if step.key == one.key]
    tool_calls.finish(_engine(db), claimed(db.journal.claim_tool(fork, mine, 0)), None, ToolOutcome("ok"))
    again, _ = db.journal.fork(copied)
    (step,) = [step.id for step in db.queries.steps(again) if step.key == two.key]
    claim = claimed(db.journal.claim_tool(again, step, 0))
    (send,) = tool_calls.finish(_engine(db), claim, None, ToolOutcome("ok")).sends
    assert len(claimed(db.journal.claim_turn(again, send.step_id, 0)).messages) == 4


def _engine(db: RunDatabase, streams: Streams | None = None) -> Engine:
    return Engine(
        db.journal.store,
        Registry([]).get,
        streams or Streams(redis.Redis(), max_events=10, ttl_s=60),
        _no_model,
        "agents",
        "tools",
        ActiveSteps(db.journal.is_held),
    )


def _delegation(db: RunDatabase) -> tuple[ClaimedStep, StepMessage]:
    turn = db.turn()
    recorded = db.journal.fan_out(turn, asking(CHILD), FEW, [_tool_step("call_0", CHILD)], "agents")
    (child,) = recorded.children
    return turn, child
