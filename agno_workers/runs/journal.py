"""The transactions that move a run: submit, claim, finish_turn, finish_tool, renew, and what the keeper puts right.

Each method is one statement of `sql/`, so one round trip (stop and resume: two), and safe to repeat. What a transaction owes to
Celery comes back as `Send`s: the caller publishes them after the commit; if it dies before that, the keeper does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import psycopg
from msgspec.structs import replace
from uuid6 import uuid7

from agno_workers.core.messages import Message, ToolCall, Usage
from agno_workers.core.run import RunStatus, StepKind, StepStatus, WaitsFor
from agno_workers.core.tool import Effect, Policy
from agno_workers.database.pool import (
    Connection,
    Payloads,
    Pool,
    Row,
    execute,
    jsonb,
    retry_while_unavailable,
    statements,
)
from agno_workers.errors import InvalidInput, RunCancelled
from agno_workers.failpoints import reach

_SQL = {
    **statements("runs/journal"),
    **statements("runs/keeper"),
    "clock": statements("runs/queries")["clock"],
}
T = TypeVar("T")
_SCAN_ATTEMPTS = 12
"""Of the first step of an ingestion: nobody is to blame for it but the machine."""


class StepMessage(msgspec.Struct, frozen=True):
    """A message owed to Celery: a step that is ready. It carries ids only."""

    outbox_id: int | None
    run_id: str
    step_id: str
    generation: int
    kind: StepKind
    queue: str
    priority: int | None = None


class CanvasContinuation(msgspec.Struct, frozen=True):
    """Something owed to a user's canvas: what comes after an ended run, or the body of a chord."""

    outbox_id: int
    ended_run_id: str | None = None
    chord_id: str | None = None


class Submitted(msgspec.Struct, frozen=True):
    run_id: str
    created: bool
    """False: the id or the idempotency key was known, and this is the run that exists."""
    send: StepMessage | None


class TurnClaim(msgspec.Struct, frozen=True):
    """The right to carry one turn, and all that it needs."""

    step_id: str
    run_id: str
    generation: int
    key: str
    seq: int
    """Where in the transcript the reply goes."""
    attempt: int
    max_attempts: int
    tries: int
    agent: str
    transcript: tuple[Message, ...]
    created_at: datetime
    priority: int | None = None
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}
    canvas: dict[str, Any] | None = None
    turns: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    cost_usd: float = 0.0
    depth: int = 0
    deadline_at: datetime | None = None
    parent_run_id: str | None = None
    definition: str | None = None
    """The sha256 of what the agent was when the run began; None before its first turn is recorded."""


class ToolClaim(msgspec.Struct, frozen=True):
    """The right to carry one tool call."""

    step_id: str
    run_id: str
    generation: int
    key: str
    seq: int
    attempt: int
    max_attempts: int
    name: str
    effect: Effect
    call: ToolCall
    agent: str
    tries: int = 0
    policy: Policy = Policy()
    answer: dict[str, Any] | None = None
    """What a person said to it: `{"verdict", "by", "note", "values"}`."""
    reconciling: bool = False
    """The last attempt of a `once` tool was cut short: its hook comes first."""
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}


class ToolStep(msgspec.Struct, frozen=True):
    """One tool call to be written by `finish_turn`."""

    call: ToolCall
    queue: str
    effect: Effect
    max_attempts: int
    policy: Policy = Policy()
    child: Child | None = None
    """The run that a delegation starts; then no worker carries the step itself."""


class Child(msgspec.Struct, frozen=True):
    """A run that another one delegates to."""

    agent: str
    queue: str
    asked: Message


class Definition(msgspec.Struct, frozen=True):
    """What an agent was when a run began, as JSON, and the name by which it is kept."""

    sha256: str
    content: dict[str, Any]


class Carried(Protocol):
    """A step in the hands of a worker."""

    @property
    def step_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class ExhaustedStep(msgspec.Struct, frozen=True):
    """A step whose lease ran out and that will not be tried again."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    key: str
    name: str
    attempt: int
    worker: str
    seq: int
    effect: Effect | None = None
    call_id: str | None = None
    policy: Policy = Policy()


class ExpiredWait(msgspec.Struct, frozen=True):
    """A step that nobody answered in time."""

    step_id: str
    run_id: str
    generation: int
    kind: StepKind
    name: str
    seq: int
    waits_for: WaitsFor
    attempt: int
    """After which it began to wait: what is said of an earlier one comes too late."""
    call_id: str | None = None
    policy: Policy = Policy()


class CommitResult(msgspec.Struct, frozen=True):
    """What a finish did. `recorded` False: another result was first, or the run is over; this one was dropped."""

    recorded: bool
    sends: tuple[StepMessage, ...] = ()
    body: StepMessage | None = None
    """Of a fan-out: the turn that its last tool wakes; sent then, not now."""
    barrier_id: str | None = None
    children: tuple[StepMessage, ...] = ()
    """The first turns of the runs that a fan-out delegates to."""
    parent_run_id: str | None = None
    """Of the end of such a run: the run whose turn it may have woken, for `owed_sends`."""
    continues: tuple[str, str | None] | None = None
    """Of the end of a run that is part of a user's canvas: `(run_id, chord_id)`, for `Results.owed`."""


class Journal:
    """See the module. Raises Unavailable where Postgres can't be reached; then nothing, or all of it, happened."""

    def __init__(
        self,
        pool: Pool,
        *,
        inline_max_bytes: int,
        lease_s: float,
        publish_after_s: float,
        turn_attempts: int,
        worker: str = "",
    ) -> None:
        self._pool = pool
        self._inline_max_bytes = inline_max_bytes
        self._lease_s = lease_s
        self._publish_after_s = publish_after_s
        self._turn_attempts = turn_attempts
        self.worker = worker

    def submit(
        self, message: Message, *, agent: str, queue: str, ingestion: dict[str, Any] | None = None,
        connection: Connection | None = None, **options: Any,
    ) -> Submitted:  # fmt: skip
        """Put a run on the road. `options`: id, session_id, user_id, idempotency_key, metadata, canvas, priority,
        not_before, deadline_s, as `agno.submit_run` in functions.sql names them; None means not given. `ingestion`: the
        run is one, of the knowledge base that the agent names, and its first step a scan. `connection`: the caller's
        open transaction.
        """
        payloads = Payloads(self._inline_max_bytes)
        given = {key: value for key, value in options.items() if value is not None}
        run = given | {
            "agent": agent,
            "queue": queue,
            "input": payloads.pack(message),
            "max_attempts": self._turn_attempts if ingestion is None else _SCAN_ATTEMPTS,
            "publish_after_s": self._publish_after_s,
        }
        if ingestion is not None:
            run["ingestion"] = payloads.pack(ingestion)
        run["blobs"] = payloads.blobs.obj
        ask = self._pool.run if connection is None else partial(execute, connection)
        (row,) = ask(_SQL["submit"], {"run": jsonb(run)})
        send = None
        if row["due"]:
            send = StepMessage(
                row["outbox_id"],
                str(row["run_id"]),
                str(row["step_id"]),
                0,
                StepKind.TURN if ingestion is None else StepKind.SCAN,
                row["queue"],
                row["priority"],
            )
        return Submitted(str(row["run_id"]), row["created"], send)

    def wake_keeper(self) -> None:
        """Tell the keeper that the outbox has something, for a caller who does not publish by itself."""
        self._pool.run("SELECT pg_notify('agno_outbox', '')")

    def claim_turn(self, run_id: str, step_id: str, generation: int) -> TurnClaim | None:
        """Take a turn for `lease_s`; None: a duplicate, or over, or cancelled. Then there is nothing to do."""
        rows = self._pool.run(_SQL["claim_turn"], self._claim(run_id, step_id, generation))
        return _as(TurnClaim, rows[0]) if rows else None

    def claim_tool(self, run_id: str, step_id: str, generation: int) -> ToolClaim | None:
        """Take a tool call for `lease_s`; None as in `claim_turn`."""
        rows = self._pool.run(_SQL["claim_tool"], self._claim(run_id, step_id, generation))
        return _as(ToolClaim, rows[0]) if rows else None

    def fan_out(
        self, claim: TurnClaim, said: Message, usage: Usage, calls: Sequence[ToolStep], next_queue: str, *,
        cost_usd: float = 0.0, definition: Definition | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record a turn that asked for tools: a step each, and the barrier whose last part writes the next turn.

        The results' places in the transcript are given out here, in the order of the calls, so that they stay in
        that order whoever comes in first.
        """
        payloads = Payloads(self._inline_max_bytes)
        turn = claim.turns + 1
        barrier_id = str(uuid7())
        next_turn_id = str(uuid7())
        body = {
            "id": next_turn_id,
            "key": f"turn:{turn + 1}",
            "queue": next_queue,
            "priority": claim.priority,
            "seq": claim.seq + 1 + len(calls),
            "max_attempts": self._turn_attempts,
        }
        steps = [
            {
                "id": str(uuid7()),
                "key": f"tool:{turn}:{place}",
                "kind": StepKind.DELEGATE if step.child else StepKind.TOOL,
                "queue": step.queue,
                "name": step.call.name,
                "seq": claim.seq + 1 + place,
                "call": payloads.pack(step.call),
                "effect": step.effect,
                "barrier_id": barrier_id,
                "max_attempts": step.max_attempts,
                "policy": step.policy,
                "waits_for": WaitsFor.RUN if step.child else step.policy.needs,
                "child_run_id": str(uuid7()) if step.child else None,
            }
            for place, step in enumerate(calls)
        ]
        children = [
            self._child(claim, step.child, written, payloads)
            for step, written in zip(calls, steps, strict=True)
            if step.child
        ]
        barrier = [{"id": barrier_id, "size": len(steps), "body": body}]
        recorded = self._finish_turn(
            claim,
            payloads,
            [said],
            usage,
            run_status="waiting",
            steps=steps,
            barrier=barrier,
            children=children,
            tool_calls=len(calls),
            cost_usd=cost_usd,
            definition=definition,
        )
        woken = StepMessage(
            None, claim.run_id, next_turn_id, claim.generation, StepKind.TURN, next_queue, claim.priority
        )
        return replace(recorded, body=woken, barrier_id=barrier_id) if recorded.recorded else recorded

    def _child(
        self, claim: TurnClaim, child: Child, step: dict[str, Any], payloads: Payloads
    ) -> dict[str, Any]:
        """A run for `agno.submit_run`."""
        asked = {
            "id": step["child_run_id"], "agent": child.agent, "queue": child.queue, "input": payloads.pack(child.asked),
            "user_id": claim.user_id, "metadata": claim.metadata, "priority": claim.priority, "parent_run_id": claim.run_id,
            "parent_step_id": step["id"], "depth": claim.depth + 1, "deadline_at": utc(claim.deadline_at),
            "max_attempts": self._turn_attempts, "publish_after_s": self._publish_after_s,
        }  # fmt: skip
        return {key: value for key, value in asked.items() if value is not None}

    def ask_again(
        self, claim: TurnClaim, said: Sequence[Message], usage: Usage, next_queue: str, *,
        cost_usd: float = 0.0, definition: Definition | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record a turn that another turn follows right away."""
        step = {
            "id": str(uuid7()),
            "key": f"turn:{claim.turns + 2}",
            "kind": StepKind.TURN,
            "queue": next_queue,
            "seq": claim.seq + len(said),
            "max_attempts": self._turn_attempts,
        }
        return self._finish_turn(
            claim, Payloads(self._inline_max_bytes), said, usage, run_status="running", steps=[step], cost_usd=cost_usd,
            definition=definition,
        )  # fmt: skip

    def end(
        self, claim: TurnClaim, said: Sequence[Message], usage: Usage, content: Any, reason: str, *,
        cost_usd: float = 0.0, definition: Definition | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record the last turn and the run's answer."""
        payloads = Payloads(self._inline_max_bytes)
        return self._finish_turn(
            claim,
            payloads,
            said,
            usage,
            run_status="done",
            content=payloads.pack(content),
            reason=reason,
            ended=True,
            cost_usd=cost_usd,
            definition=definition,
        )

    def fail(
        self, turn: TurnClaim | ExhaustedStep, error: dict[str, Any], reason: str, said: Sequence[Message] = (),
        usage: Usage | None = None, step_status: str = "done", *, cost_usd: float = 0.0, definition: Definition | None = None,
    ) -> CommitResult:  # fmt: skip
        """End the run `failed`, with what its last turn said, if anything."""
        return self._finish_turn(
            turn, Payloads(self._inline_max_bytes), said, usage, run_status="failed", error=error, run_error=error, reason=reason,
            ended=True, step_status=step_status, cost_usd=cost_usd, definition=definition,
        )  # fmt: skip

    def _finish_turn(
        self, claim: TurnClaim | ExhaustedStep, payloads: Payloads, said: Sequence[Message], usage: Usage | None, *, run_status: str,
        step_status: str = "done", steps: Sequence[dict[str, Any]] = (), barrier: Sequence[dict[str, Any]] = (), tool_calls: int = 0,
        content: Any = None, reason: str | None = None, error: Any = None, run_error: Any = None, ended: bool = False,
        children: Sequence[dict[str, Any]] = (), cost_usd: float = 0.0, definition: Definition | None = None,
    ) -> CommitResult:  # fmt: skip
        messages = [
            {"seq": claim.seq + place, "content": payloads.pack(message)}
            for place, message in enumerate(said)
        ]
        used = msgspec.structs.asdict(usage or Usage())
        (row,) = self._patiently(
            _SQL["finish_turn"],
            {
                "run_id": claim.run_id, "step_id": claim.step_id, "generation": claim.generation, "step_status": step_status,
                "run_status": run_status, "messages": jsonb(messages), "steps": jsonb(list(steps)), "barrier": jsonb(list(barrier)),
                "content": jsonb(content), "reason": reason, "error": jsonb(error), "run_error": jsonb(run_error), "ended": ended,
                "blobs": payloads.blobs, "publish_after_s": self._publish_after_s, "turns": 1 if usage else 0,
                "tool_calls": tool_calls, "children": jsonb(list(children)), "cost_usd": cost_usd, "definition": jsonb(definition),
                "late_only": isinstance(claim, ExhaustedStep), **used,
            },
        )  # fmt: skip
        if not row["recorded"]:
            return CommitResult(False)
        canvas = claim.canvas if ended and isinstance(claim, TurnClaim) else None
        priority = claim.priority if isinstance(claim, TurnClaim) else None
        sends = tuple(
            StepMessage(
                outbox_id, claim.run_id, step["id"], claim.generation, step["kind"], step["queue"], priority
            )
            for outbox_id, step in zip(row["outbox_ids"], filter(_is_ready, steps), strict=True)
        )
        return CommitResult(
            True,
            sends,
            children=tuple(
                _as(StepMessage, child | {"generation": 0, "kind": StepKind.TURN})
                for child in row["children"]
            ),
            parent_run_id=claim.parent_run_id if ended and isinstance(claim, TurnClaim) else None,
            continues=(claim.run_id, canvas.get("group_id")) if canvas else None,
        )

    def finish_tool(
        self, claim: ToolClaim | ExhaustedStep | ExpiredWait, result: Message, error: dict[str, Any] | None = None,
        step_status: str = "done", connection: Any = None, answer: dict[str, Any] | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record what a tool gave, and close its part of the barrier. `connection`: the open transaction of a
        `transactional` tool, whose writes commit with this. Of a step that waited (Expired): what a person, or the lack
        of one, made of it; `answer` is kept with it.
        """
        waited = isinstance(claim, ExpiredWait)
        payloads = Payloads(self._inline_max_bytes)
        params = {
            "run_id": claim.run_id, "step_id": claim.step_id, "generation": claim.generation, "step_status": step_status,
            "message": jsonb(payloads.pack(result)), "error": jsonb(error), "blobs": payloads.blobs,
            "publish_after_s": self._publish_after_s, "answer": jsonb(answer), "late_only": isinstance(claim, ExhaustedStep),
            "from_statuses": [] if waited else [StepStatus.READY, StepStatus.RUNNING],
            "asked_after": claim.attempt if isinstance(claim, ExpiredWait) else None,
            "from_waits": [claim.waits_for if isinstance(claim, ExpiredWait) else WaitsFor.RESOLUTION],
        }  # fmt: skip
        run = self._patiently if connection is None else partial(execute, connection)
        (row,) = run(_SQL["finish_tool"], params)
        sends = (_as(StepMessage, row | {"kind": StepKind.TURN}),) if row["step_id"] else ()
        return CommitResult(row["recorded"], sends)

    def renew(self, step_ids: Sequence[str]) -> set[str]:
        """Hold on to the steps that this worker carries; gives back those that it has lost."""
        rows = self._pool.run(
            _SQL["renew"], {"step_ids": list(step_ids), "worker": self.worker, "lease_s": self._lease_s}
        )
        return {row["id"] for row in rows}

    def retry(self, claim: Carried, delay_s: float, error: dict[str, Any]) -> None:
        """Give a step back, to be tried again in `delay_s`; the keeper sends it then."""
        self._pool.run(
            _SQL["retry"],
            {"step_id": claim.step_id, "attempt": claim.attempt, "delay_s": delay_s, "error": jsonb(error)},
        )

    def give_up(self, step_id: str) -> None:
        """Say that the process of this worker that carried a step is dead, so that nobody waits for its lease."""
        self._pool.run(_SQL["give_up"], {"step_id": step_id, "worker": self.worker})

    def is_held(self, step_id: str) -> bool:
        """Whether this worker still carries a step."""
        return bool(self._pool.run(_SQL["is_held"], {"step_id": step_id, "worker": self.worker}))

    def cancel(self, run_id: str) -> bool:
        """End a run as cancelled, and the runs that it delegated to; False when it has ended already."""
        stopped = self._stop(run_id, RunStatus.CANCELLED, "cancelled", _cancelled(run_id))
        reach("cancel.recorded")
        for child_id in self.open_children(run_id) if stopped else ():
            self.cancel(child_id)  # whoever dies before this leaves them to the keeper
        return stopped

    def cancel_all(self, run_ids: Sequence[str]) -> int:
        """As `cancel`, for some at a time; how many of them it ended. In the order of their ids, so that two who do can't
        deadlock.
        """
        stops = [
            _stopping(run_id, RunStatus.CANCELLED, "cancelled", _cancelled(run_id))
            for run_id in sorted(set(run_ids))
        ]
        with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(_SQL["hold_run"], stops)
            cursor.executemany(_SQL["stop"], stops, returning=True)
            stopped = len(cursor.fetchall())
            while cursor.nextset():
                stopped += len(cursor.fetchall())
        reach("cancel.recorded")
        if children := self._pool.run(_SQL["open_children_of"], {"run_ids": list(run_ids)}):
            self.cancel_all(
                [row["id"] for row in children]
            )  # whoever dies before this leaves them to the keeper
        return stopped

    def end_overdue(self, run_id: str) -> bool:
        """End a run whose deadline has come, with the last that it said; `failed` where it has said nothing at all."""
        text = f"the deadline of run {run_id} came before its first turn was over"
        error = {"type": "RunFailed", "message": text, "ids": {"run_id": run_id, "reason": "limit:deadline"}}
        return self._stop(run_id, RunStatus.DONE, "limit:deadline", error, overdue_only=True)

    def fail_unanswered(self, step: ExpiredWait, error: dict[str, Any]) -> bool:
        """End a run `failed` because nobody answered this step; False when somebody did meanwhile."""
        return self._stop(step.run_id, RunStatus.FAILED, "nobody_answered", error, if_waits=step.step_id)

    def _stop(
        self, run_id: str, status: RunStatus, reason: str, error: dict[str, Any] | None, *, overdue_only: bool = False,
        if_waits: str | None = None,
    ) -> bool:  # fmt: skip
        params = _stopping(run_id, status, reason, error, overdue_only=overdue_only, if_waits=if_waits)
        with self._pool.connection() as connection, connection.transaction():
            execute(connection, _SQL["hold_run"], {"run_id": run_id})
            return bool(execute(connection, _SQL["stop"], params))

    def open_children(self, run_id: str) -> list[str]:
        """The runs that a run has delegated to and that have not ended."""
        return [row["id"] for row in self._pool.run(_SQL["open_children"], {"run_id": run_id})]

    def pause(self, run_id: str) -> bool:
        """Let no further step of a run, and of the runs that it delegated to, begin; False when it has ended or is paused."""
        paused = bool(self._pool.run(_SQL["pause"], {"run_id": run_id}))
        for child_id in self.open_children(run_id):
            self.pause(child_id)
        return paused

    def resume(self, run_id: str) -> bool:
        """Let a paused run, and those that it delegated to, go on; False when none of them is paused."""
        with self._pool.connection() as connection, connection.transaction():
            execute(connection, _SQL["hold_run"], {"run_id": run_id})
            resumed = bool(execute(connection, _SQL["resume"], {"run_id": run_id}))
        for child_id in self.open_children(
            run_id
        ):  # looked for last: a turn under way delegates as its run stands
            resumed = self.resume(child_id) or resumed
        return resumed

    def answer(
        self, step_id: str, waits_for: Sequence[WaitsFor], answer: dict[str, Any], attempt: int | None = None
    ) -> bool:
        """Let a waiting step be carried, with what a person said; False when it does not wait for that, or (given an
        `attempt`) was cut short once more since the person was asked.
        """
        params = {
            "step_id": step_id, "waits_for": list(waits_for), "answer": jsonb(answer), "asked_after": attempt,
        }  # fmt: skip
        return bool(self._pool.run(_SQL["answer"], params))

    def ask_person(self, step: ToolClaim | ExhaustedStep, error: dict[str, Any]) -> bool:
        """Leave it to a person to find out whether a `once` tool took effect."""
        params = {
            "step_id": step.step_id, "attempt": step.attempt, "late_only": isinstance(step, ExhaustedStep), "error": jsonb(error),
        }  # fmt: skip
        return bool(self._pool.run(_SQL["ask_person"], params))

    def redrive(self, run_id: str) -> bool:
        """Send a failed run again, from its last good turn; False when it has not failed."""
        return bool(self._pool.run(_SQL["redrive"], {"run_id": run_id}))

    def fork(
        self, step_id: str, *, asked: Message | None = None, messages: Sequence[tuple[int, Message]] = (),
        call: ToolCall | None = None, **options: Any,
    ) -> tuple[str, bool]:  # fmt: skip
        """A new run from a step of another one; its id, and whether it is new. `asked` takes the place of the first message
        (of a later turn: comes before it; of a delegation: that of the run that is asked), `messages` those of that number,
        `call` that of the tool step. `options`: idempotency_key, metadata, deadline_s.
        """
        payloads = Payloads(self._inline_max_bytes)
        given = {
            "id": str(uuid7()),
            "step_id": step_id,
            "input": None if asked is None else payloads.pack(asked),
            "messages": [{"seq": seq, "content": payloads.pack(message)} for seq, message in messages],
            "call": None if call is None else payloads.pack(call),
            **options,
        }
        fork = {key: value for key, value in given.items() if value is not None} | {
            "blobs": payloads.blobs.obj
        }
        try:
            (row,) = self._pool.run(_SQL["fork"], {"fork": jsonb(fork)})
        except psycopg.errors.InvalidParameterValue as error:
            raise InvalidInput(str(error.diag.message_primary), step_id=step_id) from error
        return row["run_id"], row["created"]

    def set_deadline(self, run_id: str, deadline_s: float) -> datetime | None:
        """Give a run the deadline of its agent, from when it was due; None when its submit gave it one."""
        rows = self._pool.run(_SQL["set_deadline"], {"run_id": run_id, "deadline_s": deadline_s})
        return rows[0]["deadline_at"] if rows else None

    def definition(self, sha256: str) -> dict[str, Any]:
        """What an agent was when a run began."""
        (row,) = self._pool.run(_SQL["definition"], {"sha256": sha256})
        content: dict[str, Any] = row["content"]
        return content

    def owed_sends(self, run_id: str) -> list[StepMessage]:
        """Steps of a run that are owed to Celery and not sent yet."""
        return [_as(StepMessage, row) for row in self._pool.run(_SQL["owed_sends"], {"run_id": run_id})]

    def published(self, outbox_ids: Sequence[int]) -> None:
        """Strike out messages that were sent."""
        if not outbox_ids:
            return
        self._pool.run(_SQL["published"], {"outbox_ids": list(outbox_ids)})

    def history(self, claim: TurnClaim, runs: int) -> tuple[Message, ...]:
        """What was said in the last `runs` finished runs of the same agent in the claim's session, oldest first."""
        rows = self._pool.run(
            _SQL["history"],
            {"session_id": claim.session_id, "agent": claim.agent, "before": claim.created_at, "runs": runs},
        )
        return tuple(msgspec.convert(row["content"], Message) for row in rows)

    # What the keeper puts right; see sql/keeper.sql.

    def lead(self, lease_s: float) -> int | None:
        """Become or stay the keeper that does the rounds; their number, None where another keeper does them."""
        rows = self._pool.run(_SQL["lead"], {"worker": self.worker, "lease_s": lease_s})
        return rows[0]["beat"] if rows else None

    def abdicate(self) -> None:
        """Be keeper no longer, so that another worker's is at once."""
        self._pool.run(_SQL["abdicate"], {"worker": self.worker})

    def take_outbox(self, limit: int, again_s: float) -> list[StepMessage | CanvasContinuation]:
        """Rule 2: messages left behind. Those of steps that are no longer ready are struck out here."""
        rows = self._pool.run(_SQL["take_outbox"], {"limit": limit, "again_s": again_s})
        stale = [
            row["outbox_id"]
            for row in rows
            if row["wanted"] is not True and not (row["ended_run_id"] or row["chord_id"])
        ]
        if stale:
            self.published(stale)
        return [_owed(row) for row in rows if row["outbox_id"] not in stale]

    def release_expired(self, limit: int) -> list[StepMessage]:
        """Rule 3: leases that ran out, where another attempt is allowed."""
        rows = self._pool.run(_SQL["release_expired"], {"limit": limit, "again_s": self._publish_after_s})
        return [_as(StepMessage, row) for row in rows]

    def hopeless(self, limit: int) -> list[ExhaustedStep]:
        """Rule 3: leases that ran out, where none is."""
        return [_as(ExhaustedStep, row) for row in self._pool.run(_SQL["hopeless"], {"limit": limit})]

    def silent_queues(self, resend_after_s: float) -> list[str]:
        """Rule 4: queues whose sent steps nobody claimed for `resend_after_s`."""
        return [
            row["queue"] for row in self._pool.run(_SQL["silent_queues"], {"resend_after_s": resend_after_s})
        ]

    def take_lost(self, queues: Sequence[str] | None, resend_after_s: float, limit: int) -> list[StepMessage]:
        """Rule 4: steps of these queues (None: of all) that nobody claimed for `resend_after_s`."""
        named = None if queues is None else list(queues)
        return self._take_lost(queues=named, resend_after_s=resend_after_s, limit=limit, sent_before=None)

    def take_forgotten(self, sent_before: datetime, limit: int) -> list[StepMessage]:
        """Rule 1: steps of all queues whose message was sent before that time."""
        return self._take_lost(queues=None, resend_after_s=0, limit=limit, sent_before=sent_before)

    def _take_lost(self, **params: Any) -> list[StepMessage]:
        return [
            _as(StepMessage, row | {"outbox_id": None}) for row in self._pool.run(_SQL["take_lost"], params)
        ]

    def now(self) -> datetime:
        """The database's clock, by which everything here is timed."""
        when: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        return when

    def take_overdue(self, patience_s: float, limit: int) -> list[StepMessage]:
        """Rule 4: steps that have waited for long, whatever their queue holds."""
        rows = self._pool.run(_SQL["take_overdue"], {"patience_s": patience_s, "limit": limit})
        return [_as(StepMessage, row | {"outbox_id": None}) for row in rows]

    def take_due(self, limit: int) -> list[StepMessage]:
        """Rule 5: steps whose timer has come."""
        rows = self._pool.run(_SQL["take_due"], {"limit": limit, "again_s": self._publish_after_s})
        return [_as(StepMessage, row) for row in rows]

    def expired_waits(self, limit: int) -> list[ExpiredWait]:
        """Rule 5: steps that nobody answered in time."""
        return [_as(ExpiredWait, row) for row in self._pool.run(_SQL["expired_waits"], {"limit": limit})]

    def overdue_runs(self, limit: int) -> list[str]:
        """Rule 5: runs whose deadline has come."""
        return [row["id"] for row in self._pool.run(_SQL["overdue_runs"], {"limit": limit})]

    def orphans(self, limit: int) -> list[str]:
        """Open runs whose parent is over."""
        return [row["id"] for row in self._pool.run(_SQL["orphans"], {"limit": limit})]

    def epoch(self) -> str:
        """The value that Redis must repeat as long as it remembers."""
        return str(self._pool.run(_SQL["epoch"], {"fresh": str(uuid7())})[0]["value"])

    def new_epoch(self) -> str:
        """Another value, that Redis can't know: this database has gone back in time."""
        return str(self._pool.run(_SQL["new_epoch"], {"fresh": str(uuid7())})[0]["value"])

    def _patiently(self, statement: str, params: dict[str, Any]) -> list[Row]:
        return retry_while_unavailable(self._pool.run, statement, params)

    def _claim(self, run_id: str, step_id: str, generation: int) -> dict[str, Any]:
        return {
            "run_id": run_id, "step_id": step_id, "generation": generation, "worker": self.worker, "lease_s": self._lease_s,
        }  # fmt: skip


def utc(when: datetime | None) -> str | None:
    """A time for SQL, aware and in UTC; naive ones are taken as UTC, as Celery does."""
    if when is None:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _is_ready(step: dict[str, Any]) -> bool:
    return step.get("waits_for") is None


def _stopping(
    run_id: str, status: RunStatus, reason: str, error: dict[str, Any] | None, *, overdue_only: bool = False,
    if_waits: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "run_id": run_id, "status": status, "reason": reason, "error": jsonb(error), "overdue_only": overdue_only,
        "if_waits": if_waits,
    }  # fmt: skip


def _cancelled(run_id: str) -> dict[str, Any]:
    return RunCancelled(f"run {run_id} was cancelled", run_id=run_id).to_json()


def _owed(row: Row) -> StepMessage | CanvasContinuation:
    return _as(CanvasContinuation, row) if row["ended_run_id"] or row["chord_id"] else _as(StepMessage, row)


def _as(kind: type[T], row: Row) -> T:
    return msgspec.convert(row, kind)
