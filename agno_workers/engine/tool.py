"""One tool call, and what is recorded for a call that no worker brings to an end: by the keeper, or for want of a person."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec.structs import replace
from psycopg import Rollback
from psycopg.pq import TransactionStatus

from agno_workers.core.agent import Retry
from agno_workers.core.messages import Message, ToolResult
from agno_workers.core.policy import delay_s
from agno_workers.core.run import StepKind, WaitsFor
from agno_workers.core.tool import Effect, Tool, ToolContext, ToolOutcome
from agno_workers.engine.turn import MAX_DEPTH, NOTHING, Engine
from agno_workers.errors import AgnoError, Unavailable
from agno_workers.failpoints import reach
from agno_workers.runs.journal import CommitResult, ExhaustedStep, ExpiredWait, ToolClaim
from agno_workers.tools import execute

log = logging.getLogger(__name__)
DEPLOY = Retry(attempts=8)
"""A call that this worker has no code for: two minutes or so, in which a deploy brings a worker that has."""


def run_tool(engine: Engine, run_id: str, step_id: str, generation: int) -> CommitResult:
    """Carry one tool call. Whatever the tool does, a result is recorded that the model can read."""
    reach("tool.received")
    claim = engine.journal.claim_tool(run_id, step_id, generation)
    if claim is None:
        return NOTHING
    reach("tool.claimed")
    tool, lacking = find(engine, claim)
    if lacking is not None:
        return finish(engine, claim, tool, lacking)
    with (
        engine.held.step(claim.step_id) as is_lost,
        engine.streams.writer(claim.run_id, claim.step_id) as emit,
    ):
        left = CancelProbe(is_lost)
        context = ToolContext(
            run_id=claim.run_id,
            step_id=claim.step_id,
            call_id=claim.call.id,
            agent=claim.agent,
            attempt=claim.attempt,
            key=claim.key,
            session_id=claim.session_id,
            user_id=claim.user_id,
            metadata=claim.metadata,
            answer=claim.answer or {},
            cancelled=left,
            emit=emit.line,
        )
        if tool is not None and claim.reconciling:
            found = execute(tool, claim.name, claim.call.arguments, context, reconciling=True)
            if found.kind != "not_done":
                return reconciled(engine, claim, tool, found)
        if tool is not None and tool.effect is Effect.TRANSACTIONAL:
            return in_transaction(engine, claim, tool, context, left)
        outcome = execute(tool, claim.name, claim.call.arguments, context, known=known_tools(engine, claim))
        reach("tool.executed")
        if left.early:
            return NOTHING
        if outcome.kind == "timeout" and claim.effect is Effect.ONCE:
            return leave_unknown(
                engine, claim, outcome.content
            )  # its thread goes on, and nobody knows how far it comes
        return finish(engine, claim, tool, outcome)


class CancelProbe:
    """`ctx.cancelled`: a tool that was told so may return early, and its result is no result for whoever carries on."""

    def __init__(self, is_lost: Callable[[], bool]) -> None:
        self._is_lost = is_lost
        self.early = False

    def __call__(self) -> bool:
        self.early = self.early or self._is_lost()
        return self.early


def find(engine: Engine, claim: ToolClaim) -> tuple[Tool | None, ToolOutcome | None]:
    """The tool that a call means, and, where this worker can't make the call, what is to be said instead.

    A worker with other code than the one that wrote the step may lack the agent or the tool: then it is tried again, for
    there may be a better worker.
    """
    try:
        prepared = engine.prepare(claim.agent)
    except AgnoError as error:
        return None, ToolOutcome(str(error), True, "again")
    if claim.name in prepared.members:
        text = f'{claim.name} takes {{"task": "..."}}, and delegates at most {MAX_DEPTH} deep: nothing was delegated.'
        return None, ToolOutcome(text, True, "invalid_arguments")
    tool = prepared.tools.get(claim.name)
    if tool is None and claim.policy.offered:
        return None, ToolOutcome(f"no worker here has the tool {claim.name}", True, "again")
    return tool, None


def known_tools(engine: Engine, claim: ToolClaim) -> list[str]:
    prepared = engine.prepare(claim.agent)
    return [*prepared.tools, *prepared.members]


def in_transaction(
    engine: Engine, claim: ToolClaim, tool: Tool, context: ToolContext, left: CancelProbe
) -> CommitResult:
    """The tool's writes on `ctx.connection` commit with its result, or not at all."""
    recorded: CommitResult | None = None
    # A Rollback is swallowed by its transaction, except when the connection is closed.
    with engine.pool.connection() as connection, suppress(Rollback), connection.transaction() as transaction:
        outcome = execute(tool, claim.name, claim.call.arguments, replace(context, connection=connection))
        reach("tool.executed")
        if outcome.kind == "timeout":
            connection.close()  # its thread may be in the middle of a statement, and must not get to commit
        elif connection.broken:
            raise Unavailable(
                f"Postgres went away while {claim.name} ran; nothing was written, the call is made again"
            )
        elif connection.info.transaction_status is TransactionStatus.INERROR:
            text = f"its transaction failed, nothing was written: {outcome.content}"
            outcome = replace(
                outcome, content=text, is_error=True, kind=outcome.kind if outcome.is_error else "raised"
            )
        if not outcome.is_error and not left.early:
            recorded = engine.journal.finish_tool(claim, as_message(claim, outcome), connection=connection)
        if recorded is None or not recorded.recorded:
            raise Rollback(transaction)
    if left.early:
        return NOTHING
    if recorded is None:
        return finish(engine, claim, tool, outcome)
    reach("tool.recorded")
    return recorded


def finish(engine: Engine, claim: ToolClaim, tool: Tool | None, outcome: ToolOutcome) -> CommitResult:
    """Record what became of a call; one that may work later is given back, as long as its tries last."""
    retry = tool.retry if tool else DEPLOY
    error = {"type": outcome.kind, "message": outcome.content[:1000], "ids": {}} if outcome.is_error else None
    if outcome.kind == "again" and claim.tries + 1 < retry.attempts:
        wait_s = delay_s(retry, claim.tries + 1, random.random(), outcome.after_s)
        engine.journal.retry(claim, wait_s, error or {})
        return NOTHING
    if outcome.kind == "again" and claim.reconciling and tool is None:
        return leave_unknown(engine, claim, outcome.content)  # nobody here could ask
    step_status = "dead" if outcome.kind == "again" else "done"
    recorded = engine.journal.finish_tool(claim, as_message(claim, outcome), error, step_status)
    reach("tool.recorded")
    return recorded


def reconciled(engine: Engine, claim: ToolClaim, tool: Tool, found: ToolOutcome) -> CommitResult:
    """What a reconcile hook found out. A hook that fails is tried again; one that does not know leaves it open."""
    if not found.is_error:
        return finish(engine, claim, tool, found)
    if found.kind != "unknown" and claim.tries + 1 < tool.retry.attempts:
        return finish(engine, claim, tool, replace(found, kind="again"))
    return leave_unknown(engine, claim, found.content)


def as_message(claim: ToolClaim, outcome: ToolOutcome) -> Message:
    return Message("tool", (ToolResult(claim.call.id, claim.name, outcome.content, outcome.is_error),))


def bury(engine: Engine, step: ExhaustedStep) -> CommitResult:
    """End a step that no attempt ended: a turn fails its run, a tool call tells the model what is known of it."""
    ids = {"run_id": step.run_id, "step_id": step.step_id}
    text = (
        f"attempt {step.attempt} on {step.worker} ended without a result, and no further attempt is allowed"
    )
    error = {"type": "LeaseExpired", "message": text, "ids": ids}
    log.error("a step is given up", extra=ids | {"kind": step.kind, "attempt": step.attempt})
    if step.kind is StepKind.TURN:
        return engine.journal.fail(step, error, "worker_lost", step_status="dead")
    if step.effect is Effect.ONCE:
        return leave_unknown(engine, step, text)
    said = f"{step.name} failed: its worker died in each of {step.attempt} attempts."
    return engine.journal.finish_tool(step, _result(step, said), error, step_status="dead")


def leave_unknown(engine: Engine, step: ToolClaim | ExhaustedStep, why: str) -> CommitResult:
    """Nobody knows whether a `once` tool took effect: a person is asked, or the model told, as its policy says."""
    error = {
        "type": "OutcomeUnknown",
        "message": why,
        "ids": {"run_id": step.run_id, "step_id": step.step_id},
    }
    if step.policy.on_unknown == "ask":
        engine.journal.ask_person(step, error)
        return NOTHING
    return engine.journal.finish_tool(step, _result(step, unknown(step.name)), error, step_status="unknown")


def expire(engine: Engine, step: ExpiredWait) -> CommitResult:
    """Nobody answered in time: what follows is the policy of the tool."""
    text = f"Nobody answered within {step.policy.within_s:g} s."
    error: dict[str, Any] = {
        "type": "NobodyAnswered",
        "message": text,
        "ids": {"run_id": step.run_id, "step_id": step.step_id},
    }
    answer = {"verdict": "expired", "by": None, "note": text}
    if step.waits_for is WaitsFor.RESOLUTION:
        said = f"{text} {unknown(step.name)}"
        return engine.journal.finish_tool(step, _result(step, said), error, "unknown", answer=answer)
    match step.policy.on_timeout:
        case "approve" if step.waits_for is WaitsFor.CONFIRMATION:
            engine.journal.answer(
                step.step_id, [step.waits_for], answer | {"verdict": "approved"}, step.attempt
            )
            return NOTHING
        case "fail":
            engine.journal.fail_unanswered(step, error)
            return NOTHING
        case _:
            said = f"{step.name} was not called. {text}"
            return engine.journal.finish_tool(step, _result(step, said), error, answer=answer)


def unknown(name: str) -> str:
    return f"It is not known whether {name} took effect: the worker died while it ran. It must not be repeated; check before you go on."


def _result(step: ToolClaim | ExhaustedStep | ExpiredWait, said: str) -> Message:
    call_id = step.call.id if isinstance(step, ToolClaim) else step.call_id or ""
    return Message("tool", (ToolResult(call_id, step.name, said, True),))
