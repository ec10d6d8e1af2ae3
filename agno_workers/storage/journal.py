"""The transactions that move a run: submit, claim, finish_turn, finish_tool, renew, and what the keeper puts right.

Each method is one statement of `sql/`, so one round trip (cancel: two), and safe to repeat. What a transaction owes to
Celery comes back as `Send`s: the caller publishes them after the commit; if it dies before that, the keeper does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from uuid6 import uuid7

from agno_workers.core.messages import Message, ToolCall, Usage
from agno_workers.core.run import StepKind
from agno_workers.core.tool import Effect
from agno_workers.storage.pool import Payloads, Pool, Row, execute, jsonb, patiently, statements

_SQL = {**statements("journal"), **statements("keeper"), "clock": statements("look")["clock"]}
T = TypeVar("T")


class Send(msgspec.Struct, frozen=True):
    """A message owed to Celery: a step that is ready. It carries ids only."""

    outbox_id: int | None
    run_id: str
    step_id: str
    generation: int
    kind: StepKind
    queue: str
    priority: int | None = None


class Continue(msgspec.Struct, frozen=True):
    """Something owed to a user's canvas: what comes after an ended run, or the body of a chord."""

    outbox_id: int
    ended_run_id: str | None = None
    chord_id: str | None = None


class Submitted(msgspec.Struct, frozen=True):
    run_id: str
    created: bool
    """False: the id or the idempotency key was known, and this is the run that exists."""
    send: Send | None


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
    session_id: str | None = None
    user_id: str | None = None
    metadata: dict[str, Any] = {}


class ToolStep(msgspec.Struct, frozen=True):
    """One tool call to be written by `finish_turn`."""

    call: ToolCall
    queue: str
    effect: Effect
    max_attempts: int


class Hopeless(msgspec.Struct, frozen=True):
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


class Recorded(msgspec.Struct, frozen=True):
    """What a finish did. `recorded` False: another result was first, or the run is over; this one was dropped."""

    recorded: bool
    sends: tuple[Send, ...] = ()
    body: Send | None = None
    """Of a fan-out: the turn that its last tool wakes; sent then, not now."""
    barrier_id: str | None = None
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

    def submit(self, message: Message, *, agent: str, queue: str, **options: Any) -> Submitted:
        """Put a run on the road. `options`: id, session_id, user_id, idempotency_key, metadata, canvas, priority,
        not_before, parent_run_id, as `agno.submit_run` in functions.sql names them; None means not given.
        """
        payloads = Payloads(self._inline_max_bytes)
        given = {key: value for key, value in options.items() if value is not None}
        run = given | {
            "agent": agent,
            "queue": queue,
            "input": payloads.pack(message),
            "max_attempts": self._turn_attempts,
            "publish_after_s": self._publish_after_s,
        }
        run["blobs"] = payloads.blobs.obj
        (row,) = self._pool.run(_SQL["submit"], {"run": jsonb(run)})
        send = None
        if row["due"]:
            send = Send(
                row["outbox_id"],
                str(row["run_id"]),
                str(row["step_id"]),
                0,
                StepKind.TURN,
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
        self, claim: TurnClaim, said: Message, usage: Usage, calls: Sequence[ToolStep], next_queue: str
    ) -> Recorded:
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
                "kind": StepKind.TOOL,
                "queue": step.queue,
                "name": step.call.name,
                "seq": claim.seq + 1 + place,
                "call": payloads.pack(step.call),
                "effect": step.effect,
                "barrier_id": barrier_id,
                "max_attempts": step.max_attempts,
            }
            for place, step in enumerate(calls)
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
            tool_calls=len(calls),
        )
        woken = Send(
            None, claim.run_id, next_turn_id, claim.generation, StepKind.TURN, next_queue, claim.priority
        )
        return replace(recorded, body=woken, barrier_id=barrier_id) if recorded.recorded else recorded

    def ask_again(self, claim: TurnClaim, said: Sequence[Message], usage: Usage, next_queue: str) -> Recorded:
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
            claim, Payloads(self._inline_max_bytes), said, usage, run_status="running", steps=[step]
        )

    def end(
        self, claim: TurnClaim, said: Sequence[Message], usage: Usage, content: Any, reason: str
    ) -> Recorded:
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
        )

    def fail(
        self,
        turn: TurnClaim | Hopeless,
        error: dict[str, Any],
        reason: str,
        said: Sequence[Message] = (),
        usage: Usage | None = None,
        step_status: str = "done",
    ) -> Recorded:
        """End the run `failed`, with what its last turn said, if anything."""
        return self._finish_turn(
            turn, Payloads(self._inline_max_bytes), said, usage, run_status="failed", error=error, run_error=error, reason=reason,
            ended=True, step_status=step_status,
        )  # fmt: skip

    def _finish_turn(
        self, claim: TurnClaim | Hopeless, payloads: Payloads, said: Sequence[Message], usage: Usage | None, *, run_status: str,
        step_status: str = "done", steps: Sequence[dict[str, Any]] = (), barrier: Sequence[dict[str, Any]] = (), tool_calls: int = 0,
        content: Any = None, reason: str | None = None, error: Any = None, run_error: Any = None, ended: bool = False,
    ) -> Recorded:  # fmt: skip
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
                "tool_calls": tool_calls, **used,
            },
        )  # fmt: skip
        if not row["recorded"]:
            return Recorded(False)
        canvas = claim.canvas if ended and isinstance(claim, TurnClaim) else None
        priority = claim.priority if isinstance(claim, TurnClaim) else None
        sends = tuple(
            Send(outbox_id, claim.run_id, step["id"], claim.generation, step["kind"], step["queue"], priority)
            for outbox_id, step in zip(row["outbox_ids"], steps, strict=True)
        )
        return Recorded(True, sends, continues=(claim.run_id, canvas.get("group_id")) if canvas else None)

    def finish_tool(
        self, claim: ToolClaim | Hopeless, result: Message, error: dict[str, Any] | None = None, step_status: str = "done",
        connection: Any = None,
    ) -> Recorded:  # fmt: skip
        """Record what a tool gave, and close its part of the barrier. `connection`: the open transaction of a
        `transactional` tool, whose writes commit with this.
        """
        payloads = Payloads(self._inline_max_bytes)
        params = {
            "run_id": claim.run_id, "step_id": claim.step_id, "generation": claim.generation, "step_status": step_status,
            "message": jsonb(payloads.pack(result)), "error": jsonb(error), "blobs": payloads.blobs,
            "publish_after_s": self._publish_after_s,
        }  # fmt: skip
        run = self._patiently if connection is None else partial(execute, connection)
        (row,) = run(_SQL["finish_tool"], params)
        sends = (_as(Send, row | {"kind": StepKind.TURN}),) if row["step_id"] else ()
        return Recorded(row["recorded"], sends)

    def renew(self, step_ids: Sequence[str]) -> set[str]:
        """Hold on to the steps that this worker carries; gives back those that it has lost."""
        rows = self._pool.run(
            _SQL["renew"], {"step_ids": list(step_ids), "worker": self.worker, "lease_s": self._lease_s}
        )
        return {row["id"] for row in rows}

    def retry(self, claim: TurnClaim | ToolClaim, delay_s: float, error: dict[str, Any]) -> None:
        """Give a step back, to be tried again in `delay_s`; the keeper sends it then."""
        self._pool.run(
            _SQL["retry"],
            {"step_id": claim.step_id, "attempt": claim.attempt, "delay_s": delay_s, "error": jsonb(error)},
        )

    def give_up(self, step_id: str) -> None:
        """Say that the process of this worker that carried a step is dead, so that nobody waits for its lease."""
        self._pool.run(_SQL["give_up"], {"step_id": step_id, "worker": self.worker})

    def cancel(self, run_id: str) -> bool:
        """End a run as cancelled; False when it has ended already."""
        with self._pool.connection() as connection, connection.transaction():
            execute(connection, _SQL["hold_run"], {"run_id": run_id})
            return bool(execute(connection, _SQL["cancel"], {"run_id": run_id}))

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

    def lead(self, lease_s: float) -> bool:
        """Become or stay the keeper that does the rounds."""
        return bool(self._pool.run(_SQL["lead"], {"worker": self.worker, "lease_s": lease_s}))

    def take_outbox(self, limit: int, again_s: float) -> list[Send | Continue]:
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

    def release_expired(self, limit: int) -> list[Send]:
        """Rule 3: leases that ran out, where another attempt is allowed."""
        rows = self._pool.run(_SQL["release_expired"], {"limit": limit, "again_s": self._publish_after_s})
        return [_as(Send, row) for row in rows]

    def hopeless(self, limit: int) -> list[Hopeless]:
        """Rule 3: leases that ran out, where none is."""
        return [_as(Hopeless, row) for row in self._pool.run(_SQL["hopeless"], {"limit": limit})]

    def silent_queues(self, resend_after_s: float) -> list[str]:
        """Rule 4: queues whose sent steps nobody claimed for `resend_after_s`."""
        return [
            row["queue"] for row in self._pool.run(_SQL["silent_queues"], {"resend_after_s": resend_after_s})
        ]

    def take_lost(self, queues: Sequence[str] | None, resend_after_s: float, limit: int) -> list[Send]:
        """Rule 4: steps of these queues (None: of all) that nobody claimed for `resend_after_s`."""
        named = None if queues is None else list(queues)
        return self._take_lost(queues=named, resend_after_s=resend_after_s, limit=limit, sent_before=None)

    def take_forgotten(self, sent_before: datetime, limit: int) -> list[Send]:
        """Rule 1: steps of all queues whose message was sent before that time."""
        return self._take_lost(queues=None, resend_after_s=0, limit=limit, sent_before=sent_before)

    def _take_lost(self, **params: Any) -> list[Send]:
        return [_as(Send, row | {"outbox_id": None}) for row in self._pool.run(_SQL["take_lost"], params)]

    def now(self) -> datetime:
        """The database's clock, by which everything here is timed."""
        when: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        return when

    def take_overdue(self, patience_s: float, limit: int) -> list[Send]:
        """Rule 4: steps that have waited for long, whatever their queue holds."""
        rows = self._pool.run(_SQL["take_overdue"], {"patience_s": patience_s, "limit": limit})
        return [_as(Send, row | {"outbox_id": None}) for row in rows]

    def take_due(self, limit: int) -> list[Send]:
        """Rule 5: steps whose timer has come."""
        rows = self._pool.run(_SQL["take_due"], {"limit": limit, "again_s": self._publish_after_s})
        return [_as(Send, row) for row in rows]

    def epoch(self) -> str:
        """The value that Redis must repeat as long as it remembers."""
        return str(self._pool.run(_SQL["epoch"], {"fresh": str(uuid7())})[0]["value"])

    def _patiently(self, statement: str, params: dict[str, Any]) -> list[Row]:
        return patiently(self._pool.run, statement, params)

    def _claim(self, run_id: str, step_id: str, generation: int) -> dict[str, Any]:
        return {
            "run_id": run_id, "step_id": step_id, "generation": generation, "worker": self.worker, "lease_s": self._lease_s,
        }  # fmt: skip


def utc(when: datetime | None) -> str | None:
    """A time for SQL, aware and in UTC; naive ones are taken as UTC, as Celery does."""
    if when is None:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _owed(row: Row) -> Send | Continue:
    return _as(Continue, row) if row["ended_run_id"] or row["chord_id"] else _as(Send, row)


def _as(kind: type[T], row: Row) -> T:
    return msgspec.convert(row, kind)
