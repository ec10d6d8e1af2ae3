"""Record the results of steps. A result and its consequences are one transaction; the first result wins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import asdict, replace
from psycopg import Rollback
from psycopg.pq import TransactionStatus
from uuid6 import uuid7

from agno_workers.core.messages import Message, ToolResult, Usage
from agno_workers.core.program import EXPIRED
from agno_workers.core.run import RunStatus, StepKind, WaitsFor
from agno_workers.core.step import (
    NOT_RECORDED,
    CallStep,
    ChildRun,
    ClaimedStep,
    CommitResult,
    CompactionOrder,
    CompactionRecord,
    ExhaustedStep,
    ExpiredWait,
    RunEnd,
    StepMessage,
    ToolStep,
    TurnRecord,
)
from agno_workers.core.tokens import estimate_message
from agno_workers.core.words import without_none
from agno_workers.database.pool import (
    Connection,
    Payloads,
    Row,
    execute,
    jsonb,
    retry_while_unavailable,
    statements,
    to_json,
)
from agno_workers.runs.base import Repository, convert, utc
from agno_workers.runs.combined import Combined

_SQL = statements("runs/commit")
AnyStep = ClaimedStep | ExhaustedStep | ExpiredWait
_ALONE = frozenset(
    ("blobs", "children", "state", "steered", "background", "compaction", "arm", "ends_calls", "counted_by")
)
"""A result with one of these may lock more than its run, and is recorded in a statement of its own."""


class Commits(Repository):
    """See the module. Commits are retried for two minutes while Postgres does not answer, since the result was paid for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._finishes = Combined(self._finish_together, self._finish_alone)

    def fan_out(
        self, claim: ClaimedStep, record: TurnRecord, calls: Sequence[ToolStep], next_queue: str
    ) -> CommitResult:
        """Record a turn that called tools: a step for each call, and the barrier that starts the next turn after the last result.

        The position of each result in the transcript is set here, in the order of the calls.
        """
        payloads, turn = self._payloads(), claim.turns + 1
        first_seq = claim.seq + len(record.messages)
        barrier_id, next_turn_id = str(uuid7()), str(uuid7())
        steps = [
            {
                "id": str(uuid7()),
                "run_id": claim.run_id,
                "generation": claim.generation,
                "key": f"tool:{turn}:{place}",
                "kind": StepKind.DELEGATE if step.child else StepKind.TOOL,
                "queue": step.queue,
                "priority": claim.priority,
                "name": step.call.name,
                "seq": first_seq + place,
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
        body = self._turn(claim, turn + 1, first_seq + len(calls), next_queue, record) | {"id": next_turn_id}
        result = {
            "barrier": {"id": barrier_id, "size": len(steps), "body": body},
            "steps": steps,
            "children": [
                self._child(claim, step.child, written, payloads)
                for step, written in zip(calls, steps, strict=True)
                if step.child
            ]
            or None,
        }
        change = {"status": "waiting", "tool_calls": len(calls)}
        committed = self._finish_turn(claim, payloads, record, change, result)
        if not committed.recorded:
            return committed
        body_step = StepMessage(
            None, claim.run_id, next_turn_id, claim.generation, StepKind.TURN, next_queue, claim.priority
        )
        return replace(committed, body=body_step, barrier_id=barrier_id)

    def make_calls(
        self, claim: ClaimedStep, record: TurnRecord, calls: Sequence[CallStep], next_queue: str, *, barrier_id: str | None, wake_at: int,
        cancel: Sequence[str] = (), next_call: dict[str, Any] | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record a turn of a program: its calls, those that it needs no more, and the next turn, which follows the end number `wake_at`.

        `barrier_id` counts the ends of all calls of the run; None before the first call. `next_call` is stored with the next turn.
        """
        payloads, turn = self._payloads(), claim.turns + 1
        barrier_id = barrier_id or str(uuid7())
        seq = claim.seq + len(record.messages)
        steps = [
            {
                "id": str(uuid7()), "run_id": claim.run_id, "generation": claim.generation, "key": each.key, "kind": each.kind, "queue": each.queue,
                "priority": claim.priority, "name": each.name, "seq": seq + place, "call": payloads.pack(each.call), "effect": each.effect,
                "barrier_id": barrier_id, "max_attempts": each.max_attempts, "policy": each.policy, "waits_for": each.waits_for,
                "expires_at": utc(each.expires_at), "child_run_id": str(uuid7()) if each.child else None, "arrival": 0,
            }
            for place, each in enumerate(calls)
        ]  # fmt: skip
        children = [
            self._child(claim, each.child, step, payloads) for each, step in zip(calls, steps, strict=True) if each.child
        ]  # fmt: skip
        body = self._turn(claim, turn + 1, seq + len(calls), next_queue, record)
        if next_call is not None:
            body["call"] = next_call
        result = {
            "arm": {"id": barrier_id, "size": wake_at, "body": body}, "steps": steps or None, "children": children or None,
            "cancel": list(cancel) or None,
        }  # fmt: skip
        change = {
            "status": "waiting",
            "tool_calls": sum(each.kind is not StepKind.WAIT for each in calls),
            "turns": 1,
        }
        return self._finish_turn(claim, payloads, record, change, result)

    def next_turn(self, claim: ClaimedStep, record: TurnRecord, next_queue: str) -> CommitResult:
        """Record a turn that another turn follows at once."""
        turn = self._turn(claim, claim.turns + 2, claim.seq + len(record.messages), next_queue, record)
        return self._finish_turn(claim, self._payloads(), record, {"status": "running"}, {"steps": [turn]})

    def end(
        self, claim: ClaimedStep, record: TurnRecord, content: Any, reason: str, *, connection: Connection | None = None
    ) -> CommitResult:  # fmt: skip
        """Record the last turn and the run's answer. `connection` is an open transaction, whose writes commit with the end."""
        payloads = self._payloads()
        change = {"status": "done", "content": payloads.pack(content), "reason": reason, "ended": True}
        return self._finish_turn(claim, payloads, record, change, connection=connection)

    def fail(
        self,
        step: ClaimedStep | ExhaustedStep,
        error: dict[str, Any],
        reason: str,
        record: TurnRecord = TurnRecord(),  # noqa: B008 - a frozen value
        step_status: str = "done",
        content: Any = None,
    ) -> CommitResult:
        """End the run as `failed`, with the messages of its last turn, if any. `content` is stored as its last text."""
        payloads = self._payloads()
        change = {"status": "failed", "error": error, "reason": reason, "ended": True}
        if content is not None:
            change["content"] = payloads.pack(content)
        result = {"status": step_status, "error": error}
        return self._finish_turn(step, payloads, record, change, result)

    def finish_tool(
        self, step: AnyStep, message: Message, error: dict[str, Any] | None = None, step_status: str = "done", *,
        answer: dict[str, Any] | None = None, state: Sequence[dict[str, Any]] = (), connection: Connection | None = None,
        offload_tokens: int | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record the result of a tool call, and count it in its barrier.

        `state` is what the call changed, see `core.state`: it commits with this result. Raises StateConflict, and InvalidInput where a
        change does not fit; then nothing is recorded.

        `answer` is a person's answer, or its absence, to a step that waited. `connection` is the open transaction of a
        `transactional` tool, whose writes commit with this result. A result of more than `offload_tokens` is stored beside the
        transcript, which has a preview of it.
        """
        payloads = self._payloads()
        result: dict[str, Any] = {
            "status": step_status,
            "error": error,
            "answer": answer,
            "state": list(state) or None,
        }
        if step.arrival is not None:  # a call of a program, which reads JSON
            result["value"] = None if error else payloads.pack(Raw(_content(message).encode()))
        elif offload_tokens is not None and estimate_message(message) > offload_tokens:
            result["stored_results"] = [{"seq": step.seq, "result": part} for part in message.parts]
        else:
            result["messages"] = [{"seq": step.seq, "content": payloads.pack(message)}]
        if isinstance(step, ExpiredWait):
            result |= {"waits_for": step.waits_for, "attempt": step.attempt}
        return self._finish(step, payloads, result, connection=connection)

    def end_wait(self, step: ExpiredWait) -> CommitResult:
        """End a wait or a child run of a program whose time is over: an approval is answered by its policy, anything else has expired."""
        answer: dict[str, Any] | None = None
        if step.waits_for is WaitsFor.CONFIRMATION:
            verdict = "approved" if step.policy.on_timeout == "approve" else "rejected"
            answer = {
                "verdict": verdict,
                "by": None,
                "note": f"nobody answered within {step.policy.within_s:g} s",
            }
        end: dict[str, Any] = {"step_id": step.step_id, "answer": answer, "value": answer}
        if answer is None:
            text = f"{step.name or step.waits_for} did not come within {step.policy.within_s:g} s"
            ids = {"run_id": step.run_id, "step_id": step.step_id}
            end["error"] = {"type": EXPIRED, "message": text, "ids": ids}
        self._pool.run(_SQL["end_waits"], {"run_id": step.run_id, "ends": jsonb([end])})
        return NOT_RECORDED

    def answer_approval(self, step_id: str, verdict: str, by: str | None, note: str | None) -> bool:
        """End the approval of a program; False when it does not wait any more."""
        asked = {"step_id": step_id, "verdict": verdict, "by": by, "note": note}
        return bool(self._pool.run(_SQL["answer_approval"], asked)[0]["is_answered"])

    def begin_compaction(self, turn: ClaimedStep, order: CompactionOrder, queue: str) -> CommitResult:
        """Make a turn wait, and write the step that compacts its transcript."""
        key = f"compact:{turn.key.partition(':')[2]}:{order.number}"
        step = {
            "id": str(uuid7()), "key": key, "kind": StepKind.COMPACT, "queue": queue, "priority": turn.priority, "seq": turn.seq,
            "max_attempts": self._numbers.turn_attempts, "call": order,
        }  # fmt: skip
        asked = {
            "run_id": turn.run_id, "step_id": turn.step_id, "attempt": turn.attempt, "step": jsonb(step),
            "publish_after_s": self._numbers.publish_after_s,
        }  # fmt: skip
        sends = self._pool.run(_SQL["begin_compaction"], asked)
        return CommitResult(bool(sends), tuple(convert(send, StepMessage) for send in sends))

    def end_compaction(
        self, step: ClaimedStep | ExhaustedStep, outcome: CompactionRecord | str, usage: Usage = Usage(), cost_usd: float = 0.0,  # noqa: B008 - a frozen value
        error: dict[str, Any] | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record a summary, or why there is none, and let the turn that waits for it begin."""
        change = {"status": "running", "usage": asdict(usage), "cost_usd": cost_usd}
        found = asdict(outcome) if isinstance(outcome, CompactionRecord) else {"declined": outcome}
        if isinstance(outcome, str) and error is None:
            error = {"type": "NotCompacted", "message": outcome, "ids": {"run_id": step.run_id}}
        result = {"error": error, "compaction": found, "run": change}
        return self._finish(step, self._payloads(), result)

    def offload_tokens(self, run_id: str) -> int | None:
        """Return the tokens above which a tool result is stored beside the transcript of a run; None means no limit."""
        (row,) = self._pool.run(_SQL["offload_tokens"], {"run_id": run_id})
        limit: int | None = row["tokens"]
        return limit

    @contextmanager
    def transaction(self) -> Iterator[ToolTransaction]:
        """Open the transaction of a `transactional` tool or of background work; it is rolled back unless its `finish` or `end`
        recorded the result.
        """
        # The transaction catches a Rollback, except when the connection is closed.
        with self._pool.connection() as connection, suppress(Rollback), connection.transaction() as opened:
            transaction = ToolTransaction(self, connection)
            yield transaction
            if not transaction.is_recorded:
                raise Rollback(opened)

    def ask_person(self, step: ClaimedStep | ExhaustedStep, error: dict[str, Any]) -> bool:
        """Make the step wait for a person, who finds out whether a `once` tool took effect."""
        params = {
            "step_id": step.step_id, "attempt": step.attempt, "late_only": isinstance(step, ExhaustedStep), "error": jsonb(error),
        }  # fmt: skip
        return bool(self._pool.run(_SQL["ask_person"], params))

    def answer(
        self, step_id: str, waits_for: Sequence[WaitsFor], answer: dict[str, Any], attempt: int | None = None
    ) -> bool:
        """Make a waiting step ready, with a person's answer. False when it does not wait for such an answer, or has had another
        attempt than `attempt` since the person was asked.
        """
        params = {
            "step_id": step_id, "waits_for": list(waits_for), "answer": jsonb(answer), "asked_after": attempt,
        }  # fmt: skip
        return bool(self._pool.run(_SQL["answer"], params))

    def _turn(
        self, claim: ClaimedStep, number: int, seq: int, queue: str, record: TurnRecord
    ) -> dict[str, Any]:
        return {
            "id": str(uuid7()), "run_id": claim.run_id, "generation": claim.generation, "kind": StepKind.TURN, "key": f"turn:{number}",
            "name": record.next_agent, "queue": queue, "priority": claim.priority, "seq": seq, "max_attempts": self._numbers.turn_attempts,
        }  # fmt: skip

    def _child(
        self, claim: ClaimedStep, child: ChildRun, step: dict[str, Any], payloads: Payloads
    ) -> dict[str, Any]:
        asked = {
            "id": step["child_run_id"], "tenant": claim.tenant, "agent": child.agent, "queue": child.queue, "input": payloads.pack(child.input),
            "user_id": claim.user_id, "metadata": claim.metadata, "priority": claim.priority, "parent_run_id": claim.run_id,
            "parent_step_id": step["id"], "depth": claim.depth + 1, "deadline_at": utc(claim.deadline_at),
            "first_step": self._first_step(child.kind), "kind": child.kind, "lineage": child.lineage if child.lineage.root else None,
            "publish_after_s": self._numbers.publish_after_s,
        }  # fmt: skip
        return without_none(asked)

    def _finish_turn(
        self, step: ClaimedStep | ExhaustedStep, payloads: Payloads, record: TurnRecord, change: dict[str, Any],
        result: dict[str, Any] | None = None, connection: Connection | None = None,
    ) -> CommitResult:  # fmt: skip
        used = record.usage
        is_counted = used is not None or (record.is_program and change["status"] == RunStatus.DONE)
        change |= {
            "turns": change.get("turns") or int(step.kind is StepKind.TURN and is_counted),
            "usage": asdict(used) if used else None,
            "cost_usd": record.cost_usd,
            "definition": record.definition,
        }
        asked: dict[str, Any] = {"background": record.follow_ups or None, "steered": record.steered or None}
        messages = [
            {"seq": step.seq + place, "content": payloads.pack(message)}
            for place, message in enumerate(record.messages)
        ]
        if "ended" in change and (record.is_program or isinstance(step, ExhaustedStep)):
            asked["ends_calls"] = True
        if record.kept is not None:
            asked["value"] = payloads.pack(record.kept)
        content = {**(result or {}), **asked, "messages": messages, "run": without_none(change)}
        return self._finish(step, payloads, content, connection=connection)

    def _finish(
        self, step: AnyStep, payloads: Payloads, result: dict[str, Any], *, connection: Connection | None = None
    ) -> CommitResult:  # fmt: skip
        result |= {
            "run_id": step.run_id,
            "step_id": step.step_id,
            "generation": step.generation,
            "kind": step.kind,
            "blobs": payloads.blobs or None,
            "late_only": isinstance(step, ExhaustedStep) or None,
            "publish_after_s": self._numbers.publish_after_s,
        }
        if isinstance(step, ClaimedStep) and step.counted_by:
            result["counted_by"] = [each.run_id for each in step.counted_by]
        change = result.get("run", {})
        is_followed = isinstance(step, ClaimedStep) and (
            step.canvas or step.parent_run_id or step.session_id or step.kind is StepKind.BACKGROUND
        )
        result = without_none(result)
        one = _Result(step.run_id, step.step_id, Raw(to_json(result)))
        if connection is not None:
            (recorded,) = _finish_steps(partial(execute, connection), [one], waits=True)
        elif not _ALONE.isdisjoint(result) or ("ended" in change and is_followed):
            recorded = retry_while_unavailable(self._finish_alone, one)  # it may lock more than its run
        else:
            recorded = retry_while_unavailable(self._finishes, one)
        if recorded is None:
            return NOT_RECORDED
        committed = CommitResult(
            True,
            tuple(convert(message, StepMessage) for message in recorded.messages),
            children=tuple(convert(child | {"generation": 0}, StepMessage) for child in recorded.children),
        )
        if "ended" not in change:
            return committed
        ended = RunEnd(
            step.run_id, step.agent, RunStatus(change["status"]), change["reason"], change.get("error")
        )
        committed = replace(committed, ended=ended)
        if not isinstance(step, ClaimedStep):
            return committed
        continues = (step.run_id, step.canvas.get("group_id")) if step.canvas else None
        return replace(committed, parent_run_id=step.parent_run_id, continues=continues)

    def _finish_together(self, results: Sequence[_Result]) -> list[_Recorded | None]:
        return _finish_steps(self._pool.run, results)

    def _finish_alone(self, one: _Result) -> _Recorded | None:
        return _finish_steps(self._pool.run, [one], waits=True)[0]


def _content(message: Message) -> str:
    (part,) = message.parts
    assert isinstance(part, ToolResult)
    return part.content


class _Result(NamedTuple):
    """The result of a step, as `agno.finish_steps` takes it."""

    run_id: str
    step_id: str
    content: Raw


class _Recorded(NamedTuple):
    """The messages to publish after a result was recorded: those of the next steps, and those of delegated runs."""

    messages: list[Row]
    children: list[Row]


def _finish_steps(
    run: Callable[[str, dict[str, Any]], list[Row]], results: Sequence[_Result], *, waits: bool = False
) -> list[_Recorded | None]:
    """Record results; None for one that was not recorded. The messages of a run go to its first result.

    Of several results of one step, which this process has then executed several times at once, the first is recorded.
    """
    firsts = {each.step_id: each.content for each in reversed(results)}
    (row,) = run(_SQL["finish"], {"results": jsonb(list(firsts.values())), "waits": waits})
    recorded, messages = set(row["recorded"] or ()), defaultdict[str, list[Row]](list)
    for message in row["messages"] or ():
        messages[message["run_id"]].append(message)
    answers: list[_Recorded | None] = []
    for each in results:
        is_recorded = each.step_id in recorded
        recorded.discard(each.step_id)
        answers.append(
            _Recorded(messages.pop(each.run_id, []), row["children"] or []) if is_recorded else None
        )
    return answers


class ToolTransaction:
    """The open transaction of a `transactional` tool or of background work; see `core.ports.ToolTransaction`."""

    def __init__(self, commits: Commits, connection: Connection) -> None:
        self._commits = commits
        self.connection = connection
        self.is_recorded = False

    @property
    def is_lost(self) -> bool:
        """True when the connection is broken."""
        return self.connection.broken

    @property
    def has_failed(self) -> bool:
        """True when one of the tool's statements failed, so that nothing can be committed."""
        return self.connection.info.transaction_status is TransactionStatus.INERROR

    def close(self) -> None:
        """End the connection, so that a tool that is still running cannot commit."""
        self.connection.close()

    def finish(
        self, step: ClaimedStep, message: Message, state: Sequence[dict[str, Any]] = (), offload_tokens: int | None = None,
    ) -> CommitResult:  # fmt: skip
        """Record the tool's result in this transaction. An error, see `finish_tool`, must leave the transaction, so that it is rolled back."""
        committed = self._commits.finish_tool(
            step, message, state=state, connection=self.connection, offload_tokens=offload_tokens
        )
        self.is_recorded = committed.recorded
        return committed

    def end(self, claim: ClaimedStep, record: TurnRecord, content: Any, reason: str) -> CommitResult:
        """Record the end of the run in this transaction."""
        committed = self._commits.end(claim, record, content, reason, connection=self.connection)
        self.is_recorded = committed.recorded
        return committed
