"""One tool call, and what the keeper records for steps that no attempt brought to an end."""

from __future__ import annotations

import logging
from contextlib import suppress

from msgspec.structs import replace
from psycopg import Rollback
from psycopg.pq import TransactionStatus

from agno_workers.core.messages import Message, ToolResult
from agno_workers.core.run import StepKind
from agno_workers.core.tool import Effect, Tool, ToolContext, ToolOutcome
from agno_workers.engine.loop import NOTHING, Engine
from agno_workers.errors import AgnoError
from agno_workers.storage.journal import Hopeless, Recorded, ToolClaim
from agno_workers.tools import execute

log = logging.getLogger(__name__)


def take_tool(engine: Engine, run_id: str, step_id: str, generation: int) -> Recorded:
    """Carry one tool call. Whatever the tool does, a result is recorded that the model can read."""
    claim = engine.journal.claim_tool(run_id, step_id, generation)
    if claim is None:
        return NOTHING
    try:
        tools = engine.prepare(claim.agent).tools
    except AgnoError as error:
        # This worker lacks the agent's code: the model is told, rather than the run left hanging.
        return finish(engine, claim, ToolOutcome(str(error), True, "unknown_tool"))
    tool = tools.get(claim.name)
    with engine.held.step(claim.step_id) as lost, engine.streams.writer(claim.run_id, claim.step_id) as emit:
        context = ToolContext(
            run_id=claim.run_id,
            step_id=claim.step_id,
            call_id=claim.call.id,
            agent=claim.agent,
            attempt=claim.attempt,
            session_id=claim.session_id,
            user_id=claim.user_id,
            metadata=claim.metadata,
            cancelled=lost.is_set,
            emit=emit.line,
        )
        if tool is not None and tool.effect is Effect.TRANSACTIONAL:
            return in_transaction(engine, claim, tool, context)
        return finish(engine, claim, execute(tool, claim.name, claim.call.arguments, context, known=tools))


def in_transaction(engine: Engine, claim: ToolClaim, tool: Tool, context: ToolContext) -> Recorded:
    """The tool's writes on `ctx.connection` commit with its result, or not at all."""
    recorded: Recorded | None = None
    # A Rollback is swallowed by its transaction, except when the connection is closed.
    with engine.pool.connection() as connection, suppress(Rollback), connection.transaction() as transaction:
        outcome = execute(tool, claim.name, claim.call.arguments, replace(context, connection=connection))
        if outcome.kind == "timeout":
            connection.close()  # its thread may be in the middle of a statement, and must not get to commit
        elif connection.info.transaction_status is TransactionStatus.INERROR:
            text = f"its transaction failed, nothing was written: {outcome.content}"
            outcome = ToolOutcome(text, True, "raised")
        if not outcome.is_error:
            recorded = engine.journal.finish_tool(claim, as_message(claim, outcome), connection=connection)
        if recorded is None or not recorded.recorded:
            raise Rollback(transaction)
    return finish(engine, claim, outcome) if recorded is None else recorded


def finish(engine: Engine, claim: ToolClaim, outcome: ToolOutcome) -> Recorded:
    error = {"type": outcome.kind, "message": outcome.content[:1000], "ids": {}} if outcome.is_error else None
    return engine.journal.finish_tool(claim, as_message(claim, outcome), error)


def as_message(claim: ToolClaim, outcome: ToolOutcome) -> Message:
    return Message("tool", (ToolResult(claim.call.id, claim.name, outcome.content, outcome.is_error),))


def bury(engine: Engine, step: Hopeless) -> Recorded:
    """End a step that no attempt ended: a turn fails its run, a tool call tells the model what is known of it."""
    error = {
        "type": "LeaseExpired",
        "message": f"attempt {step.attempt} on {step.worker} ended without a result, and no further attempt is allowed",
        "ids": {"run_id": step.run_id, "step_id": step.step_id},
    }
    log.error(
        "a step is given up",
        extra={"run_id": step.run_id, "step_id": step.step_id, "kind": step.kind, "attempt": step.attempt},
    )
    if step.kind is StepKind.TURN:
        return engine.journal.fail(step, error, "worker_lost", step_status="dead")
    unknown = step.effect is Effect.ONCE
    text = (
        f"It is not known whether {step.name} took effect: the worker died while it ran. It must not be repeated; check before you go on."
        if unknown
        else f"{step.name} failed: its worker died in each of {step.attempt} attempts."
    )
    said = Message("tool", (ToolResult(step.call_id or "", step.name, text, True),))
    return engine.journal.finish_tool(step, said, error, step_status="unknown" if unknown else "dead")
