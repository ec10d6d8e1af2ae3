"""One turn of a program: read what became of its calls, ask it for the next move, and record that.

A turn may be executed twice, after a crash or by two workers at once; the first commit wins.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import copy_context
from threading import Thread
from typing import Any

import msgspec

from agno_workers.core.checks import brief
from agno_workers.core.delegate import MAX_DEPTH
from agno_workers.core.flow import Flow
from agno_workers.core.mapping import Mapped
from agno_workers.core.messages import Message, Text
from agno_workers.core.moves import End, Fail
from agno_workers.core.program import Call, CallKind, Do, ProgramMove, Progress
from agno_workers.core.run import StepKind, WaitsFor
from agno_workers.core.runnable import Program, Runnable
from agno_workers.core.step import CallStep, ChildRun, ClaimedStep, CommitResult, Definition, TurnRecord
from agno_workers.core.tool import Policy, Tool
from agno_workers.engine.mapping import map_child
from agno_workers.engine.plan import AgentPlan
from agno_workers.engine.turn import Engine, Turn, with_deadline
from agno_workers.errors import AgnoError, RunFailed, StepFailed, Unavailable, error_to_json
from agno_workers.signals import signal
from agno_workers.tools.execute import MAX_RESULT_BYTES
from agno_workers.tools.result import Unserialisable, to_json_text

log = logging.getLogger(__name__)


def run_program_turn(engine: Engine, claim: ClaimedStep, program: Program) -> CommitResult:
    """Execute one turn. An error of the program's code fails the run: a retry continues after its last steps."""
    ids = {"run_id": claim.run_id, "step_id": claim.step_id, "agent": claim.agent}
    if claim.attempt == 1 and claim.definition is None:
        log.info("run %s of %s %s started", claim.run_id, program.kind, claim.agent)
    flow: Flow | None = None
    try:
        with engine.active.step(claim.step_id):
            claim = with_deadline(engine.journal, claim, program.deadline_s)
            progress = engine.journal.progress(claim)
            flow = Flow(progress, engine.calls, engine.state_reader(claim.tenant, None))
            move = next_move(claim, program, flow)
            signal("turn.replied", claim=claim)
            committed = commit(engine, claim, program, progress, move, flow.record)
        signal("turn.recorded", claim=claim)
        return committed
    except Unavailable:
        raise  # the lease expires, and the turn is executed again
    except Exception as error:
        if not isinstance(error, AgnoError):
            log.error("the code of %s raised", claim.agent, exc_info=error, extra=ids)
        reason = getattr(error, "reason", None) or (
            "step_failed" if isinstance(error, StepFailed) else "error"
        )
        failed = engine.journal.fail(
            claim, error_to_json(error), reason, record_of(claim, program, flow and flow.record)
        )
        return no_more(engine, claim, msgspec.structs.replace(failed, cause=error))


def next_move(claim: ClaimedStep, program: Program, flow: Flow) -> ProgramMove:
    begun = time.monotonic()
    try:
        move = _in_time(program, lambda: flow.move(lambda: program.body(flow)))
    except SystemExit as error:
        raise RunFailed(
            f"the code of {program.name} called sys.exit({error.code!r})", run_id=claim.run_id
        ) from error
    if (took_s := time.monotonic() - begun) > program.slow_s:
        log.warning(
            "the code of %s between its steps took %.0f ms, and is executed again at each turn: move slow work into a step",
            program.name, took_s * 1000, extra={"run_id": claim.run_id, "step_id": claim.step_id, "agent": claim.agent},
        )  # fmt: skip
    return move


def _in_time(program: Program, function: Callable[[], ProgramMove]) -> ProgramMove:
    """Call a function on a thread of its own, as tools are called. Python can't stop a thread: a late one is abandoned."""
    future: Future[ProgramMove] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=copy_context().run, args=(run,), name=f"turn {program.name}", daemon=True).start()
    if not wait([future], program.most_s).done:
        text = f"the code of {program.name} between its steps did not end within {program.most_s:g} s: correct its loop, or move slow work into a step"
        raise RunFailed(f"{text}, and retry the run.", reason="slow_code")
    return future.result()


def commit(
    engine: Engine, claim: ClaimedStep, program: Program, progress: Progress, move: ProgramMove, kept: Any = None
) -> CommitResult:  # fmt: skip
    """Record a move; with one that ends the run, also the JSON that it keeps."""
    record = record_of(claim, program, None if isinstance(move, Do) else kept)
    match move:
        case End(content, reason):
            content = as_json(program, content)
            said = content if isinstance(content, str) else msgspec.json.encode(content).decode()
            asked = engine.follow_ups(Turn(claim, AgentPlan.of(program.agent))) if program.agent else ()
            last = msgspec.structs.replace(
                record, messages=(Message("assistant", (Text(said),)),), follow_ups=asked
            )
            return no_more(engine, claim, engine.journal.end(claim, last, content, reason), progress)
        case Fail(message, reason, kind, content):
            error: dict[str, Any] = {
                "type": kind,
                "message": message,
                "ids": {"run_id": claim.run_id, "reason": reason},
            }
            return no_more(
                engine, claim, engine.journal.fail(claim, error, reason, record, content=content), progress
            )
        case Do(calls, cancel, wake_after):
            steps = [call_step(engine, claim, call) for call in calls]
            waiting = sum(made.outcome is None for made in progress.calls.values()) + len(steps) - len(cancel)
            if waiting < 1:
                raise RunFailed(f"{claim.agent} waits for a step that was never made.", run_id=claim.run_id)
            wake_at = progress.arrived + len(cancel) + min(max(wake_after, 1), waiting)
            made = engine.journal.make_calls(
                claim, record, steps, engine.queue_of(program), barrier_id=progress.barrier_id, wake_at=wake_at, cancel=cancel,
            )  # fmt: skip
            return no_more(engine, claim, made, progress) if cancel else made


def no_more(
    engine: Engine, claim: ClaimedStep, committed: CommitResult, progress: Progress | None = None
) -> CommitResult:
    """Cancel the runs that this turn needs no more, at once: the keeper would do so within seconds. `progress` tells whether there are any."""
    may_have = progress is None or any(
        made.kind in (CallKind.RUN, CallKind.MAP) and made.outcome is None for made in progress.calls.values()
    )
    if committed.recorded and may_have:
        with suppress(Unavailable):
            engine.journal.cancel_abandoned(claim.run_id)
    return committed


def record_of(claim: ClaimedStep, program: Program, kept: Any = None) -> TurnRecord:
    definition = definition_of(program) if claim.definition is None else None
    try:
        kept = msgspec.json.decode(to_json_text(kept))
    except Unserialisable as error:
        log.error(
            "the record of %s is not JSON, and is not kept: %s",
            program.name,
            error,
            extra={"run_id": claim.run_id},
        )
        kept = None
    return TurnRecord(definition=definition, is_program=True, kept=kept)


def as_json(program: Program, content: Any) -> Any:
    """Return what a program returned as JSON. Raises RunFailed for what can't be one."""
    told = f"the {program.kind} {program.name!r} returned"
    try:
        text = to_json_text(content)
    except Unserialisable as error:
        told = f"{told} {brief(content)}, which can't be sent as JSON: return text or JSON values."
        raise RunFailed(told, reason="content") from error
    if (size := len(text.encode())) > MAX_RESULT_BYTES:
        told = f"{told} {size:,} bytes of JSON, and the most is {MAX_RESULT_BYTES:,}: store it elsewhere, and return its key."
        raise RunFailed(told, reason="content")
    return msgspec.json.decode(text)


def call_step(engine: Engine, claim: ClaimedStep, call: Call) -> CallStep:
    """Return the step of a call."""
    stored: dict[str, Any] = {"id": call.key, "name": call.name, "kind": call.kind}
    within = Policy(within_s=call.within_s)
    wait = CallStep(call.key, StepKind.WAIT, engine.agent_queue, call.name, stored, policy=within)
    match call:
        case Call(kind=CallKind.RUN, what=Runnable() as what, input=Message() as asked):
            if claim.depth >= MAX_DEPTH:
                raise RunFailed(
                    f"step {call.key!r}: runs start others at most {MAX_DEPTH} deep.",
                    run_id=claim.run_id,
                    reason="depth",
                )
            engine.runnable(what.name)  # a worker finds it by its name
            child = ChildRun(what.name, engine.queue_of(what), asked, what.kind, engine.below(claim))
            return msgspec.structs.replace(wait, kind=StepKind.DELEGATE, waits_for=WaitsFor.RUN, child=child)
        case Call(kind=CallKind.MAP, what=Mapped() as mapped):
            child = map_child(engine, claim, call.key, mapped)
            return msgspec.structs.replace(wait, kind=StepKind.DELEGATE, waits_for=WaitsFor.RUN, child=child)
        case Call(kind=CallKind.FUNCTION, what=Tool() as tool):
            stored["arguments"] = call.arguments
            if call.results:
                stored["results"] = call.results
            return CallStep(
                call.key, StepKind.TOOL, tool.queue or engine.tool_queue, call.name, stored, tool.effect, tool.max_attempts, tool.policy,
                tool.policy.needs,
            )  # fmt: skip
        case Call(kind=CallKind.TIMER):
            return msgspec.structs.replace(wait, waits_for=WaitsFor.TIMER, expires_at=call.until)
        case Call(kind=CallKind.SIGNAL):
            return msgspec.structs.replace(wait, waits_for=WaitsFor.SIGNAL)
        case Call(kind=CallKind.APPROVAL):
            policy = Policy(needs=WaitsFor.CONFIRMATION, within_s=call.within_s, on_timeout=call.on_timeout)
            return msgspec.structs.replace(
                wait, call=stored | {"shown": call.shown}, policy=policy, waits_for=WaitsFor.CONFIRMATION
            )
    raise RunFailed(f"step {call.key!r} has no {call.kind}.", run_id=claim.run_id)


def definition_of(program: Program) -> Definition:
    """Return the facts of a program that are stored with its runs."""
    content = {"kind": program.kind, **program.declared}
    encoded = msgspec.json.encode(content, order="deterministic")
    return Definition(hashlib.sha256(encoded).hexdigest(), msgspec.json.decode(encoded))
