"""A turn of a run: claim it, and let a model or a program choose the next move."""

from __future__ import annotations

from msgspec.structs import replace

from agno_workers.core.mapping import MAP_RUN
from agno_workers.core.run import StepKind
from agno_workers.core.runnable import Program
from agno_workers.core.step import NOT_RECORDED, ClaimedStep, CommitResult, TurnRecord
from agno_workers.engine.mapping import run_map_turn
from agno_workers.engine.program import run_program_turn
from agno_workers.engine.turn import Engine, run_agent_turn
from agno_workers.errors import RunFailed
from agno_workers.signals import signal


def run_turn(engine: Engine, run_id: str, step_id: str, generation: int) -> CommitResult:
    """Execute one turn of a run, and return the messages to publish."""
    signal("turn.received", run_id=run_id, step_id=step_id)
    claim = engine.journal.claim(StepKind.TURN, run_id, step_id, generation)
    if claim is None:
        return NOT_RECORDED  # a duplicate, or the run was cancelled
    signal("turn.claimed", claim=claim)
    committed = run_claimed_turn(engine, claim)
    if committed.ended:
        engine.scratch.forget(run_id)
    return replace(committed, agent=claim.agent)


def run_claimed_turn(engine: Engine, claim: ClaimedStep) -> CommitResult:
    if claim.unreadable:
        error = RunFailed(f"{claim.unreadable}: submit it again.", run_id=claim.run_id, step_id=claim.step_id)
        return engine.journal.fail(claim, error.to_json(), "unreadable", TurnRecord(is_program=True))
    if not engine.knows(claim):
        return NOT_RECORDED
    claim = engine.placed(claim)
    compiled = engine.compiled(claim.agent)
    if compiled is MAP_RUN:
        return run_map_turn(engine, claim)
    if isinstance(compiled, Program):
        return run_program_turn(engine, claim, compiled)
    return run_agent_turn(engine, claim)
