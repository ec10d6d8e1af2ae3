"""One turn of a program: read what became of its calls, ask it for the next move, and record that."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from msgspec.structs import replace

from agno_workers.core.decide import End, Fail
from agno_workers.core.program import Call, CallKind, Do, Program, Progress
from agno_workers.core.run import StepKind, WaitsFor
from agno_workers.core.step import CallStep, ChildRun, ClaimedStep, CommitResult, Lineage, TurnRecord
from agno_workers.core.tool import Policy
from agno_workers.engine.turn import MAX_DEPTH, Engine, fail
from agno_workers.errors import AgnoError, RunFailed, Unavailable, error_to_json
from agno_workers.signals import signal

log = logging.getLogger(__name__)
SLOW_S = 0.1
"""The code between steps is executed again at each turn: a turn that takes longer is reported."""


def run_program_turn(engine: Engine, claim: ClaimedStep, program: Program) -> CommitResult:
    try:
        progress = engine.journal.progress(claim)
        begun = time.monotonic()
        move = program.next(progress)
        if (took_s := time.monotonic() - begun) > SLOW_S:
            log.warning(
                "the code of %s between its steps took %.0f ms; it runs again at each turn: move slow work into a step",
                claim.agent, took_s * 1000, extra={"run_id": claim.run_id, "step_id": claim.step_id},
            )  # fmt: skip
        signal("turn.replied", claim=claim)
        committed = commit(engine, claim, program, progress, move)
        signal("turn.recorded", claim=claim)
        return committed
    except Unavailable:
        raise
    except Exception as error:  # the program's own code
        if not isinstance(error, AgnoError):
            log.exception("the code of %s raised", claim.agent, extra={"run_id": claim.run_id})
        return fail(engine, claim, error, getattr(error, "reason", None) or "error")


def commit(engine: Engine, claim: ClaimedStep, program: Program, progress: Progress, move: Do | End | Fail) -> CommitResult:
    """Record a move."""
    definition = program.definition if claim.definition is None else None
    record = TurnRecord(definition=definition)
    match move:
        case End(content, reason):
            return engine.journal.end(claim, record, content, reason)
        case Fail(message, reason, kind, content):
            error = {"type": kind, "message": message, "ids": {"run_id": claim.run_id, "reason": reason}}
            return engine.journal.fail(claim, error, reason, record, content=content)
        case Do(calls, cancel, wake_after):
            steps = [call_step(engine, claim, program, call) for call in calls]
            waiting = sum(made.outcome is None for made in progress.calls.values()) + len(steps)
            if waiting == 0:
                raise RunFailed(f"{claim.agent} waits for a step that was never made: this is a fault of agno-workers.", run_id=claim.run_id)
            return engine.journal.make_calls(
                claim, record, steps, program.queue or engine.agent_queue, barrier_id=progress.barrier_id,
                wake_at=progress.arrived + len(cancel) + min(wake_after, waiting - len(cancel)), cancel=cancel,
            )  # fmt: skip


def call_step(engine: Engine, claim: ClaimedStep, program: Program, call: Call) -> CallStep:
    """Return the step of a call."""
    stored = {"id": call.key, "name": call.name, "kind": call.kind}
    match call.kind:
        case CallKind.RUN:
            if claim.depth >= MAX_DEPTH:
                raise RunFailed(f"step {call.key!r}: runs call each other at most {MAX_DEPTH} deep.", run_id=claim.run_id, reason="depth")
            assert call.input is not None
            member = program.member(call.name)
            child = ChildRun(call.name, member.queue or engine.agent_queue, call.input, member.kind, below(claim, program))
            policy = Policy(within_s=call.within_s)
            return CallStep(call.key, StepKind.DELEGATE, engine.agent_queue, call.name, stored, policy=policy, waits_for=WaitsFor.RUN, child=child)
        case CallKind.FUNCTION:
            tool = program.function(call.name)
            from agno_workers.database.pool import to_json

            stored["arguments"] = to_json(call.arguments).decode()
            return CallStep(call.key, StepKind.TOOL, tool.queue or engine.tool_queue, call.name, stored, tool.effect, tool.max_attempts, tool.policy)
        case CallKind.TIMER:
            return CallStep(call.key, StepKind.WAIT, engine.agent_queue, call.name, stored, waits_for=WaitsFor.TIMER, expires_at=call.until)
        case CallKind.SIGNAL:
            return CallStep(call.key, StepKind.WAIT, engine.agent_queue, call.name, stored, policy=Policy(within_s=call.within_s), waits_for=WaitsFor.SIGNAL)
        case CallKind.APPROVAL:
            policy = Policy(needs=WaitsFor.CONFIRMATION, within_s=call.within_s, on_timeout=call.on_timeout)
            return CallStep(
                call.key, StepKind.WAIT, engine.agent_queue, call.name, stored | {"shown": call.arguments}, policy=policy, waits_for=WaitsFor.CONFIRMATION
            )  # fmt: skip


def below(claim: ClaimedStep, program: Program) -> Lineage:
    """Return the lineage of the runs that a run of this program starts."""
    above = claim.lineage
    team = program.team_of(claim) or above.team
    return replace(above, root=above.root or claim.run_id, path=(*above.path, claim.agent), team=team)
