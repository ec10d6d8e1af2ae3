"""Execute one tool call; record results for steps that no worker or person ended, for the keeper."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from agno_workers.core.messages import Message, ToolResult
from agno_workers.core.policy import Retry, delay_s
from agno_workers.core.run import RunStatus, StepKind, WaitsFor
from agno_workers.core.state import States
from agno_workers.core.step import NOT_RECORDED, ClaimedStep, CommitResult, ExhaustedStep, ExpiredWait, RunEnd
from agno_workers.core.tool import Effect, Tool, ToolContext, ToolOutcome
from agno_workers.engine.calls import with_results
from agno_workers.engine.turn import Engine
from agno_workers.errors import AgnoError, InvalidInput, StateConflict, Unavailable
from agno_workers.signals import signal
from agno_workers.tools import execute

log = logging.getLogger(__name__)
STATE_TRIES = 20
"""The most executions of a call in a row while others keep changing the state that it reads; then its tool's `retry` decides."""
DEPLOY = Retry(attempts=8)
"""The retry of a call without code in this worker: a deploy within two minutes may start a worker that has it."""


def run_tool(engine: Engine, run_id: str, step_id: str, generation: int) -> CommitResult:
    """Execute one tool call and record a result for the model, also when the tool fails."""
    signal("tool.received", run_id=run_id, step_id=step_id)
    claim = engine.journal.claim(StepKind.TOOL, run_id, step_id, generation)
    if claim is None:
        return NOT_RECORDED
    signal("tool.claimed", claim=claim)
    return replace(run_claimed_tool(engine, claim), agent=claim.agent)


def run_claimed_tool(engine: Engine, claim: ClaimedStep) -> CommitResult:
    if claim.unreadable:
        return finish(
            engine, claim, None, ToolOutcome(f"{claim.unreadable}: it was not called.", True, "unreadable")
        )
    if not engine.knows(claim):
        return NOT_RECORDED
    claim = engine.placed(claim)
    tool, lacking = find(engine, claim)
    if lacking is not None:
        return finish(engine, claim, tool, lacking)
    if claim.arrival is not None:
        claim = with_results(claim, engine.journal.progress)
    limit_of(engine, claim, tool)  # before the call, whose result would be lost if Postgres did not answer
    with (
        engine.active.step(claim.step_id) as is_lost,
        engine.streams.writer(claim.run_id, claim.step_id, claim.attempt) as emit,
    ):
        cancelled = CancelProbe(is_lost)
        context = ToolContext(
            scratch=engine.scratch.of(claim.run_id),
            _states=States(engine.state_reader(claim.tenant, None)),
            run_id=claim.run_id,
            step_id=claim.step_id,
            call_id=claim.tool_call.id,
            agent=claim.acting,
            attempt=claim.attempt,
            key=claim.key,
            session_id=claim.session_id,
            user_id=claim.user_id,
            team=claim.team.name if claim.team else None,
            _place=claim.team,
            metadata=claim.metadata,
            answer=claim.answer or {},
            cancelled=cancelled,
            emit=emit.line,
            _report=engine.reports(claim),
        )
        if tool is not None and claim.reconciling:
            is_call = claim.arrival is not None
            arguments = claim.tool_call.arguments
            found = execute(tool, claim.name, arguments, context, reconciling=True, as_json=is_call)
            if found.kind != "not_done":
                return reconciled(engine, claim, tool, found, context)
        return call(engine, claim, tool, context, cancelled)


def call(
    engine: Engine, claim: ClaimedStep, tool: Tool | None, context: ToolContext, cancelled: CancelProbe
) -> CommitResult:
    """Make the call and record its outcome. When state that it read has changed, it is made again on the new values, unless that may repeat
    an effect.
    """
    for number in range(STATE_TRIES):
        context = replace(context, _states=States(engine.state_reader(claim.tenant, None)))
        try:
            if tool is not None and tool.effect is Effect.TRANSACTIONAL:
                return in_transaction(engine, claim, tool, context, cancelled)
            return alone(engine, claim, tool, context, cancelled)
        except StateConflict as error:
            conflict = error
            log.info(
                "state changed, the call is made again: %s",
                error,
                extra={"run_id": claim.run_id, "step_id": claim.step_id},
            )
        time.sleep(random.uniform(0.0, min(0.5, 0.002 * 2**number)))
    return finish(engine, claim, tool, ToolOutcome(str(conflict), True, "again"))


def alone(
    engine: Engine, claim: ClaimedStep, tool: Tool | None, context: ToolContext, cancelled: CancelProbe
) -> CommitResult:
    """Call a tool, and then record its outcome with the state that it wrote. Raises StateConflict when it may be called again."""
    is_call = claim.arrival is not None
    known = () if is_call else engine.plan(claim.agent, claim.acting).offered
    outcome = execute(tool, claim.name, claim.tool_call.arguments, context, known=known, as_json=is_call)
    signal("tool.executed")
    if cancelled.was_seen:
        return NOT_RECORDED
    if outcome.kind == "timeout" and claim.effect is Effect.ONCE:
        return leave_unknown(engine, claim, outcome.content)  # its thread may still take effect
    return finish_with_state(engine, claim, tool, outcome, context)


class CancelProbe:
    """`ctx.cancelled`. A tool that saw it true may return early; its result is discarded."""

    def __init__(self, is_lost: Callable[[], bool]) -> None:
        self._is_lost = is_lost
        self.was_seen = False

    def __call__(self) -> bool:
        self.was_seen = self.was_seen or self._is_lost()
        return self.was_seen


def find(engine: Engine, claim: ClaimedStep) -> tuple[Tool | None, ToolOutcome | None]:
    """Return the tool of a call, or the outcome to record when this worker cannot make the call.

    A worker with older code may lack the tool: then the call is retried, since another worker may have it.
    """
    try:
        if claim.arrival is not None:
            return engine.calls.tool(claim.name), None
        plan = engine.plan(claim.agent, claim.acting)
    except AgnoError as error:
        return None, ToolOutcome(str(error), True, "again")
    if claim.policy.refusal:
        return None, ToolOutcome(claim.policy.refusal, True, "refused")
    if claim.name in plan.members:  # by earlier code, which did not write why
        return None, ToolOutcome(plan.members[claim.name].misfit, True, "invalid_arguments")
    tool = plan.tools.get(claim.name)
    if tool is None and claim.policy.offered:
        return None, ToolOutcome(f"no worker here has the tool {claim.name}", True, "again")
    return tool, None


def in_transaction(
    engine: Engine, claim: ClaimedStep, tool: Tool, context: ToolContext, cancelled: CancelProbe
) -> CommitResult:
    """Call a `transactional` tool: its writes on `ctx.connection` commit with its result, or not at all. Raises StateConflict; then nothing
    was written.
    """
    committed: CommitResult | None = None
    try:
        with engine.journal.transaction() as transaction:
            states = States(engine.state_reader(claim.tenant, transaction.connection))
            context = replace(context, connection=transaction.connection, _states=states)
            outcome = execute(
                tool, claim.name, claim.tool_call.arguments, context, as_json=claim.arrival is not None
            )
            signal("tool.executed", claim=claim)
            if outcome.kind == "timeout":
                transaction.close()  # its thread may be in the middle of a statement, and must not get to commit
            elif transaction.is_lost:
                raise Unavailable(
                    f"Postgres went away while {claim.name} ran; nothing was written, the call is made again"
                )
            elif transaction.has_failed:
                text = f"its transaction failed, nothing was written: {outcome.content}"
                kind = outcome.kind if outcome.is_error else "raised"
                outcome = replace(outcome, content=text, is_error=True, kind=kind)
            if not outcome.is_error and not cancelled.was_seen:
                limit = limit_of(engine, claim, tool)
                committed = transaction.finish(claim, as_message(claim, outcome), states.changes(), limit)
    except InvalidInput as error:  # a change of state that does not fit
        outcome = ToolOutcome(f"nothing was written: {error}", True, "raised")
    if cancelled.was_seen:
        return NOT_RECORDED
    if committed is None:
        return finish(engine, claim, tool, outcome)
    signal("tool.recorded", claim=claim)
    return committed


def finish_with_state(
    engine: Engine, claim: ClaimedStep, tool: Tool | None, outcome: ToolOutcome, context: ToolContext
) -> CommitResult:
    """Record the outcome of a call with the state that it wrote; an error writes none. Raises StateConflict when the call may be made again.

    Where that may repeat an effect, the outcome is recorded without the state, and the model is told.
    """
    if outcome.is_error:
        return finish(engine, claim, tool, outcome)
    may_repeat = claim.effect in (Effect.PURE, Effect.IDEMPOTENT)
    try:
        return finish(engine, claim, tool, outcome, context._states.changes())
    except StateConflict as conflict:
        if may_repeat:
            raise
        why: AgnoError = conflict
    except InvalidInput as error:
        why = error
    text = f"The state was not written: {why}"
    if may_repeat:
        return finish(engine, claim, tool, ToolOutcome(text, True, "raised"))
    told = replace(
        outcome,
        content=f"{outcome.content}\n\n{text} All else that the call did has taken effect: do not repeat it.",
    )
    recorded = engine.journal.finish_tool(claim, as_message(claim, told), why.to_json())
    signal("tool.recorded")
    return recorded


def finish(
    engine: Engine,
    claim: ClaimedStep,
    tool: Tool | None,
    outcome: ToolOutcome,
    state: Sequence[dict[str, Any]] = (),
) -> CommitResult:
    """Record the outcome of a call, or release a call that may work later for another attempt, if one is left."""
    retry = tool.retry if tool else DEPLOY
    error = {"type": outcome.kind, "message": outcome.content[:1000], "ids": {}} if outcome.is_error else None
    if outcome.kind == "again" and claim.tries + 1 < retry.attempts:
        wait_s = delay_s(retry, claim.tries + 1, random.random(), outcome.after_s)
        engine.journal.retry(claim.step_id, claim.attempt, wait_s, error or {})
        return NOT_RECORDED
    if outcome.kind == "again" and claim.reconciling and tool is None:
        return leave_unknown(engine, claim, outcome.content)  # no worker has the reconcile hook
    step_status = "dead" if outcome.kind == "again" else "done"
    recorded = engine.journal.finish_tool(
        claim,
        as_message(claim, outcome),
        error,
        step_status,
        state=state,
        offload_tokens=limit_of(engine, claim, tool),
    )
    signal("tool.recorded")
    return recorded


def limit_of(engine: Engine, claim: ClaimedStep, tool: Tool | None) -> int | None:
    """Return the most tokens of a result that stays whole in the transcript; None means no limit."""
    if tool is None or not tool.offload or claim.arrival is not None:
        return None
    return engine.plan_for(claim).agent.compaction.offload_tokens


def reconciled(
    engine: Engine, claim: ClaimedStep, tool: Tool, found: ToolOutcome, context: ToolContext
) -> CommitResult:
    """Record the finding of a reconcile hook. A failed hook is retried; a hook that does not know leaves the outcome unknown."""
    if not found.is_error:
        return finish_with_state(engine, claim, tool, found, context)
    if found.kind != "unknown" and claim.tries + 1 < tool.retry.attempts:
        return finish(engine, claim, tool, replace(found, kind="again"))
    return leave_unknown(engine, claim, found.content)


def as_message(claim: ClaimedStep, outcome: ToolOutcome) -> Message:
    return Message("tool", (ToolResult(claim.tool_call.id, claim.name, outcome.content, outcome.is_error),))


def fail_exhausted(engine: Engine, step: ExhaustedStep) -> CommitResult:
    """End a step that has no attempt left: a tool call returns an error to the model, another step fails its run."""
    error = step.error
    log.error(
        "step has no attempt left: %s",
        error["message"],
        extra={"run_id": step.run_id, "step_id": step.step_id},
    )
    if step.kind is not StepKind.TOOL:
        return engine.journal.fail(step, error, step.reason, step_status="dead")
    if step.effect is Effect.ONCE and step.attempt:
        return leave_unknown(engine, step, error["message"])
    text = f"{step.name} failed: its worker died in each of {step.attempt} attempts."
    if step.raised is not None:
        text = f"{step.name} was not called: {error['message']}"
    return engine.journal.finish_tool(step, _result(step, text), error, step_status="dead")


def leave_unknown(engine: Engine, step: ClaimedStep | ExhaustedStep, why: str) -> CommitResult:
    """Record that it is unknown whether a `once` tool took effect: its policy asks a person or tells the model, or the program."""
    error = {
        "type": "OutcomeUnknown",
        "message": why if step.arrival is None else f"{unknown(step.name)} ({why})",
        "ids": {"run_id": step.run_id, "step_id": step.step_id},
    }
    if step.policy.on_unknown == "ask":
        engine.journal.ask_person(step, error)
        return NOT_RECORDED
    return engine.journal.finish_tool(step, _result(step, unknown(step.name)), error, step_status="unknown")


def expire(engine: Engine, step: ExpiredWait) -> CommitResult:
    """End a wait that nobody answered in time, by the policy of the tool or of the approval; and a child run of a program."""
    if step.kind is not StepKind.TOOL and (
        step.waits_for is not WaitsFor.CONFIRMATION or step.policy.on_timeout != "fail"
    ):
        recorded = engine.journal.end_wait(step)
        if step.kind is StepKind.DELEGATE:
            engine.journal.cancel_abandoned(step.run_id)
        return recorded
    text = f"Nobody answered within {step.policy.within_s:g} s."
    error: dict[str, Any] = {
        "type": "NobodyAnswered",
        "message": text,
        "ids": {"run_id": step.run_id, "step_id": step.step_id},
    }
    answer = {"verdict": "expired", "by": None, "note": text}
    if step.waits_for is WaitsFor.RESOLUTION:
        result = _result(step, f"{text} {unknown(step.name)}")
        return engine.journal.finish_tool(step, result, error, "unknown", answer=answer)
    match step.policy.on_timeout:
        case "approve" if step.waits_for is WaitsFor.CONFIRMATION:
            engine.journal.answer(
                step.step_id, [step.waits_for], answer | {"verdict": "approved"}, step.attempt
            )
            return NOT_RECORDED
        case "fail":
            if not engine.journal.fail_unanswered(step, error):
                return NOT_RECORDED
            ended = RunEnd(step.run_id, step.agent, RunStatus.FAILED, "nobody_answered", error)
            return replace(NOT_RECORDED, ended=ended)
        case _:
            result = _result(step, f"{step.name} was not called. {text}")
            return engine.journal.finish_tool(step, result, error, answer=answer)


def unknown(name: str) -> str:
    return f"It is not known whether {name} took effect: its worker died while it ran. Do not repeat it; check first."


def _result(step: ClaimedStep | ExhaustedStep | ExpiredWait, text: str) -> Message:
    return Message("tool", (ToolResult(step.call_id or "", step.name, text, True),))
