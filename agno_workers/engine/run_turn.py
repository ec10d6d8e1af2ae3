"""A turn of a run: claim it, and let a model or a program choose the next move."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from agno_workers.core.mapping import MAP_RUN
from agno_workers.core.run import StepKind
from agno_workers.core.runnable import Program
from agno_workers.core.step import NOT_RECORDED, ClaimedStep, CommitResult, TurnRecord
from agno_workers.engine.mapping import run_map_turn
from agno_workers.engine.program import no_more, run_program_turn
from agno_workers.engine.tool import DEPLOY
from agno_workers.engine.turn import Engine, run_agent_turn, try_later
from agno_workers.errors import RunFailed, error_to_json
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
    if (changed := changed_form(claim, isinstance(compiled, Program))) is not None:
        return try_later(engine, claim, DEPLOY, changed, partial(give_up, engine, claim))
    if isinstance(compiled, Program):
        return run_program_turn(engine, claim, compiled)
    return run_agent_turn(engine, claim)


def changed_form(claim: ClaimedStep, is_program: bool) -> RunFailed | None:
    """Return why this code can't go on with a run: a model chose its moves, and now code does, or the other way round. A transcript is not a list
    of calls, so neither can go on with the other's work; a worker with the earlier code can.
    """
    has_replies = claim.compacted is not None or any(each.role == "assistant" for each in claim.messages)
    if not claim.turns or has_replies is not is_program:
        return None
    before, now = ("a model", "code") if is_program else ("code", "a model")
    return RunFailed(
        f"the run of {claim.agent!r} began when {before} chose its moves, and since a deploy {now} does: submit it again, or deploy the earlier code "
        "and retry it.",
        run_id=claim.run_id, reason="form_changed",
    )  # fmt: skip


def give_up(engine: Engine, claim: ClaimedStep, error: Exception) -> CommitResult:
    failed = engine.journal.fail(claim, error_to_json(error), "form_changed", TurnRecord(is_program=True))
    return no_more(engine, claim, replace(failed, cause=error))
